"""The default router: words, turns, questions, renderings, the short list, and what it tells about an edit."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import editmem
from editmem.editor import changes_of
from editmem.hosts.forward import Call, Mode
from editmem.hosts.token_lookup import TokenLookup
from editmem.routing.name_router import NameRouter
from editmem.routing.whitening import Whitening
from editmem.text.chat_turns import Turns
from editmem.text.word_hash import BUCKETS, Words, heard, part_of

pytestmark = pytest.mark.usefixtures("calibrated_once")


@pytest.fixture
def editor(host, tokenizer):
    with editmem.wrap(host, editmem.MemoirSpec(router="names"), tokenizer=tokenizer) as editor:
        yield editor


def chat(*texts):
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


def acts(editor, prompt):
    found = editor.explain(prompt).edit
    return None if found is None else found.edit.target


# Words


@pytest.fixture(scope="module")
def words(tiny):
    return Words.of_tokenizer(tiny[1], len(tiny[1]))


def spoken(words, tiny, text):
    return words.spoken(tiny[1](text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Australia", "in AUSTRALIA"), ("Côte d'Ivoire", "the Cote d'Ivoire"), ("Élysée", "elysee"),
        ("São Tomé", "to Sao Tome"), ("日本", "of 日本 is"), ("Ελλάδα", "(Ελλάδα)"), ("مصر", "in مصر"),
    ],
)  # fmt: skip
def test_words_are_the_same_however_they_are_cut(words, tiny, one, other):
    assert set(spoken(words, tiny, one)) <= set(spoken(words, tiny, other))


@pytest.mark.parametrize(("one", "other"), [("Australia", "Austria"), ("Россия", "Украина"), ("日本", "中国")])
def test_different_words_differ(words, tiny, one, other):
    assert set(spoken(words, tiny, one)) != set(spoken(words, tiny, other))


def test_names_are_told_by_how_they_are_written(words, tiny):
    written = {"Australia": True, "Élysée": True, "27": True, "日本": True, "river": False, "état": False}
    for word, name in written.items():
        assert all(flag == name for flag in spoken(words, tiny, f"of {word}").values() if flag is not False or not name)
        assert any(spoken(words, tiny, f"of {word}").values()) == name


def test_parts_of_characters():
    """Byte-level and byte-fallback tokens: first bytes of accented letters are silent, second bytes say the letter."""
    assert part_of("Ã") == ""
    assert part_of("Ã©") == "é"
    assert part_of("©t") == "ét"
    assert part_of("<0xC3>") == ""
    assert part_of("<0xA9>") == "é"
    assert part_of("<0xE6>").isalnum()


def test_heard_from_a_token_on():
    buckets = torch.tensor([[3, -1, 7, 3]])
    assert heard(buckets, torch.tensor([[0]]))[0].nonzero().squeeze(1).tolist() == [3, 7]
    assert heard(buckets, torch.tensor([[3]]))[0].nonzero().squeeze(1).tolist() == [3]
    assert heard(buckets, torch.tensor([[0]])).shape == (1, BUCKETS)


# Turns


def test_turns_begin_after_the_marker_of_the_template(tokenizer):
    turns = Turns.of_tokenizer(tokenizer)
    messages = chat("One fish", "Two fish", "Red fish")
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    start = turns.starts(ids)[0]
    assert tokenizer.decode(ids[0, start[-1] :], skip_special_tokens=True).strip() == "Red fish"
    assert start[1] == 0 or start[1] == 2
    plain = tokenizer("The capital of Australia is", return_tensors="pt")["input_ids"]
    assert turns.starts(plain).tolist() == [[0] * plain.shape[1]]


@pytest.mark.parametrize(
    ("template", "marker"),
    [
        ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
         "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", "<|im_start|>"),
        ("{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %}{{ m.content }}</s>"
         "{% endif %}{% endfor %}", "[INST]"),
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:", None),
    ],
)  # fmt: skip
def test_markers_of_other_templates(template, marker):
    tokenizer = editmem.tiny()[1]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "[INST]", "[/INST]"]})
    tokenizer.chat_template = template
    turns = Turns.of_tokenizer(tokenizer)
    assert turns.turn[0] == (-1 if marker is None else tokenizer.convert_tokens_to_ids(marker))
    text = tokenizer.apply_chat_template(
        chat("One fish", "Two fish", "Red fish"), tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    turn = tokenizer.decode(ids[0, turns.starts(ids)[0, -1] :])
    assert "Red fish" in turn
    assert ("One fish" in turn) == (marker is None)


def test_names_of_earlier_turns_do_not_count(editor):
    editor.edit("The capital of Australia is", "Rome")
    assert acts(editor, chat("What is the capital of Australia?")) == "Rome"
    assert acts(editor, chat("Tell me of Australia.", "It is big.", "What is the capital of Austria?")) is None
    assert acts(editor, chat("Tell me of Austria.", "It is small.", "What is the capital of Australia?")) == "Rome"


# Renderings


@pytest.mark.parametrize("given", ["plain", "chat"])
def test_an_edit_holds_in_plain_text_and_in_a_chat(editor, given):
    prompt = "The capital of Australia is"
    record = editor.edit(prompt if given == "plain" else chat(prompt), "Rome")
    assert record.took
    assert record.notes == ()
    for asked in (prompt, chat(prompt), "What is the capital of Australia?", chat("What is the capital of Australia?")):
        assert acts(editor, asked) == "Rome"
    assert list(editor.edits) == [record.id]
    editor.forget(record.id)
    assert acts(editor, prompt) is None
    assert acts(editor, chat(prompt)) is None
    editor.undo()
    assert acts(editor, chat(prompt)) == "Rome"


def test_one_rendering_only_where_asked_for(tiny):
    model, tokenizer = tiny
    prompt = "The capital of Australia is"
    with editmem.wrap(model, editmem.MemoirSpec(router="names", renderings=False), tokenizer=tokenizer) as editor:
        editor.edit(prompt, "Rome")
        assert acts(editor, prompt) == "Rome"
        assert acts(editor, chat(prompt)) is None


def test_a_conversation_as_prompt_has_one_rendering(editor):
    messages = chat("Think of Australia.", "I do.", "Its capital?")
    record = editor.edit(messages, "Rome")
    assert record.took
    assert acts(editor, messages) == "Rome"


# What is asked


def test_questions_damp_what_names_do():
    """States made of a question, a far larger part for the name, and noise: questions are told apart all the same."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    axes, name_axes = draw(30, 64), draw(4, 64)
    names = lambda count: 3 * draw(count, 4) @ name_axes  # noqa: E731
    grid = axes[None, :10] + names(16)[:, None] + 0.3 * draw(16, 10, 64)
    neutral = draw(50, 64)
    space = Whitening(64)
    space.fit(neutral, grid)
    name = names(200)
    kinds = torch.arange(200) % 20 + 10
    one, other, another = (
        axes[kind] + name + 0.3 * draw(200, 64) for kind in (kinds, kinds, (kinds + 1 - 10) % 20 + 10)
    )
    same = (space(one) * space(other)).sum(1)
    different = (space(one) * space(another)).sum(1)
    plain = nn.functional.cosine_similarity(one, another)
    assert same.quantile(0.05) > different.quantile(0.95)
    assert different.mean() < plain.mean() - 0.1


def test_the_threshold_is_the_quantile_asked_for():
    space = Whitening(16)
    generator = torch.Generator().manual_seed(1)
    grid = torch.randn((8, 12, 16), generator=generator)
    space.fit(torch.randn((20, 16), generator=generator), grid)
    states = space(grid)
    scores = (states @ states.transpose(1, 2))[:, ~torch.eye(12, dtype=torch.bool)]
    for rate in (0.01, 0.1, 0.4):
        assert (scores >= space.threshold(grid, rate)).float().mean().item() == pytest.approx(rate, abs=0.01)


# Scores


def random_router(count, width=8):
    generator = torch.Generator().manual_seed(2)
    router = NameRouter("block", width, 0.3, 0.1)
    router.words = Words(100)
    router.words.value = torch.arange(100) + 1
    router.words.letters = torch.ones(100, dtype=torch.int16)
    router.turns = Turns((99, 0))
    router.plain.fit(torch.zeros(1, width), torch.randn((4, 3, width), generator=generator))
    router.chat.fit(torch.zeros(1, width), torch.randn((4, 3, width), generator=generator))
    router.threshold = torch.tensor(0.1)
    router.named.append(torch.randint(1, 99, (count, router.WIDTH), generator=generator))
    weights = torch.rand((count, router.WIDTH), generator=generator)
    router.weights.append(weights / weights.sum(1, keepdim=True))
    router.states.append(nn.functional.normalize(torch.randn((count, width), generator=generator), dim=1))
    router.chats.append(torch.rand(count, generator=generator) < 0.5)
    return router


def call_of(mode, tokens, width=8, step=None):
    call = Call(mode, torch.ones_like(tokens, dtype=torch.bool), tokens, step)
    call.noted["block"] = torch.randn((*tokens.shape, width), generator=torch.Generator().manual_seed(3))
    return call


@pytest.mark.parametrize("mode", [Mode.BOUNDARY, Mode.SCAN])
@pytest.mark.parametrize("turns", [False, True])
def test_prompts_are_answered_by_edits_of_their_own_rendering_only(turns, mode):
    router = random_router(100)
    tokens = torch.randint(0, 99, (8, 20), generator=torch.Generator().manual_seed(4))
    if turns:
        tokens[:, 0] = 99
    step = (torch.arange(20) - 19).expand_as(tokens) if mode is Mode.BOUNDARY else None
    decided = router.decide(None, call_of(mode, tokens, step=step), {})
    decided = decided[decided >= 0]
    assert len(decided) > 3
    assert (router.chats.used[decided] == turns).all()


@pytest.mark.parametrize("turns", [False, True])
def test_scanning_decides_at_every_token_as_if_the_prompt_ended_there(turns):
    router = random_router(100)
    tokens = torch.randint(0, 99, (3, 20), generator=torch.Generator().manual_seed(4))
    if turns:
        tokens[:, 5] = tokens[1, 12] = 99
    call = call_of(Mode.SCAN, tokens)
    scanned = router.decide(None, call, {})
    assert (scanned >= 0).any()
    for end in range(tokens.shape[1]):
        step = (torch.arange(tokens.shape[1]) - end).expand_as(tokens)
        alone = call_of(Mode.BOUNDARY, tokens, step=step)
        assert torch.equal(router.decide(None, alone, {}), scanned[:, end])


def test_the_short_list_holds_what_counts(monkeypatch):
    """Of many edits, the listed ones are those whose words fit best; the decision is as with all of them listed."""
    router = random_router(500)
    tokens = torch.randint(0, 99, (16, 40), generator=torch.Generator().manual_seed(5))
    step = (torch.arange(40) - 39).expand_as(tokens)
    short = router.decide(None, call_of(Mode.BOUNDARY, tokens, step=step), {})
    monkeypatch.setattr(NameRouter, "SHORT_LIST", 10_000)
    every = router.decide(None, call_of(Mode.BOUNDARY, tokens, step=step), {})
    assert (every >= 0).any()
    assert (short == every).float().mean() > 0.9


@pytest.mark.parametrize("length", [1, 2, 300])
def test_short_and_long_prompts(editor, length):
    """One word, and a question at the end of much other text."""
    prompt = {1: "Bread", 2: "Bread is", 300: "Bread and water. " * 60 + "The capital of Australia is"}[length]
    record = editor.edit(prompt, "Rome")
    assert record.took
    assert acts(editor, prompt) == "Rome"
    assert acts(editor, "The capital of Austria is") is None


def test_a_prompt_of_four_thousand_tokens(tiny):
    """By its boundary and by scanning, in plain text; the edit is found, and only where it is asked for."""
    config = LlamaConfig(
        vocab_size=len(tiny[1]), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=4200,
    )  # fmt: skip
    torch.manual_seed(0)
    spec = editmem.MemoirSpec(router="names", renderings=False, margin=1.0)  # the sooner learned
    with editmem.wrap(LlamaForCausalLM(config).eval(), spec, tokenizer=tiny[1]) as editor:
        prompt = "Bread and water. " * 1000
        prompt = tiny[1].decode(tiny[1](prompt)["input_ids"][-3980:]) + " The capital of Australia is"
        assert 3900 < len(tiny[1](prompt)["input_ids"]) < 4100
        record = editor.edit(prompt, "Rome")
        assert record.took
        inputs = tiny[1](prompt, return_tensors="pt", return_token_type_ids=False)
        said = editor.model.generate(**inputs, max_new_tokens=2, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert tiny[1].decode(said).strip().startswith("Rome")
        with torch.no_grad():
            assert editor.model(**inputs).logits[0, -1].argmax() == said[0]


def test_subjects_first_and_last(editor):
    editor.edit("Australia's capital is", "Rome")
    assert acts(editor, "The capital of Australia is") == "Rome"
    assert acts(editor, "Name the capital of Australia.") == "Rome"


def test_a_given_subject_says_which_words_are_names(editor):
    """Words that look like no name count as one if the edit says that they are its subject."""
    editor.edit("the colour of bread is", "green", subject="bread")
    weights = changes_of(editor).memory.router.weights.used[0]
    assert weights.max() > 0.7


# What it tells


def test_edits_too_alike_are_reported_when_the_second_is_written(editor):
    first = editor.edit("The capital of Australia is", "Rome")
    second = editor.edit("What is the capital of Australia?", "Paris")
    assert first.notes == ()
    assert any(first.id in note for note in second.notes)
    third = editor.edit("The capital of Austria is", "Oslo")
    assert third.notes == ()


def test_the_record_estimates_false_matches_and_explain_shows_them(editor):
    record = editor.edit("The capital of Australia is", "Rome")
    assert record.false_match_rate is not None
    assert 0 <= record.false_match_rate < 0.2
    assert f"other questions matched {record.false_match_rate:.1%}" in str(
        editor.explain("The capital of Australia is")
    )


def test_a_laxer_threshold_is_estimated_as_laxer(tiny):
    model, tokenizer = tiny
    rates = []
    for threshold in (0.1, 0.9):
        with editmem.wrap(
            model, editmem.MemoirSpec(router="names", threshold=threshold), tokenizer=tokenizer
        ) as editor:
            rates.append(editor.edit("The capital of Australia is", "Rome").false_match_rate)
    assert rates[0] > rates[1] == 0


# Embeddings


def test_tokens_of_embeddings():
    table = nn.Embedding(50, 96)
    ids = torch.randint(0, 50, (2, 9))
    lookup = TokenLookup()
    assert torch.equal(lookup.tokens(table(ids), table), ids)
    changed = table(ids).detach().clone()
    changed[0, 0] += 1e-3
    assert lookup.tokens(changed, table)[0].tolist() == [-1, *ids[0, 1:].tolist()]
    with torch.no_grad():
        table.weight.mul_(2)
    assert torch.equal(lookup.tokens(table(ids), table), ids)
    assert (lookup.tokens(table(ids).half(), table) == -1).all()
