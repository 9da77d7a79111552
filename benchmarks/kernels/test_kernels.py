"""Speed of every operation beside its reference, eager and compiled, and the time that its bytes take to be copied.

    pytest benchmarks/kernels [--benchmark-json FILE]

Runs on the GPU if there is one. `extra_info` of each result has the bound in microseconds.
"""

import functools

import pytest
import torch
from cases import BATCHES, DEVICE, EDITS, SHAPES, copy_bandwidth, delta, match, random_masks, tophash

VARIANTS = ("operator", "reference", "compiled reference")
REFERENCE_LIMIT = 10_000_000  # words of masks beyond which the reference takes minutes


@functools.cache
def bandwidth():
    return copy_bandwidth()


def measure(benchmark, case, variant):
    run = case.run if variant == "operator" else case.reference
    if variant == "compiled reference":
        torch.compiler.reset()
        run = torch.compile(run, dynamic=False)

    def step():
        with torch.no_grad():
            run(*case.arguments)
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    step()
    benchmark.extra_info["bound_us"] = 1e6 * case.bytes / bandwidth()
    benchmark.extra_info["device"] = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu"
    benchmark.pedantic(step, rounds=10, iterations=1, warmup_rounds=2)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("shape", SHAPES)
def test_tophash(benchmark, shape, batch, variant):
    measure(benchmark, tophash(shape, batch), variant)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("edits", EDITS)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("shape", SHAPES)
def test_match(benchmark, shape, batch, edits, variant):
    words = SHAPES[shape][0] // 32 * edits
    if variant != "operator" and words * batch > REFERENCE_LIMIT:
        pytest.skip("the reference takes minutes here")
    if DEVICE.type == "cpu" and words * batch > 100 * REFERENCE_LIMIT:
        pytest.skip("for a GPU")
    measure(benchmark, match(shape, batch, edits), variant)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("matched", [True, False])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["factored", "shared"])
def test_delta(benchmark, kind, shape, batch, matched, variant):
    measure(benchmark, delta(kind, shape, batch, matched), variant)


# What the operators are held to on a CPU


@pytest.mark.skipif(DEVICE.type != "cpu", reason="for the CPU")
@pytest.mark.parametrize("way", ["operator", "faiss", "bool masks as floats"])
def test_match_on_the_cpu(benchmark, way):
    """One query, 10,000 masks of Llama-3-8B: at most 1.2 times FAISS, and a hundredth of multiplying floats."""
    case = match("llama-3-8b", 1, 10_000)
    queries, masks = case.arguments[:2]
    if way == "operator":
        run = lambda: case.run(*case.arguments)  # noqa: E731
    elif way == "faiss":
        faiss = pytest.importorskip("faiss")
        faiss.omp_set_num_threads(1)
        index = faiss.IndexBinaryFlat(SHAPES["llama-3-8b"][0])
        index.add(masks.numpy().view("uint8"))
        run = lambda: index.search(queries.numpy().view("uint8"), 1)  # noqa: E731
    else:
        from editmem.kernels import unpack

        bits, asked = (unpack(packed, SHAPES["llama-3-8b"][0]) for packed in (masks, queries))
        run = lambda: asked.float() @ bits.float().T  # noqa: E731
    benchmark.pedantic(run, rounds=20, iterations=1, warmup_rounds=2)


@pytest.mark.skipif(DEVICE.type != "cpu", reason="for the CPU")
@pytest.mark.parametrize("way", ["operator", "topk alone"])
def test_tophash_on_the_cpu(benchmark, way):
    """One row of Llama-3-8B: at most twice what `torch.topk` takes alone."""
    case = tophash("llama-3-8b", 1)
    features, _, _, k = case.arguments
    run = (lambda: case.run(*case.arguments)) if way == "operator" else (lambda: features.abs().topk(k))
    benchmark.pedantic(run, rounds=200, iterations=1, warmup_rounds=20)


def test_the_inputs_are_what_they_claim():
    assert random_masks(5, 512, 128).shape == (5, 16)
