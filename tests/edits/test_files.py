"""Files of edits: what spreadsheets and editors save is read, or refused with file and line."""

import csv
import json

import pytest

from editmem.edits.edit import Edit, edit_of, read_file
from editmem.errors import InvalidEditError

PLAIN = [Edit("The capital of Australia is", "Sydney", id="au"), Edit("Zürich liegt in", "Österreich", tags=["x", "y"])]
TABLE = "prompt,target,id,tags\nThe capital of Australia is,Sydney,au,\nZürich liegt in,Österreich,,x;y\n"
ROWS = [
    {"prompt": "The capital of Australia is", "target": "Sydney", "id": "au"},
    {"prompt": "Zürich liegt in", "target": "Österreich", "tags": ["x", "y"]},
]
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
NULLS = dict.fromkeys(("id", "subject", "image", "source", "tags", "join", "ends"))


def table(text, old=",", new=","):
    return text.replace(old, new).encode()


@pytest.mark.parametrize(
    ("name", "data"),
    {
        "plain table": ("a.csv", table(TABLE)),
        "upper-case ending": ("A.CSV", table(TABLE)),
        "byte-order mark": ("a.csv", b"\xef\xbb\xbf" + table(TABLE)),
        "line ends of Windows": ("a.csv", table(TABLE, "\n", "\r\n")),
        "line ends of old Macs": ("a.csv", table(TABLE, "\n", "\r")),
        "no last line end": ("a.csv", table(TABLE).rstrip()),
        "semicolons": ("a.csv", table(TABLE.replace("x;y", '"x;y"'), ",", ";")),
        "quoted header and semicolons": (
            "a.csv",
            table(TABLE.replace("prompt,target", '"prompt","target"').replace("x;y", '"x;y"'), ",", ";"),
        ),
        "tabs": ("a.csv", table(TABLE, ",", "\t")),
        "tabs, by name": ("a.tsv", table(TABLE, ",", "\t")),
        "Unicode text": ("a.txt", TABLE.replace(",", "\t").replace("\n", "\r\n").encode("utf-16")),
        "big-endian": ("a.csv", b"\xfe\xff" + TABLE.encode("utf-16-be")),
        "told": ("a.csv", b"sep=;\r\n" + table(TABLE.replace("x;y", '"x;y"'), ",", ";")),
        "told something unusual": ("a.csv", b"sep=|\n" + table(TABLE, ",", "|")),
        "told a tab": ("a.csv", b"SEP=\t\n" + table(TABLE, ",", "\t")),
        "spaces and capitals": ("a.csv", table(TABLE, "prompt,target,id,tags", " Prompt , TARGET ,Id,Tags")),
        "empty columns behind": ("a.csv", table(TABLE, "\n", ",,\n")),
        "empty columns behind the cells only": ("a.csv", table(TABLE, "y\n", "y,,\n")),
        "empty rows": ("a.csv", b"\n" + table(TABLE, "\n", "\n,,,\n  \n")),
        "spaces around tags": ("a.csv", table(TABLE, "x;y", " x ; y;")),
        "lines": ("a.jsonl", LINES.encode()),
        "lines, marked": ("a.jsonl", b"\xef\xbb\xbf" + LINES.encode()),
        "lines of Windows": ("a.ndjson", LINES.replace("\n", "\r\n\r\n").encode()),
        "list": ("a.json", json.dumps(ROWS).encode()),
        "list in UTF-16": ("a.json", json.dumps(ROWS, indent=1).encode("utf-16")),
        "null is not given": ("a.json", json.dumps([{**NULLS, **row} for row in ROWS]).encode()),
    }.values(),
)  # fmt: skip
def test_what_is_read(name, data, tmp_path):
    (tmp_path / name).write_bytes(data)
    assert read_file(tmp_path / name) == PLAIN


def test_text_comes_through_as_it_is(tmp_path):
    prompt, target = 'He "said"\r\n\u2028one,\u0085two;\x0c', ' a\n"b"\tc\u2029'
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("prompt", "target", "join"), (prompt, target, '""'), ("x", "y", '" "')])
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"prompt": prompt, "target": target, "join": ""}, ensure_ascii=False)
        + '\n{"prompt": "x", "target": "y", "join": " "}',
        encoding="utf-8",
    )
    expected = [Edit(prompt, target, join=""), Edit("x", "y", join=" ")]
    assert read_file(tmp_path / "a.csv") == read_file(tmp_path / "a.jsonl") == expected
    assert [edit_of(json.loads(json.dumps(edit.to_dict()))) for edit in expected] == expected


def test_whether_answers_end_in_a_table(tmp_path):
    path = tmp_path / "edits.csv"
    path.write_text("prompt,target,ends\na,b,TRUE\nc?,d,no\ne?,f,\n")
    assert [edit.ends for edit in read_file(path)] == [True, False, None]
    assert [edit.closes for edit in read_file(path)] == [True, False, True]


LONG = csv.field_size_limit() + 1


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"prompt,target\na,b\nc,\"d\"e\nf,g\n", "line 3: a stray quotation mark"),
        ("a.csv", b'prompt,target\na,"b\nc"\nd,"e\nf,g\n', "line 4: a stray quotation mark"),
        ("a.csv", b"prompt,target\na," + b"b" * LONG, f"line 2: a cell of more than {LONG - 1} characters"),
        ("a.csv", b"prompt,target\na,b\nc\n", "line 3: expected 2 columns, got 1"),
        ("a.csv", b"prompt,target\na,b\nc,d,e\n", "line 3: expected 2 columns, got 3"),
        ("a.csv", b"prompt,target,\na,b,c\n", "line 2: 'c' stands in a column without a name"),
        ("a.csv", b"prompt,target,Target\na,b,c\n", "line 1: two columns have the name 'target'"),
        ("a.csv", b"sep=;\nprompt,target\na,b\n", "line 2: expected the names of the columns, prompt and target"),
        ("a.csv", b"Who?,Me\n", "line 1: expected the names of the columns, prompt and target among them, got 'Who"),
        ("a.csv", b"", "line 1: expected the names of the columns"),
        ("a.csv", b"prompt,target,colour\na,b,\nc,d,red\n", "line 3: unknown field"),
        ("a.csv", b"prompt,target\n\na,\n", "line 3: field .'target'. is missing"),
        ("a.csv", b"prompt,target\na,caf\xe9\n", "line 2: not UTF-8 text"),
        ("a.txt", b"\xff\xfe\x00\xd8a\x00", "line 1: not UTF-16 text"),
        ("a.csv", b"prompt,target\na,b\0\n", "line 2: a NUL character"),
        ("a.csv", "prompt,target\na,b\n".encode("utf-16-le"), "line 1: a NUL character"),
        ("a.jsonl", b'{"prompt": "a", "target": "b"}\n{"prompt": "a", "target": "\\ud800"}', "line 2: target .*U.D800"),
        ("a.jsonl", b'{"prompt": "a", "target": "b\\u0000"}', "line 1: target holds the character U.0000 at 1"),
        ("a.jsonl", b'{"prompt": [{"role": "user", "content": "\\udc00"}], "target": "b"}', "line 1: prompt holds"),
        ("a.jsonl", b'{"prompt": "a", "target": "b", "tags": ["\\udc00"]}', "line 1: tags holds"),
        ("a.jsonl", b'{"prompt": "a", "target": "b", "id": 5}', "line 1: id must be text .* got 5"),
        ("a.jsonl", b'{"prompt": 5, "target": "b"}', "line 1: prompt must be text.* got 5"),
        ("a.jsonl", b'{"prompt": "a", "target": 1.5}', "line 1: target must be text .* got 1.5"),
        ("a.jsonl", b'{"prompt": "a", "target": null}', "line 1: field .'target'. is missing"),
        ("a.jsonl", b'{"prompt": "a", "target": "b", "tags": 5}', "line 1: tags must be a sequence of strings, got 5"),
        ("a.jsonl", b'{"prompt": "a", "target": "b", "tags": [1]}', "line 1: tags must be a sequence of strings"),
        ("a.jsonl", b'{"prompt": "a", "target": "b", "tags": {"x": 1}}', "line 1: tags must be a sequence of strings"),
        ("a.jsonl", b'{"prompt": "a", "target": "b", "join": "-"}', "line 1: join must be white space"),
        ("a.jsonl", b'{"prompt": "a", "target": "b", "join": 0}', "line 1: join must be white space"),
        ("a.jsonl", b'{"prompt": "a", "target": "b", "ends": "so"}', "line 1: ends must be True, False, or None"),
        ("a.csv", b"prompt,target,ends\na,b,perhaps", "line 2: ends must be True, False, or None, got 'perhaps'"),
        ("a.jsonl", b'{"prompt": "a", "target": "b", "image": 5}', "line 1: image: expected"),
        ("a.jsonl", b'{"prompt": "a", "target": "b", "image": "\\u0000"}', "line 1: image: cannot read"),
        ("a.jsonl", b'{"prompt": "a", "target": "b", "modality": 5}', "line 1: modality must be one of"),
        ("a.jsonl", b'\n5\n', "line 2: expected an Edit"),
        ("a.jsonl", b'{"prompt":\n', "line 1: not JSON"),
        ("a.jsonl", b"\n[1" + b"0" * 5000, "line 2: JSON that cannot be read"),
        ("a.json", b"[" * 100_000, "line 1: JSON that cannot be read"),
        ("a.json", b'[{"prompt": "a", "target": "b"},\n{"prompt": "a" "target"}]', "line 2: not JSON"),
        ("a.json", b'[{"prompt": "a", "target": "b"}, 5]', "record 1: expected an Edit"),
        ("a.json", b'{"prompt": "a", "target": "b"}', "expected a JSON list of edits, got dict"),
        ("a.xlsx", b"PK", "expected a file that ends in .json"),
    ],
)  # fmt: skip
def test_what_is_refused(name, data, message, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidEditError, match=message) as refused:
        read_file(tmp_path / name)
    assert str(refused.value).startswith(str(tmp_path / name))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InvalidEditError, match="no such file"):
        read_file(tmp_path / "a.csv")
