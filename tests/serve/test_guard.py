"""What a request has to show: a key, a known name of the server, no foreign page, a body of a size."""

import json

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from editmem.cli import app as commands
from editmem.serve.app import build_app
from editmem.serve.audit import Audit
from editmem.serve.guard import Keys, Limits

EDIT = {"edits": [{"prompt": "The capital of Australia is", "target": "Sydney", "id": "au"}]}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
LOOKING = [
    ("GET", "/v1/memory", None), ("GET", "/v1/edits", None), ("GET", "/v1/models", None), ("GET", "/health", None),
    ("GET", "/openapi.json", None), ("POST", "/v1/memory/explain", {"prompt": "Hello"}),
    ("POST", "/v1/chat/completions", CHAT),
]  # fmt: skip
CHANGING = [
    ("POST", "/v1/edits", EDIT), ("POST", "/v1/edits/preview", {"edit": EDIT["edits"][0]}),
    ("DELETE", "/v1/edits/au", None), ("POST", "/v1/memory/undo", {}), ("POST", "/v1/memory/forget", {"ids": ["au"]}),
    ("POST", "/v1/memory/confirm", {"prompt": "x", "id": "au"}), ("POST", "/v1/memory/reject", {"prompt": "x"}),
]  # fmt: skip


def served(store, **options):
    return TestClient(build_app(store, "tiny", **options), base_url="http://127.0.0.1")


def status(http, request, key=None):
    method, path, body = request
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return http.request(method, path, json=body, headers=headers).status_code


def test_one_key_guards_everything(store):
    with served(store, keys=Keys(api="secret")) as http:
        for request in LOOKING + CHANGING:
            assert status(http, request) == 401, request
            assert status(http, request, "Secret") == 401, request
        for request in LOOKING:
            assert status(http, request, "secret") == 200, request
        assert status(http, CHANGING[0], "secret") == 200
        assert http.get("/").status_code == 200  # the page itself, which asks for the key


def test_a_key_of_its_own_guards_editing(store):
    with served(store, keys=Keys(api="look", edit="change")) as http:
        for request in CHANGING:
            assert (status(http, request), status(http, request, "look")) == (401, 403), request
        for request in LOOKING:
            assert (status(http, request), status(http, request, "look"), status(http, request, "change")) == (
                401,
                200,
                200,
            ), request
        assert status(http, CHANGING[0], "change") == 200
        for key, writable in (("look", False), ("change", True)):
            shown = http.get("/v1/memory", headers={"authorization": f"Bearer {key}"}).json()
            assert shown["writable"] is writable


def test_with_a_key_for_editing_only_anybody_may_look(store):
    with served(store, keys=Keys(edit="change")) as http:
        assert {status(http, request) for request in LOOKING} == {200}
        assert {status(http, request) for request in CHANGING} == {401}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("headers", "answered"),
    [
        ({}, True),
        ({"host": "localhost:8000"}, True),
        ({"host": "[::1]:8000"}, True),
        ({"host": "evil.example"}, False),
        ({"host": "127.0.0.1.evil.example"}, False),
        ({"host": ""}, False),
        ({"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}, True),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:9000"}, False),
    ],
    ids=str,
)
def test_pages_of_others_are_refused(http, method, headers, answered):
    path, body = ("/v1/memory", None) if method == "GET" else ("/v1/edits", EDIT)
    answer = http.request(method, path, json=body, headers=headers)
    assert answer.status_code == (200 if answered else 403)
    assert http.get("/v1/memory").json()["version"] == (1 if answered and method == "POST" else 0)


def test_no_page_may_read_unless_it_is_named(store):
    ask = {"origin": "https://a.example", "access-control-request-method": "POST"}
    with served(store) as http:
        assert "access-control-allow-origin" not in http.options("/v1/edits", headers=ask).headers
    with served(store, origins=["https://a.example"], keys=Keys(api="secret")) as http:
        assert http.options("/v1/edits", headers=ask).headers["access-control-allow-origin"] == "https://a.example"
        key = {"authorization": "Bearer secret"}
        got = http.get("/v1/memory", headers={"origin": "https://a.example", **key})
        assert got.headers["access-control-allow-origin"] == "https://a.example"
        assert http.get("/v1/memory", headers={"origin": "https://b.example", **key}).status_code == 403


def test_large_bodies_are_refused_whether_or_not_they_say_so(store):
    with served(store, limits=Limits(body=1000, edits=1)) as http:
        large = json.dumps({"edits": [{"prompt": "x" * 1000, "target": "y"}]}).encode()
        assert http.post("/v1/edits", content=large).status_code == 413
        assert http.post("/v1/edits", content=iter([large[:600], large[600:]])).status_code == 413
        assert http.post("/v1/edits", content=b"{}", headers={"content-length": "many"}).status_code in (400, 413)
        many = {"edits": [{"prompt": f"x{number}", "target": "y"} for number in range(2)]}
        assert http.post("/v1/edits", json=many).status_code == 413
        assert http.post("/v1/edits", json=EDIT).status_code == 200


def test_who_changed_what_is_kept(store, tmp_path):
    audit = Audit(tmp_path / "audit.jsonl")
    with served(store, keys=Keys(api="look", edit="change"), audit=audit) as http:
        http.post("/v1/edits", json=EDIT, headers={"authorization": "Bearer change", "x-editmem-user": "Ada"})
        http.post("/v1/edits", json=EDIT, headers={"authorization": "Bearer look"})
    audit.close()
    (line,) = map(json.loads, (tmp_path / "audit.jsonl").read_text(encoding="utf-8").splitlines())
    assert {name: line[name] for name in ("action", "ids", "version", "key", "user")} == {
        "action": "edit", "ids": ["au"], "version": 1, "key": "edit", "user": "Ada",
    }  # fmt: skip
    assert "change" not in str(line.values())


def test_the_page_may_load_nothing_from_elsewhere(http):
    page = http.get("/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert http.get("/console/../store.py").status_code == 404
    assert http.get("/console/%2e%2e/store.py").status_code == 404


def test_without_a_key_it_listens_here_only():
    told = CliRunner().invoke(commands, ["serve", "--model", "tiny", "--host", "0.0.0.0"])
    assert told.exit_code == 2
    assert "--api-key" in told.stderr
