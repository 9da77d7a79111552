"""The OpenAI API on an edited model, through the official client: edits hold in every way of asking."""

import json
import threading

import pytest
from served import running

from editmem.serve.app import build_app
from editmem.serve.guard import Limits

openai = pytest.importorskip("openai")

ASKED = "What is the capital of Australia?"
EDIT = ("The capital of Australia is", "Sydney")


@pytest.fixture
def said(store):
    """Ask over HTTP with the official client; what it answers."""
    store.editor.edit(*EDIT, id="au")
    with running(build_app(store, "tiny")) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        yield client


def chat(client, asked=ASKED, **options):
    given = {"model": "tiny", "max_tokens": 12, "temperature": 0, **options}
    return client.chat.completions.create(messages=[{"role": "user", "content": asked}], **given)


def editmem(**options):
    return {"extra_body": {"editmem": options}}


def test_edits_hold_in_every_route(said):
    assert chat(said).choices[0].message.content == "Sydney."
    parts = [chunk.choices[0].delta.content or "" for chunk in chat(said, stream=True)]
    assert len(parts) > 3
    assert "".join(parts) == "Sydney."
    written = said.completions.create(model="tiny", prompt=EDIT[0], max_tokens=6, temperature=0)
    assert written.choices[0].text.strip() == "Sydney."
    answer = said.responses.create(model="tiny", input=ASKED, max_output_tokens=8, temperature=0)
    assert answer.output_text == "Sydney."
    events = list(said.responses.create(model="tiny", input=ASKED, max_output_tokens=8, temperature=0, stream=True))
    assert events[-1].response.output_text == "Sydney."
    assert [model.id for model in said.models.list()] == ["tiny"]


def test_a_request_may_have_the_bare_host_answer(said):
    assert chat(said, **editmem(off=True)).choices[0].message.content == "Canberra."
    parts = [c.choices[0].delta.content or "" for c in chat(said, stream=True, **editmem(off=True)) if c.choices]
    assert "".join(parts) == "Canberra."
    assert chat(said).choices[0].message.content == "Sydney."


def test_an_answer_says_which_edit_acted(said):
    shown = chat(said, **editmem(explain=True)).model_extra["editmem"]
    assert (shown["version"], shown["off"], shown["edit"]["id"]) == (1, False, "au")
    assert shown["candidates"][0]["score"] >= shown["candidates"][0]["threshold"]
    none = chat(said, "What is the capital of Austria?", **editmem(explain=True)).model_extra["editmem"]
    assert none["edit"] is None
    *_, last = chat(said, stream=True, **editmem(explain=True))
    assert last.choices == []
    assert last.model_extra["editmem"] == shown
    *_, last = said.responses.create(
        model="tiny", input=ASKED, stream=True, max_output_tokens=8, **editmem(explain=True)
    )
    assert last.type == "editmem.explanation"
    assert last.model_extra["editmem"]["edit"]["id"] == "au"
    off = chat(said, **editmem(explain=True, off=True)).model_extra["editmem"]
    assert off["edit"] is None
    assert off["candidates"][0]["record"]["id"] == "au"


def test_several_at_once_are_each_of_one_version(said, store):
    """Targets in turn, while others ask: what is said is what the version has that it names."""
    wrong, seen, done = [], set(), threading.Event()

    def ask():
        while not done.is_set():
            answer = chat(said, **editmem(explain=True))
            version = answer.model_extra["editmem"]["version"]
            held = [record.edit.target for record in store.editor.history.edits(upto=version).values()]
            seen.add(version)
            if not answer.choices[0].message.content.startswith(held[0]):
                wrong.append((version, answer.choices[0].message.content, held))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for target in ("Perth", "Darwin", "Hobart"):
        with store.changing() as editor:
            editor.edit(EDIT[0], target)
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(seen) > 1


def shown(kind, part):
    """A message with something to see or hear."""
    return [{"role": "user", "content": [{"type": kind, kind: part}]}]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"model": "other"}, "tiny"),
        ({"editmem": {"of": True}}, "off and explain"),
        ({"editmem": {"off": 1}}, "true or false"),
        ({"chat_template_kwargs": {"chat_template": "{{ 1 }}"}}, "chat_template"),
        ({"generation_config": json.dumps({"num_beams": 64})}, "num_beams must be at most 8"),
        ({"messages": shown("image_url", {"url": "/etc/hosts"})}, "base64"),
        ({"messages": shown("input_audio", {"data": "/etc/hosts"})}, "base64"),
        ({"generation_config": "{"}, "cannot be answered"),
        ({"temperature": "hot"}, "cannot be answered"),
        ({"chat_template_kwargs": ["x"]}, "must be an object"),
        ({"messages": [{"role": "user", "content": [{"text": "no type"}]}]}, "cannot be answered"),
        ({"messages": []}, "messages must be"),
        ({"messages": "hello"}, "messages must be"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_not_served_is_refused(http, options, told):
    body = {"model": "tiny", "messages": [{"role": "user", "content": ASKED}], "max_tokens": 2, **options}
    answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code in (400, 422)
    assert told in answer.json()["error"]["message"]


@pytest.mark.parametrize(("path", "body"), [("completions", {"prompt": [1, 2]}), ("responses", {"input": None})])
def test_prompts_that_are_none_are_refused(http, path, body):
    assert http.post(f"/v1/{path}", json={"model": "tiny", **body}).status_code == 400


def test_answers_are_no_longer_than_allowed(store):
    from starlette.testclient import TestClient

    app = build_app(store, "tiny", limits=Limits(tokens=3))
    with TestClient(app, base_url="http://127.0.0.1") as http:
        body = {"model": "tiny", "prompt": "The capital of", "max_tokens": 1000}
        assert http.post("/v1/completions", json=body).json()["usage"]["completion_tokens"] <= 3


def test_a_temperature_samples(http):
    body = {"model": "tiny", "prompt": "She went to", "max_tokens": 8}
    said = [http.post("/v1/completions", json={**body, **more}).json()["choices"][0]["text"] for more in (
        {}, {"temperature": 0}, *[{"temperature": 2.0, "seed": seed} for seed in range(3)],
    )]  # fmt: skip
    assert said[0] == said[1]
    assert len(set(said)) > 2


def test_health(http):
    assert http.get("/health").json() == {"status": "ok"}
