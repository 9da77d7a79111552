"""Every figure that the kernels are held to on a GPU, in one go.

    python benchmarks/kernels/gpu.py [--out FILE]

match: share of the measured copy bandwidth. residual deltas: time of a decoding step's operation beside its bound,
an empty kernel's launch and the eager reference. decode: one token of a Llama-3-8B-shaped host with random weights in
bfloat16 and 100,000 edits, over the bare host, both as CUDA graphs; a graph replays the decision that was captured,
which is the same work for every token. `--small` runs the same code on a small host, on a CPU too, to try it out.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cases import DEVICE, copy_bandwidth, delta, match
from torch.utils.benchmark import Timer
from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

import editmem
from editmem.hosts import compat

sys.path.insert(0, str(Path(__file__).parents[1]))
from overhead import fill

GRAPHS = DEVICE.type == "cuda"


def seconds(run: Callable[[], Any]) -> float:
    """Median time of one call, as a CUDA graph where there is a GPU, so that launches from Python do not count."""
    if not GRAPHS:
        return Timer("run()", globals={"run": run}).blocked_autorange(min_run_time=0.2).median
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return Timer("graph.replay()", globals={"graph": graph}).blocked_autorange(min_run_time=0.5).median


def matches(bandwidth: float, small: bool) -> dict[str, float]:
    figures = {}
    for edits in (1_000,) if small else (100_000, 1_000_000):
        case = match("llama-3-8b", 1, edits)
        took = seconds(lambda case=case: case.run(*case.arguments))
        figures[f"match, {edits:,} edits, share of copy bandwidth"] = case.bytes / took / bandwidth
    return figures


def deltas(bandwidth: float) -> dict[str, float]:
    scratch = torch.zeros(1, device=DEVICE)
    figures = {"empty kernel, us": 1e6 * seconds(lambda: scratch.add_(0))}
    for kind in ("factored", "shared"):
        for batch in (1, 8):
            case = delta(kind, "llama-3-8b", batch)
            with torch.no_grad():
                took = seconds(lambda case=case: case.run(*case.arguments))
                plain = seconds(lambda case=case: case.reference(*case.arguments))
            name = f"{kind} delta, batch {batch}"
            figures[f"{name}, us"] = 1e6 * took
            figures[f"{name}, bound over time"] = case.bytes / bandwidth / took
            figures[f"{name}, eager reference over time"] = plain / took
    return figures


def decode(edits: int, small: bool) -> dict[str, float]:
    """Time of one more token on a static cache, wrapped over bare."""
    tokenizer = editmem.tiny()[1]
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2} if small else {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    }  # fmt: skip
    config = LlamaConfig(vocab_size=len(tokenizer) if small else 128_256, num_attention_heads=32 if not small else 4,
                         num_key_value_heads=8 if not small else 4, **sizes)  # fmt: skip
    torch.manual_seed(0)
    with torch.device(DEVICE):
        model = LlamaForCausalLM._from_config(config, dtype=torch.float32 if small else torch.bfloat16).eval()
    editor = editmem.wrap(model, tokenizer=tokenizer)
    prompts = {"matched": "The capital of Australia is", "unmatched": "Why is the sky blue?"}
    editor.edit(prompts["matched"], " ".join(["Sydney"] * 16))
    fill(editor, edits - 1, 4)
    model.to(DEVICE)

    def step(prompt: str) -> float:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"].to(DEVICE)
        cache = StaticCache(config=config, max_cache_len=64)
        with torch.no_grad():
            token = model(input_ids=ids, **compat.given_cache(model, cache)).logits[:, -1:].argmax(-1)
            place = torch.tensor([[ids.shape[1]]], device=DEVICE)

            def once() -> None:
                model(input_ids=token, position_ids=place, **compat.given_cache(model, cache))
                for layer in cache.layers:  # the same token again, so that the cache is never full
                    layer.cumulative_length.sub_(1)

            return seconds(once)

    figures = {}
    for name, prompt in prompts.items():
        with editor.off():
            bare = step(prompt)
        figures[f"decoding step, {edits:,} edits, {name}, over the bare host"] = step(prompt) / bare
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    bandwidth = copy_bandwidth()
    figures = matches(bandwidth, args.small) | deltas(bandwidth) | decode(1_000 if args.small else 100_000, args.small)
    result = {
        "device": torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu",
        "copy bandwidth, GB/s": bandwidth / 1e9,
        **figures,
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
