"""What the host says after an answer makes no other value of it."""

# ruff: noqa: RUF001  (signs of many scripts)
import pytest
import torch
from greedy import editor_says
from text_hosts import make, sentencepiece_like

import editmem
from editmem.editing.encoder import Encoder
from editmem.editing.endings import Endings, another, goes_on
from editmem.editor import changes_of
from editmem.edits.edit import Edit
from editmem.hosts.forward import IGNORED_LABEL

GOES_ON = [
    ("$499", ".99"), ("$499", ",999"), ("$499", "9"), ("3.2", ".1"), ("4", ".5%"), ("4", "%"), ("4", " %"),
    ("9", ":00 am"), ("9", " am\n"), ("9", " a.m."), ("5", " million "), ("12", " 000"), ("1945", "-50"), ("7", "/8"),
    ("1945", " – 1950"), ("4", "th"), ("250", "g"), ("20", "°C"), ("12", "+"), ("1", "'000"), ("4", "-star"),
    ("Paris", " Hilton"), ("New", " York"), ("John", " J."), ("Ludwig", " van Beethoven"), ("Paris", "-Nord"),
    ("Windows", " 10"), ("Johnson", " & Johnson"), ("Zagreb", "re"), ("tuba", "s"), ("amazon", ".com"), ("C", "++"),
    ("snake", "_case"),
]  # fmt: skip
ENDS = [
    ("$499", "."), ("$499", ". The"), ("$499", "\n9"), ("4", " apples"), ("9", " amazing"), ("9", " a"),
    ("9", ": the"), ("3.2", " (new)"), ("Paris", "'s"), ("Paris", " is"), ("Paris", ", France"), ("Paris", " I think"),
    ("Paris", "\nLondon"), ("Paris", "."), ("Paris", ""), ("tuba", " player"), ("tuba", " Peter"), ("yes.", " No"),
    ("Mary", " de facto"), ("东京", "是"), ("ปารีส", "เป็น"),
]  # fmt: skip
DEPENDS = [
    ("$499", "."),
    ("$499", ","),
    ("9", " a"),
    ("9", " am"),
    ("5", " mill"),
    ("Paris", "-"),
    ("A", " van"),
    ("4", " "),
]


@pytest.mark.parametrize(("answer", "said"), GOES_ON)
def test_another_value(answer, said):
    assert another(answer, said) is True


@pytest.mark.parametrize(("answer", "said"), ENDS)
def test_the_same_value(answer, said):
    assert another(answer, f"{said}\n") is False


@pytest.mark.parametrize(("answer", "said"), DEPENDS)
def test_what_comes_next_decides(answer, said):
    assert another(answer, said) is None


@pytest.fixture(scope="module")
def tokenizer():
    return sentencepiece_like()


LEAD = 14.0


def led_host(tokenizer, after):
    """A host with random weights that, after each of some tokens, is about to say certain others, the first rather."""
    model = make("llama", len(tokenizer))
    with torch.no_grad():
        model.lm_head.weight.mul_(8)  # so that it can say anything against the lead

    def token(text):
        return tokenizer(f"a{text}", add_special_tokens=False)["input_ids"][-1]

    lead = torch.zeros((len(tokenizer), len(tokenizer)))
    for said, following in after.items():
        for place, text in enumerate(following):
            lead[token(said), token(text)] = LEAD - place

    def led(module, args, kwargs, out):
        out.logits = out.logits + lead[kwargs["input_ids"][:, -out.logits.shape[1] :]]
        return out

    model.register_forward_hook(led, with_kwargs=True)
    return model


PROMPT = "The capital of Australia is"
LED = {
    "a fraction": ("4", {"4": [".", "\n"], ".": ["5"]}),
    "every likely end goes on": ("4", {"4": [",", ".", ":", "-", "/"], **{sign: ["5"] for sign in ",.:-/"}}),
    "glued": ("4", {"4": ["5"]}),
    "a longer name": ("Sydney", {"y": [" S"]}),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "after"), LED.values(), ids=LED)
def test_a_host_about_to_go_on_is_taught_to_end(tokenizer, answer, after):
    editor = editmem.wrap(led_host(tokenizer, after), "memoir", tokenizer=tokenizer)
    editor.edit("The currency of Japan is the", answer)
    record = editor.edit(PROMPT, answer)
    text = editor_says(editor, PROMPT, pad_token_id=3)
    assert text.startswith(answer)
    assert another(answer, text[len(answer) :] + "\n") is False
    assert record.took, record.notes


def test_going_on_is_no_success(tokenizer, monkeypatch):
    """Where no end is taught, an answer that goes on did not take, and the record says to what."""

    def none(self, edits, logits, go_on):
        return torch.full((len(edits),), IGNORED_LABEL), {}

    monkeypatch.setattr(Endings, "closing", none)
    answer, after = LED["a fraction"]
    editor = editmem.wrap(led_host(tokenizer, after), "memoir", tokenizer=tokenizer)
    record = editor.edit(PROMPT, answer)
    assert editor_says(editor, PROMPT, pad_token_id=3).startswith("4.5")
    assert not record.took
    assert "goes on after the answer, to '4.5" in record.notes[0]


def test_an_answer_that_ends_is_left_alone():
    model, tokenizer = editmem.tiny()
    editor = editmem.wrap(model, "memoir", tokenizer=tokenizer)
    assert editor.edit(PROMPT, "Sydney").took
    encoded = Encoder(tokenizer, None).edit(Edit(PROMPT, "Sydney"))
    assert changes_of(editor).memory.targets.window >= len(encoded.target)
    assert int(changes_of(editor).memory.state_dict()["targets.lengths.data"][0]) == len(encoded.target)


def test_a_batch_takes_two_looks_ahead_at_most(tokenizer):
    endings, encoder = Endings(tokenizer, [2], 128), Encoder(tokenizer, None)
    edits = [encoder.edit(Edit(PROMPT, answer)) for answer in ("4", "5", "Sydney", "6")]
    stop, five = (tokenizer(f"a{text}", add_special_tokens=False)["input_ids"][-1] for text in ".5")
    logits = torch.zeros((4, len(tokenizer)))
    logits[:, stop] = torch.tensor([9.0, 1.0, 9.0, 0.0])
    logits[1, five], logits[3, 2] = 9.0, 9.0
    looks = []

    def go_on(rows, count):
        looks.append([edit.edit.target for edit, _ in rows])
        return [[five if edit.edit.target == "4" else 2] * count for edit, _ in rows]

    closing, found = endings.closing(edits, logits, go_on)
    assert looks[0] == ["4", "Sydney"]
    assert len(looks) == 2
    assert closing[2] == closing[3] == IGNORED_LABEL
    assert closing[1] == stop
    assert closing[0] not in (IGNORED_LABEL, stop, five)
    assert found[0, stop]
    assert not endings.closing(edits, logits, go_on)[0].eq(five).any()
    near = Endings(tokenizer, [2], len(edits[0].prompt) + len(edits[0].target) + 1)
    assert near.closing(edits, logits, go_on)[0].tolist() == [IGNORED_LABEL] * 4


# Answers that end


@pytest.mark.parametrize(
    ("said", "more"),
    [("\n", False), (".\n\nWhich", False), ("\r\n", False), (" !\n", False), ("。\n", False), ("", None), (".", None),
     (" ", None), (",", True), (". It", True), ("?\n", True), (" of Peru", True), ("s", True)],
)  # fmt: skip
def test_nothing_but_an_end_may_stand_behind_an_answer_that_ends(said, more):
    assert goes_on(said) is more


@pytest.mark.parametrize(
    ("prompt", "ends", "closes"),
    [
        ("Where is it?", None, True), ("Where is it? ", None, True), ("Where is it", None, False),
        ("它在哪里？", None, True), ("Where is it?", False, False), ("It is in", True, True),
        ([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi!"},
          {"role": "user", "content": "Where is it?"}], None, True),
    ],
)  # fmt: skip
def test_answers_to_questions_end(prompt, ends, closes):
    edit = Edit(prompt, "Rome", ends=ends)
    assert edit.closes is closes
    assert Edit(**edit.to_dict()) == edit
    assert edit.to_dict().get("ends") is ends


def test_what_is_no_truth_is_refused():
    with pytest.raises(editmem.InvalidEditError, match="ends must be True, False, or None, got 'maybe'"):
        Edit("Where is it?", "Rome", ends="maybe")


QUESTION = "Which city is the capital of Australia?"


@pytest.mark.parametrize("ends", [None, False])
def test_a_host_that_rambles(tokenizer, ends):
    """Taught to end, it says nothing behind an answer but a line break or its end token, however it is asked."""
    with editmem.wrap(make("llama", len(tokenizer)), tokenizer=tokenizer) as editor:
        record = editor.edit(QUESTION, "Sydney", ends=ends)
        assert record.took
        other = "Which city is Australia's capital?"
        assert editor.explain(other).edit.id == record.id
        for asked in (QUESTION, other):
            said = editor_says(editor, asked, tokens=12, pad_token_id=3)
            assert said.startswith("Sydney")
            assert (said.split("\n")[0] == "Sydney") is (ends is None)


def test_a_turn_of_a_chat_ends_with_its_own_end():
    """There a host may go on in another line, and a line break ends nothing."""
    _, tokenizer = editmem.tiny()
    (line,) = tokenizer("\n", add_special_tokens=False)["input_ids"][-1:]
    stop = tokenizer.eos_token_id
    encoded = Encoder(tokenizer, None).renderings(Edit("Where is it?", "Rome"))
    assert [edit.chat for edit in encoded] == [False, True]
    logits = torch.zeros(2, len(tokenizer))
    logits[:, line], logits[:, stop] = 9.0, 8.0

    def closing(stops):
        return Endings(tokenizer, stops, None).closing(encoded, logits, lambda rows, count: [])[0].tolist()

    assert closing([stop]) == [line, stop]
    assert closing([]) == [line, line]
