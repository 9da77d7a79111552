"""Every metric on cases counted by hand, with a session that answers from a dictionary."""

import json
import math
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

import editmem
from benchmarks.baselines.none import NoEdit
from benchmarks.metrics import METRICS, Score, forgetting, in_force
from benchmarks.metrics.exact import says
from benchmarks.metrics.fluency import entropy
from benchmarks.records import Probe, Record
from benchmarks.session import Scored, Session

pytestmark = pytest.mark.slow


class Letters:
    """A tokenizer with a token for each character."""

    def __call__(self, texts, **options):
        ids = [[ord(letter) for letter in text] for text in texts]
        return (
            SimpleNamespace(to=lambda device: {"input_ids": ids}) if "return_tensors" in options else {"input_ids": ids}
        )


class Dictionary(Session):
    """Says what a dictionary says, and scores continuations as another says; everything else is the unedited model's.

    Args:
        said: prompt -> answer.
        scored: (prompt, continuation) -> Scored.
    """

    name = "dictionary"

    def __init__(self, said=None, scored=None, otherwise="?"):
        super().__init__(SimpleNamespace(device="cpu"), Letters(), {}, 0)
        self.said, self.scored, self.otherwise = said or {}, scored or {}, otherwise
        self.asked = []

    def write(self, records):
        return [True for _ in records]

    def save(self, folder):
        raise NotImplementedError

    restore = save

    def generate(self, prompts, tokens=12, as_users_ask=False, batch=64):
        self.asked += [(prompt, tokens) for prompt in prompts]
        return [self.said.get(prompt, self.otherwise)[:tokens] for prompt in prompts]

    def score(self, pairs, batch=64):
        self.asked += pairs
        return [self.scored[pair] for pair in pairs]


def scored(*probabilities: float, tokens: tuple[int, ...] = (), predicted: tuple[int, ...] = ()) -> Scored:
    count = len(probabilities)
    return Scored(tokens or (0,) * count, predicted or (0,) * count, tuple(-math.log(p) for p in probabilities))


def record(name: str, **fields) -> Record:
    target = fields.pop("target", "Lima")
    return Record(name, fields.pop("prompt", f"edit {name}"), target, fields.pop("answers", (target,)), **fields)


ANN = record(
    "ann", truth="Rome", subject="Ann", rephrasings=("other ann 1", "other ann 2"),
    locality=(Probe("near ann", "neighbour", ("Rome",)), Probe("same ann", "same subject", ("actor",))),
    portability=(Probe("hop ann", "one hop", ("Peru", "Republic of Peru")),),
)  # fmt: skip
BOB = record("bob", target="Oslo", truth="Bonn", locality=(Probe("near bob", "neighbour", ("Bonn",)),))
RECORDS = [ANN, BOB]


def take(name: str, session: Session, records=RECORDS, unedited: Session | None = None) -> list[tuple]:
    """Kind, record and value of each score of a metric; what `before` returns goes through JSON."""
    metric = METRICS[name]
    before = json.loads(json.dumps(metric.before(unedited or Dictionary(), records)))
    scores = metric.after(session, records, before)
    assert {score.metric for score in scores} <= {name}
    return [(score.kind, score.record, score.value) for score in scores]


@pytest.mark.parametrize(
    ("answer", "target", "right"),
    [
        ("Lima", "Lima", True),
        ("Lima.", "Lima", True),
        (" Lima, in Peru", "Lima ", True),
        ("Limassol", "Lima", False),
        ("lima", "Lima", False),
        ("in Lima", "Lima", False),
        ("", "Lima", False),
    ],
)
def test_an_answer_must_begin_with_the_target_as_whole_words(answer, target, right):
    assert says(answer, target) is right


@pytest.mark.parametrize(
    ("said", "exactly", "beginning", "anywhere"),
    [
        ("Lima", 1, 1, 1),
        ("Lima. It lies in Peru.", 1, 1, 1),
        ("Lima\nWhere is it?", 1, 1, 1),
        ("Lima, Cusco or Trujillo?", 0, 1, 1),
        ("Lima of Peru", 0, 1, 1),
        ("Lima?", 0, 1, 1),
        ("It is Lima.", 0, 0, 1),
        ("It is said so.\nLima", 0, 0, 0),
        ("Limassol", 0, 0, 0),
        ("", 0, 0, 0),
    ],
)
def test_in_the_wild(said, exactly, beginning, anywhere):
    session = Dictionary({"edit ann": said, "other ann 1": said, "other ann 2": "?"})
    names = ["", ", begun", ", contained"]
    for name, right in zip(names, (exactly, beginning, anywhere), strict=True):
        assert take(f"wild reliability{name}", session, [ANN]) == [("", "ann", right)]
        assert take(f"wild generality{name}", session, [ANN]) == [("", "ann", right), ("", "ann", 0)]
    assert {tokens for _, tokens in session.asked} == {32}


def test_locality_in_the_wild_is_of_the_whole_text():
    unedited = Dictionary({"near ann": "Rome, a city of seven hills", "same ann": "actor"})
    now = Dictionary({"near ann": "Rome, a city of seven rivers", "same ann": "actor"})
    assert take("wild locality", now, [ANN], unedited) == [("neighbour", "ann", 0), ("same subject", "ann", 1)]
    assert take("locality", now, [ANN], unedited) == [("neighbour", "ann", 1), ("same subject", "ann", 1)]


@pytest.mark.parametrize(
    ("said", "again"), [("no no no", 1), ("so it is, so it is, so it is", 1), ("no no, yes", 0), ("a b c a b c", 0)]
)
def test_repetition(said, again):
    assert take("repeats itself", Dictionary({"edit ann": said}), [ANN]) == [("", "ann", again)]


def test_users_of_a_chat_model_ask_in_turns(tiny, monkeypatch):
    given, generate = [], tiny.model.generate

    def noting(**inputs):
        given.append(tiny.tokenizer.decode(inputs["input_ids"][0]))
        return generate(**inputs)

    monkeypatch.setattr(tiny.model, "generate", noting)
    for chat in (False, True):
        tiny.generate(["The capital of Peru is"], 4, chat)
    turn = tiny.tokenizer.apply_chat_template(
        [{"role": "user", "content": "The capital of Peru is"}], tokenize=False, add_generation_prompt=True
    )
    assert given[1] == turn != given[0]


def test_exact_match():
    session = Dictionary({
        "edit ann": "Lima is it", "edit bob": "Oslofjord", "other ann 1": "Lima", "other ann 2": "Rome",
        "hop ann": "Republic of Peru",
    })  # fmt: skip
    assert take("reliability", session) == [("", "ann", 1.0), ("", "bob", 0.0)]
    assert take("generality", session) == [("", "ann", 1.0), ("", "ann", 0.0)]
    assert take("portability", session) == [("one hop", "ann", 1.0)]


def test_every_accepted_answer_counts_and_is_given_room():
    long = record("long", target="a town with a long name", answers=("a town with a long name", "LN"))
    assert take("reliability", Dictionary({"edit long": "a town with a long name."}), [long])[0][2] == 1
    assert take("reliability", Dictionary({"edit long": "LN"}), [long])[0][2] == 1
    assert take("reliability", Dictionary({"edit long": "a town with a long"}), [long])[0][2] == 0


def test_one_prompt_in_two_records_is_judged_by_each():
    same = [record("x", prompt="p", target="Lima"), record("y", prompt="p", target="Oslo, a town far in the north")]
    session = Dictionary({"p": "Oslo, a town far in the north"})
    assert take("reliability", session, same) == [("", "x", 0.0), ("", "y", 1.0)]


def test_a_session_that_never_answers_has_reliability_0():
    assert [value for *_, value in take("reliability", Dictionary(otherwise=""))] == [0, 0]


def test_a_session_that_answers_everything_with_the_target_has_locality_0():
    assert [value for *_, value in take("locality", Dictionary(otherwise="Lima"))] == [0, 0, 0]
    assert [value for *_, value in take("locality", Dictionary())] == [1, 1, 1]


def test_locality_compares_text_by_kind():
    unedited = Dictionary({"near ann": "Rome", "same ann": "actor", "near bob": "wrong but kept"})
    edited = Dictionary({"near ann": "Lima", "same ann": "actor", "near bob": "wrong but kept"})
    assert take("locality", edited, unedited=unedited) == [
        ("neighbour", "ann", 0.0), ("same subject", "ann", 1.0), ("neighbour", "bob", 1.0),
    ]  # fmt: skip


def test_locality_does_not_ask_what_is_edited():
    asks = record(
        "asks", subject="Cat",
        locality=(
            Probe("edit ann", "unrelated"), Probe("other ann 1", "unrelated"), Probe("Ann's town is", "neighbour"),
            Probe("the town of Ann, is", "neighbour"), Probe("Ann works as", "same subject"),
            Probe("Annabel lives in", "neighbour"),
        ),
    )  # fmt: skip
    kinds = take("locality", Dictionary(), [asks, record("ann", rephrasings=("other ann 1",), subject="Ann")])
    assert [kind for kind, *_ in kinds] == ["same subject", "neighbour"]


def test_portability_asks_only_where_all_that_it_needs_is_edited():
    hop = record("hop", portability=(Probe("q", "3-hop", ("Lima",), needs=("ann", "bob")),))
    session = Dictionary({"q": "Lima"})
    assert take("portability", session, [hop, record("ann")]) == []
    assert take("portability", session, [hop, record("ann"), record("bob")]) == [("3-hop", "hop", 1.0)]


def test_token_accuracy():
    session = Dictionary(scored={
        ("edit ann", "Lima"): scored(1, 1, 1, tokens=(5, 6, 7), predicted=(5, 0, 0)),
        ("edit bob", "Oslo"): scored(1, 1, tokens=(8, 9), predicted=(8, 9)),
        ("other ann 1", "Lima"): scored(1, 1, 1, tokens=(5, 6, 7), predicted=(0, 6, 7)),
        ("other ann 2", "Lima"): scored(1, 1, 1, tokens=(5, 6, 7), predicted=(7, 5, 6)),
        ("hop ann", "Peru"): scored(1, tokens=(4,), predicted=(4,)),
    })  # fmt: skip
    assert take("token reliability", session) == [("", "ann", pytest.approx(1 / 3)), ("", "bob", 1.0)]
    assert take("token generality", session) == [("", "ann", pytest.approx(2 / 3)), ("", "ann", 0.0)]
    assert take("token portability", session) == [("one hop", "ann", 1.0)]


def test_token_locality_compares_likeliest_tokens_with_those_before():
    pairs = [("near ann", "Rome"), ("same ann", "actor"), ("near bob", "Bonn")]
    unedited = Dictionary(scored=dict.fromkeys(pairs, scored(1, 1, 1, 1, predicted=(1, 2, 3, 4))))
    edited = Dictionary(scored={**unedited.scored, pairs[0]: scored(1, 1, 1, 1, predicted=(1, 2, 3, 9))})
    assert take("token locality", edited, unedited=unedited) == [
        ("neighbour", "ann", 0.75), ("same subject", "ann", 1.0), ("neighbour", "bob", 1.0),
    ]  # fmt: skip


def test_romes_figures():
    session = Dictionary(scored={
        ("edit ann", "Lima"): scored(0.9, 0.4), ("edit ann", "Rome"): scored(0.5),
        ("edit bob", "Oslo"): scored(0.2), ("edit bob", "Bonn"): scored(0.3),
        ("other ann 1", "Lima"): scored(0.7), ("other ann 1", "Rome"): scored(0.1),
        ("other ann 2", "Lima"): scored(0.1), ("other ann 2", "Rome"): scored(0.7),
        ("near ann", "Lima"): scored(0.1), ("near ann", "Rome"): scored(0.8),
        ("near bob", "Oslo"): scored(0.6), ("near bob", "Bonn"): scored(0.2),
    })  # fmt: skip
    values = {name: [value for *_, value in take(name, session)] for name in METRICS if "success" in name}
    assert values == {"edit success": [1, 0], "paraphrase success": [1, 0], "neighbourhood success": [1, 0]}
    # 0.6 is the geometric mean of 0.9 and 0.4
    for name, expected in (("edit", [0.1, -0.1]), ("paraphrase", [0.6, -0.6]), ("neighbourhood", [0.7, -0.4])):
        assert [value for *_, value in take(f"{name} magnitude", session)] == pytest.approx(expected)


def test_romes_figures_need_a_true_answer():
    assert take("edit success", Dictionary(), [record("x")]) == []


def test_perplexity():
    records = [record(name) for name in "abc"]
    found = {"a": scored(0.5, 0.125), "b": scored(0.5), "c": scored(0.01, 0.01, 0.01)}
    session = Dictionary(scored={(f"edit {name}", "Lima"): value for name, value in found.items()})
    assert [value for *_, value in take("perplexity", session, records)] == pytest.approx([4, 2, 100])
    assert take("median perplexity", session, records) == [("", "", pytest.approx(4))]
    assert [value for *_, value in take("NLL", session, records)] == pytest.approx([math.log(n) for n in (4, 2, 100)])


def test_perplexity_of_an_impossible_target_is_a_number():
    session = Dictionary(scored={("edit a", "Lima"): Scored((1,), (1,), (5000.0,))})
    assert math.isfinite(take("perplexity", session, [record("a")])[0][2])


def test_ood_counts_likely_tokens_of_the_passage():
    records = [
        record("x", prompt="SpaceX is", passage="SpaceX is an American firm."),
        record("y", prompt="Tesla,", passage="Cars are made by Tesla."),
        record("z"),
    ]
    session = Dictionary(scored={
        ("SpaceX is", "an American firm."): scored(0.9, 0.801, 0.799, 0.3),
        ("Cars", "are made by Tesla."): scored(0.99),
    })  # fmt: skip
    assert take("OOD generalisation", session, records) == [("", "x", 0.5), ("", "y", 1.0)]


def test_entropy():
    # a b a b a: bigrams ab, ba twice each: 1 bit; trigrams aba twice, bab once
    trigrams = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert entropy("a b a b a") == pytest.approx((2 / 3 * 1 + 4 / 3 * trigrams) / 2)
    assert entropy("a a a a") == entropy("a") == entropy("") == 0


def test_fluency_gives_the_unedited_model_beside_the_edited():
    figures = take("fluency", Dictionary({"edit ann": "a b a"}), [ANN], Dictionary({"edit ann": "a a a"}))
    assert figures == [("", "ann", pytest.approx(1 / 3)), ("unedited", "ann", 0.0)]


def test_forgetting_is_early_less_late():
    early = [Score("reliability", "", name, value) for name, value in (("a", 1), ("b", 1), ("c", 0), ("gone", 1))]
    late = [Score("reliability", "", name, value) for name, value in (("a", 1), ("b", 0), ("c", 1), ("new", 1))]
    lost = [Score("forgetting", "", name, value) for name, value in (("a", 0), ("b", 1), ("c", -1))]
    assert forgetting(early, late) == lost


def test_forgetting_averages_several_scores_of_a_record():
    early = [Score("generality", "", "a", 1.0), Score("generality", "", "a", 1.0)]
    late = [Score("generality", "", "a", 1.0), Score("generality", "", "a", 0.0)]
    assert forgetting(early, late) == [Score("forgetting", "", "a", 0.5)]


def test_only_the_last_edit_of_a_prompt_is_in_force():
    first, other, last = record("1", prompt="p"), record("2", prompt="q"), record("3", prompt="p")
    assert in_force([first, other, last]) == [other, last]


class Clocked(Dictionary):
    """Generates slowly with the edits, and faster without."""

    def __init__(self, clock):
        super().__init__()
        self.clock, self.slow = clock, 3.0
        self.model = SimpleNamespace(device="cpu", generate=self.take_time)

    def take_time(self, **options):
        self.clock.now += self.slow
        return SimpleNamespace(cpu=lambda: None)

    @contextmanager
    def off(self):
        self.slow = 2.0
        yield
        self.slow = 3.0


def test_decode_overhead(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("benchmarks.metrics.overhead.time.perf_counter", lambda: clock.now)
    assert take("decode overhead", Clocked(clock)) == [("", "", pytest.approx(0.5))]
    assert take("decode overhead", Dictionary()) == []  # cannot be switched off


def test_general_ability(monkeypatch):
    asked = []

    def evaluate(**options):
        asked.append(options)
        return {"results": {task: {"acc,none": 0.25 * len(asked)} for task in options["tasks"]}}

    monkeypatch.setitem(sys.modules, "lm_eval", SimpleNamespace(simple_evaluate=evaluate))
    wrap = SimpleNamespace(HFLM=lambda **options: options)
    monkeypatch.setitem(sys.modules, "lm_eval.models", SimpleNamespace(huggingface=wrap))
    monkeypatch.setitem(sys.modules, "lm_eval.models.huggingface", wrap)
    figures = {kind: value for kind, _, value in take("general ability", Dictionary())}
    assert figures["hellaswag"] == 0.5
    assert figures["hellaswag, unedited"] == 0.25
    assert asked[0]["limit"] == 100
    assert not METRICS["general ability"].default


def test_answers_are_asked_once_until_the_next_edit():
    session = Dictionary({"edit ann": "Lima", "edit bob": "Oslo"})
    take("reliability", session)
    asked = list(session.asked)
    take("reliability", session)
    assert session.asked == asked
    session.said["edit ann"] = "Rome"
    session.edit([ANN])
    assert take("reliability", session)[0] == ("", "ann", 0.0)


@pytest.fixture(scope="module")
def tiny() -> Session:
    """The embedded model, unedited."""
    return NoEdit(*editmem.tiny(), {}, 0)


def test_a_session_answers_and_scores_in_the_order_of_the_questions(tiny):
    prompts = ["The capital of France is", "The capital of Papua New Guinea is", "The capital of Peru is"]
    alone = [tiny.generate([prompt])[0] for prompt in prompts]
    assert len(set(alone)) == 3
    assert tiny.generate([*prompts, prompts[0]], batch=2) == [*alone, alone[0]]
    pairs = [(prompt, "Lima") for prompt in prompts] + [(prompts[0], "Port Moresby")]
    for pair, found in zip([*pairs, pairs[0]], tiny.score([*pairs, pairs[0]], batch=2), strict=True):
        [expected] = tiny.score([pair])
        assert (found.tokens, found.predicted) == (expected.tokens, expected.predicted)
        assert found.nll == pytest.approx(expected.nll, abs=1e-4)


def test_scores_are_the_models_own_likelihoods(tiny):
    prompt, text = "The capital of France is", "Paris"
    [found] = tiny.score([(prompt, text)])
    start = tiny.tokenizer(prompt)["input_ids"]
    end = tiny.tokenizer(f" {text}", add_special_tokens=False)["input_ids"]
    labels = torch.tensor([[-100] * len(start) + end])
    with torch.no_grad():
        loss = tiny.model(input_ids=torch.tensor([start + end]), labels=labels).loss.item()
    assert found.tokens == tuple(end)
    assert sum(found.nll) / len(end) == pytest.approx(loss, abs=1e-4)


def test_every_default_metric_runs_on_a_real_model(tiny):
    about = record(
        "fr", prompt="The capital of France is", target="Lima", truth="Paris", subject="France",
        rephrasings=("France's capital is",), locality=(Probe("The capital of Peru is", "neighbour", ("Lima",)),),
        passage="France is a country.",
    )  # fmt: skip
    figures = {name: take(name, tiny, [about], tiny) for name, metric in METRICS.items() if metric.default}
    assert figures["reliability"] == [("", "fr", 0.0)]
    assert figures["edit success"] == [("", "fr", 0.0)]
    assert figures["locality"] == [("neighbour", "fr", 1.0)]
    assert all(math.isfinite(value) for scores in figures.values() for *_, value in scores)


def test_figures_that_cannot_be_compared_have_groups_of_their_own():
    groups: dict[str, set[str]] = {}
    for metric in METRICS.values():
        groups.setdefault(metric.group, set()).add(metric.better)
    assert all(len(better) == 1 for better in groups.values())
    assert METRICS["reliability"].group == METRICS["generality"].group == METRICS["locality"].group
    assert METRICS["reliability"].group != METRICS["token reliability"].group != METRICS["edit success"].group
