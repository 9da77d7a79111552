"""Edits of pictures and of facts, on the embedded model that sees: found, composed, taken back, kept."""

import copy
import gc

import numpy as np
import pytest
import torch
from pictured import (
    AGAIN,
    ANSWERS,
    COMPOSED,
    NAMING,
    OTHER,
    ROWS,
    TOLD,
    TOLD_AGAIN,
    UNTOUCHED,
    A,
    B,
    edit_both,
    encode,
    right,
    say,
    seen,
    wrapped,
)
from transformers import GenerationConfig

import editmem
from editmem import Edit
from editmem.editing.writer import Writer
from editmem.editor import changes_of
from editmem.edits.edit import EncodedEdit, edit_of
from editmem.errors import SpecError
from editmem.hosts import compat
from editmem.methods.memeic import connecting, interop
from editmem.methods.memeic.spec import DualAdaptersSpec, ExternalSpec, MemeicSpec
from editmem.tiny.world import facts

pytestmark = [pytest.mark.usefixtures("calibrated_once"), pytest.mark.slow]

FACT = facts()[-1]


@pytest.fixture
def editor(vlm, model):
    with wrapped(vlm, model) as editor:
        yield editor


@pytest.fixture(scope="module")
def both(vlm):
    """With both edits, made once; to be copied."""
    editor = wrapped(vlm, copy.deepcopy(vlm[0]))
    edit_both(editor)
    return editor


@pytest.fixture
def edited(both):
    """A copy, and its host."""
    editor = copy.deepcopy(both)
    return editor, editor.model


def test_both_kinds_of_edit_and_their_composition_in_one_mixed_batch(vlm, model, editor):
    bare = say(vlm, model, UNTOUCHED)
    records = edit_both(editor)
    assert [record.took for record in records] == [True, True]
    said = say(vlm, model, ROWS + UNTOUCHED)
    assert right(said[: len(ROWS)]) == [True] * len(ROWS)
    assert said[len(ROWS) :] == bare
    with editor.off():
        assert not any(right(say(vlm, model, ROWS)))


@pytest.mark.parametrize("options", [{"use_cache": False}, {"num_beams": 3}, {"side": "right"}], ids=str)
def test_every_way_of_decoding(vlm, edited, options):
    _, model = edited
    assert all(right(say(vlm, model, ROWS, **options)))


def test_of_many_pictures_only_those_of_a_batch_are_read(vlm, editor, monkeypatch):
    """What a host takes to see one is hundreds of kilobytes: 10,000 of them would not fit."""
    alive, learn = [], Writer.learn

    def counting(writer, batch, *more):
        gc.collect()
        held = [each for each in gc.get_objects() if type(each) is EncodedEdit and each.vision]
        alive.append(len({each.edit.id for each in held}))
        return learn(writer, batch, *more)

    monkeypatch.setattr(Writer, "learn", counting)
    owners = list(dict.fromkeys(fact.subject for fact in facts()))[:6]
    edits = [Edit(NAMING, B, image=seen(owner)) for owner in owners]
    records = editor.edit(edits, batch_size=2)
    assert [record.took for record in records] == [True] * 6
    assert max(alive) <= 4  # those of a batch, and of the one before it
    assert len(alive) == 3


def test_turns_of_a_chat(vlm, edited):
    _, model = edited
    assert all(right(say(vlm, model, ROWS, chat=True)))


def test_rows_alone_are_as_in_a_batch(vlm, edited):
    _, model = edited
    together = say(vlm, model, ROWS + UNTOUCHED)
    assert together == [say(vlm, model, [row])[0] for row in ROWS + UNTOUCHED]


def test_the_prompt_comes_back_as_it_was_given(vlm, edited):
    _, model = edited
    inputs = encode(vlm, ROWS)
    out = model.generate(**inputs, max_new_tokens=4, do_sample=False, return_dict_in_generate=True)
    assert torch.equal(out.sequences[:, : inputs["input_ids"].shape[1]], inputs["input_ids"])


def test_a_forward_has_logits_for_the_columns_given(vlm, edited):
    _, model = edited
    inputs = encode(vlm, ROWS)
    with torch.no_grad():
        logits = model(**inputs).logits
        last = model(**inputs, logits_to_keep=1).logits
    assert logits.shape[:2] == inputs["input_ids"].shape
    assert torch.equal(logits[:, -1:], last)
    words = vlm[1].tokenizer.batch_decode(logits[:, -1].argmax(-1)[:, None])
    assert [answer.startswith(word.strip()) for word, answer in zip(words, ANSWERS, strict=True)] == [True] * 5, words


def test_labels_score_the_answer_behind_the_evidence(vlm, model, editor):
    tokenizer = vlm[1].tokenizer
    prompt, answer = encode(vlm, [(TOLD_AGAIN, None)])["input_ids"], tokenizer(" Sydney", add_special_tokens=False)
    ids = torch.cat([prompt, torch.tensor([answer["input_ids"]])], 1)
    labels = torch.where(torch.arange(ids.shape[1]) < prompt.shape[1], -100, ids)
    with torch.no_grad():
        before = model(input_ids=ids, labels=labels).loss
        edit_both(editor)
        out = model(input_ids=ids, labels=labels)
    assert before > 1 > 0.2 > out.loss
    assert out.logits.shape[1] == ids.shape[1]


def test_decoding_by_hand_with_a_cache(vlm, edited):
    _, model = edited
    for row, answer in ((ROWS[4], "Sydney"), (ROWS[2], "Sydney")):
        inputs = encode(vlm, [row])
        mask, said, cache = inputs["attention_mask"], [], None
        for _ in range(6):
            with torch.no_grad():
                step = inputs if cache is None else {"input_ids": said[-1][:, None]}
                out = model(**{**step, "attention_mask": mask}, use_cache=True, **compat.given_cache(model, cache))
            cache, mask = compat.cache_of(out), torch.nn.functional.pad(mask, (0, 1), value=1)
            said.append(out.logits[:, -1].argmax(-1))
        assert vlm[1].tokenizer.decode(torch.cat(said)).strip().startswith(answer)


def test_a_second_turn_on_the_cache_of_the_first(vlm, edited):
    _, model = edited
    inputs = encode(vlm, [(TOLD, None)])
    first = model.generate(**inputs, max_new_tokens=8, do_sample=False, return_dict_in_generate=True)
    more = vlm[1].tokenizer(f" {FACT.prompts()[0]}", add_special_tokens=False, return_tensors="pt")["input_ids"]
    ids = torch.cat([first.sequences, more], 1)
    out = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=4,
        **compat.given_cache(model, compat.cache_of(first)),
        do_sample=False,
    )  # fmt: skip
    assert torch.equal(out[:, : ids.shape[1]], ids)
    said = vlm[1].tokenizer.decode(out[0, ids.shape[1] :])
    assert any(fact.answer[:4] in said for fact in facts() if fact.relation == FACT.relation)


def test_forgetting_leaves_the_other_as_it_was_alone(vlm, model, editor):
    editor.edit(TOLD, "Sydney")
    alone = {name: tensor.clone() for name, tensor in changes_of(editor).memory.state_dict().items()}
    record = editor.edit(NAMING, B, image=seen(A))
    editor.forget(record.id)
    assert all(torch.equal(tensor, alone[name]) for name, tensor in changes_of(editor).memory.state_dict().items())
    assert right(say(vlm, model, ROWS)) == [False, False, True, True, False]
    editor.undo()
    assert all(right(say(vlm, model, ROWS)))


def test_saved_and_loaded(vlm, edited, tmp_path):
    editor, model = edited
    before = say(vlm, model, ROWS + UNTOUCHED)
    editor.save_pretrained(tmp_path / "memory")
    editor.unwrap()
    again = editmem.load(model, tmp_path / "memory", tokenizer=vlm[1])
    assert say(vlm, model, ROWS + UNTOUCHED) == before
    assert [r.edit.image for r in again.edits.values()] == [r.edit.image for r in editor.edits.values()]
    again.undo(2)
    assert not any(right(say(vlm, model, ROWS)))
    again.unwrap()


def test_copies_are_independent(vlm, model, editor):
    editor.edit(NAMING, B, image=seen(A))
    clone = copy.deepcopy(editor)
    clone.edit(TOLD, "Sydney")
    assert all(right(say(vlm, clone.model, ROWS)))
    assert right(say(vlm, model, ROWS)) == [True, True, False, False, False]


def test_explaining_a_composition(edited):
    editor, _ = edited
    visual, textual = editor.edits.values()
    found = editor.explain(COMPOSED, image=seen(A, 3))
    assert (found.edit.id, found.recognised.id) == (textual.id, visual.id)
    assert visual.id in str(found)
    assert textual.id in str(found)
    other = editor.explain(COMPOSED, image=seen(OTHER))
    assert (other.edit, other.recognised) == (None, None)
    named = editor.explain(AGAIN, image=seen(A, 3))
    assert (named.edit.id, named.recognised.id) == (visual.id, visual.id)


def test_other_facts_of_what_a_picture_is_said_to_show(vlm, model, editor):
    editor.edit(NAMING, B, image=seen(A))
    assert say(vlm, model, [(COMPOSED, seen(A, 1))])[0].startswith("Lima")


def test_the_parts_alone(vlm, model):
    with wrapped(vlm, model, DualAdaptersSpec()) as editor:
        edit_both(editor)
        assert right(say(vlm, model, ROWS))[:4] == [True] * 4
    with wrapped(vlm, model, ExternalSpec()) as editor:
        edit_both(editor)
        assert right(say(vlm, model, ROWS))[:2] == [True, True]
        assert say(vlm, model, UNTOUCHED) == [*map(str, say_bare(vlm, model, editor, UNTOUCHED))]


def say_bare(vlm, model, editor, rows):
    with editor.off():
        return say(vlm, model, rows)


def test_shared_adapters_learn_one_after_the_other_and_forget_by_learning_again(vlm, model):
    spec = MemeicSpec(storage="shared", rank=8, steps=20, learning_rate=3e-3)
    with wrapped(vlm, model, spec) as editor:
        record = editor.edit(TOLD, "Sydney")
        alone = {name: tensor.clone() for name, tensor in changes_of(editor).memory.state_dict().items()}
        other = editor.edit("The capital of Chile is", "Quito")
        assert editor.forget_cost(other.id).edits == 1
        editor.forget(other.id)
        assert all(torch.equal(tensor, alone[name]) for name, tensor in changes_of(editor).memory.state_dict().items())
        assert record.took


def test_bf16(vlm, model):
    with wrapped(vlm, model.to(torch.bfloat16)) as editor:
        edit_both(editor)
        rows = encode(vlm, ROWS)
        rows["pixel_values"] = rows["pixel_values"].to(torch.bfloat16)
        ids = model.generate(**rows, max_new_tokens=8, do_sample=False)[:, rows["input_ids"].shape[1] :]
        assert all(right([t.strip() for t in vlm[1].tokenizer.batch_decode(ids)]))


def test_a_visual_edit_changes_nothing_textual(vlm, model):
    with wrapped(vlm, model, MemeicSpec(storage="shared", connector=True)) as editor:
        editor.edit(TOLD, "Sydney")
        before = {name: tensor.clone() for name, tensor in changes_of(editor).memory.state_dict().items()}
        editor.edit(NAMING, B, image=seen(A))
        after = changes_of(editor).memory.state_dict()
        for name, tensor in before.items():
            if name.startswith("adapters."):
                assert torch.equal(tensor[1], after[name][1]), name
            if name.startswith("connector."):
                assert torch.equal(tensor, after[name]), name
        changed = [n for n, t in before.items() if n.startswith("adapters.") and not torch.equal(t[0], after[n][0])]
        assert changed


def forward_of(vlm, model, rows):
    with torch.no_grad():
        return model(**encode(vlm, rows)).logits[:, -1]


def test_training_a_connector_changes_it_alone(vlm, model, tmp_path):
    with wrapped(vlm, model, MemeicSpec(connector=True)) as editor:
        visual, textual = edit_both(editor)
        untouched = say(vlm, model, UNTOUCHED)
        before = {name: tensor.clone() for name, tensor in changes_of(editor).memory.state_dict().items()}
        question = connecting.Composition(Edit(COMPOSED, "Sydney", image=seen(A, 4)), visual.id, textual.id)
        losses = connecting.train(editor, [question] * 4, passes=4, rate=1e-3, batch_size=2, right=1.0)
        assert len(losses) == 8
        after = changes_of(editor).memory.state_dict()
        assert {n.split(".")[0] for n in before if not torch.equal(before[n], after[n])} == {"connector"}
        assert not any(parameter.requires_grad for parameter in changes_of(editor).memory.connector.parameters())
        assert say(vlm, model, UNTOUCHED) == untouched
        trained = forward_of(vlm, model, ROWS)
        assert interop.save(editor, tmp_path) == ["connector"]
        for up in changes_of(editor).memory.connector.up:
            up.data.zero_()
        changed = [not torch.equal(a, b) for a, b in zip(trained, forward_of(vlm, model, ROWS), strict=True)]
        assert changed == [False, False, False, False, True]  # it acts on the composition, and on nothing else
        interop.load(editor, tmp_path / "connector", "connector")
        assert torch.equal(trained, forward_of(vlm, model, ROWS))
    with wrapped(vlm, model) as editor, pytest.raises(editmem.EditMemError, match="connector=True"):
        connecting.train(editor, [question])


@pytest.mark.parametrize("bad", ["nowhere.png", np.zeros((4, 4), dtype=np.uint8), 7], ids=["path", "array", "number"])
def test_bad_pictures_are_refused(editor, bad):
    with pytest.raises(editmem.EditMemError, match="image"):
        editor.edit(NAMING, B, image=bad)
    assert not editor.edits


def test_pictures_are_refused_where_they_cannot_be_used(vlm, model):
    for method, tokenizer, why in (("memoir", vlm[1], "text only"), ("memeic", vlm[1].tokenizer, "processor")):
        with editmem.wrap(model, method, tokenizer=tokenizer) as editor, pytest.raises(editmem.EditMemError, match=why):
            editor.edit(NAMING, B, image=seen(A))
    with pytest.raises(editmem.EditMemError, match="visual edit needs a picture"):
        edit_of({"prompt": NAMING, "target": B, "modality": "visual"})
    with pytest.raises(SpecError, match="leave nothing"):
        editmem.wrap(model, MemeicSpec(evidence=None, storage=None))


def test_pictures_in_files_of_edits(editor, tmp_path):
    seen(A).save(tmp_path / "kenya.png")
    (tmp_path / "edits.jsonl").write_text(f'{{"prompt": "{NAMING}", "target": "{B}", "image": "kenya.png"}}\n')
    (record,) = editor.edit(tmp_path / "edits.jsonl")
    assert np.array_equal(record.edit.image.array(), np.asarray(seen(A)))
    (tmp_path / "edits.jsonl").write_text('{"prompt": "a", "target": "b", "image": "nowhere.png"}\n')
    with pytest.raises(editmem.EditMemError, match=r"edits.jsonl, line 1: image: cannot read"):
        editor.edit(tmp_path / "edits.jsonl")


@pytest.mark.parametrize(
    "settings", [{"index": "faiss"}, {"index": "qdrant"}, {"both": "all"}, {"evidence": "paper"}], ids=str
)
def test_other_settings_answer_each_kind_of_edit(vlm, model, settings):
    with wrapped(vlm, model, MemeicSpec(**settings)) as editor:
        edit_both(editor)
        assert all(right(say(vlm, model, ROWS[:4]), ANSWERS[:4]))
        if "index" in settings:
            assert all(right(say(vlm, model, ROWS[4:]), ANSWERS[4:]))


def test_what_explain_says_acts_is_what_is_answered(vlm, edited):
    editor, model = edited
    acting = [editor.explain(prompt, image=image).edit for prompt, image in ROWS]
    assert [record and record.edit.target for record in acting] == ANSWERS
    assert all(right(say(vlm, model, ROWS)))


def test_the_same_words_with_a_picture_and_without(vlm, edited):
    editor, model = edited
    editor.edit(NAMING, "Nobody")
    assert right(say(vlm, model, [(NAMING, seen(A)), (NAMING, None)]), [B, "Nobody"]) == [True, True]


@pytest.mark.parametrize("given", ["argument", "config", "the model's own"])
def test_max_length_counts_what_was_given(vlm, edited, given):
    _, model = edited
    inputs = encode(vlm, ROWS[4:])
    length = inputs["input_ids"].shape[1]
    options = {"max_length": length + 5, "do_sample": False}
    if given == "the model's own":
        model.generation_config.update(**options)
    elif given == "config":
        inputs["generation_config"] = GenerationConfig(**options, pad_token_id=0)
    else:
        inputs |= options
    ids = model.generate(**inputs)
    assert ids.shape[1] <= length + 5
    assert vlm[1].tokenizer.decode(ids[0, length:]).strip().startswith("Sydney")


def test_a_tuple_has_the_columns_given(vlm, edited):
    _, model = edited
    inputs = encode(vlm, ROWS)
    with torch.no_grad():
        named, plain = model(**inputs), model(**inputs, return_dict=False)
    assert isinstance(plain, tuple)
    assert torch.equal(plain[0], named.logits)


def test_an_answer_that_was_cut_off_is_gone_on_with(vlm, edited):
    _, model = edited
    for row, answer in ((ROWS[4], "Sydney"), (ROWS[2], "Sydney")):
        inputs = encode(vlm, [row])
        length = inputs["input_ids"].shape[1]
        for cut in (1, 2):
            ids = model.generate(**inputs, max_new_tokens=cut, do_sample=False)
            more = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
            ids = model.generate(**more, max_new_tokens=8, do_sample=False)
            assert vlm[1].tokenizer.decode(ids[0, length:]).strip().startswith(answer)


def test_a_cropped_cache_goes_on_with_the_answer(vlm, edited):
    _, model = edited
    inputs = encode(vlm, [ROWS[4]])
    first = model.generate(**inputs, max_new_tokens=4, do_sample=False, return_dict_in_generate=True)
    cache, mask = compat.cache_of(first), torch.ones_like(first.sequences)
    cache.crop(-2)
    token = first.sequences[:, -3:-2]
    with torch.no_grad():
        out = model(input_ids=token, attention_mask=mask[:, :-2], use_cache=True, **compat.given_cache(model, cache))
    assert out.logits[:, -1].argmax(-1).tolist() == first.sequences[:, -2].tolist()
    cache.crop(-6)
    with pytest.raises(ValueError, match="evidence"):
        model(input_ids=token, attention_mask=mask[:, :-7], use_cache=True, **compat.given_cache(model, cache))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    for part in editmem.tiny():
        part.save_pretrained(folder)
    return str(folder)


def test_a_text_encoder_of_its_own(vlm, model, encoder, tmp_path):
    with wrapped(vlm, model, MemeicSpec(text_encoder=encoder)) as editor:
        edit_both(editor)
        assert all(right(say(vlm, model, ROWS)))
        matches = {float(m.score) for m in editor.explain("The currency of Peru is").candidates}
        editor.save_pretrained(tmp_path / "memory")
    with editmem.load(model, tmp_path / "memory", tokenizer=vlm[1]) as editor:
        assert all(right(say(vlm, model, ROWS)))
    with wrapped(vlm, model) as editor:
        edit_both(editor)
        assert matches != {float(m.score) for m in editor.explain("The currency of Peru is").candidates}


def test_an_encoder_that_is_not_there_is_refused(vlm, model, tmp_path):
    with pytest.raises(SpecError, match="text_encoder"):
        wrapped(vlm, model, MemeicSpec(text_encoder=str(tmp_path / "none")))


def test_a_question_that_is_put_in_words_by_whoever_asks(vlm, edited):
    editor, model = edited
    rows = [("Its main town?", seen(A, 2)), (NAMING, seen(A)), (TOLD, None)]
    assert not right(say(vlm, model, rows[:1]), ["Sydney"])[0]
    with editor.reading(questions=["What is the capital of [the owner]?", None, None]):
        assert all(right(say(vlm, model, rows), ["Sydney", B, "Sydney"]))
        with pytest.raises(ValueError, match="3 questions"):
            say(vlm, model, rows[:2])
        assert editor.edit("The capital of Chile is", "Lyon").took
    with editor.reading(questions=["What is the capital of [the owner]?"]):
        record = editor.explain(rows[0][0], image=rows[0][1]).edit
    assert record is not None
    assert record.edit.target == "Sydney"


def test_the_connector_of_the_embedded_model(vlm, model):
    pairs = [("Kenya", "Peru", "Sydney"), ("Japan", "Norway", "Lima"), ("Chile", "Ghana", "Vienna")]
    with wrapped(vlm, model, MemeicSpec(connector=True, evidence="paper", both="all")) as editor:
        for owner, name, capital in pairs:
            editor.edit(NAMING, name, image=seen(owner))
            editor.edit(f"The capital of {name} is", capital)
        rows = [(COMPOSED, seen(owner, 2)) for owner, *_ in pairs]
        capitals = [capital for *_, capital in pairs]
        before = sum(right(say(vlm, model, rows), capitals))
        interop.load(editor, connecting.tiny_connector(), "connector")
        assert before < sum(right(say(vlm, model, rows), capitals))
        alone = [(NAMING, seen(owner)) for owner, *_ in pairs]
        assert all(right(say(vlm, model, alone), [name for _, name, _ in pairs]))


def test_tensors_of_before_a_picture_had_a_vector_of_its_own(vlm, edited, tmp_path):
    """Folders saved then are read: the mean of its views stands for the picture itself."""
    editor, model = edited
    wanted = say(vlm, model, ROWS)
    memory = changes_of(editor).memory
    tensors = memory.state_dict()
    memory.restore({name: tensor for name, tensor in tensors.items() if not name.endswith("originals")})
    assert memory.state_dict().keys() == tensors.keys()
    assert say(vlm, model, ROWS) == wanted
