"""Processes that are killed while they edit, forget and save lose nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import editmem

SCRIPT = Path(__file__).parents[1] / "scripts" / "crash.py"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forks")
def test_nothing_is_lost_by_kills(tmp_path):
    path = os.pathsep.join([str(Path(editmem.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", SCRIPT, "--kills", "8", "--folder", tmp_path / "crashes"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    counts = dict(re.findall(r"^(\w[\w ,]*\w) +(\d+)$", ran.stdout, re.MULTILINE))
    assert (counts["kills"], counts["failures"]) == ("8", "0")
    assert int(counts["calls of save that returned"]) >= 1
