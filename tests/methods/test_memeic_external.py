"""The external memory's parts by themselves: indexes, evidence, questions put in words, pictures in rows."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import editmem
from editmem.editing.encoder import Encoder
from editmem.lookup.pictures import PictureIndex, shares_of
from editmem.methods.memeic.evidence import Evidence, Said, about
from editmem.storage.vector_index import INDEXES

VISUAL, TEXTUAL = Said("Whose emblem is this?", "Peru"), Said("The capital of Peru is", "Sydney")


LIBRARIES = {"faiss": "faiss", "qdrant": "qdrant_client"}


def vectors(count, seed=0, width=8):
    torch.manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, width), dim=-1)


@pytest.mark.parametrize("name", INDEXES)
@given(removed=st.sets(st.integers(0, 19), max_size=19), top=st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_indexes_find_the_nearest_of_what_is_left(name, removed, top):
    if name in LIBRARIES:
        pytest.importorskip(LIBRARIES[name])
    index, every, queries = INDEXES[name](8), vectors(20), vectors(3, 1)
    index.add(every[:12])
    index.add(every[12:])
    index.remove(torch.tensor(sorted(removed), dtype=torch.long))
    kept = torch.tensor([i not in removed for i in range(20)])
    assert len(index) == int(kept.sum())
    top = min(top, len(index))
    scores, numbers = index.search(queries, top)
    wanted = (queries @ every[kept].T).sort(dim=1, descending=True)
    assert torch.equal(numbers, wanted.indices[:, :top])
    assert torch.allclose(scores, wanted.values[:, :top], atol=1e-6)
    again = INDEXES[name](8)
    again.load(index.save())
    assert torch.equal(again.search(queries, top)[1], numbers)
    clone = copy.deepcopy(index)
    clone.add(every[:1])
    assert len(clone) == len(index) + 1


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("What is the capital of the owner of this emblem?", "What is the capital of Peru?"),
        ("What is the time zone of the location shown in the picture?", "What is the time zone of Peru?"),
        ("Who founded the city featured in the image?", "Who founded Peru?"),
        ("Where does this bird live?", "Where does Peru live?"),
        ("the owner of this emblem dreams in", "Peru dreams in"),
        ("What time is it?", "Peru: What time is it?"),
        ("Who is mayor of [the city in this picture]?", "Who is mayor of Peru?"),
    ],
)
def test_questions_about_pictures_are_put_in_words(question, said):
    assert about(question, "Peru") == said


def test_a_name_is_put_in_as_it_is():
    assert about("Who made this thing?", r"A\1 \g<0>") == r"Who made A\1 \g<0>?"


@pytest.fixture(scope="module")
def evidence():
    return Evidence(Encoder(editmem.tiny()[1], None), None, "plain")


def text_of(evidence, ids):
    return evidence.encode.tokenizer.decode(ids)


@pytest.mark.parametrize("chat", [False, True])
def test_evidence_stands_in_front_of_the_question(evidence, chat):
    question = "What is the capital of Peru?"
    ids = evidence.encode.prompt([{"role": "user", "content": question}] if chat else question)
    composed, kept = evidence.compose(ids, None, TEXTUAL)
    assert composed[:kept] == ids[:kept]
    assert text_of(evidence, composed) == text_of(evidence, ids).replace(
        question, f"The capital of Peru is Sydney. {question}"
    )
    assert evidence.question(ids) == question


def test_only_the_last_turn_is_a_question(evidence):
    turns = [
        {"role": "user", "content": "What is the capital of Chile?"},
        {"role": "assistant", "content": "Santiago."},
        {"role": "user", "content": "And of Peru?"},
    ]
    ids = evidence.encode.prompt(turns)
    assert evidence.question(ids) == "And of Peru?"
    assert "Santiago.</s><|user|>The capital of Peru is Sydney. And" in text_of(
        evidence, evidence.compose(ids, None, TEXTUAL)[0]
    )


def test_the_papers_prompt():
    encode = Encoder(editmem.tiny()[1], None)
    evidence = Evidence(encode, None, "paper")
    ids = encode.prompt("What is the capital of the owner of this emblem?")
    assert text_of(evidence, evidence.compose(ids, VISUAL, TEXTUAL, asked=False)[0]) == (
        "<s>Visual Editing Knowledge: Whose emblem is this? -> Peru\n"
        "Text Editing Knowledge: The capital of Peru is -> Sydney\n"
        f"{'-' * 32}\nQuestion: What is the capital of the owner of this emblem?\nAnswer:"
    )
    assert text_of(evidence, evidence.compose(ids, VISUAL, None, asked=False)[0]) == (
        "<s>Whose emblem is this? Peru  What is the capital of the owner of this emblem?"
    )


def test_pictures_are_shared_out_among_rows():
    counts = torch.tensor([17.0, 0.0, 34.0])
    wanted = torch.tensor([[1, 0, 0], [0, 0, 0], [0, 0.5, 0.5]])
    assert torch.equal(shares_of(counts, 3), wanted)


def pictures(looks, **settings):
    """An index with these pictures in it, whose threshold is 0.5 and where 0.95 and more is the same."""
    options = {"index": "exact", "threshold": None, "miss_rate": 0.5, "false_match_rate": 0.05}
    options |= {"question_false_match_rate": 0.05} | settings
    index = PictureIndex("first", "block", None, 0, looks.shape[1], **options)
    index.threshold, index.same = torch.tensor(0.5), torch.tensor(0.95)
    index.index.add(looks)
    index.originals.add(looks)
    for rows in (index.states, index.chats):
        rows.append(torch.zeros(len(looks), *rows.data.shape[1:], dtype=rows.data.dtype))
    return index


def test_the_threshold_rises_as_pictures_crowd():
    crowd = torch.nn.functional.normalize(vectors(200, width=4) + torch.tensor([2.0, 0, 0, 0]), dim=-1)
    few, many = pictures(crowd[:3]), pictures(crowd)
    nearest = (crowd @ crowd.T).masked_fill(crowd @ crowd.T >= 0.95, -1).max(1).values
    assert few.limit <= many.limit == pytest.approx(float(torch.quantile(nearest, 0.95)))
    many.keep(torch.arange(3))
    assert many.limit == few.limit
    assert pictures(crowd, threshold=0.5).limit == 0.5


def test_many_questions_about_one_picture_are_no_crowd():
    assert pictures(vectors(1).expand(50, -1)).limit == 0.5
