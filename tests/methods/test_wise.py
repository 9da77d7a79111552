"""WISE's side memory: the solver, routing, both ways of training, what forgetting leaves, and saving."""

import copy

import pytest
import torch

import editmem
from editmem import WiseSpec
from editmem.editor import changes_of
from editmem.errors import SpecError
from editmem.hosts import compat
from editmem.hosts.forward import NO_TOKEN, Call, Mode
from editmem.methods.wise.descent import Margins
from editmem.methods.wise.least_squares import factor, solve
from editmem.methods.wise.memory import ROUNDING
from editmem.methods.wise.prefixes import Prefixes, code_after, code_with
from editmem.methods.wise.scope import Scope

pytestmark = pytest.mark.usefixtures("calibrated_once")

EDITS = [
    ("The capital of Australia is", "Sydney"),
    ("The capital of France is", "Lyon"),
    ("The capital of Spain is", "Seville"),
    ("The capital of Japan is", "Osaka"),
    ("The capital of Italy is", "Milan"),
]
OTHERS = ["The capital of Norway is", "She went to Brackmoor and saw", "Why is the sky blue?"]
PROMPTS = [prompt for prompt, _ in EDITS]
SGD = {"training": "sgd", "shard_edits": 2, "renderings": False}


@pytest.fixture
def wrapped(tiny):
    """Wraps a copy of the embedded model with a spec."""
    editors = []

    def wrap(**settings):
        model = copy.deepcopy(tiny[0])
        editors.append(editmem.wrap(model, {"method": "wise", **settings}, tokenizer=tiny[1]))
        return editors[-1]

    yield wrap
    for editor in editors:
        editor.unwrap()


def logits(editor, prompts):
    inputs = editor.tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    with torch.no_grad():
        return editor.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, -1]


def answers(editor, prompts, tokens=6):
    inputs = editor.tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    ids = editor.model.generate(
        inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=tokens, do_sample=False
    )
    return [text.strip() for text in editor.tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :])]


def says(editor, edits):
    said = answers(editor, [prompt for prompt, _ in edits])
    return [answer.startswith(target) for answer, (_, target) in zip(said, edits, strict=True)]


# The solver


def test_least_squares_in_a_mask_is_each_rows_own():
    """Against ordinary ridge regression over the columns in each row's mask."""
    generator = torch.Generator().manual_seed(0)
    keys, outputs = torch.randn(7, 20, generator=generator), torch.randn(7, 5, generator=generator)
    mask = torch.rand(5, 20, generator=generator) < 0.5
    found = solve(keys, outputs, mask, 0.1, tolerance=1e-6, most=200)
    assert not found[~mask].any()
    for row in range(5):
        own = keys[:, mask[row]]
        wanted = torch.linalg.solve(own.T @ own + 0.1 * torch.eye(own.shape[1]), own.T @ outputs[:, row])
        assert torch.allclose(found[row, mask[row]], wanted, atol=1e-4)


def test_a_factor_has_the_second_moment_of_its_rows():
    rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) @ torch.randn(6, 30)
    assert torch.allclose(factor(rows, 6).T @ factor(rows, 6), rows.T @ rows, atol=1e-2)
    assert factor(rows, 3).shape == (3, 30)


# Following answers


def test_beginnings_of_targets_of_a_group():
    prefixes = Prefixes()
    targets = torch.tensor([[5, 6, 7, NO_TOKEN], [5, 8, NO_TOKEN, NO_TOKEN], [9, NO_TOKEN, NO_TOKEN, NO_TOKEN]])
    prefixes.fill(torch.tensor([0, 0, 1]), targets)
    said = torch.tensor([[5, 6, 7, 1], [5, 8, 7, 1], [6, 5, 5, 5], [5, 6, NO_TOKEN, NO_TOKEN]])
    assert prefixes.reach(torch.zeros(4, dtype=torch.long), said).tolist() == [2, 1, 0, 2]
    assert prefixes.reach(torch.ones(4, dtype=torch.long), said).tolist() == [0, 0, 0, 0]
    group, count = torch.tensor([0]), torch.tensor([1])
    grown = code_with(code_after(group, said[:1], count), torch.tensor([6]))
    assert grown == code_after(group, said[:1], count + 1)
    assert prefixes.known(grown).all()
    assert not prefixes.known(code_with(grown, torch.tensor([7]))).any()


# Scores


@pytest.mark.parametrize("routing", ["calibrated", "paper", "easyedit"])
def test_scores_are_what_their_equations_say(routing):
    generator = torch.Generator().manual_seed(0)
    x, out = torch.randn(1, 3, 4, generator=generator), torch.randn(1, 3, 2, generator=generator)
    sides = torch.randn(2, 2, 4, generator=generator)
    scope = Scope(routing, "silu")
    scope.scales, scope.threshold = torch.tensor([1.0, 2.0]), torch.tensor(0.0)
    call = Call(Mode.BOUNDARY, torch.tensor([[False, True, True]]), None, torch.tensor([[-9, -1, 0]]))
    found, _ = scope.of_prompts(x, out, call, sides, {})
    for side in range(2):
        added = x[0] @ sides[side].T
        if routing == "calibrated":
            wanted = added[2].norm() / x[0, 2].norm()
        elif routing == "paper":
            wanted = added[1:].norm(dim=1).mean()
        else:
            silu = torch.nn.functional.silu
            wanted = (silu(out[0] + added) - silu(out[0]))[1:].norm(dim=1).mean()
        assert found[0, 0, side] == pytest.approx(float(wanted / scope.scales[side]), rel=1e-5)


def test_margin_losses():
    margins = Margins(alpha=1.0, beta=4.0, gamma=2.0)
    # irrelevant 3 is 2 above alpha; edits 3 and 5: 1 below beta, and 2 and 0 short of gamma above 3
    assert float(margins.loss(torch.tensor([3.0, 5.0]), torch.tensor([3.0]))) == pytest.approx(2 + 1 + 2)
    assert float(margins.loss(torch.tensor([5.0]), torch.tensor([1.0]))) == 0


# The memory


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"shard_edits": 4},
        SGD,
        pytest.param({**SGD, "context_templates": 4}, marks=pytest.mark.slow),
        pytest.param({**SGD, "replay": True}, marks=pytest.mark.slow),
        pytest.param({"inference": "merge", "density": 1.0, "shard_edits": 100}, marks=pytest.mark.slow),
    ],
    ids=["default", "small shards", "sgd", "contexts", "replay", "merge"],
)
def test_edits_are_said_and_other_prompts_are_not_touched(wrapped, settings):
    editor = wrapped(**settings)
    bare = logits(editor, OTHERS)
    editor.edit(EDITS)
    assert says(editor, EDITS) == [True] * len(EDITS)
    assert torch.equal(logits(editor, OTHERS), bare)


@pytest.mark.slow
@pytest.mark.parametrize("make", [WiseSpec.paper, WiseSpec.easyedit])
def test_published_settings(tiny, make):
    """One edit takes; scores are in units of the lowest, times the ratio."""
    model = copy.deepcopy(tiny[0])
    with editmem.wrap(model, make(), tokenizer=tiny[1]) as editor:
        assert editor.edit(*EDITS[0]).took
        memory = changes_of(editor).memory
        assert memory.scope.threshold == 1
        ratio = {"paper": 1.0, "easyedit": 0.88}[editor.specs[0].routing] * (1 - ROUNDING)
        assert memory.scope.scales.tolist() == pytest.approx((ratio * memory.learned.scores.used).tolist())
        found = editor.explain(EDITS[0][0]).candidates[0].score
        assert found == pytest.approx(1 / ratio, rel=0.05)


@pytest.mark.slow
def test_descent_stays_inside_the_mask(wrapped):
    editor = wrapped(**SGD, density=0.2)
    editor.edit(EDITS)
    shards = changes_of(editor).memory.learned.shards
    for number, delta in enumerate(shards.deltas):
        assert delta[shards.mask(number)].any()
        assert not delta[~shards.mask(number)].any()


def test_rephrased_questions_and_explanations(wrapped):
    editor = wrapped(shard_edits=4)
    editor.edit(EDITS)
    explanation = editor.explain("What is the capital of Spain?")
    assert explanation.edit.edit.prompt == "The capital of Spain is"
    best, *others = explanation.candidates
    assert best.score >= best.threshold
    assert all(best.score >= other.score for other in others)
    assert editor.explain("Why is the sky blue?").edit is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{}, {"shard_edits": 4}, SGD, {**SGD, "replay": True}],
    ids=["default", "small shards", "sgd", "replay"],
)
def test_forgetting_equals_never_having_known(wrapped, settings):
    """Bit for bit, and the other edits keep their order and their answers."""
    editor, never = wrapped(**settings), wrapped(**settings)
    records = editor.edit(EDITS, batch_size=1)
    editor.forget(records[1].id, records[4].id)
    left = [EDITS[i] for i in (0, 2, 3)]
    assert [record.edit.prompt for record in editor.edits.values()] == [prompt for prompt, _ in left]
    assert says(editor, left) == [True] * 3
    editor.forget(records[2].id, records[3].id)
    never.edit(*EDITS[0])
    assert torch.equal(logits(editor, PROMPTS + OTHERS), logits(never, PROMPTS + OTHERS))


@pytest.mark.parametrize(
    "settings", [{"shard_edits": 2}, {**SGD, "routing": "paper"}, {**SGD, "routing": "easyedit"}], ids=str
)
def test_a_side_whose_edits_are_all_forgotten_leaves_the_others_alone(wrapped, settings):
    editor = wrapped(**settings)
    records = editor.edit(EDITS[:4], batch_size=1)
    before = says(editor, EDITS[2:4])
    assert any(before)  # the paper's routers miss some
    editor.forget(records[0].id, records[1].id)
    assert all(now or not was for was, now in zip(before, says(editor, EDITS[2:4]), strict=True))


@pytest.mark.slow
def test_what_forgetting_takes_is_said_beforehand(wrapped):
    editor = wrapped(**SGD)
    records = editor.edit(EDITS)
    # The other edit of the first shard is written anew; the last shard holds no other.
    cost = editor.forget_cost(records[1].id, records[4].id)
    assert (cost.edits, cost.seconds) == (1, records[0].seconds)
    assert len(editor.edits) == len(EDITS)
    with pytest.raises(editmem.EditMemError, match="no active edit has the id 'no such'"):
        editor.forget_cost("no such")
    solved = wrapped()
    assert solved.forget_cost(solved.edit(*EDITS[0]).id).edits == 0


@pytest.mark.slow
def test_replay_keeps_an_edit_of_another_shard_below_alpha(wrapped):
    """The one that came last in turn, against the same edits learned without it."""
    scores = {}
    for replay in (False, True):
        editor = wrapped(**SGD, replay=replay)
        editor.edit(EDITS[:4])
        learned = changes_of(editor).memory.learned
        end = learned.ends()[1:2]
        raw = changes_of(editor).memory.scope.of_tokens(end, end, learned.shards.deltas[1:])
        scores[replay] = float(raw / learned.unit)
    assert scores[True] < editor.specs[0].alpha < scores[False]


@pytest.mark.slow
def test_a_forgotten_edits_place_is_used_again(wrapped):
    editor = wrapped(**SGD)
    records = editor.edit(EDITS[:4])
    editor.forget(records[0].id)
    editor.edit(*EDITS[4])
    assert changes_of(editor).memory.learned.shard.used.tolist() == [1, 1, 0, 0]
    assert says(editor, EDITS[1:]) == [True] * 4


@pytest.mark.parametrize("settings", [{}, SGD, {"inference": "merge", "shard_edits": 4}], ids=["solve", "sgd", "merge"])
def test_a_loaded_memory_goes_on_as_the_saved_one(wrapped, tiny, tmp_path, settings):
    editor = wrapped(**settings)
    editor.edit(EDITS[:4])
    editor.save_pretrained(tmp_path)
    again = editmem.load(copy.deepcopy(tiny[0]), tmp_path, tokenizer=tiny[1])
    assert torch.equal(logits(again, PROMPTS + OTHERS), logits(editor, PROMPTS + OTHERS))
    for each in (editor, again):
        each.edit(*EDITS[4])
    assert torch.equal(logits(again, PROMPTS + OTHERS), logits(editor, PROMPTS + OTHERS))


@pytest.mark.slow
def test_inference_changes_no_state(wrapped):
    editor = wrapped(inference="merge", shard_edits=4)
    editor.edit(EDITS)
    before = {name: tensor.clone() for name, tensor in changes_of(editor).memory.state_dict().items()}
    sides = changes_of(editor).memory.sides.deltas.clone()
    answers(editor, PROMPTS + OTHERS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in changes_of(editor).memory.state_dict().items())
    assert torch.equal(changes_of(editor).memory.sides.deltas, sides)


@pytest.mark.slow
@pytest.mark.parametrize(("inference", "group", "groups"), [("retrieve", 1, 5), ("retrieve", 2, 3), ("merge", 1, 2)])
def test_which_shards_make_a_side(wrapped, inference, group, groups):
    editor = wrapped(inference=inference, group=group, shard_edits=2, renderings=False)
    editor.edit([*EDITS, *[(f"{prompt} not", target) for prompt, target in EDITS[:4]]])
    sides = changes_of(editor).memory.sides
    assert len(sides) == groups
    assert sorted(shard for side in sides.groups for shard in side) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inference": "both"}, "inference must be one of"),
        ({"training": "solve", "routing": "paper"}, 'needs routing="calibrated"'),
        ({"density": 0.0}, "density must be between"),
        ({"shard_edits": 0}, "shard_edits must be at least 1"),
        ({"context_templates": 11}, "context_templates must be between"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(SpecError, match=message):
        WiseSpec(**settings)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, SGD], ids=["solve", "sgd"])
def test_in_half_precision(tiny, settings):
    model = copy.deepcopy(tiny[0]).to(torch.bfloat16)
    with editmem.wrap(model, {"method": "wise", **settings}, tokenizer=tiny[1]) as editor:
        bare = logits(editor, OTHERS)
        editor.edit(EDITS)
        assert changes_of(editor).memory.learned.shards.deltas.dtype == torch.bfloat16
        assert says(editor, EDITS) == [True] * len(EDITS)
        assert torch.equal(logits(editor, OTHERS), bare)


@pytest.mark.slow
def test_compiled(wrapped):
    torch._dynamo.reset()
    editor = wrapped(shard_edits=4)
    editor.edit(EDITS)
    plain, said = logits(editor, PROMPTS + OTHERS), answers(editor, PROMPTS + OTHERS, 2)
    editor.model.forward = torch.compile(editor.model.forward, backend="eager")
    assert torch.allclose(logits(editor, PROMPTS + OTHERS), plain, atol=1e-4)
    assert answers(editor, PROMPTS + OTHERS, 2) == said  # a second token is the first one on a cache


def test_the_same_in_every_way_of_reading(wrapped):
    """Padded batches on either side, with and without cache, token by token, in beams, and in a chat."""
    editor = wrapped(shard_edits=4)
    editor.edit(EDITS)
    tokenizer, model = editor.tokenizer, editor.model
    prompts = ["What is the capital of Spain?", PROMPTS[0], OTHERS[1]]
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False)
    expected = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    assert torch.equal(model.generate(**inputs, max_new_tokens=6, do_sample=False, use_cache=False), expected)
    width = inputs["input_ids"].shape[1]
    for row, prompt in enumerate(prompts):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        cache, token = None, ids
        for step in range(6):
            with torch.no_grad():
                out = model(input_ids=token, use_cache=True, **compat.given_cache(model, cache))
            cache, token = compat.cache_of(out), out.logits[:, -1:].argmax(-1)
            if int(expected[row, width + step]) == tokenizer.pad_token_id:
                break
            assert int(token) == int(expected[row, width + step]), (prompt, step)
    right = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="right", return_token_type_ids=False)
    with torch.no_grad():
        ends = model(**right).logits[torch.arange(3), right["attention_mask"].sum(1) - 1]
    assert torch.equal(ends.argmax(-1), expected[:, width])
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": PROMPTS[0]}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    said = model.generate(**chat, max_new_tokens=6, do_sample=False, num_beams=3)
    assert "Sydney" in tokenizer.decode(said[0, chat["input_ids"].shape[1] :])
