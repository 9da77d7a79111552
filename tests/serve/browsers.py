"""A real browser, and a server that can go away and come back."""

import shutil
import socket
import threading
import time

import httpx
import uvicorn

from editmem.serve.app import build_app
from editmem.serve.guard import Keys

CHROMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def chrome():
    """Where a Chromium is installed; None if nowhere."""
    return next((found for name in CHROMES if (found := shutil.which(name))), None)


def launch(playwright):
    """A browser without a window."""
    return playwright.chromium.launch(executable_path=chrome(), args=["--no-sandbox"])


class Site:
    """An application at one port of this machine.

    Args:
        store: with the model.
        keys: that are asked for.
    """

    def __init__(self, store, keys=Keys()):  # noqa: B008
        self.store, self.keys = store, keys
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"

    def start(self):
        app = build_app(self.store, "tiny", keys=self.keys)
        config = uvicorn.Config(app, host="127.0.0.1", port=self.port, log_level="warning", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)

    def stop(self):
        self._server.should_exit = True
        self._thread.join()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def send(self, method, path, **body):
        """What the API answers, as another client than the browser sees it."""
        response = httpx.request(method, self.url + path, json=body or None, timeout=60)
        response.raise_for_status()
        return response.json()
