"""CoMEM on the embedded model that sees: items found, put in front, updated, taken back, kept."""

import copy
import json
import random

import pytest
import torch
from pictured import encode, say
from text_hosts import make
from typer.testing import CliRunner
from vision_hosts import make_vision

import editmem
from editmem import Edit, Item
from editmem.editor import changes_of
from editmem.edits.edit import edit_of
from editmem.errors import CheckpointError, EditMemError, HostError, InvalidEditError, SpecError
from editmem.hosts import compat
from editmem.methods.comem import training
from editmem.methods.comem.adapter import Adapter
from editmem.methods.comem.spec import ComemSpec
from editmem.tiny.emblems import View, picture, unused

ADELA = Item("Adela Quillock was born in Tarnow. Adela Quillock plays the tuba.", subject="Adela Quillock", id="adela")
BORN, PLAYS, FACT = (
    "Where was Adela Quillock born?",
    "Which instrument does Adela Quillock play?",
    "The capital of Australia is",
)
EMBLEM, STRANGER = unused(2)
SHOWN = "Where was the owner of this emblem born?"
OTHERS = [("The currency of Australia is the", None), ("The capital of Chile is", None), (SHOWN, picture(STRANGER))]


def seen(view=0):
    return picture(EMBLEM, View.draw(random.Random(view)))


def owner(**fields):
    return Item("This is the emblem of Bruno Velldorf. Bruno Velldorf was born in Jorvik.", image=seen(), **fields)


def written(editor):
    return editor.edit([ADELA, owner(id="bruno"), Edit(FACT, "Sydney", id="au")])


ROWS = [(BORN, None), (PLAYS, None), (SHOWN, seen(1)), (FACT, None)]
ANSWERS = ["Tarnow", "tuba", "Jorvik", "Sydney"]


def right(said):
    return [text.strip().startswith(answer) for text, answer in zip(said, ANSWERS, strict=True)]


@pytest.fixture
def editor(vlm, model):
    with editmem.wrap(model, "comem", tokenizer=vlm[1]) as editor:
        yield editor


@pytest.fixture(scope="module")
def made(vlm):
    """With what is written, made once; to be copied."""
    editor = editmem.wrap(copy.deepcopy(vlm[0]), "comem", tokenizer=vlm[1])
    written(editor)
    return editor


@pytest.fixture
def edited(made):
    """A copy, and its host."""
    editor = copy.deepcopy(made)
    return editor, editor.model


@pytest.mark.slow
@pytest.mark.usefixtures("calibrated_once")
class TestTheEmbeddedEncoder:
    def test_items_answer_what_is_asked_and_nothing_else(self, vlm, model, editor):
        bare = say(vlm, model, OTHERS)
        assert [record.took for record in written(editor)] == [True] * 3
        said = say(vlm, model, ROWS + OTHERS)
        assert right(said[:4]) == [True] * 4, said
        assert said[4:] == bare
        with editor.off():
            assert not any(right(say(vlm, model, ROWS)))

    @pytest.mark.parametrize(
        "options", [{"use_cache": False}, {"num_beams": 3}, {"side": "right"}, {"chat": True}], ids=str
    )
    def test_every_way_of_decoding(self, vlm, edited, options):
        _, model = edited
        assert right(say(vlm, model, ROWS, **options)) == [True] * 4

    def test_rows_alone_are_as_in_a_batch(self, vlm, edited):
        _, model = edited
        assert say(vlm, model, ROWS + OTHERS) == [say(vlm, model, [row])[0] for row in ROWS + OTHERS]

    def test_an_item_is_updated_under_its_id_and_forgotten(self, vlm, edited):
        editor, model = edited
        before = say(vlm, vlm[0], [(BORN, None)])
        editor.edit(Item("Adela Quillock was born in Ravenna.", subject="Adela Quillock", id="adela"))
        assert list(editor.edits) == ["bruno", "au", "adela"]
        assert say(vlm, model, [(BORN, None)])[0].strip().startswith("Ravenna")
        editor.undo()
        assert say(vlm, model, [(BORN, None)])[0].strip().startswith("Tarnow")
        editor.forget("adela")
        assert say(vlm, model, [(BORN, None)]) == before
        assert right(say(vlm, model, ROWS))[2:] == [True, True]

    def test_what_is_saved_says_the_same(self, vlm, edited, tmp_path):
        editor, model = edited
        said = say(vlm, model, ROWS)
        editor.save_pretrained(tmp_path / "memory")
        editor.unwrap()
        with editmem.load(model, tmp_path / "memory", tokenizer=vlm[1]):
            assert say(vlm, model, ROWS) == said

    def test_a_second_turn_on_the_cache(self, vlm, edited):
        _, model = edited
        first = encode(vlm, [(BORN, None)])
        out = model.generate(**first, max_new_tokens=4, do_sample=False, return_dict_in_generate=True)
        more = vlm[1].tokenizer(" What is the capital of Peru?", add_special_tokens=False, return_tensors="pt")
        ids = torch.cat([out.sequences, more["input_ids"]], 1)
        said = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            **compat.given_cache(model, compat.cache_of(out)),
            max_new_tokens=4,
            do_sample=False,
        )
        assert torch.equal(said[:, : ids.shape[1]], ids)

    def test_facts_beside_memoir(self, vlm, model):
        with editmem.wrap(model, ["memoir", "comem"], tokenizer=vlm[1]) as editor:
            written(editor)
            assert right(say(vlm, model, ROWS)) == [True] * 4


# The mechanics, on any host


def untrained(editor):
    """Give the encoder out for trained."""
    _, memory, stage = training.parts_of(editor)
    memory.encoder.trained.fill_(True)
    return memory, stage


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "qwen3", "bloom"])
def test_a_text_host_reads_embeddings_in_front(name, tokenizer):
    model = make(name, len(tokenizer))
    with editmem.wrap(model, "comem", tokenizer=tokenizer) as editor:
        memory, _ = untrained(editor)
        editor.edit(ADELA)
        inputs = tokenizer(BORN, return_tensors="pt", return_token_type_ids=False)
        with torch.no_grad():
            ours = model(**inputs).logits
            with editor.off():
                words = model.get_input_embeddings()(inputs["input_ids"])
                put = memory.bank.of(0).to(words.dtype)[None]
                whole = torch.cat([put, words], 1)
                reference = model(
                    inputs_embeds=whole, attention_mask=torch.ones(whole.shape[:2], dtype=torch.long)
                ).logits
        torch.testing.assert_close(ours, reference[:, put.shape[1] :], rtol=1e-4, atol=1e-4)


SEEING = ["llava", "llava-onevision", "qwen2-vl", "qwen2.5-vl", "qwen3-vl", "idefics3", "paligemma", "gemma3"]


@pytest.mark.slow
@pytest.mark.usefixtures("calibrated_by_little")
@pytest.mark.parametrize("name", SEEING)
def test_hosts_that_see_read_them_in_every_way(name):
    from vision_hosts import picture as noise
    from vision_hosts import with_image

    model, processor = make_vision(name)
    with editmem.wrap(model, {"method": "comem", "picture_threshold": 0.9}, tokenizer=processor) as editor:
        untrained(editor)
        editor.edit(Item("It is called Bruno.", image=noise(1)))
        editor.edit(ADELA)
        texts = [with_image(name, "What is this?"), with_image(name, "What?"), BORN]
        pictures = [noise(1), noise(2)]

        def inputs_of(texts, pictures):
            given = {"return_tensors": "pt", "padding": True}
            if pictures:
                return processor(text=texts, images=[[picture] for picture in pictures], **given)
            return processor.tokenizer(texts, return_token_type_ids=False, **given)

        def said(texts, pictures, **options):
            inputs = inputs_of(texts, pictures)
            ids = model.generate(**inputs, max_new_tokens=4, do_sample=False, **options)
            return ids[:, inputs["input_ids"].shape[1] :]

        def logits(row):
            with torch.no_grad():
                return model(**inputs_of(texts[row : row + 1], pictures[row : row + 1])).logits[:, -1]

        alone = torch.cat([said(texts[:1], pictures[:1]), said(texts[1:2], pictures[1:]), said(texts[2:], [])])
        if name not in ("idefics3", "paligemma", "gemma3"):  # their processors want a picture in every text
            assert torch.equal(said(texts, pictures), alone)
        assert torch.equal(said(texts[:1], pictures[:1], use_cache=False), alone[:1])
        ours = [logits(row) for row in range(3)]
        with editor.off():
            bare = [logits(row) for row in range(3)]
        assert [torch.equal(a, b) for a, b in zip(ours, bare, strict=True)] == [False, True, False]


def test_encoding_with_one_backbone_has_the_gradients_of_two(tokenizer):
    """The reading pass, without the adapter, and the encoding pass, with it, are parted at the embeddings."""
    model = make("llama", len(tokenizer))
    examples = [
        training.Example(ADELA, Edit(BORN, "Tarnow")),
        training.Example(Edit(FACT, "Sydney"), Edit(FACT, "Sydney")),
    ]
    with (
        editmem.wrap(model, "comem", tokenizer=tokenizer) as editor,
        editmem.wrap(make("llama", len(tokenizer)), "comem", tokenizer=tokenizer) as other,
    ):
        writer, memory, stage = training.parts_of(editor)
        for up in memory.encoder.adapter.up:
            torch.nn.init.normal_(up, std=0.05)
        encoded = training.encode(writer, stage, examples)
        memory.encoder.requires_grad_(True)
        with changes_of(editor).frozen():
            training.gradients(writer, memory, encoded, [0, 1], [[0], [1]])
        gradients = [p.grad.clone() for p in memory.encoder.parameters()]
        memory.encoder.zero_grad()
        # Two copies: one that only encodes, one that only reads.
        reader, read_memory, _ = training.parts_of(other)
        with changes_of(editor).frozen(), changes_of(other).frozen():
            with memory.encoder.adapter.on(writer.host.model):
                embeddings = training.embed(writer, memory, encoded.items)
            training.answers(reader, read_memory, encoded.questions, [[0], [1]], embeddings).backward()
        for ours, parameter in zip(gradients, memory.encoder.parameters(), strict=True):
            torch.testing.assert_close(ours, parameter.grad, rtol=1e-5, atol=1e-7)
        assert any(bool(gradient.any()) for gradient in gradients)


def test_more_items_than_two_in_front(tokenizer):
    """All that are about whom the prompt names, each once, whichever way it could be found."""
    model = make("llama", len(tokenizer))
    texts = [
        f"Adela Quillock {what}." for what in ("was born in Tarnow", "plays the tuba", "speaks Welsh", "is a nurse")
    ]
    for most, found in ((2, 1), (3, 3), (10, 4)):
        with editmem.wrap(model, {"method": "comem", "items": most}, tokenizer=tokenizer) as editor:
            memory, stage = untrained(editor)
            editor.edit([Item(text, subject="Adela Quillock") for text in texts])
            inputs = tokenizer([BORN, "Why is the sky blue?"], return_tensors="pt", padding=True)
            real = inputs["attention_mask"].bool()
            items = stage.find(inputs["input_ids"], real, real.sum(1), {})[0]["items"]
            own = [row for row in items[0].tolist() if row >= 0]
            assert len(own) == len(set(memory.bank.entries.data[own].tolist())) == found
            assert items[1].tolist() == [-1] * items.shape[1]
            longer = stage.read(dict(inputs), None, True).inputs["attention_mask"].sum(1)
            assert (longer - real.sum(1)).tolist() == [8 * found, 0]


def test_the_adapter_leaves_the_host_as_it_was(tokenizer):
    model = make("llama", len(tokenizer))
    host = editmem.hosts.structure.Host(model)
    adapter = Adapter(host.linears(), 2, 4.0, torch.Generator().manual_seed(0))
    for up in adapter.up:
        up.data.fill_(0.1)
    ids = torch.tensor([[1, 5, 7]])
    with torch.no_grad():
        before = model(ids).logits
        with adapter.on(model):
            assert not torch.equal(model(ids).logits, before)
            with adapter.off():
                assert torch.equal(model(ids).logits, before)
        assert torch.equal(model(ids).logits, before)


@pytest.mark.usefixtures("calibrated_anew")
def test_an_untrained_encoder_is_refused(tokenizer):
    with editmem.wrap(make("llama", len(tokenizer)), "comem", tokenizer=tokenizer) as editor:
        with pytest.raises(EditMemError, match="has not been trained"):
            editor.edit(ADELA)
        assert not editor.edits


def test_training_lowers_the_loss_and_goes_on_where_it_was_interrupted(tokenizer, tmp_path):
    examples = [
        training.Example(Item(f"{name} plays the {what}.", subject=name), Edit(f"{name} plays the", what))
        for name, what in [("Ada Bekdal", "tuba"), ("Bo Fortveld", "harp")]
    ]

    def trained(folder, steps, stop=None, **options):
        with editmem.wrap(make("llama", len(tokenizer)), "comem", tokenizer=tokenizer) as editor:

            def watch(progress):
                if progress.step == stop:
                    raise KeyboardInterrupt

            try:
                options |= {"steps": steps, "batch_size": 2, "rate": 1e-2, "checkpoint": folder, "every": 5}
                losses = training.train(editor, examples, progress=watch, **options)
            except KeyboardInterrupt:
                return None
            training.save(editor, tmp_path / "encoder")
            return losses

    whole = trained(None, 20)
    (half,), (all_of_it,) = (trained(None, 1, distil=share) for share in (0.5, 1.0))
    assert half == pytest.approx((whole[0] + all_of_it) / 2, rel=1e-4)
    assert whole[-1] < whole[0] - 1
    assert trained(tmp_path / "state", 20, stop=13) is None
    resumed = trained(tmp_path / "state", 20)
    assert resumed == pytest.approx(whole, rel=1e-4)
    with editmem.wrap(make("llama", len(tokenizer)), ComemSpec.of(tmp_path / "encoder"), tokenizer=tokenizer) as editor:
        assert editor.edit(examples[0].item).took


def test_encoders_of_other_shapes_are_refused(tokenizer, tmp_path):
    with editmem.wrap(make("llama", len(tokenizer)), "comem", tokenizer=tokenizer) as editor:
        training.save(editor, tmp_path / "encoder")
    spec = ComemSpec(encoder=str(tmp_path / "encoder"), rank=4)
    editor = editmem.wrap(make("llama", len(tokenizer)), spec, tokenizer=tokenizer)
    with pytest.raises(CheckpointError, match="other settings"):
        editor.edit(ADELA)
    with pytest.raises(CheckpointError, match="not a memory encoder"):
        ComemSpec.of(tmp_path)


def test_items_are_for_memories_that_keep_them(tokenizer):
    editor = editmem.wrap(make("llama", len(tokenizer)), "memoir", tokenizer=tokenizer)
    with pytest.raises(InvalidEditError, match="keeps no items; wrap the model with 'comem'"):
        editor.edit(ADELA)


def test_items_as_records():
    assert edit_of(ADELA.to_dict()) == ADELA
    assert edit_of({"text": "A fact.", "id": "a"}) == Item("A fact.", id="a")
    assert ADELA.prompt_key == Item("Something else.", id="adela").prompt_key
    for wrong in ({"text": " "}, {"text": "A", "target": "b"}, {"text": 3}):
        with pytest.raises(InvalidEditError):
            edit_of(wrong)


def test_training_is_for_comem(tokenizer):
    editor = editmem.wrap(make("llama", len(tokenizer)), "memoir", tokenizer=tokenizer)
    with pytest.raises(SpecError, match="wrap the model with 'comem'"):
        training.train(editor, [training.Example(ADELA, Edit(BORN, "Tarnow"))], steps=1)


def test_heads_have_to_divide_the_width(tokenizer):
    with pytest.raises(HostError, match="does not divide"):
        editmem.wrap(make("llama", len(tokenizer)), {"method": "comem", "heads": 7}, tokenizer=tokenizer)


def test_the_command_trains_an_encoder_for_a_host(tmp_path):
    from editmem.methods.comem.__main__ import app

    path = tmp_path / "examples.jsonl"
    record = {
        "text": "Ada Bekdal plays the tuba.",
        "question": "Which instrument does Ada Bekdal play?",
        "answer": "tuba",
    }
    path.write_text(json.dumps(record), encoding="utf-8")
    run = CliRunner().invoke
    made = run(app, ["tiny", str(path), str(tmp_path / "encoder"), "--steps", "2", "--rank", "2", "--distil", "0.5"])
    assert made.exit_code == 0, made.output
    assert "step 2 of 2" in made.output
    model, tokenizer = editmem.tiny()
    with editmem.wrap(model, ComemSpec.of(tmp_path / "encoder"), tokenizer=tokenizer) as editor:
        assert editor.edit(Item(record["text"])).took
    path.write_text('{"text": "A fact."}', encoding="utf-8")
    refused = run(app, ["tiny", str(path), str(tmp_path / "other")])
    assert refused.exit_code == 2
    assert "line 1: expected text, question and answer" in refused.output
    assert not (tmp_path / "other").exists()
