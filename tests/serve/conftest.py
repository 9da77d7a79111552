"""The embedded model, served in this process. Without the extra `serve`, nothing here is tested."""

from importlib.util import find_spec

import pytest

import editmem

URL = "http://127.0.0.1"
if find_spec("fastapi") is None or find_spec("transformers.cli.serving") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def store():
    """On the embedded model, in memory only."""
    from editmem.serve.store import Store

    model, tokenizer = editmem.tiny()
    with Store.open(model, tokenizer, None) as store:
        yield store


@pytest.fixture
def http(store):
    """A client of an application in this process."""
    from starlette.testclient import TestClient

    from editmem.serve.app import build_app

    with TestClient(build_app(store, "tiny"), base_url=URL) as client:
        yield client


@pytest.fixture
def client(http):
    from editmem.serve.client import Client

    return Client(URL, http=http)
