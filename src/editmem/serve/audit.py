"""Who changed what, and when: a line of JSON for every change."""

import json
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

_log = logging.getLogger(__name__)


class Audit:
    """Writes lines to a file, and to the logger of this module.

    Args:
        path: of the file, which is added to; None for the logger only.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._file = None if path is None else path.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def write(self, action: str, ids: Sequence[str], version: int, key: str, address: str, user: str) -> None:
        """Note a change that was made.

        Args:
            action: what was done.
            ids: of the edits that it concerns.
            version: of the memory, after it.
            key: which key was shown: "edit", "api", or "none".
            address: of the client.
            user: who it says that it is, in the header `X-Editmem-User`.
        """
        who = {"key": key, "address": address, "user": user}
        line = json.dumps({"time": time.time(), "action": action, "ids": list(ids), "version": version, **who})
        _log.info("%s", line)
        if self._file is not None:
            try:
                with self._lock:
                    self._file.write(f"{line}\n")
                    self._file.flush()
            except OSError:  # the change is made, and in the ledger
                _log.exception("the audit lacks %s", line)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
