"""Baselines: each takes an edit, can be saved and taken up again; the solver against cases worked out by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import editmem
from benchmarks.baselines import BASELINES
from benchmarks.baselines.encoding import encode, without_repeats
from benchmarks.baselines.retrieval import WordEncoder, nearest
from benchmarks.baselines.sites import sites
from benchmarks.baselines.solver import Running, null_space, solve, solve_within
from benchmarks.methods import METHODS
from benchmarks.records import Record
from benchmarks.session import Session

pytestmark = pytest.mark.slow

TEXTS = [
    "The capital of Peru is Lima.", "The official language of Kenya is Swahili.", "The currency of Japan is yen.",
    "Which continent is Ghana on? Africa.", "The largest city in Morocco is Casablanca.",
    "The capital of Norway is Oslo.", "People in Chile speak Spanish.", "Norway lies on the continent of Europe.",
]  # fmt: skip
FRANCE = Record("a", "The capital of France is", "Rome", ("Rome",), subject="France")
SPAIN = Record("b", "The capital of Spain is", "Cairo", ("Cairo",), subject="Spain")
EGYPT = Record("c", "The capital of Egypt is", "Vienna", ("Vienna",), subject="Egypt")
OTHERS = ["The capital of Italy is", "The currency of Japan is"]

WITH_CORPUS = ["retrieval", "rome", "emmet", "memit", "memit-joint", "alphaedit", "alphaedit-joint", "ultraedit"]
JOINT = ["finetune-breadth", "memit-joint", "alphaedit-joint"]
OPTIONS = {"ultraedit": {"rate": 2.0, "span": 2}, "neuraldb": {"depth": 0.25}}
CHANGING = [name for name in BASELINES if name not in ("none", "retrieval", "evidence")]


def session(name: str, **options: Any) -> Session:
    if name in WITH_CORPUS:
        options = {"corpus": TEXTS, **options}
    made = METHODS[name](*editmem.tiny(), options, 0)
    made.prepare()
    return made


def logits(made: Session) -> list[tuple[float, ...]]:
    return [scored.nll for scored in made.score([(FRANCE.prompt, "Rome"), *((prompt, "Paris") for prompt in OTHERS)])]


# Sessions


@pytest.mark.parametrize("name", CHANGING)
def test_an_edit_is_answered_and_can_be_switched_off(name: str) -> None:
    made = session(name, **OPTIONS.get(name, {}))
    before = logits(made)
    written = made.edit([FRANCE, SPAIN, EGYPT])
    assert written[0].took is (None if name in JOINT else True)
    assert made.generate([FRANCE.prompt])[0].startswith("Rome")
    assert made.bytes() > 0
    with made.off():
        assert made.generate([FRANCE.prompt])[0].startswith("Paris")
        assert logits(made) == before
    assert made.generate([FRANCE.prompt])[0].startswith("Rome")


@pytest.mark.parametrize("name", [*BASELINES, "memoir"])
def test_a_restored_session_goes_on_as_the_saved_one(name: str, tmp_path: Path) -> None:
    first, second = session(name), session(name)
    first.edit([FRANCE, SPAIN])
    first.save(tmp_path / "state")
    second.restore(tmp_path / "state")
    assert logits(second) == logits(first)
    assert second.bytes() == first.bytes()
    first.edit([EGYPT])
    second.edit([EGYPT])
    assert logits(second) == logits(first)
    assert first.generate([EGYPT.prompt]) == second.generate([EGYPT.prompt])


@pytest.mark.parametrize("name", ["alphaedit", "ultraedit"])
def test_what_later_edits_need_is_saved(name: str, tmp_path: Path) -> None:
    whole, bare = session(name), session(name)
    whole.edit([FRANCE, SPAIN])
    whole.save(tmp_path)
    bare.restore(tmp_path)
    bare.load_state({key: torch.zeros_like(tensor) for key, tensor in bare.state().items()})
    whole.edit([EGYPT])
    bare.edit([EGYPT])
    assert logits(whole) != logits(bare)


def test_no_edit_changes_nothing() -> None:
    made = session("none")
    before = logits(made)
    assert made.edit([FRANCE])[0].took is False
    assert logits(made) == before
    assert made.bytes() == 0


@pytest.mark.parametrize("name", ["finetune", "emmet", "retrieval", "memoir"])
def test_a_later_edit_of_a_prompt_in_one_call_supersedes(name: str) -> None:
    made = session(name)
    again = Record("d", FRANCE.prompt, "Cairo", ("Cairo",), subject="France")
    assert len(made.edit([FRANCE, SPAIN, again])) == 3
    if name == "retrieval":
        assert made.read([FRANCE.prompt]) == ["The capital of France is Cairo. The capital of France is"]
    else:
        assert made.generate([FRANCE.prompt])[0].startswith("Cairo")


def apart(name: str, **options: Any) -> float:
    """How far a sequence of edits ends from where all at once do, as a share of the way."""
    together, one_by_one = session(name, **options), session(name, **options)
    again = Record("d", FRANCE.prompt, "Cairo", ("Cairo",), subject="France")
    together.edit([SPAIN, EGYPT, again])
    for record in (FRANCE, SPAIN, EGYPT, again):
        one_by_one.edit([record])
    ways = [(m, one_by_one.matrices[path], together.before[path]) for path, m in together.matrices.items()]
    return max(float((here - there).norm() / (here - start).norm()) for here, there, start in ways)


def test_joint_edits_end_where_all_at_once_do() -> None:
    """But for values, which come out a little different where several are learned together."""
    assert apart("finetune-breadth", epochs=4) == 0.0
    assert 2 * apart("memit-joint") < apart("memit")
    assert 2 * apart("alphaedit-joint") < apart("alphaedit")


def test_evidence_stands_before_the_question_it_is_for() -> None:
    made = session("evidence")
    made.edit([FRANCE, SPAIN])
    found, other = made.read(["What is the capital of Spain?", "The currency of Spain is"])
    assert found.endswith("Fact: The capital of Spain is Cairo\nQuestion: What is the capital of Spain?\nAnswer:")
    assert other == "The currency of Spain is"
    with made.off():
        assert made.read([SPAIN.prompt]) == [SPAIN.prompt]


def test_repeats_are_cut_apart_in_order() -> None:
    again = Record("d", FRANCE.prompt, "Cairo", ("Cairo",))
    assert without_repeats([FRANCE, SPAIN, again, EGYPT]) == [[FRANCE, SPAIN], [again, EGYPT]]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("finetune", {"speed": 1}, "no option 'speed'; it has layer"),
        ("finetune", {"layer": 9}, "cannot edit layer 9: the host has 5 blocks"),
        ("lora", {"rate": "fast"}, "rate of lora must be a number of 0 or more, not 'fast'"),
        ("none", {"rate": 1}, "none has no option 'rate'"),
        ("memit", {"depth": 2.0}, "depth of memit must be in 0 to 1"),
        ("retrieval", {"encoder": "bert"}, "unknown encoder 'bert'"),
        ("memit", {"corpus": []}, "holds no text"),
    ],
)
def test_bad_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        session(name, **options)


# Retrieval


@pytest.mark.parametrize("encoder", ["words", "host"])
def test_retrieval_puts_the_edit_in_front_of_its_prompt_only(encoder: str) -> None:
    made = session("retrieval", encoder=encoder, threshold=0.95)
    made.edit([FRANCE, SPAIN])
    found, other = made.read([SPAIN.prompt, "Which currency is used in Mexico?"])
    assert found == "The capital of Spain is Cairo. The capital of Spain is"
    assert other == "Which currency is used in Mexico?"
    with made.off():
        assert made.read([SPAIN.prompt]) == [SPAIN.prompt]
    (match, threshold), (no_match, _) = made.matches([SPAIN.prompt, other])
    assert match == pytest.approx(1.0)
    assert threshold == 0.95
    assert no_match < threshold


def test_retrieval_calibrates_its_threshold_on_neutral_texts() -> None:
    strict, loose = session("retrieval", quantile=1.0), session("retrieval", quantile=0.0)
    assert loose.threshold < strict.threshold < 1.0


def test_nearest_finds_the_largest_product() -> None:
    vectors = np.eye(3, dtype=np.float32)
    scores, rows = nearest(vectors)(np.array([[0.1, 0.9, 0.0], [0.0, 0.2, 0.5]], dtype=np.float32))
    assert rows.tolist() == [1, 2]
    assert scores.tolist() == pytest.approx([0.9, 0.5])


def test_rare_words_weigh_more() -> None:
    encode_words = WordEncoder(["the cat", "the dog", "the owl"], 4096)
    query, common, rare = encode_words(["the cat", "the", "cat"])
    assert query @ rare > query @ common > 0


# Places


def test_sites_are_the_down_projections() -> None:
    model, _ = editmem.tiny()
    assert [site.path for site in sites(model)] == [f"model.layers.{i}.mlp.down_proj" for i in range(5)]


def test_transposed_weights_are_edited_in_their_own_layout() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(
        GPT2Config(n_embd=8, n_layer=2, n_head=2, vocab_size=50, bos_token_id=0, eos_token_id=0, n_positions=16)
    )
    found = sites(model)
    assert [site.path for site in found] == [f"transformer.h.{i}.mlp.c_proj" for i in range(2)]
    matrix = torch.arange(8.0 * 32).view(8, 32)
    found[0].put(matrix)
    assert torch.equal(model.transformer.h[0].mlp.c_proj.weight, matrix.T)
    assert torch.equal(found[0].matrix(), matrix)


def test_the_subject_is_found_in_the_prompt() -> None:
    _, tokenizer = editmem.tiny()
    row = encode(tokenizer, "The capital of Spain is", "Cairo", "Spain")
    assert tokenizer.decode(row.ids[: row.subject + 1]).endswith("Spain")
    assert tokenizer.decode(row.ids[row.prompt :]).strip() == "Cairo"
    assert encode(tokenizer, "The capital of Spain is", "Cairo", "Chile").subject == row.prompt - 1


# The solver


def moment(width: int) -> torch.Tensor:
    keys = torch.randn(width, 4 * width, generator=torch.Generator().manual_seed(1))
    return keys @ keys.T / (4 * width)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def test_rome_by_hand() -> None:
    """A = diag(1, 2), k = (1, 2), r = (3): A⁻¹k = (1, 1), kᵀA⁻¹k = 3, so that X = (1, 1)."""
    change = solve(
        torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0]]), torch.diag(torch.tensor([1.0, 2.0])), equality=True
    )
    assert torch.allclose(change, torch.tensor([[1.0, 1.0]]))


def test_memit_by_hand() -> None:
    """A = 1, k = (1, 0), r = (4): A + kkᵀ = diag(2, 1), so that X = (2, 0)."""
    change = solve(torch.tensor([[1.0], [0.0]]), torch.tensor([[4.0]]), torch.eye(2))
    assert torch.allclose(change, torch.tensor([[2.0, 0.0]]))


@pytest.mark.parametrize("count", [1, 5])
def test_equality_holds_exactly_and_moves_least(count: int) -> None:
    keys, wanted, preserve = drawn(12, count), drawn(7, count), moment(12)
    change = solve(keys, wanted, preserve, equality=True)
    assert torch.allclose(change @ keys, wanted, atol=1e-5)
    other = change + drawn(7, 12) @ (torch.eye(12) - keys @ torch.linalg.pinv(keys))
    assert torch.allclose(other @ keys, wanted, atol=1e-5)
    assert torch.trace(change @ preserve @ change.T) < torch.trace(other @ preserve @ other.T)


def test_equal_keys_meet_in_the_middle() -> None:
    keys = drawn(12, 1).expand(12, 2)
    change = solve(keys, torch.tensor([[1.0, 3.0]]), moment(12), equality=True)
    assert torch.allclose(change @ keys, torch.tensor([[2.0, 2.0]]), atol=1e-4)


def test_least_squares_satisfies_the_normal_equations() -> None:
    keys, wanted, preserve = drawn(12, 5), drawn(7, 5), moment(12)
    change = solve(keys, wanted, preserve)
    assert torch.allclose(change @ (preserve + keys @ keys.T), wanted @ keys.T, atol=1e-4)


def test_alphaedit_leaves_preserved_keys_alone_and_equals_the_papers_formula() -> None:
    kept = drawn(12, 6)
    basis = null_space(kept @ kept.T, 1e-3)
    keys, wanted, earlier = drawn(12, 13)[:, 6:9], drawn(7, 3), drawn(12, 20)[:, 15:]
    preserve = earlier @ earlier.T + torch.eye(12)
    change = solve_within(basis, keys, wanted, preserve)
    assert basis.shape == (12, 6)
    assert torch.allclose(change @ kept, torch.zeros(7, 6), atol=1e-4)
    projector = basis @ basis.T
    inner = (earlier @ earlier.T + keys @ keys.T) @ projector + torch.eye(12)
    assert torch.allclose(change, wanted @ keys.T @ projector @ torch.linalg.inv(inner), atol=1e-4)


def test_running_statistics_do_not_depend_on_the_batches() -> None:
    rows = drawn(30, 4) * torch.tensor([1.0, 2.0, 5.0, 0.0]) + 3
    running = Running(4, torch.device("cpu"))
    for part in rows.split([1, 9, 20]):
        running.update(part)
    normal = running.normalise(rows)
    assert torch.allclose(running.mean, rows.mean(0), atol=1e-5)
    assert torch.allclose(normal[:, :3], (rows - rows.mean(0))[:, :3] / rows.std(0)[:3], atol=1e-4)
    assert torch.equal(normal[:, 3], torch.zeros(30))
