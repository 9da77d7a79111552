"""`MemoirSpec(encoder=...)`: a sentence encoder of one's own tells what is asked."""

import copy
import json

import pytest
import torch
from greedy import editor_says
from transformers import BertConfig, BertModel, BertTokenizer

import editmem
from editmem import MemoirSpec
from editmem.errors import SpecError
from editmem.routing.sentence_encoder import SentenceEncoder

EDIT = ("The capital of Australia is", "Sydney")
OTHER = ("Bruno plays the", "tuba")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sentence encoder with random weights: what is not the same text is hardly alike."""
    path = tmp_path_factory.mktemp("encoder")
    letters = [*"abcdefghijklmnopqrstuvwxyz?'."]
    (path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)])
    )
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=5 + 2 * len(letters), **size)).save_pretrained(path)
    BertTokenizer(str(path / "vocab.txt")).save_pretrained(path)
    return path


@pytest.fixture
def spec(folder):
    return MemoirSpec(encoder=str(folder), threshold=0.999)


@pytest.fixture
def editor(host, tokenizer, spec):
    with editmem.wrap(host, spec, tokenizer=tokenizer) as editor:
        editor.edit([EDIT, OTHER])
        yield editor


@pytest.fixture
def heard(monkeypatch):
    """The sentences that the encoder was given."""
    found = []
    call = SentenceEncoder.__call__
    monkeypatch.setattr(SentenceEncoder, "__call__", lambda self, texts: found.extend(texts) or call(self, texts))
    return found


def test_an_edit_holds_and_others_are_left_alone(editor):
    assert editor_says(editor, EDIT[0]).startswith("Sydney")
    assert editor.explain("The capital of France is").edit is None
    assert editor.explain("The mayor of Australia is").edit is None
    assert editor.explain("The mayor of Australia is").candidates[0].parts["question"] < 0.999


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ("The capital of Australia is", "The capital of something is"),
        ("It rained. Which city is the capital of Australia?", "Which city is the capital of something ?"),
        ("Australia's capital?", "something 's capital?"),
    ],
)
def test_it_reads_the_question_with_the_subject_taken_out(editor, heard, asked, text):
    editor.explain(asked)
    assert text in heard


def test_it_reads_the_last_turn_of_a_chat(editor, heard):
    editor.explain([{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."},
                    {"role": "user", "content": EDIT[0]}])  # fmt: skip
    assert any(text.startswith("The capital of something is") for text in heard)


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_of_a_padded_batch_are_as_alone(editor, tokenizer, side):
    prompts = [EDIT[0], "Why is the sky blue?", "Some time ago, as everyone knows, it was said that " + OTHER[0]]
    batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side=side, return_token_type_ids=False)
    with torch.no_grad():
        together = editor.model(**batch).logits
        for row, prompt in enumerate(prompts):
            alone = editor.model(**tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)).logits[0]
            assert torch.allclose(together[row][batch["attention_mask"][row] > 0], alone, atol=1e-4)


def test_rows_of_a_generated_batch_are_as_alone(editor, tokenizer):
    prompts = [EDIT[0], "Roţo, ţoţo and Paţo: " + OTHER[0]]  # "ţo" has tokens of two pieces
    batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False)
    ids = editor.model.generate(**batch, max_new_tokens=8, do_sample=False)
    together = tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    assert [text.strip() for text in together] == [editor_says(editor, prompt).strip() for prompt in prompts]
    assert together[0].strip().startswith("Sydney")


def test_without_knowing_where_prompts_end(editor, tokenizer):
    whole = tokenizer(" ".join(EDIT), return_tensors="pt", return_token_type_ids=False)["input_ids"]
    end = tokenizer(EDIT[0], return_tensors="pt")["input_ids"].shape[1]
    with torch.no_grad():
        scanned = editor.model(whole).logits[0, end - 1 : -1]
    assert torch.equal(scanned.argmax(-1), whole[0, end:])


def test_saved_loaded_and_copied(editor, tokenizer, tmp_path):
    editor.save_pretrained(tmp_path)
    assert editor_says(editor, EDIT[0]) == editor_says(type("Copied", (), {
        "model": copy.deepcopy(editor.model), "tokenizer": tokenizer})(), EDIT[0])  # fmt: skip
    again = editmem.load(editor.unwrap(), tmp_path, tokenizer=tokenizer)
    assert editor_says(again, EDIT[0]).startswith("Sydney")
    again.unwrap()


def test_its_threshold_is_that_of_different_questions(host, tokenizer, folder):
    with editmem.wrap(host, MemoirSpec(encoder=str(folder)), tokenizer=tokenizer) as editor:
        editor.edit(*EDIT)
        strict = editor.explain(EDIT[0]).candidates[0].threshold
    with editmem.wrap(host, MemoirSpec(encoder=str(folder), false_match_rate=0.5), tokenizer=tokenizer) as editor:
        editor.edit(*EDIT)
        assert editor.explain(EDIT[0]).candidates[0].threshold < strict < 1


@pytest.mark.parametrize(("key", "pooling"), [("pooling_mode_cls_token", "cls"), ("pooling_mode_max_tokens", "max")])
def test_pooling_as_the_model_says(folder, tmp_path, key, pooling):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({key: True, "pooling_mode_mean_tokens": False}))
    encoder, mean = (SentenceEncoder(str(path), torch.device("cpu")) for path in (tmp_path, folder))
    inputs = encoder.tokenizer("one two", return_tensors="pt")
    states = encoder.model(**inputs).last_hidden_state[0]
    expected = {"cls": states[0], "max": states.amax(0)}[pooling]
    assert torch.allclose(encoder(["one two", "a longer one, so that there is padding"])[0], expected, atol=1e-5)
    assert torch.allclose(mean(["one two"])[0], states.mean(0), atol=1e-5)


def test_refused(folder, tmp_path, host, tokenizer):
    with pytest.raises(SpecError, match='needs router="questions"'):
        MemoirSpec(encoder=str(folder), router="names")
    with pytest.raises(SpecError, match="cannot be loaded"):
        editmem.wrap(host, MemoirSpec(encoder=str(tmp_path / "none")), tokenizer=tokenizer)
