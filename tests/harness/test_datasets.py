"""Every data set is read from its original format, its parts never overlap, and a bad record is named."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.datasets import DATASETS, load
from benchmarks.records import Probe, Record, RecordError
from editmem.tiny.world import facts

pytestmark = pytest.mark.slow


def write(folder: Path, name: str, rows: list) -> Path:
    """Rows as a .json list or .jsonl lines."""
    lines = "\n".join(json.dumps(row) for row in rows)
    (folder / name).write_text(lines if name.endswith(".jsonl") else json.dumps(rows), encoding="utf-8")
    return folder


ZSRE = {
    "subject": "Watts Humphrey", "src": "What university did Watts Humphrey attend?", "pred": "Trinity College",
    "rephrase": "What university did Watts Humphrey take part in?", "alt": "University of Michigan",
    "answers": ["Illinois Institute of Technology"], "loc": "nq question: who played desmond doss father",
    "loc_ans": "Hugo Weaving", "cond": "Trinity College >> University of Michigan || What university",
}  # fmt: skip

PASSAGE = {
    "prompt": "SpaceX is", "subject": "SpaceX is", "target_new": "a company.", "locality_prompt": "Maps of th",
    "locality_ground_truth": "e south",
}  # fmt: skip


def compact(case: int, prompt: str, subject: str, truth: str, **changes: str) -> dict:
    return {
        "case_id": case, "prompt": prompt, "target_new": "English", "subject": subject, "ground_truth": truth,
        "rephrase_prompt": f"{subject} speaks", "locality_prompt": "Michel Rocard is a native speaker of",
        "locality_ground_truth": "French", **changes,
    }  # fmt: skip


def rewrite(subject: str, target: str, prompt: str = "{} is a citizen of", question: str = "") -> dict:
    return {
        "prompt": prompt, "relation_id": "P27", "subject": subject,
        "target_new": {"str": target, "id": "Q1"}, "target_true": {"str": "Peru", "id": "Q2"},
        "question": question or f"Of what country is {subject} a citizen?",
    }  # fmt: skip


def test_zsre(tmp_path):
    write(tmp_path, "zsre_mend_edit.json", [ZSRE])
    hop = {"Recalled Relation": "(a, b, c)", "New Question": "In which state?", "New Answer": "Michigan"}
    [record] = load("zsre", tmp_path)
    assert record == Record(
        "0", ZSRE["src"], "University of Michigan", ("University of Michigan",),
        truth="Illinois Institute of Technology", subject="Watts Humphrey", rephrasings=(ZSRE["rephrase"],),
        locality=(Probe("who played desmond doss father?", "unrelated", ("Hugo Weaving",)),),
        where="zsre_mend_edit.json, record 0",
    )  # fmt: skip
    write(tmp_path, "zsre_mend_edit.json", [{**ZSRE, "portability": hop}])
    assert load("zsre", tmp_path)[0].portability == (Probe("In which state?", "one hop", ("Michigan",)),)


def test_zsre_training_records_without_another_answer_are_left_out(tmp_path):
    write(tmp_path, "zsre_mend_train-1k.json", [{**ZSRE, "alt": ""}, ZSRE])
    assert [record.id for record in load("zsre", tmp_path, "calibration")] == ["1"]


def test_counterfact_compact(tmp_path):
    write(tmp_path, "counterfact-edit.json", [compact(4355, "The mother tongue of Ann is", "Ann", "French")])
    [record] = load("counterfact", tmp_path)
    assert (record.id, record.target, record.truth, record.rephrasings) == (
        "4355",
        "English",
        "French",
        ("Ann speaks",),
    )
    assert record.locality == (Probe("Michel Rocard is a native speaker of", "neighbour", ("French",)),)


def test_counterfact_asks_other_things_of_the_same_subject(tmp_path):
    rows = [
        compact(5000, "The mother tongue of Ann is", "Ann", "French"),
        compact(5001, "Ann works as", "Ann", "actor"),
        compact(5002, "The mother tongue of Bob is", "Bob", "Dutch"),
    ]
    ann, actor, bob = load("counterfact", write(tmp_path, "counterfact-edit.json", rows))
    asked = [[p.prompt for p in record.locality if p.kind == "same subject"] for record in (ann, actor, bob)]
    assert asked == [["Ann works as"], ["The mother tongue of Ann is"], ["Bob works as"]]


@pytest.mark.parametrize(
    ("prompt", "truth"),
    [("Ann's own mother tongue:", "Dutch"), ("What Ann speaks best:", "French")],
    ids=["a word shared", "an answer shared"],
)
def test_counterfact_does_not_take_the_same_question_for_another(tmp_path, prompt, truth):
    rows = [compact(5000, "The mother tongue of Ann is", "Ann", "French"), compact(5001, prompt, "Ann", truth)]
    records = load("counterfact", write(tmp_path, "counterfact-edit.json", rows))
    assert [probe.kind for record in records for probe in record.locality] == ["neighbour", "neighbour"]


def test_counterfact_in_romes_form(tmp_path):
    row = {
        "case_id": 4482, "requested_rewrite": rewrite("Spike Hughes", "Philadelphia", "{} originates from"),
        "paraphrase_prompts": ["Spike Hughes is native to", "Spike Hughes was born in"],
        "neighborhood_prompts": ["Max Mosley originates from", "Hogarth originated from"],
        "attribute_prompts": ["Otis Rush was native to"], "generation_prompts": ["Spike Hughes lives in"],
    }  # fmt: skip
    [record] = load("counterfact", write(tmp_path, "counterfact.json", [row]))
    assert (record.prompt, record.target, record.truth) == ("Spike Hughes originates from", "Philadelphia", "Peru")
    assert record.rephrasings == ("Spike Hughes is native to", "Spike Hughes was born in")
    assert [(p.prompt, p.kind, p.answers) for p in record.locality] == [
        ("Max Mosley originates from", "neighbour", ("Peru",)),
        ("Hogarth originated from", "neighbour", ("Peru",)),
    ]


def test_hallucination_and_temporal(tmp_path):
    write(tmp_path, "hallucination-edit.json", [PASSAGE])
    write(tmp_path, "temporal-edit.json", [{**PASSAGE, "ood_rephrase": "SpaceX is an American firm."}])
    [sentence], [paragraph] = load("hallucination", tmp_path), load("temporal", tmp_path)
    assert (sentence.prompt, sentence.target, sentence.passage) == ("SpaceX is", "a company.", None)
    assert sentence.locality == (Probe("Maps of th", "web text", ("e south",)),)
    assert paragraph.passage == "SpaceX is an American firm."


@pytest.mark.parametrize(
    ("truth", "answers"),
    [
        ("no", ("no",)),
        (["no", "false"], ("no", "false")),
        ([["Kai Wegner", "Kai Peter Wegner"], ["KW", "Kai Wegner"]], ("Kai Wegner", "Kai Peter Wegner", "KW")),
    ],
)
def test_knowedit_keeps_aliases_in_every_nesting(tmp_path, truth, answers):
    row = {
        "subject": "Leo Arons", "prompt": "The place of death of Leo Arons is", "target_new": "Berlin",
        "portability": {"Reasoning": [{"prompt": "Who governs it?", "ground_truth": truth}],
                        "Subject_Aliasing": [{"prompt": "no answer", "ground_truth": [[]]}]},
        "locality": {"Relation_Specificity": [{"prompt": "His father is", "ground_truth": truth}]},
    }  # fmt: skip
    [record] = load("wiki_recent", write(tmp_path, "recent_test.json", [row]))
    assert record.portability == (Probe("Who governs it?", "Reasoning", answers),)
    assert record.locality == (Probe("His father is", "Relation_Specificity", answers),)
    assert record.truth is None


def test_knowedit_finds_each_set_by_its_file(tmp_path):
    row = {"subject": "Ann", "prompt": "Ann's town is", "target_new": "Bonn", "ground_truth": ["Rome"]}
    write(tmp_path, "test_cf.json", [{**row, "target_new": "Lima", "portability": {}, "locality": {}}])
    write(tmp_path, "ZsRE-test-all.json", [{**row, "rephrase_prompt": "Where is Ann?"}] * 301)
    assert load("wiki_counterfact", tmp_path)[0].target == "Lima"
    [record] = load("knowedit-zsre", tmp_path)
    assert (record.id, record.target, record.truth, record.rephrasings) == ("300", "Bonn", "Rome", ("Where is Ann?",))


def mquake_case(case: int, *rewrites: dict) -> dict:
    hops = [{"question": r["question"], "cloze": "", "answer": r["target_new"]["str"]} for r in rewrites]
    kept = {"question": f"Who leads it, {case}?", "cloze": "", "answer": "Kolinda", "answer_alias": ["Grabar"]}
    return {
        "case_id": case, "requested_rewrite": list(rewrites), "questions": [f"Q{case}a?", f"Q{case}b?"],
        "answer": "Donald Trump", "answer_alias": [], "new_answer": "Kolinda",
        "new_answer_alias": ["Grabar", "Kolinda"],
        "new_single_hops": [*hops, kept],
    }  # fmt: skip


def test_mquake_makes_one_record_of_a_rewrite_and_says_what_a_question_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(DATASETS["mquake"], "calibration", 1)
    ann, bob, cat = rewrite("Ann", "Chad"), rewrite("Bob", "Mali"), rewrite("Cat", "Oman")
    cases = [mquake_case(1, cat), mquake_case(2, ann), mquake_case(3, ann, bob), mquake_case(4, bob, cat)]
    write(tmp_path, "MQuAKE-CF-3k.json", cases)
    first, second = load("mquake", tmp_path)  # the fourth case shares a rewrite with the calibration part
    assert (first.id, first.prompt, first.target, second.prompt) == (
        "1/0",
        "Ann is a citizen of",
        "Chad",
        "Bob is a citizen of",
    )
    assert first.rephrasings == ("Of what country is Ann a citizen?",)
    assert first.portability == tuple(Probe(q, "2-hop", ("Kolinda", "Grabar")) for q in ("Q2a?", "Q2b?"))
    assert second.portability == tuple(Probe(q, "3-hop", ("Kolinda", "Grabar"), ("1/0",)) for q in ("Q3a?", "Q3b?"))
    assert second.locality == (Probe("Who leads it, 3?", "hop", ("Kolinda", "Grabar")),)
    assert [record.prompt for record in load("mquake", tmp_path, "calibration")] == ["Cat is a citizen of"]


def query(prompt: str, *values: str, ids: tuple[str, ...] = ("Q9",)) -> dict:
    answers = [{"value": value, "aliases": [f"{value}!"]} for value in values]
    return {"prompt": prompt, "answers": answers, "query_type": "regular", "target_ids": list(ids), "phrase": None}


def ripple(sentence: str, **categories: list[dict]) -> dict:
    tests = {name: [{"test_queries": queries, "test_condition": "OR"}] for name, queries in categories.items()}
    edit = {"prompt": sentence, "subject_id": "Q1", "relation": "MOTHER", "target_id": "Q858"}
    return {"example_type": "popular", "edit": edit, **tests}


def test_ripple(tmp_path, monkeypatch):
    monkeypatch.setattr(DATASETS["ripple"], "calibration", 0)
    row = ripple(
        "The country of Leo is Syria.",
        Subject_Aliasing=[query("The country of Lion is", "Syria", ids=("Q858",))],
        Compositionality_I=[query("The capital of his country is", "Damascus")],
        Relation_Specifity=[query("The mother of Leo is", "Irmelin", "Ann")],
        Forgetfulness=[query("The country of Leo, which is not Syria, is", "Italy")],
    )
    row["edit"]["previous_fact"] = {"prompt": "The country of Leo is Italy.", "target_id": "Q30"}
    [record] = load("ripple", write(tmp_path, "popular.json", [row]))
    assert (record.prompt, record.target, record.answers) == ("The country of Leo is", "Syria", ("Syria", "Syria!"))
    assert record.truth == "Italy"
    assert [(p.kind, p.answers) for p in record.portability] == [
        ("Compositionality_I", ("Damascus", "Damascus!")),
        ("Subject_Aliasing", ("Syria", "Syria!")),
    ]
    assert [(p.kind, p.answers[0]) for p in record.locality] == [
        ("Relation_Specificity", "Irmelin"),
        ("Forgetfulness", "Italy"),
    ]


@pytest.mark.parametrize(
    ("sentence", "prompt", "target"),
    [
        ("The names of the siblings of Ann are Bob Roe.", "The names of the siblings of Ann are", "Bob Roe"),
        ("Up is followed by Down.", "Up is followed by", "Down"),
        ("The league which Ann plays in is NBA.", "The league which Ann plays in is", "NBA"),
    ],
)
def test_ripple_divides_a_sentence_whose_target_nothing_names(tmp_path, monkeypatch, sentence, prompt, target):
    monkeypatch.setattr(DATASETS["ripple"], "calibration", 0)
    [record] = load("ripple", write(tmp_path, "recent.json", [ripple(sentence)]))
    assert (record.prompt, record.target) == (prompt, target)


def test_ripple_takes_the_named_target_where_it_holds_a_verb_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(DATASETS["ripple"], "calibration", 0)
    row = ripple("The film of Ann is All is Lost.", Subject_Aliasing=[query("A", "All is Lost", ids=("Q858",))])
    assert load("ripple", write(tmp_path, "random.json", [row]))[0].prompt == "The film of Ann is"


def test_nq(tmp_path, monkeypatch):
    monkeypatch.setattr(DATASETS["nq"], "calibration", 1)
    rows = [{"question": f"who is {name}", "answer": [name, name.lower()]} for name in ("A", "B", "C")]
    first, second = load("nq", write(tmp_path, "NQ-open.dev.jsonl", rows))
    assert (first.prompt, first.target, first.answers) == ("who is B?", "B", ("B", "b"))
    assert (first.locality, second.locality) == (
        (Probe("who is C?", "unrelated", ("C", "c")),),
        (Probe("who is B?", "unrelated", ("B", "b")),),
    )


def test_world_gives_facts_another_answer_and_asks_facts_that_no_edit_touches():
    records = load("world")
    by_prompt = {prompt: fact for fact in facts() for prompt in fact.prompts()}
    edited = {by_prompt[record.prompt] for record in records}
    assert len(edited) == len(records) >= 1000
    for record in records:
        fact = by_prompt[record.prompt]
        answers = {other.answer for other in facts() if other.relation == fact.relation}
        assert record.target in answers - {fact.answer}
        assert record.truth == fact.answer
        assert len(record.rephrasings) == 2
        assert {by_prompt[prompt] for prompt in record.rephrasings} == {fact}
        probes = {probe.kind: by_prompt[probe.prompt] for probe in record.locality}
        assert edited.isdisjoint(probes.values())
        assert probes["same subject"].subject == fact.subject != probes["same phrasing"].subject
        assert probes["same phrasing"].relation == fact.relation != probes["same subject"].relation
    assert load("world") == records


def test_own_edits(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "a", "target": "b"}\n\n{"prompt": "c", "target": "d", "id": "x", "subject": "c"}\n')
    first, second = load("jsonl", path)
    assert (first.id, first.prompt, first.target, first.answers) == ("0", "a", "b", ("b",))
    assert (second.id, second.subject, second.where) == ("x", "c", "mine.jsonl, line 3")


TWO_PARTS = {
    "counterfact": ("counterfact-edit.json", [compact(c, f"{c} is", f"{c}", "A") for c in (0, 4354, 4355, 9000)]),
    "nq": ("NQ-open.dev.jsonl", [{"question": f"q{i}", "answer": ["a"]} for i in range(510)]),
    "mquake": ("MQuAKE-CF.json", [mquake_case(i, rewrite(f"S{i % 250}", "Chad")) for i in range(300)]),
    "ripple": ("popular.json", [ripple(f"The name of {i} is Bob.") for i in range(210)]),
    "knowedit-zsre": ("ZsRE-test-all.json",
                      [{"subject": "s", "prompt": f"p{i}", "target_new": "t"} for i in range(310)]),
}  # fmt: skip


@pytest.mark.parametrize("name", [*TWO_PARTS, "world"])
def test_parts_never_overlap(tmp_path, name):
    data = write(tmp_path, *TWO_PARTS[name]) if name in TWO_PARTS else None
    parts = [{record.prompt for record in load(name, data, part)} for part in ("calibration", "test")]
    assert all(parts)
    assert parts[0].isdisjoint(parts[1])


@pytest.mark.parametrize(
    ("name", "part", "file"),
    [
        ("zsre", "calibration", "zsre_mend_edit.json"),
        ("zsre", "test", "zsre_mend_train-1k.json"),
        ("zsre", "calibration", "renamed.json"),
        ("jsonl", "calibration", "renamed.json"),
    ],
)
def test_a_file_is_never_both_parts(tmp_path, name, part, file):
    write(tmp_path, file, [])
    with pytest.raises(ValueError, match=f"{file} counts as the .* part"):
        load(name, tmp_path / file, part)


BAD = [
    ("zsre", "zsre_mend_edit.json", {**ZSRE, "src": 3}, "record 1: field 'src' must be a text"),
    ("zsre", "zsre_mend_edit.json", {"src": "a"}, "record 1: no field 'alt'"),
    ("zsre", "zsre_mend_edit.json", {**ZSRE, "answers": [{}]}, "record 1: field 'answers' .* nested lists"),
    ("zsre", "zsre_mend_edit.json", {**ZSRE, "rephrase": " "}, "record 1: field 'rephrase' .* not blank"),
    ("zsre", "zsre_mend_edit.json", "text", "record 1: must be an object, not 'text'"),
    ("counterfact", "counterfact-edit.json", {"case_id": "7"}, "record 1: field 'case_id' must be a whole number"),
    ("temporal", "temporal-edit.json", {"prompt": "a"}, "record 1: no field 'target_new'"),
    ("mquake", "MQuAKE-CF.json", {"requested_rewrite": []}, "record 1: field 'requested_rewrite' must hold a rewrite"),
    ("mquake", "MQuAKE-CF.json", {"requested_rewrite": {}}, "record 1: field 'requested_rewrite' must be a list"),
    ("ripple", "random.json", ripple("No verb here."), "record 1, edit: field 'prompt' must be a sentence"),
    ("nq", "NQ-open.dev.jsonl", {"question": "a", "answer": []}, "line 2: field 'answer' must hold an answer"),
    ("wiki_recent", "recent_test.json",
     {"subject": "a", "prompt": "b", "target_new": "c", "locality": {"K": [{"prompt": 1}]}},
     r"record 1, locality, K\[0\]: field 'prompt'"),
    ("jsonl", "edits.jsonl", {"prompt": "a"}, "line 2: no field 'target'; there are prompt"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "row", "message"), BAD)
def test_a_bad_record_is_named(tmp_path, monkeypatch, name, file, row, message):
    if hasattr(DATASETS[name], "calibration"):
        monkeypatch.setattr(DATASETS[name], "calibration", None)
    good = {
        "zsre": ZSRE, "counterfact": compact(9000, "Ann is", "Ann", "a"), "temporal": PASSAGE,
        "mquake": mquake_case(1, rewrite("Ann", "Chad")), "ripple": ripple("Up is Down."),
        "nq": {"question": "a", "answer": "b"}, "jsonl": {"prompt": "a", "target": "b"},
        "wiki_recent": {"subject": "a", "prompt": "b", "target_new": "c"},
    }[name]  # fmt: skip
    with pytest.raises(RecordError, match=f"{file}, {message}"):
        load(name, write(tmp_path, file, [good, row]))


def test_what_is_not_json_is_named_by_line(tmp_path):
    (tmp_path / "edits.jsonl").write_text('{"prompt": "a", "target": "b"}\n{"prompt": \n')
    with pytest.raises(RecordError, match=r"edits\.jsonl, line 2: not JSON"):
        load("jsonl", tmp_path)
    (tmp_path / "zsre_mend_edit.json").write_text('[\n{"src": 1},\n{]')
    with pytest.raises(RecordError, match=r"zsre_mend_edit\.json, line 3: not JSON"):
        load("zsre", tmp_path)
    (tmp_path / "zsre_mend_edit.json").write_text("{}")
    with pytest.raises(RecordError, match="must hold a list of objects, not dict"):
        load("zsre", tmp_path)


def test_an_id_that_is_used_twice_is_named(tmp_path):
    rows = [{"prompt": p, "target": "b", "id": "x"} for p in "ac"]
    with pytest.raises(RecordError, match=r"line 2: the id 'x' was used before, in edits\.jsonl, line 1"):
        load("jsonl", write(tmp_path, "edits.jsonl", rows))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("nothing",), ValueError, "unknown data set 'nothing'; there are world, zsre"),
        (("world", None, "train"), ValueError, "unknown part 'train' .* calibration, test"),
        (("world", "folder"), ValueError, "come with the library; it cannot read folder"),
        (("zsre",), ValueError, "give a folder with zsre_mend_edit.json"),
        (("zsre", "no/such/folder"), FileNotFoundError, "no zsre_mend_edit.json or .* in no/such/folder"),
    ],
)
def test_bad_calls_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        load(*arguments)


def test_the_hub(monkeypatch):
    asked = []
    library = SimpleNamespace(load_dataset=lambda *a, **k: asked.append((a, k)) or [{**ZSRE, "portability": None}])
    monkeypatch.setitem(sys.modules, "datasets", library)
    [record] = load("zsre", "hub:owner/name")
    assert (record.target, record.portability, record.where) == (
        "University of Michigan",
        (),
        "hub:owner/name, record 0",
    )
    load("zsre", "hub:owner/name", "calibration")
    load("zsre", "hub:owner/name/sub/zsre_mend_edit.json")
    assert asked == [
        (("owner/name",), {"split": "test"}),
        (("owner/name",), {"split": "train"}),
        (("owner/name",), {"data_files": "sub/zsre_mend_edit.json", "split": "train"}),
    ]
    with pytest.raises(ValueError, match="counts as the test part"):
        load("zsre", "hub:owner/name/sub/zsre_mend_edit.json", "calibration")
