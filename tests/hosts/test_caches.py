"""Edits hold on a cache whatever its owner does to it, and nothing stays on it of a text that is gone."""

import copy
import pickle

import pytest
import torch
from transformers import DynamicCache

import editmem
from editmem.errors import HostError
from editmem.hosts import caches, compat

pytestmark = pytest.mark.usefixtures("calibrated_once")

AUSTRALIA = ("The capital of Australia is", "Baghulatta")
JAPAN = ("The currency of Japan is the", "Swiss franc")
OTHERS = ["The capital of Austria is", "The capital of Chile is", "The official language of Brazil is"]


@pytest.fixture(scope="module", params=["memoir", "wise", "tophash"])
def editor(request):
    model, tokenizer = editmem.tiny()
    spec = editmem.MemoirSpec(router="tophash") if request.param == "tophash" else request.param
    with editmem.wrap(model, spec, tokenizer=tokenizer) as editor:
        assert all(record.took for record in editor.edit([AUSTRALIA, JAPAN]))
        yield editor


@pytest.fixture(scope="module")
def bare():
    return editmem.tiny()[0]


def encode(editor, prompts):
    return dict(editor.tokenizer(prompts, return_tensors="pt", padding=True, return_token_type_ids=False))


def read(model, ids, cache, mask=None, **more):
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, use_cache=True, **compat.given_cache(model, cache), **more)


def go_on(editor, model, token, cache, mask=None, count=8):
    """Greedy decoding by hand."""
    said = []
    for _ in range(count):
        said.append(token)
        mask = None if mask is None else torch.nn.functional.pad(mask, (0, 1), value=1)
        out = read(model, token, cache, mask)
        token, cache = out.logits[:, -1:].argmax(-1), compat.cache_of(out)
    return [text.strip() for text in editor.tokenizer.batch_decode(torch.cat(said, 1))]


def ask(editor, model, prompts, cache=None):
    inputs = encode(editor, prompts)
    out = read(model, inputs["input_ids"], cache, inputs["attention_mask"] if len(prompts) > 1 else None)
    return out.logits[:, -1:].argmax(-1), compat.cache_of(out), inputs["attention_mask"]


def by_hand(editor, model, prompts):
    token, cache, mask = ask(editor, model, prompts)
    return go_on(editor, model, token, cache, mask if len(prompts) > 1 else None)


def said(editor, model, ids, cut=0, **options):
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False, **options)
    return editor.tokenizer.decode(out[0, ids.shape[1] - cut :]).strip()


def test_an_answer_of_many_tokens_is_said_whole_by_hand(editor):
    assert len(editor.tokenizer(AUSTRALIA[1], add_special_tokens=False)["input_ids"]) > 2
    assert by_hand(editor, editor.model, [AUSTRALIA[0]])[0].startswith(AUSTRALIA[1])
    assert by_hand(editor, editor.model, [OTHERS[0], AUSTRALIA[0]])[1].startswith(AUSTRALIA[1])


@pytest.mark.parametrize("empty", ["crop", "reset"])
def test_an_emptied_cache_is_a_new_one(editor, bare, empty):
    """Releases whose reset leaves the columns, with zeros in them, go on behind those: with an edit as without."""

    def asked_anew(model, other):
        cache = DynamicCache(config=model.config)
        ask(editor, model, [AUSTRALIA[0]], cache)
        if empty == "crop":
            cache.crop(-cache.get_seq_length())
        else:
            cache.reset()
        token, cache, _ = ask(editor, model, [other], cache)
        return go_on(editor, model, token, cache)

    for other in OTHERS:
        assert asked_anew(editor.model, other) == asked_anew(bare, other)


def test_the_answer_is_said_again_where_it_was_cut_off(editor):
    """A cropped cache goes on in the middle of the answer, and from before it."""
    token, cache, _ = ask(editor, editor.model, [AUSTRALIA[0]])
    length = cache.get_seq_length()
    first = token
    go_on(editor, editor.model, token, cache, count=4)
    second = editor.tokenizer(AUSTRALIA[0] + " " + AUSTRALIA[1], return_tensors="pt")["input_ids"][:, length + 1 :]
    cache.crop(length + 1 - cache.get_seq_length())  # the prompt and the first token are left
    rest = go_on(editor, editor.model, second[:, :1], cache, count=2)[0]
    assert rest in AUSTRALIA[1]
    assert go_on(editor, editor.model, second[:, :1], _cut(cache, length + 1), count=2)[0] == rest
    again = go_on(editor, editor.model, first, _cut(cache, length), count=8)[0]
    assert again.startswith(AUSTRALIA[1])


def _cut(cache, length):
    cache.crop(length - cache.get_seq_length())
    return cache


def test_a_cropped_prefix_is_asked_something_else(editor, bare):
    """A shared beginning is kept, the rest of the prompt is gone."""
    start, rest = "The capital of", ["Australia is", "Austria is", "Chile is"]
    shared = encode(editor, [start])["input_ids"]
    answers = []
    for model in (editor.model, bare):
        cache = DynamicCache(config=model.config)
        read(model, shared, cache)
        for text in rest:
            ids = encode(editor, [f"{start} {text}"])["input_ids"][:, shared.shape[1] :]
            token = read(model, ids, cache).logits[:, -1:].argmax(-1)
            answers.append(go_on(editor, model, token, cache)[0])
            _cut(cache, shared.shape[1])
    assert answers[1:3] == answers[4:6]
    assert answers[0].startswith(AUSTRALIA[1]) or editor.specs[0].method == "wise"


def test_rows_are_picked_repeated_and_reordered_with_their_answers(editor):
    prompts = [AUSTRALIA[0], OTHERS[0], JAPAN[0]]
    whole = by_hand(editor, editor.model, prompts)
    for change, order in (
        (lambda cache, rows: cache.batch_select_indices(rows), [2, 0]),
        (lambda cache, rows: cache.reorder_cache(rows), [1, 2, 0]),
        (lambda cache, rows: cache.batch_repeat_interleave(2), [0, 0, 1, 1, 2, 2]),
    ):
        token, cache, mask = ask(editor, editor.model, prompts)
        rows = torch.tensor(order)
        change(cache, rows)
        assert go_on(editor, editor.model, token[rows], cache, mask[rows]) == [whole[row] for row in order]


def test_a_copy_of_a_cache_goes_its_own_way(editor):
    token, cache, _ = ask(editor, editor.model, [AUSTRALIA[0]])
    clone = copy.deepcopy(cache)
    whole = go_on(editor, editor.model, token, cache)
    assert go_on(editor, editor.model, token, clone) == whole
    assert isinstance(clone, DynamicCache)


def test_a_pickled_cache_is_a_plain_one(editor):
    _, cache, _ = ask(editor, editor.model, [AUSTRALIA[0]])
    again = pickle.loads(pickle.dumps(cache))
    assert type(again) is DynamicCache
    assert caches.note_on(again, 1) is None
    assert again.get_seq_length() == cache.get_seq_length()


def test_several_tokens_at_once_in_the_middle_of_the_answer(editor):
    """As where drafted tokens are checked."""
    text = encode(editor, [AUSTRALIA[0] + " " + AUSTRALIA[1]])["input_ids"]
    length = encode(editor, [AUSTRALIA[0]])["input_ids"].shape[1]
    cache = DynamicCache(config=editor.model.config)
    read(editor.model, text[:, : length + 1], cache)
    out = read(editor.model, text[:, length + 1 :], cache)
    with torch.no_grad():
        assert torch.equal(out.logits.argmax(-1), editor.model(text).logits[:, length + 1 :].argmax(-1))
    assert torch.equal(out.logits[:, :-1].argmax(-1), text[:, length + 2 :])


def test_forwards_of_the_bare_host_in_between(editor, bare):
    """What was said with the memory off is no part of the answer; the text afterwards is the host's own."""
    token, cache, _ = ask(editor, editor.model, [AUSTRALIA[0]])
    with editor.off():
        read(editor.model, encode(editor, [" and"])["input_ids"][:, -1:], cache)
    out = read(editor.model, token, cache)
    assert compat.cache_length(compat.cache_of(out)) == cache.get_seq_length()
    assert caches.note_on(cache, 1).text.shape[1] == cache.get_seq_length()


def chat(editor, prompt):
    message = [{"role": "user", "content": prompt}]
    text = editor.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    return editor.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]


@pytest.mark.parametrize("form", ["raw", "chat"])
@pytest.mark.parametrize("with_cache", [False, True])
def test_an_answer_that_was_cut_off_is_gone_on_with(editor, form, with_cache):
    ids = encode(editor, [AUSTRALIA[0]])["input_ids"] if form == "raw" else chat(editor, AUSTRALIA[0])
    whole = said(editor, editor.model, ids)
    assert whole.startswith(AUSTRALIA[1])
    for cut in (1, 2, 3):
        out = editor.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=cut, do_sample=False, return_dict_in_generate=True
        )
        more = compat.given_cache(editor.model, compat.cache_of(out)) if with_cache else {}
        assert said(editor, editor.model, out.sequences, cut, **more).startswith(AUSTRALIA[1])


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"use_cache": False}], ids=["greedy", "beams", "no cache"])
def test_cut_off_answers_in_a_mixed_batch(editor, bare, options):
    answer = editor.tokenizer(" " + AUSTRALIA[1], add_special_tokens=False)["input_ids"]
    texts = [
        AUSTRALIA[0] + editor.tokenizer.decode(answer[:2]),
        AUSTRALIA[0],
        OTHERS[0],
        JAPAN[0] + " Swiss",
        OTHERS[0] + editor.tokenizer.decode(answer[:2]),  # the beginning of an answer that was not asked for
    ]
    inputs = encode(editor, texts)

    def new(model):
        ids = model.generate(**inputs, max_new_tokens=8, do_sample=False, **options)[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in editor.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    ours, hosts_own = new(editor.model), new(bare)
    assert ours[0].startswith(editor.tokenizer.decode(answer[2:]))
    assert ours[1].startswith(AUSTRALIA[1])
    assert ours[3].startswith("franc")
    assert [ours[2], ours[4]] == [hosts_own[2], hosts_own[4]]


def test_decoding_by_hand_on_the_cache_that_generate_left(editor):
    ids = encode(editor, [AUSTRALIA[0]])["input_ids"]
    out = editor.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=2, do_sample=False, return_dict_in_generate=True
    )
    more = go_on(editor, editor.model, out.sequences[:, -1:], compat.cache_of(out))[0]
    first = editor.tokenizer.decode(out.sequences[0, ids.shape[1] : -1]).strip()
    assert (first + more).startswith(AUSTRALIA[1])


def test_continuous_batching_is_refused(editor):
    prompts = encode(editor, [AUSTRALIA[0]])["input_ids"].tolist()
    for name in compat.CONTINUOUS_BATCHING:
        if hasattr(editor.model, name):
            with pytest.raises(HostError, match="continuous batching"):
                getattr(editor.model, name)(prompts)
    with pytest.raises(HostError, match="packed rows"):
        editor.model(torch.tensor(prompts), cu_seq_lens_q=torch.tensor([0, len(prompts[0])]))
