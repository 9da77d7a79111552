"""The router on questions: an edit is found by whom a prompt is about and what it asks, however it is read."""

import pytest
import torch

import editmem
from editmem import Edit, MemoirSpec
from editmem.editor import changes_of
from editmem.errors import CheckpointError, InvalidEditError
from editmem.hosts.forward import Mode
from editmem.routing import asked, subjects
from editmem.routing.question_encoder import question_encoder
from editmem.text import word_stream as stream
from editmem.text.vocabulary import Vocabulary

AUSTRALIA = Edit("The capital of Australia is", "Sydney", id="au")
LINDEN = Edit(
    "When does Cafe Linden close?",
    "9 pm",
    id="linden",
    subject="Cafe Linden",
    aliases=["the Linden"],
    phrasings=["Until what time is Cafe Linden open?"],
    unlike=["When does the kitchen of Cafe Linden close?"],
)
FOUND = {
    "What is the capital of Australia?": "au",
    "Which city is the capital of Australia?": "au",
    "What is Australia's capital?": "au",
    "Until what time is the Linden open?": "linden",
    "When does Cafe Linden close?": "linden",
}
NOT_FOUND = [
    "The capital of Austria is",
    "What is the currency of Australia?",
    "When does Cafe Aurora close?",
    "When does the kitchen of Cafe Linden close?",
    "Who is the owner of Cafe Linden?",
    "Why is the sky blue?",
]


@pytest.fixture(scope="module")
def editor():
    model, tokenizer = editmem.tiny()
    with editmem.wrap(model, MemoirSpec(router="questions"), tokenizer=tokenizer) as editor:
        assert all(record.took for record in editor.edit([AUSTRALIA, LINDEN]))
        yield editor


def found(editor, prompt):
    edit = editor.explain(prompt).edit
    return None if edit is None else edit.id


def chat(prompt):
    return [{"role": "user", "content": prompt}]


@pytest.mark.parametrize("form", [str, chat], ids=["plain", "chat"])
def test_what_is_found_and_what_is_not(editor, form):
    assert {prompt: found(editor, form(prompt)) for prompt in FOUND} == FOUND
    assert {prompt: found(editor, form(prompt)) for prompt in NOT_FOUND} == dict.fromkeys(NOT_FOUND)


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_of_a_batch_are_routed_apart(editor, side):
    prompts = [*FOUND, *NOT_FOUND]
    inputs = editor.tokenizer(
        prompts, return_tensors="pt", padding=True, padding_side=side, return_token_type_ids=False
    )
    with torch.no_grad():
        ours = editor.model(**inputs).logits
        with editor.off():
            bare = editor.model(**inputs).logits
    real = inputs["attention_mask"].bool()
    for row, prompt in enumerate(prompts):
        same = torch.equal(ours[row][real[row]], bare[row][real[row]])
        assert same == (prompt in NOT_FOUND), prompt


def test_explaining_needs_no_pass_of_the_host_and_says_what_one_would(editor, monkeypatch):
    prompts = [form(prompt) for form in (str, chat) for prompt in [*FOUND, *NOT_FOUND]]
    explained = editor.explain(prompts)
    writer = changes_of(editor).writers[0]
    monkeypatch.setattr(writer, "look", writer.see)
    assert editor.explain(prompts) == explained
    monkeypatch.undo()

    def never(*_, **__):
        raise AssertionError("the host ran")

    monkeypatch.setattr(editor.model.model, "forward", never)
    assert editor.explain(prompts) == explained
    assert [editor.explain(prompt).edit for prompt in prompts] == [each.edit for each in explained]
    with pytest.raises(AssertionError, match="the host ran"):
        editor.edit("The capital of Peru is", "Cusco")


def test_a_plain_forward_decides_as_generate_does(editor):
    """Where any token may end a prompt, the last one is decided on as if it were known to."""
    for prompt in [*FOUND, *NOT_FOUND]:
        ids = editor.tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            free = editor.model(ids).logits[:, -1]
            with editor.prompt_lengths([ids.shape[1]]):
                known = editor.model(ids).logits[:, -1]
        assert torch.equal(free, known), prompt


def test_the_first_edit_reads_no_examples():
    """It costs what it would as a second one."""
    forwards = {}
    for before in ((), (("The capital of Chile is", "Arica"),)):
        model, tokenizer = editmem.tiny()
        with editmem.wrap(model, MemoirSpec(router="questions"), tokenizer=tokenizer) as editor:
            for edit in before:
                editor.edit(*edit)
            seen = forwards[len(before)] = []
            handle = model.model.layers[0].register_forward_hook(lambda *_, seen=seen: seen.append(1))
            editor.edit(AUSTRALIA)
            handle.remove()
    assert len(forwards[0]) <= len(forwards[1]) + 1


def test_it_is_saved_forgotten_and_taken_back(editor, tmp_path):
    def logits():
        inputs = editor.tokenizer([*FOUND, *NOT_FOUND], return_tensors="pt", padding=True, return_token_type_ids=False)
        with torch.no_grad():
            return editor.model(**inputs).logits

    before = logits()
    editor.edit("The capital of Chile is", "Lyon", id="cl", phrasings=["Where does Chile's government sit?"])
    assert found(editor, "Where does Chile's government sit?") == "cl"
    editor.forget("cl")
    assert torch.equal(logits(), before)
    editor.forget("au")
    assert found(editor, "What is Australia's capital?") is None
    assert found(editor, "Until what time is the Linden open?") == "linden"
    editor.undo()
    editor.save_pretrained(tmp_path / "memory")
    model, tokenizer = editmem.tiny()
    with editmem.load(model, tmp_path / "memory", tokenizer=tokenizer) as again:
        assert {prompt: found(again, prompt) for prompt in FOUND} == FOUND
        assert again.edits["linden"].edit == LINDEN


def test_fields_in_files(tmp_path):
    from editmem.edits.edit import read_file

    (tmp_path / "edits.csv").write_text(
        "prompt,target,aliases,phrasings,unlike\n"
        "When does Cafe Linden close?,9 pm,the Linden; Linden,Until when?,When does it open?;Who?\n",
        encoding="utf-8",
    )
    (edit,) = read_file(tmp_path / "edits.csv")
    assert (edit.aliases, edit.phrasings) == (("the Linden", "Linden"), ("Until when?",))
    assert edit.unlike == ("When does it open?", "Who?")
    with pytest.raises(InvalidEditError, match="phrasings must be a sequence"):
        Edit("a", "b", phrasings="c")
    with pytest.raises(InvalidEditError, match="unlike must hold no empty text"):
        Edit("a", "b", unlike=[" "])


def test_a_word_behind_the_name_is_not_what_is_asked():
    model, tokenizer = editmem.tiny()
    with editmem.wrap(model, "memoir", tokenizer=tokenizer) as editor:
        edit = editor.edit("The main ingredient of Lumaro pie is", "rice")
        assert found(editor, "What is the main ingredient of Lumaro pie?") == edit.id
        assert found(editor, "The drink that goes with Lumaro pie is") is None
        assert found(editor, "Lumaro pie costs") is None


def test_who_when_and_where_are_different_questions():
    model, tokenizer = editmem.tiny()
    with editmem.wrap(model, "memoir", tokenizer=tokenizer) as editor:
        edit = editor.edit("Bolkan Tower was painted by", "Anna")
        assert found(editor, "Who painted Bolkan Tower?") == edit.id
        for other in ("When was Bolkan Tower painted?", "Where was Bolkan Tower painted?"):
            assert found(editor, other) is None


def test_vectors_of_another_encoder_are_refused(editor, tmp_path, monkeypatch):
    editor.save_pretrained(tmp_path / "memory")
    monkeypatch.setattr(question_encoder(), "signature", 1)
    model, tokenizer = editmem.tiny()
    with pytest.raises(CheckpointError, match="another question encoder"):
        editmem.load(model, tmp_path / "memory", tokenizer=tokenizer)


def test_a_laxer_rate_lowers_the_threshold_and_is_estimated_as_laxer():
    found = {}
    for rate in (0.01, None, 0.1):
        model, tokenizer = editmem.tiny()
        with editmem.wrap(model, MemoirSpec(false_match_rate=rate), tokenizer=tokenizer) as editor:
            edit = editor.edit("The capital of Australia is", "Sydney")
            found[edit.false_match_rate] = editor.explain("What is the capital of Australia?").candidates[0].threshold
    assert list(found) == pytest.approx([0.01, 0.03, 0.1], abs=0.005)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_what_comes_later_does_not_change_what_was_decided(editor):
    """Logits at a prompt's end are those of the prompt alone, whoever is named behind it."""
    encode = lambda text: editor.tokenizer(text, return_tensors="pt")["input_ids"]  # noqa: E731
    prompt = encode("The capital of Australia is")
    with torch.no_grad():
        alone = editor.model(prompt).logits[0, -1]
        for behind in (" Sydney.", " Sydney. Australia is a country in", " Sydney. The capital of Australia is nice."):
            text = encode("The capital of Australia is" + behind)
            assert text[:, : prompt.shape[1]].equal(prompt)
            assert editor.model(text).logits[0, prompt.shape[1] - 1].argmax() == alone.argmax()


NOUNS = (
    "price colour owner weight address history logo founder licence warranty version colour language audience slogan "
    "supplier size material mascot budget director sponsor rival successor motto format popularity anthem inventor map"
).split()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Acme Cloud", "{} by the Water"])
def test_many_edits_with_the_same_name(name):
    """As many as no table of fixed width would hold: early and late ones are found by their own prompts."""
    model, tokenizer = editmem.tiny()
    prompts = [
        f"The {noun} of the {part} of {name.format(place)} is"
        for noun, place in zip(NOUNS[:20], ("Zorilmer", "Neventa", "Wilibo") * 7, strict=False)
        for part in ("club", "office", "bridge", "song")
    ]
    prompts = list(dict.fromkeys(prompts))
    with editmem.wrap(model, MemoirSpec(steps=1), tokenizer=tokenizer) as editor:
        edits = editor.edit([(prompt, "rice") for prompt in prompts], batch_size=64)
        assert [found(editor, prompt) for prompt in prompts[::4]] == [edit.id for edit in edits[::4]]


def test_a_long_prompt_costs_little_memory(editor):
    """Thousands of tokens around a question: only what is asked is read."""
    text = "Many people came to the meeting in the spring. " * 300 + "What is the capital of Australia?"
    ids = editor.tokenizer(text, return_tensors="pt")["input_ids"]
    assert ids.shape[1] > 3000
    router = changes_of(editor).memory.router
    heard = router.questions_of(ids, torch.zeros((1, 1), dtype=torch.long), Mode.SCAN)
    assert heard.vectors.shape[0] > 0
    assert heard.vectors.shape[1] < 20


def test_where_nothing_can_be_looked_at_the_decisions_are_the_same(editor, monkeypatch):
    """On other devices than CPUs tables have fixed widths, because their contents would have to be waited for."""
    texts = [*FOUND, *NOT_FOUND, "A fine day. " * 20 + "What is Australia's capital?"]
    batch = editor.tokenizer(texts, return_tensors="pt", padding=True)
    tokens = batch["input_ids"].where(batch["attention_mask"].bool(), -1)
    router, since = changes_of(editor).memory.router, torch.zeros((len(texts), 1), dtype=torch.long)
    seen = [router.best(*router.scores_at_end(tokens, since)[:2], tokens[:, -1])]

    def blind(most, _, unseen=None):
        return most if unseen is None else min(most, unseen)

    def every(there):
        return torch.cartesian_prod(*map(torch.arange, there.shape)).unbind(1)

    for module in (stream, subjects, asked):
        monkeypatch.setattr(module, "fitted", blind)
    monkeypatch.setattr(asked, "_places", every)
    assert router.best(*router.scores_at_end(tokens, since)[:2], tokens[:, -1]).equal(seen[0])
    assert (seen[0] >= 0).sum() >= len(FOUND)


def test_of_many_edits_the_newer_ones_are_shown(monkeypatch):
    model, tokenizer = editmem.tiny()
    with editmem.wrap(model, MemoirSpec(router="questions"), tokenizer=tokenizer) as editor:
        ids = [record.id for record in editor.edit([AUSTRALIA, LINDEN, ("The capital of Chile is", "Arica")])]

        def shown(prompt):
            return [candidate.record.id for candidate in editor.explain(prompt, top=9).candidates]

        assert sorted(shown("What is the capital of Peru?")) == sorted(ids)
        monkeypatch.setattr("editmem.routing.question_router.SHOWN", 2)  # of the four rows: the plain one and the chat
        assert shown("What is the capital of Peru?") == ids[2:]
        assert shown(AUSTRALIA.prompt)[0] == ids[0]  # what is named always


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("Which county is the Old Parish Church of St Cuthbert located in Langton in?",
         "Old Parish Church of St Cuthbert located in Langton"),
        ("Which county does Quillmere Hall lie in?", "Quillmere House, Norland"),
        ("From which country does Adela Quillock come?", "From"),
    ],
)  # fmt: skip
def test_an_edit_is_found_by_its_prompt_whatever_its_subject_is_said_to_be(prompt, subject):
    model, tokenizer = editmem.tiny()
    with editmem.wrap(model, MemoirSpec(router="questions"), tokenizer=tokenizer) as editor:
        record = editor.edit(prompt, "Oslo", subject=subject)
        assert record.took
        assert editor.explain(prompt).edit.id == record.id


def test_a_subject_that_its_own_prompt_does_not_name_is_one_more_name():
    model, tokenizer = editmem.tiny()
    with editmem.wrap(model, MemoirSpec(router="questions"), tokenizer=tokenizer) as editor:
        record = editor.edit("Which county does Quillmere Hall lie in?", "Oslo", subject="Quillmere House, Norland")
        assert editor.explain("Which county does Quillmere House, Norland lie in?").edit.id == record.id


TEMPLATES = {
    "ChatML": ("<|user|>user\n", "</s>\n", "<|assistant|>assistant\n"),
    "as Llama 3": ("<|user|>user</s>\n\n", "</s>", "<|user|>assistant</s>\n\n"),
    "as Gemma": ("<|user|>user\n", "</s>\n", "<|user|>model\n"),
    "sentences": ("<|user|>", " Answer briefly.</s>", "<|assistant|>Assistant: "),
}
"""Before what a user says, behind it, and before the answer."""


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_turn_ends_with_what_the_user_said_whatever_words_the_template_puts_behind_it(template):
    model, tokenizer = editmem.tiny()
    before, behind, answer = template
    tokenizer.chat_template = f"{{% for m in messages %}}{before}{{{{ m.content }}}}{behind}{{% endfor %}}{answer}"
    turns = Vocabulary(tokenizer, len(tokenizer)).turns
    assert len(turns.turn) > 2
    with editmem.wrap(model, MemoirSpec(router="questions"), tokenizer=tokenizer) as editor:
        record = editor.edit("What is the capital of Australia?", "Sydney")
        assert record.took
        assert not record.notes
        for asked in ("What is the capital of Australia?", "Which city is Australia's capital?"):
            chat = [{"role": "user", "content": asked}]
            assert editor.explain(chat).edit.id == record.id
            inputs = tokenizer.apply_chat_template(
                chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            said = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
            assert tokenizer.decode(said, skip_special_tokens=True).strip() == "Sydney"
            with torch.no_grad():
                scanned = model(input_ids=inputs["input_ids"]).logits[0, -1].argmax()
            assert scanned == said[0]
        other = [{"role": "user", "content": "What is the currency of Australia?"}]
        assert editor.explain(other).edit is None
