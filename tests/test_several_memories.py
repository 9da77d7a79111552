"""Several memories on one host, parts of one memory, and other memories that take pictures."""

import pytest
import torch
from pictured import ANSWERS, NAMING, ROWS, TOLD, UNTOUCHED, A, edit_both, right, say, seen, wrapped

import editmem
from editmem import Edit, MemoirSpec
from editmem.editor import changes_of
from editmem.errors import SpecError
from editmem.lookup.pictures import PictureIndex
from editmem.methods.memeic.spec import DualAdaptersSpec, ExternalSpec, MemeicSpec
from editmem.tiny.world import Fact, facts
from scripts.tiny.build_vision import OWNER

pytestmark = [pytest.mark.usefixtures("calibrated_once"), pytest.mark.slow]


def test_what_is_said_in_one_memory_and_what_is_seen_in_another(vlm, model, tmp_path):
    bare = say(vlm, model, UNTOUCHED)
    with wrapped(vlm, model, ["memoir", "external"]) as editor:
        visual, textual = edit_both(editor)
        assert [len(writer.memory) for writer in changes_of(editor).writers] == [2, 2]  # plain and as a turn
        assert all(right(say(vlm, model, ROWS)))
        assert say(vlm, model, UNTOUCHED) == bare
        acting = [editor.explain(prompt, image=image).edit for prompt, image in ROWS]
        assert [record and record.edit.target for record in acting] == ANSWERS
        editor.save_pretrained(tmp_path / "memory")
        editor.forget(visual.id)
        assert right(say(vlm, model, ROWS)) == [False, False, True, True, False]
        editor.undo()
        editor.forget(textual.id)
        assert right(say(vlm, model, ROWS)) == [True, True, False, False, False]
        assert list(editor.edits) == [visual.id]
    with editmem.load(model, tmp_path / "memory", tokenizer=vlm[1]) as editor:
        assert list(editor.edits) == [visual.id, textual.id]
        assert all(right(say(vlm, model, ROWS)))


def test_one_memory_alone_reads(vlm, model):
    with pytest.raises(SpecError, match="one on a host"):
        wrapped(vlm, model, ["external", "memoir", "memeic"])
    wrapped(vlm, model).unwrap()


@pytest.mark.parametrize(
    ("parts", "spec"),
    [
        (["external", "dual-adapters"], MemeicSpec()),
        (["dual-adapters", "external"], MemeicSpec()),
        (["dual-adapters", "connector"], MemeicSpec(evidence=None, connector=True)),
        ([ExternalSpec(index="faiss"), DualAdaptersSpec(rank=4), "connector"],
         MemeicSpec(index="faiss", rank=4, connector=True)),
    ],
    ids=str,
)  # fmt: skip
def test_parts_make_one_memory(vlm, model, parts, spec):
    with wrapped(vlm, model, parts) as editor:
        assert editor.specs == (spec,)


@pytest.mark.parametrize(
    ("parts", "message"), [(["external", "memeic"], "both bring evidence"), (["connector"], "leave nothing")], ids=str
)
def test_parts_that_make_none_are_refused(vlm, model, parts, message):
    with pytest.raises(SpecError, match=message):
        wrapped(vlm, model, parts)


def test_wise_takes_pictures_too(vlm, model):
    with wrapped(vlm, model, "wise") as editor:
        assert [record.took for record in edit_both(editor)] == [True, True]
        rows = [ROWS[0], ROWS[2]]
        assert all(right(say(vlm, model, rows), [ANSWERS[0], ANSWERS[2]]))
        (first, _) = editor.edits
        editor.forget(first)
        assert right(say(vlm, model, rows), [ANSWERS[0], ANSWERS[2]]) == [False, True]


def test_forgetting_in_one_memory_leaves_the_other_alone(vlm, model):
    with wrapped(vlm, model, [MemoirSpec(storage="shared", router="tophash"), ExternalSpec()]) as editor:
        visual, textual = edit_both(editor)
        assert editor.forget_cost(visual.id).edits == 0
        before = {name: tensor.clone() for name, tensor in changes_of(editor).memory.state_dict().items()}
        editor.forget(visual.id)
        assert all(torch.equal(tensor, before[name]) for name, tensor in changes_of(editor).memory.state_dict().items())
        assert list(editor.edits) == [textual.id]


def test_many_questions_about_one_picture(vlm, model):
    relations = {fact.relation: fact for fact in facts()}
    questions = [Fact(OWNER, fact.relation, fact.answer).prompts()[0] for fact in relations.values()]
    assert 2 * len(questions) > PictureIndex.TOP
    with wrapped(vlm, model, ExternalSpec(picture_threshold=0.8)) as editor:
        records = editor.edit([Edit(question, "Peru", image=seen(A)) for question in questions])
        acting = [editor.explain(question, image=seen(A)).edit for question in questions]
        assert acting == records


def test_memories_whose_answers_differ_in_length(vlm, model):
    with wrapped(vlm, model, ["memoir", "external"]) as editor:
        editor.edit(TOLD, "Oslo")
        editor.edit(NAMING, "the Republic of the Northern Isles and Waters", image=seen(A))
        assert say(vlm, model, [(TOLD, None)])[0].startswith("Oslo")
        editor.edit("The currency of Chile is", "the silver shilling of the old kings of the coast")
        assert say(vlm, model, [(TOLD, None)])[0].startswith("Oslo")
