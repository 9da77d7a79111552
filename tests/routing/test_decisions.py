"""An edit behaves the same in every way of decoding, padding and scoring; every other row is the host's."""

import copy
import functools

import pytest
import torch
import transformers
from packaging.version import Version
from transformers import pipeline

import editmem
from editmem.hosts import compat

pytestmark = pytest.mark.usefixtures("calibrated_once")

EDITS = {
    "The capital of Australia is": "Rome",
    "Which instrument does {person} play?": "tuba.",  # the answer to a question ends with the target
    "The currency of Japan is the": "Swiss franc",
}
NEIGHBOURS = ("The capital of Austria is", "What is the currency of Australia?", "{person} was born in")
UNRELATED = ("The first person on the moon was", "Bread", "Why is the sky blue, and what else do we know about it?")

DECODING = {
    "greedy": {},
    "no cache": {"use_cache": False},
    "static cache": {"cache_implementation": "static"},
    "chunked prefill": {"prefill_chunk_size": 3},
    "beams": {"num_beams": 4},
    "beams without cache": {"num_beams": 4, "use_cache": False},
    "sampling": {"do_sample": True, "temperature": 0.7},
    "several sequences": {"do_sample": True, "num_return_sequences": 3, "temperature": 0.7},
    "returned beams": {"num_beams": 3, "num_return_sequences": 3},
}
ALONE_ONLY = {
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
    "assisted": {"assistant": True},
}


@pytest.fixture(scope="module")
def person():
    from editmem.tiny.world import COUNTRY_RELATIONS, facts

    return next(f.subject for f in facts() if f.relation not in COUNTRY_RELATIONS)


@pytest.fixture(scope="module")
def texts(person):
    fill = lambda group: [text.replace("{person}", person) for text in group]  # noqa: E731
    return {"edited": fill(EDITS), "other": fill(NEIGHBOURS) + fill(UNRELATED)}


@pytest.fixture(scope="module")
def hosts():
    """The bare model, and a wrapped copy of it."""
    bare, tokenizer = editmem.tiny()
    return bare, copy.deepcopy(bare), tokenizer


@pytest.fixture(scope="module", params=["factored", "shared"])
def editor(request, hosts, texts):
    _, model, tokenizer = hosts
    router = "names" if request.param == "factored" else "tophash"
    spec = editmem.MemoirSpec(storage=request.param, router=router)
    with editmem.wrap(model, spec, tokenizer=tokenizer) as editor:
        records = editor.edit(list(zip(texts["edited"], EDITS.values(), strict=True)))
        chats = [(chat(text), target) for text, target in zip(texts["edited"], EDITS.values(), strict=True)]
        records += editor.edit(chats)
        assert all(record.took for record in records)
        yield editor


def chat(text):
    return [{"role": "user", "content": text}]


def encode(tokenizer, prompts, side="left"):
    rendered = [
        p if isinstance(p, str) else tokenizer.apply_chat_template(p, tokenize=False, add_generation_prompt=True)
        for p in prompts
    ]
    special = isinstance(prompts[0], str)
    batch = tokenizer(
        rendered, return_tensors="pt", padding=True, padding_side=side, add_special_tokens=special,
        return_token_type_ids=False,
    )  # fmt: skip
    return dict(batch)


@functools.cache
def _assistant():
    return editmem.tiny()[0]


def say(model, tokenizer, prompts, side="left", **options):
    """What the model generates for a batch, special tokens dropped."""
    if options.pop("assistant", False):
        options["assistant_model"] = _assistant()
    inputs = encode(tokenizer, prompts, side)
    torch.manual_seed(5)
    ids = model.generate(**inputs, max_new_tokens=8, **{"do_sample": False, **options})
    return tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


@pytest.fixture(scope="module")
def bare_says(hosts):
    """What the bare host says, as `say`; asked once, whatever sits on the other host."""
    bare, _, tokenizer = hosts
    said = {}

    def ask(prompts, **options):
        key = repr((prompts, options))
        if key not in said:
            try:
                said[key] = say(bare, tokenizer, prompts, **options)
            except ValueError as error:
                old = Version(transformers.__version__) < Version("5.20")
                if old and "prefill chunking without a cache" in str(error):
                    pytest.skip("this release of transformers reads no prompts in chunks, bare hosts included")
                raise
        return said[key]

    return ask


def sentence(target):
    """With the full stop that the host puts behind its answers."""
    return target if target.endswith(".") else f"{target}."


def expected(prompts, texts):
    plain = [p if isinstance(p, str) else p[0]["content"] for p in prompts]
    targets = dict(zip(texts["edited"], EDITS.values(), strict=True))
    return [targets.get(text) for text in plain]


def check(said, bare, wanted, every=True):
    """Each row's answer; of several beams of a row, which are different answers, only the best is the target."""
    per_row = len(said) // len(wanted)
    for i, target in enumerate(w for w in wanted for _ in range(per_row)):
        if target is None:
            assert said[i] == bare[i]
        elif every or i % per_row == 0:
            assert said[i].strip() == sentence(target)


@pytest.mark.parametrize(
    ("mode", "side", "form"),
    [
        *((mode, *given) for mode in DECODING for given in (("left", "raw"), ("right", "chat"))),
        *(("greedy", *given) for given in (("right", "raw"), ("left", "chat"))),
    ],
)
def test_mixed_batch(editor, hosts, bare_says, texts, mode, side, form):
    _, model, tokenizer = hosts
    prompts = [
        text for group in zip(texts["edited"], texts["other"], texts["other"][3:], strict=False) for text in group
    ]
    prompts = prompts if form == "raw" else [chat(text) for text in prompts]
    # The bare host would go on from padding on the right; what it says with padding on the left is its answer.
    bare = bare_says(prompts, **DECODING[mode])
    said = say(model, tokenizer, prompts, side, **DECODING[mode])
    check(said, bare, expected(prompts, texts), mode != "returned beams")


@pytest.mark.parametrize("form", ["raw", "chat"])
@pytest.mark.parametrize("mode", [*DECODING, *ALONE_ONLY])
def test_alone(editor, hosts, bare_says, texts, mode, form):
    _, model, tokenizer = hosts
    options = {**DECODING, **ALONE_ONLY}[mode]
    for text in (texts["edited"][1], texts["other"][0]):
        prompts = [text if form == "raw" else chat(text)]
        bare = bare_says(prompts, **options)
        said = say(model, tokenizer, prompts, **options)
        check(said, bare, expected(prompts, texts), mode != "returned beams")


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_that_match_nothing_are_the_hosts_bit_for_bit(editor, hosts, texts, side):
    bare, model, tokenizer = hosts
    prompts = texts["edited"] + texts["other"]
    inputs = encode(tokenizer, prompts, side)
    with torch.no_grad():
        ours, hosts_own = model(**inputs).logits, bare(**inputs).logits
    real = inputs["attention_mask"].bool()
    for row in range(len(prompts)):
        same = torch.equal(ours[row][real[row]], hosts_own[row][real[row]])
        assert same == (row >= len(texts["edited"]))


def test_right_padded_decoding_by_hand(editor, hosts, texts):
    """Read at each row's own last token, with a cache and explicit positions, as right padding asks for."""
    _, model, tokenizer = hosts
    inputs = encode(tokenizer, texts["edited"] + texts["other"], "right")
    mask = inputs["attention_mask"]
    length = mask.sum(1)
    with torch.no_grad():
        out = model(**inputs)
        token = out.logits[torch.arange(len(mask)), length - 1].argmax(-1)
        said = [token]
        for step in range(3):
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
            out = model(
                input_ids=token[:, None], attention_mask=mask, position_ids=(length + step)[:, None],
                **compat.given_cache(model, compat.cache_of(out)),
            )  # fmt: skip
            token = out.logits[:, -1].argmax(-1)
            said.append(token)
    answers = tokenizer.batch_decode(torch.stack(said, 1), skip_special_tokens=True)
    for answer, target in zip(answers, EDITS.values(), strict=False):
        assert sentence(target).startswith(answer.strip())
        assert answer.strip()


def test_a_later_turn_in_the_same_cache_is_decided_anew(editor, hosts, texts):
    bare, model, tokenizer = hosts
    first, second, third = texts["other"][0], texts["edited"][0], texts["other"][1]

    def talk(model, keep_cache):
        messages, cache, answers = [], None, []
        for text in (first, second, third):
            messages += chat(text)
            inputs = encode(tokenizer, [messages])
            given = compat.given_cache(model, cache) if keep_cache and cache is not None else {}
            out = model.generate(**inputs, **given, max_new_tokens=8, do_sample=False, return_dict_in_generate=True)
            cache = compat.cache_of(out)
            new = out.sequences[0, inputs["input_ids"].shape[1] :]
            answers.append(tokenizer.decode(new, skip_special_tokens=True))
            messages += [{"role": "assistant", "content": answers[-1]}]
        return answers

    with_cache, without = talk(model, True), talk(model, False)
    assert with_cache == without
    host_says = talk(bare, True)
    assert (with_cache[0], with_cache[2]) == (host_says[0], host_says[2])
    # The later turn of a chat is another prompt than the first: where its edit is recognised, it is said whole.
    assert with_cache[1] in (sentence(EDITS[second]), host_says[1])


def test_scoring_agrees_with_generating(editor, hosts, texts):
    """Prompt and answer in one forward, by labels, by lengths and by neither."""
    bare, model, tokenizer = hosts
    for text, target in zip(texts["edited"], EDITS.values(), strict=True):
        prompt = tokenizer(text)["input_ids"]
        ids = torch.tensor([prompt + tokenizer(f" {sentence(target)}", add_special_tokens=False)["input_ids"]])
        labels = ids.clone()
        labels[:, : len(prompt)] = -100
        with torch.no_grad():
            by_labels = model(input_ids=ids, labels=labels).logits
            with editor.prompt_lengths([len(prompt)]):
                by_lengths = model(input_ids=ids).logits
            by_neither = model(input_ids=ids).logits
        assert torch.equal(by_labels, by_lengths)
        assert torch.equal(by_labels, by_neither)
        assert torch.equal(by_labels[0, len(prompt) - 1 : -1].argmax(-1), ids[0, len(prompt) :])
        with torch.no_grad():
            assert not torch.equal(by_labels, bare(input_ids=ids).logits)


def test_an_edit_acts_only_while_its_answer_is_being_said(editor, hosts, texts):
    bare, model, tokenizer = hosts
    prompt = tokenizer(texts["edited"][0])["input_ids"]
    other = torch.tensor([prompt + tokenizer(" Vienna. And then", add_special_tokens=False)["input_ids"]])
    with torch.no_grad(), editor.prompt_lengths([len(prompt)]):
        ours = model(input_ids=other).logits
        hosts_own = bare(input_ids=other).logits
    at_end = len(prompt) - 1
    assert not torch.equal(ours[0, at_end], hosts_own[0, at_end])
    if editor.specs[0].layer == -1:  # nothing above the last block carries the moved token on
        assert torch.equal(ours[0, at_end + 1 :], hosts_own[0, at_end + 1 :])


def test_labels_on_every_token_leave_the_host_silent(editor, hosts, texts):
    bare, model, tokenizer = hosts
    ids = torch.tensor([tokenizer(texts["edited"][0])["input_ids"]])
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids, labels=ids).logits, bare(input_ids=ids).logits)


def test_off_is_the_bare_host_and_nests(editor, hosts, texts):
    bare, model, tokenizer = hosts
    host_says = say(bare, tokenizer, texts["edited"])
    with editor.off():
        with editor.off():
            assert say(model, tokenizer, texts["edited"]) == host_says
        assert say(model, tokenizer, texts["edited"]) == host_says
    assert say(model, tokenizer, texts["edited"]) != host_says


def test_pipeline(editor, hosts, texts):
    _, model, tokenizer = hosts
    generator = pipeline("text-generation", model=model, tokenizer=tokenizer)
    for text, target in zip(texts["edited"], EDITS.values(), strict=True):
        (out,) = generator(text, max_new_tokens=6, do_sample=False, return_full_text=False)
        assert out["generated_text"].strip() == sentence(target)


def test_embeddings_as_input(editor, hosts, texts):
    _, model, tokenizer = hosts
    inputs = encode(tokenizer, texts["edited"])
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    ids = model.generate(
        inputs_embeds=embeds, attention_mask=inputs["attention_mask"], max_new_tokens=8, do_sample=False
    )
    said = tokenizer.batch_decode(ids, skip_special_tokens=True)
    assert [answer.strip() for answer in said] == [sentence(target) for target in EDITS.values()]


def test_lm_eval_log_likelihoods(editor, hosts, texts):
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    bare, model, tokenizer = hosts
    pairs = [(text, f" {target}") for text, target in zip(texts["edited"], EDITS.values(), strict=True)]
    pairs += [(text, " Vienna") for text in texts["other"]]

    def score(model):
        scorer = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, add_bos_token=True)
        requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
        return scorer.loglikelihood(requests, disable_tqdm=True)

    ours, hosts_own = score(model), score(bare)
    for row, (likelihood, greedy) in enumerate(ours):
        if row < len(EDITS):
            assert greedy
            assert likelihood > -0.2
        else:
            assert (likelihood, greedy) == hosts_own[row]


@pytest.mark.slow
def test_compiled_decoding(editor, hosts, texts):
    """`torch.compile` of the whole forward, without graph breaks, through prefill and decoding."""
    _, model, tokenizer = hosts
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    edited, other = (torch.tensor([tokenizer(texts[group][0])["input_ids"]]) for group in ("edited", "other"))
    other = other[:, -edited.shape[1] :]
    assert other.shape == edited.shape  # another length would be compiled for itself
    for ids in (edited, other):
        plain, fast = [], []
        for forward, said in ((model, plain), (compiled, fast)):
            token, cache = ids, None
            for _ in range(2):
                with torch.no_grad():
                    out = forward(input_ids=token, **compat.given_cache(model, cache))
                token, cache = out.logits[:, -1:].argmax(-1), compat.cache_of(out)
                said.append(int(token))
        assert plain == fast
