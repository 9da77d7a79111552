"""Every operation against its reference: on the CPU, and in Triton's interpreter; compiled ahead of time for GPUs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version

from editmem import kernels
from editmem.kernels import cpu, ops, reference

pytest.importorskip("triton")
import triton

from editmem.kernels import triton_kernels as gpu

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
POISON = 77
few = settings(max_examples=15, deadline=None)


@pytest.fixture(params=["cpu", "cpu without faiss", "triton"])
def route(request, monkeypatch):
    if request.param == "cpu without faiss":
        monkeypatch.setattr(cpu, "_faiss", lambda: None)
    return gpu if request.param == "triton" else cpu


ROUTES = {"cpu": cpu, "triton": gpu}
# Triton 3.2's interpreter holds sums of int32 in 64 bits, and stores them so: over what lies behind.
STORES_SUMS = Version(triton.__version__) >= Version("3.3")


@st.composite
def hashed(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    width = draw(st.sampled_from([1, 31, 32, 33, 100, 257, 2500]))
    rows = draw(st.sampled_from([(), (0,), (1,), (3,), (2, 2)]))
    dtype = draw(st.sampled_from(FLOATS))
    features = torch.randn((*rows, width), generator=generator)
    if draw(st.booleans()):
        features = features.mul(2).round() / 2  # many ties
    k = draw(st.integers(1, width))
    background = torch.randn(width, generator=generator) if draw(st.booleans()) else torch.zeros(width)
    return features.to(dtype), background, torch.randperm(width, generator=generator), k


@pytest.mark.parametrize("name", ROUTES)
@few
@given(case=hashed())
def test_tophash(name, case):
    assert torch.equal(ROUTES[name].tophash(*case), reference.tophash(*case))


def test_tophash_of_the_widest(route):
    width = 65_536 if route is cpu else 9_000  # the interpreter takes its time
    features = torch.randint(-50, 50, (2, width), generator=torch.Generator().manual_seed(0)).float()
    case = (features, torch.zeros(width), torch.randperm(width), width // 3)
    assert torch.equal(route.tophash(*case), reference.tophash(*case))


def test_tophash_orders_what_is_not_finite(route):
    features = torch.tensor([[1.0, float("inf"), 2.0, -float("inf"), 0.0, -0.0]])
    case = (features, torch.zeros(6), torch.arange(6), 3)
    assert reference.unpack(route.tophash(*case), 6).nonzero()[:, 1].tolist() == [1, 2, 3]


def masks_of(rows, width, k, generator):
    top = torch.rand((rows, width), generator=generator).topk(k, 1).indices
    return kernels.pack(torch.zeros((rows, width), dtype=torch.bool).scatter(1, top, True))


@st.composite
def matched(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    width = draw(st.sampled_from([8, 32, 100, 1030]))
    k = draw(st.integers(1, width))
    rows, queries = draw(st.sampled_from([0, 1, 5, 70, 130])), draw(st.sampled_from([0, 1, 3, 5]))
    masks = masks_of(rows, width, k, generator)
    asked = masks_of(queries, width, k, generator)
    if rows and queries:
        asked[0] = masks[-1]
        masks[rows // 2 :] = masks[rows // 2].clone() if draw(st.booleans()) else masks[rows // 2 :]  # ties
    alive = torch.rand(rows, generator=generator) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    masks[~alive] = draw(st.sampled_from([0, -1]))  # what forgotten rows hold must not matter
    return asked, masks, alive, k, draw(st.sampled_from([1, 3, 200]))


@pytest.mark.parametrize("name", ROUTES)
@few
@given(case=matched())
def test_match(name, case):
    if name == "triton" and not STORES_SUMS:
        case = (*case[:-1], 1)  # the best alone is no sum
    counts, rows = ROUTES[name].match(*case)
    wanted_counts, wanted_rows = reference.match(*case)
    assert torch.equal(counts, wanted_counts)
    assert torch.equal(rows, wanted_rows)


def test_match_without_faiss(monkeypatch):
    generator = torch.Generator().manual_seed(3)
    case = (masks_of(4, 500, 100, generator), masks_of(3000, 500, 100, generator), torch.ones(3000).bool(), 100, 1)
    with_faiss = cpu.match(*case)
    monkeypatch.setattr(cpu, "_faiss", lambda: None)
    without = cpu.match(*case)
    assert torch.equal(with_faiss[0], without[0])
    assert torch.equal(with_faiss[1], without[1])
    assert torch.equal(without[1], reference.match(*case)[1])


@st.composite
def routed(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    batch, length = draw(st.sampled_from([(1, 1), (2, 5), (3, 1), (0, 4)]))
    inner, width = draw(st.sampled_from([(20, 7), (64, 32), (300, 70)]))
    edits, dtype = draw(st.sampled_from([1, 4])), draw(st.sampled_from(FLOATS))
    random = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    edit = torch.randint(0, edits, (batch, length), generator=generator)
    active = torch.rand((batch, length), generator=generator) < draw(st.sampled_from([0.0, 0.4, 1.0]))
    masks = masks_of(edits, inner, draw(st.integers(1, inner)), generator)
    x, out = random(batch, length, inner).to(dtype), random(batch, length, width).to(dtype)
    return out, x, random(width, inner), random(edits, width).to(dtype), masks, edit, active


@pytest.mark.parametrize("name", ROUTES)
@few
@given(case=routed())
def test_factored_delta(name, case):
    out, _, _, offsets, _, edit, active = case
    result = out.clone()
    ROUTES[name].factored_delta_(result, offsets, edit, active)
    wanted = reference.factored_delta(out, offsets, edit, active)
    if name == "triton" and out.dtype == torch.bfloat16:  # the interpreter cuts bits off where a GPU rounds
        torch.testing.assert_close(result, wanted, rtol=2**-7, atol=0)
    else:
        assert torch.equal(result, wanted)
    assert torch.equal(result[~active], out[~active])


@pytest.mark.parametrize("name", ROUTES)
@few
@given(case=routed())
def test_shared_delta(name, case):
    out, x, weight, _, masks, edit, active = case
    x = torch.where(active[..., None], x, torch.nan)  # rows without a route are not read
    result = out.clone()
    ROUTES[name].shared_delta_(result, x, weight, masks, edit, active)
    wanted = reference.shared_delta(out, x, weight, masks, edit, active)
    close = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}[out.dtype]
    torch.testing.assert_close(result, wanted, atol=close, rtol=close / 10)
    assert torch.equal(result[~active], out[~active])


def test_kernels_write_their_own_rows_only():
    """Outputs poisoned before, with rows around them that belong to nobody."""
    guarded = torch.full((3, 40), float(POISON))
    out = guarded[1:2]
    gpu.factored_delta_(out, torch.ones(1, 40), torch.zeros(1, dtype=torch.long), torch.ones(1, dtype=torch.bool))
    assert (guarded[0] == POISON).all()
    assert (guarded[2] == POISON).all()
    assert (guarded[1] == POISON + 1).all()
    masks = torch.full((3, 1), POISON, dtype=torch.int32)
    masks[1] = 0
    features = torch.tensor([[1.0, 9.0, 2.0, 8.0, 7.0]])
    gpu.tophash_kernel[(1,)](features, torch.zeros(5), torch.arange(5), masks[1:2], 5, 3, 1, BLOCK=8)
    assert masks.tolist() == [[POISON], [0b11010], [POISON]]


# Torch operators


def cases():
    generator = torch.Generator().manual_seed(4)
    random = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    masks = masks_of(6, 40, 12, generator)
    edit = torch.randint(0, 6, (2, 3), generator=generator)
    active = torch.tensor([[True, False, True], [False, True, True]])
    shared = (random(2, 3, 8), random(2, 3, 40), random(8, 40), masks, edit, active)
    factored = (random(2, 3, 8), random(6, 8), edit, active)
    learned = lambda case, *at: tuple(t.requires_grad_() if i in at else t for i, t in enumerate(case))  # noqa: E731
    return {
        "tophash": (ops.tophash, (random(3, 40), random(40), torch.randperm(40), 7)),
        "match": (ops.match, (masks_of(2, 40, 12, generator), masks, torch.ones(6, dtype=torch.bool), 12, 2)),
        "factored_delta_": (ops.factored_delta_, tuple(t.clone() for t in factored)),
        "shared_delta_": (ops.shared_delta_, tuple(t.clone() for t in shared)),
        "factored_delta": (ops.factored_delta, learned(tuple(t.clone() for t in factored), 0, 1)),
        "shared_delta": (ops.shared_delta, learned(tuple(t.clone() for t in shared), 0, 1, 2)),
    }


# From 2.14 on PyTorch's check looks at .grad of its own copies, and hides this warning where warnings are no errors.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("name", cases())
def test_operators_are_sound(name):
    operator, case = cases()[name]
    torch.library.opcheck(operator, case)


def test_gradients():
    for name, learned in (("factored_delta", (0, 1)), ("shared_delta", (0, 1, 2))):
        operator, case = cases()[name]
        case = [t.detach().double() if t.is_floating_point() else t for t in case]
        inputs = [case[i].requires_grad_() for i in learned]

        def run(*given, case=case, learned=learned, operator=operator):
            whole = list(case)
            for at, tensor in zip(learned, given, strict=True):
                whole[at] = tensor
            return operator(*whole)

        assert torch.autograd.gradcheck(run, inputs)


def test_operators_compile_into_one_graph():
    out, x, weight, masks, edit, active = (t.detach() for t in cases()["shared_delta"][1])

    def step(out, x):
        out = out * 1
        kernels.shared_delta_(out, x, weight, masks, edit, active)
        hashed = kernels.tophash(x, torch.zeros(40), torch.arange(40), 12).flatten(0, 1)
        return out, kernels.match(hashed, masks, torch.ones(6, dtype=torch.bool), 12, 1)

    torch.compiler.reset()
    plain, compiled = step(out, x), torch.compile(step, backend="aot_eager", fullgraph=True)(out, x)
    assert torch.equal(plain[0], compiled[0])
    assert torch.equal(plain[1][1], compiled[1][1])


# Ahead of time, without a GPU


@pytest.fixture(scope="module")
def compiled():
    """What the compiler makes of every kernel, in a process of its own: this one has Triton's interpreter."""
    script = Path(__file__).with_name("compile_kernels.py")
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100"])
def test_compiles_ahead_of_time_without_spilling(compiled, target):
    reports = {name: report for name, report in compiled.items() if name.startswith(target)}
    assert len(reports) >= 13
    for name, report in reports.items():
        assert report["spilled bytes"] == 0, name
        assert 0 < report["registers"] <= 128, name
        assert report["shared memory"] <= 48 * 1024, name
