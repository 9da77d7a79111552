"""The API of edits, through its own client: what it answers, what it refuses, and that nothing is done by halves."""

import json

import httpx
import pytest

from editmem.edits.edit import Edit
from editmem.errors import InvalidEditError, UnknownEditError
from editmem.serve.client import Client, Conflict, ServerError

AU = ("The capital of Australia is", "Sydney")
ASKED = "Which city is Australia's capital?"


def test_edits_are_made_listed_found_and_forgotten(client, store):
    record = client.edit(*AU, id="au", tags=["geo"], source="atlas", subject="Australia")
    assert record.took
    assert record == store.editor.edits["au"]
    many = client.edit([("The capital of Peru is", "Cusco"), Edit("The capital of Chile is", "Arica", id="cl")])
    assert [each.took for each in many] == [True, True]
    assert [each.id for each in client.edits()][::2] == ["cl", "au"]  # newest first
    assert [each.id for each in client.edits("ATLAS")] == ["au"]
    assert [each.id for each in client.edits(tag="geo", page=1)] == ["au"]
    assert [each.id for each in client.edits("peru")] == [many[0].id]
    assert list(client.edits("nowhere")) == []
    assert client.get("au") == record
    assert client.explain(ASKED)["edit"]["id"] == "au"
    assert client.forget("au", "cl") == client.version == 4
    assert [each.id for each in client.edits()] == [many[0].id]
    assert client.get("au") == record  # what was is still told
    assert client.explain(ASKED)["edit"] is None


def test_the_history_is_told_and_undone(client, store):
    client.edit(*AU, id="au")
    client.edit(AU[0], "Perth", id="au2")
    client.forget("au2")
    assert list(client.history()) == list(store.editor.history)
    assert [event.kind for event in client.history(2)] == ["edited", "forgotten"]
    assert client.undo() == ["au2"]
    assert client.diff(1, 5) == {
        "version": 5,
        "added": [{"prompt": AU[0], "target": "Perth", "id": "au2"}],
        "removed": [{"prompt": AU[0], "target": "Sydney", "id": "au"}],
        "changed": [],
    }
    with pytest.raises(InvalidEditError, match="no version 6 yet"):
        client.diff(0, 6)
    with pytest.raises(ServerError, match="cannot undo 9"):
        client.undo(9)


def test_newest_events_come_first_where_asked(http, client):
    for target in ("Sydney", "Perth"):
        client.edit(AU[0], target)
    shown = http.get("/v1/memory/history", params={"order": "desc", "limit": 2}).json()["events"]
    assert [event["number"] for event in shown] == [2, 1]
    shown = http.get("/v1/memory/history", params={"order": "desc", "after": 1}).json()["events"]
    assert [event["number"] for event in shown] == [0]
    assert http.get("/v1/memory/history", params={"after": -1}).status_code == 400


def test_questions_are_confirmed_and_rejected(client):
    client.edit(*AU, id="au")
    far = "Where would a parliament of Australia be looked for?"
    assert client.confirm(far, "au")["edit"]["id"] == "au"
    assert client.get("au").edit.phrasings == (far,)
    assert client.reject(ASKED)["edit"] is None
    assert [event.kind for event in client.history()] == ["edited", "confirmed", "rejected"]


def test_a_preview_changes_nothing(client, store):
    client.edit(*AU, id="au")
    found = client.preview({"prompt": AU[0], "target": "Perth", "id": "new"}, [ASKED])
    assert (found["supersedes"], found["acting"], found["record"]["took"]) == ("au", "au", True)
    assert found["takes"] == [{"question": ASKED, "before": "au", "after": "new"}]
    assert found["nearest"][0]["record"]["id"] == "au"
    assert client.version == 1
    assert list(store.editor.edits) == ["au"]


@pytest.mark.parametrize(
    "change",
    [
        lambda client, version: client.edit(AU[0], "Perth", expected_version=version),
        lambda client, version: client.edit(AU[0], "Perth", expected_version=version, progress=print),
        lambda client, version: client.forget("au", expected_version=version),
        lambda client, version: client.undo(expected_version=version),
        lambda client, version: client.confirm("Where is Australia's parliament?", "au", expected_version=version),
        lambda client, version: client.reject(ASKED, expected_version=version),
    ],
    ids=["edit", "edit in a stream", "forget", "undo", "confirm", "reject"],
)
def test_who_comes_second_is_refused(client, change):
    client.edit(*AU, id="au")
    with pytest.raises((Conflict, ServerError), match="has version 1, and 0 was expected"):
        change(client, 0)
    assert client.version == 1
    change(client, 1)
    assert client.version > 1


def test_deleting_takes_the_version_too(http, client):
    client.edit(*AU, id="a/u")
    refused = http.delete("/v1/edits/a/u", params={"expected_version": 0})
    assert refused.status_code == 409
    assert refused.json()["error"]["version"] == 1
    assert http.delete("/v1/edits/a/u", params={"expected_version": 1}).json() == {"version": 2, "forgotten": ["a/u"]}
    assert http.delete("/v1/edits/a/u").status_code == 404


def test_progress_is_told(client):
    told = []
    edits = [(f"The capital of Land {number} is", "Rome") for number in range(40)]
    assert len(client.edit(edits, progress=lambda done, all: told.append((done, all)))) == 40
    assert told[-1] == (40, 40)
    assert len(told) > 1
    taken = Edit("Another prompt is", "Rome", id=next(client.edits()).id)
    with pytest.raises(InvalidEditError, match="belongs to an active edit"):
        client.edit([taken], progress=print)


def test_all_or_nothing(client, http):
    client.edit(*AU, id="au")
    body = {"edits": [{"prompt": "The capital of Peru is", "target": "Cusco"}, {"prompt": "x", "target": " "}]}
    answer = http.post("/v1/edits", json=body)
    assert answer.status_code == 400
    assert "target must be text" in answer.json()["error"]["message"]
    with pytest.raises(UnknownEditError, match="no active edit has the id 'none'"):
        client.forget("au", "none")
    assert client.version == 1


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"edits": []}, "edits"),
        ({"edits": [{"prompt": "x"}]}, "target"),
        ({"edits": [{"prompt": "x", "target": "y", "image": "/etc/hosts"}]}, "image"),
        ({"edits": [{"prompt": "x", "target": "y", "colour": "red"}]}, "colour"),
        ({"edits": [{"prompt": 3, "target": "y"}]}, "prompt"),
        ({"edits": [{"prompt": "x", "target": "y"}], "expected_version": -1}, "expected_version"),
        ([], "dictionary"),
    ],
    ids=str,
)
def test_what_is_not_valid_is_named(http, body, told):
    answer = http.post("/v1/edits", json=body)
    assert answer.status_code == 400
    assert told in answer.json()["error"]["message"]
    assert http.get("/v1/memory").json()["version"] == 0


def test_exported_edits_can_be_added_again(client, http):
    chat = [{"role": "user", "content": "What is the capital of Peru?"}]
    client.edit([Edit(*AU, id="au", aliases=["Oz"]), Edit(chat, "Cusco", tags=["geo"])])
    lines = http.get("/v1/edits/export").text.splitlines()
    before = {record.id: record.edit for record in client.edits()}
    client.forget(*before)
    http.post("/v1/edits", json={"edits": [json.loads(line) for line in lines]}).raise_for_status()
    assert {record.id: record.edit for record in client.edits()} == before


def test_changes_are_noted(client, caplog):
    with caplog.at_level("INFO", logger="editmem.serve.audit"):
        client.edit(*AU, id="au")
        client.forget("au")
    lines = [json.loads(record.message) for record in caplog.records]
    assert [(line["action"], line["ids"], line["version"]) for line in lines] == [
        ("edit", ["au"], 1),
        ("forget", ["au"], 2),
    ]


def test_every_route_is_described(http):
    schema = http.get("/openapi.json").json()
    paths = {(method, path) for path, methods in schema["paths"].items() for method in methods}
    assert {("post", "/v1/edits"), ("delete", "/v1/edits/{id}"), ("post", "/v1/memory/undo")} <= paths
    for path, methods in schema["paths"].items():
        for route in methods.values():
            if set(route["tags"]) & {"edits", "memory"} and not path.endswith("export"):
                assert route["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
                assert route["description"]


@pytest.mark.parametrize("id", ["a/b", "a?b=c", "a#b", "a b", "..", "../memory", "ü", "."])
def test_ids_of_any_kind_are_found(client, id):
    client.edit(*AU, id=id)
    assert client.get(id).id == id


def test_pages_name_no_edit_twice(client):
    client.edit([(f"The capital of Land {number} is", "Rome") for number in range(4)])
    told = client.edits(page=2)
    ids = [next(told).id]
    client.edit(*AU)
    ids += [record.id for record in told]
    assert len(ids) == len(set(ids)) == 4


def test_a_server_that_is_not_there():
    with Client("http://127.0.0.1:9") as client, pytest.raises(httpx.ConnectError):
        client.memory()
