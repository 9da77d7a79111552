#!/usr/bin/env bash
# The contract tests on the pre-releases of what the library stands on, in a fresh environment; to be run on a schedule.
# Further arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
python="$venv/bin/python"
"$python" -m pip install --quiet -e '.[test]'
"$python" -m pip install --quiet --pre --upgrade torch transformers peft
"$python" -m pip list | grep -E "^(torch|transformers|peft) "
"$python" -m pytest -n 2 tests/test_contract.py tests/routing/test_decisions.py tests/hosts/test_compat.py tests/hosts/test_hosts.py "$@"
