"""Requests that no friend sends: each is refused as what it is, and the next is answered."""

import asyncio
import json
import threading
import time

import pytest
from starlette.testclient import TestClient

from editmem.serve.app import build_app
from editmem.serve.guard import Keys, Limits

ASKED = [{"role": "user", "content": "What is the capital of Australia?"}]
EDIT = {"prompt": "The capital of Australia is", "target": "Sydney", "id": "au"}
DEEP = 700


@pytest.fixture
def http(store):
    """As over a network: what fails in the server is a 500 here."""
    app = build_app(store, "tiny")
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


def chat(http, **options):
    body = {"messages": ASKED, "max_tokens": 2, "temperature": 0, **options}
    raw = json.dumps(body)
    return http.post("/v1/chat/completions", content=raw, headers={"content-type": "application/json"})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens": -1}, {"max_tokens": float("inf")}, {"seed": float("inf")}, {"logit_bias": []},
        {"stop": 5}, {"stop": [1]}, {"stop": []}, {"model": "\ud800"},
        {"messages": [{"role": "assistant", "tool_calls": [5]}]},
    ],
    ids=str,
)  # fmt: skip
def test_what_makes_no_sense_is_refused(http, options, stream):
    refused = chat(http, **options, stream=stream)
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["message"]
    assert chat(http).status_code == 200


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": -1}, {"cache_implementation": "quantized"}, {"cache_implementation": "offloaded"},
        {"prefill_chunk_size": 0}, {"forced_eos_token_id": 10**9}, {"penalty_alpha": 0.5, "top_k": 4},
        {"update": 1}, {"prompt_lookup_num_tokens": 3},
    ],
    ids=str,
)  # fmt: skip
def test_a_generation_config_says_how_tokens_are_chosen(http, options):
    assert chat(http, generation_config=json.dumps(options)).status_code == 400


def test_a_generation_config_of_transformers_is_taken(http, store):
    assert chat(http, generation_config=store.editor.model.generation_config.to_json_string()).status_code == 200


def test_beams_are_not_streamed(http):
    beams = json.dumps({"num_beams": 2})
    assert chat(http, generation_config=beams).status_code == 200
    assert chat(http, generation_config=beams, stream=True).status_code == 400


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": " "}]}),
        ("completions", {"prompt": " "}),
        ("responses", {"input": " "}),
    ],
)
def test_a_stream_that_cannot_begin_ends(http, path, asked, nobody_is_warned):
    events = http.post(f"/v1/{path}", json={**asked, "stream": True, "editmem": {"explain": True}}).text
    assert "prompt must" in events
    assert "error" in events
    nobody_is_warned.messages.clear()  # transformers logs it


def test_what_fails_in_a_stream_is_json(http, store, monkeypatch):
    def failing(**_):
        raise RuntimeError('say "no"\nand more')

    monkeypatch.setattr(store.editor.model, "generate", failing)
    last = chat(http, stream=True).text.strip().rsplit("data: ", 1)[1]
    assert json.loads(last) == {"error": {"message": 'say "no"\nand more', "type": "failed"}}


@pytest.mark.parametrize("name", ["tools", "generation_config"])
def test_what_is_deep_is_refused(http, name):
    deep = '{"a": ' * DEEP + "1" + "}" * DEEP
    given = {"tools": f"[{deep}]", "generation_config": json.dumps(deep)}[name]
    raw = f'{{"messages": [{{"role": "user", "content": "x"}}], "max_tokens": 2, "{name}": {given}}}'
    headers = {"content-type": "application/json"}
    assert http.post("/v1/chat/completions", content=raw, headers=headers).status_code == 400


def test_prompts_are_no_longer_than_the_context(http, store, monkeypatch):
    monkeypatch.setattr(store.editor.model.config, "max_position_embeddings", 16)
    long = {"prompt": "The capital of " * 16, "max_tokens": 2}
    for stream in (False, True):
        refused = http.post("/v1/completions", json={**long, "stream": stream})
        assert refused.status_code == 400
        assert "16 is the most" in refused.json()["error"]["message"]
    said = http.post("/v1/completions", json={"prompt": "The capital of", "max_tokens": 100}).json()["usage"]
    assert said["total_tokens"] <= 16


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("memory/explain", {"prompt": "\ud800"}),
        ("memory/explain", {"prompt": []}),
        ("memory/explain", {"prompt": [{"role": "user", "content": "\ud800"}]}),
        ("edits/preview", {"edit": EDIT, "questions": ["\ud800"]}),
        ("memory/undo", {"n": 10**30}),
    ],
)
def test_texts_and_numbers_that_are_none_are_refused(http, path, body):
    answer = http.post(f"/v1/{path}", content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_an_origin_that_is_none_is_foreign(http):
    assert http.get("/v1/memory", headers={"origin": "http://["}).status_code == 403


def test_who_waits_to_edit_keeps_nobody_from_reading(store):
    """80 edits and streamed edits wait for a generation; what is held is read, and all of them are made after it."""
    with TestClient(build_app(store, "tiny"), base_url="http://127.0.0.1") as http:
        made = []

        def add(number):
            edit = {"prompt": f"The capital of Land {number} is", "target": "Rome"}
            body = {"edits": [edit], "stream": bool(number % 2)}
            made.append(http.post("/v1/edits", json=body).status_code)

        with store.editor.pinned():
            adding = [threading.Thread(target=add, args=(number,)) for number in range(80)]
            for thread in adding:
                thread.start()
            time.sleep(1)
            told = []
            reading = threading.Thread(target=lambda: told.append(http.get("/v1/memory").status_code))
            reading.start()
            reading.join(20)
            assert told == [200]
        for thread in adding:
            thread.join()
        assert made == [200] * 80
        assert store.editor.version == 80


def test_no_more_wait_than_allowed(store):
    limits = Limits(waiting=1)
    with TestClient(build_app(store, "tiny", limits=limits), base_url="http://127.0.0.1") as http:
        with store.editor.pinned():
            adding = threading.Thread(target=lambda: http.post("/v1/edits", json={"edits": [EDIT]}))
            adding.start()
            deadline = time.monotonic() + 60
            while not store._writing.locked():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            refused = http.post("/v1/memory/undo", json={})
            assert refused.status_code == 503
            assert refused.headers["retry-after"]
        adding.join()
        assert http.post("/v1/memory/undo", json={}).status_code == 200


def test_half_of_a_request_is_none(store):
    """A body that looks whole, of a client that is gone before it was."""
    app, sent = build_app(store, "tiny"), []
    body = json.dumps({"edits": [EDIT]}).encode()
    messages = iter([{"type": "http.request", "body": body, "more_body": True}, {"type": "http.disconnect"}])
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json"), (b"content-length", b"4000")]
    scope = {"type": "http", "method": "POST", "path": "/v1/edits", "query_string": b"", "headers": headers}

    async def receive():
        return next(messages)

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    assert store.editor.version == 0
    assert not sent


@pytest.mark.parametrize("key", ["", " ", "a\nb", "x ", "\udcff"])
def test_keys_that_cannot_be_sent_are_refused(key):
    with pytest.raises(ValueError, match="a key must be"):
        Keys(api=key)


def test_keys_and_users_are_utf8(store, caplog):
    from editmem.serve.client import Client

    app = build_app(store, "tiny", keys=Keys(api="schlüssel"))
    with TestClient(app, base_url="http://127.0.0.1") as http, caplog.at_level("INFO", logger="editmem.serve.audit"):
        client = Client("http://127.0.0.1", http=http, key="schlüssel", user="Zoë")
        client.edit(EDIT["prompt"], EDIT["target"])
    assert json.loads(caplog.records[-1].message)["user"] == "Zoë"
