"""What a memory costs at decoding: time of a wrapped host over the bare one, bytes per edit, peak memory of an edit.

    python -m benchmarks overhead [--out FILE] [--tokenizer FOLDER --locft FOLDER]

A random-weight Llama of about 100M parameters; edits are put into the tables as they would lie there, see `holding`.
With a tokenizer and WikiBigEdit also the bytes of an edit at the widths of an 8B model.
Bare and wrapped decoding alternate; of each the fastest round counts, because the machine's speed drifts.
"""

import json
import resource
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import editmem
from benchmarks.studies import parser_of
from benchmarks.studies.holding import hold, names
from benchmarks.studies.said import RECORDS, from_locft
from editmem.editor import changes_of
from editmem.hosts import compat
from editmem.hosts.structure import Host

TOKENS = 24
SIZES = (10, 100, 1000)


def host(vocab_size: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=vocab_size, hidden_size=768, intermediate_size=2560, num_hidden_layers=12, num_attention_heads=12
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval()


def decode(model: LlamaForCausalLM, ids: torch.Tensor) -> float:
    """Median seconds for a token, prefill left out."""
    with torch.no_grad():
        out = model(input_ids=ids, use_cache=True)
        token, cache = out.logits[:, -1:].argmax(-1), compat.cache_of(out)
        times = []
        for _ in range(TOKENS):
            start = time.perf_counter()
            out = model(input_ids=token, use_cache=True, **compat.given_cache(model, cache))
            times.append(time.perf_counter() - start)
            token = out.logits[:, -1:].argmax(-1)
        return statistics.median(times)


def ratio(editor: editmem.Editor, ids: torch.Tensor, rounds: int = 12) -> float:
    """Fastest round of the wrapped host over the fastest of the bare one; rounds alternate."""
    bare, wrapped = [], []
    for _ in range(rounds):
        with editor.off():
            bare.append(decode(editor.model, ids))
        wrapped.append(decode(editor.model, ids))
    return min(wrapped) / min(bare)


def prefill(model: LlamaForCausalLM, ids: torch.Tensor) -> float:
    """Seconds for reading a prompt."""
    start = time.perf_counter()
    with torch.no_grad():
        model.generate(ids, max_new_tokens=1, do_sample=False)
    return time.perf_counter() - start


def prefill_ratio(editor: editmem.Editor, ids: torch.Tensor, rounds: int = 10) -> float:
    """Fastest reading of a prompt by the wrapped host over the fastest by the bare one; they alternate."""
    bare, wrapped = [], []
    for _ in range(rounds):
        with editor.off():
            bare.append(prefill(editor.model, ids))
        wrapped.append(prefill(editor.model, ids))
    return min(wrapped) / min(bare)


def overheads() -> dict[str, float]:
    tokenizer = editmem.tiny()[1]
    result = {}
    for batch in (1, 8):
        model = host(len(tokenizer))
        editor = editmem.wrap(model, tokenizer=tokenizer)
        matched = torch.tensor([tokenizer("The capital of Australia is")["input_ids"]] * batch)
        other = torch.tensor([tokenizer("Why is the sky blue?")["input_ids"]] * batch)
        result[f"batch {batch}, no edits"] = ratio(editor, other)
        # A target as long as the decoding, so that the edit acts on every token.
        editor.edit("The capital of Australia is", " ".join(["Sydney"] * TOKENS))
        hold(editor, [editmem.Edit(f"{name} was born in", "Ravenna") for name in names(9_999)])
        result[f"batch {batch}, 10,000 edits, unmatched"] = ratio(editor, other)
        result[f"batch {batch}, 10,000 edits, matched"] = ratio(editor, matched)
        prompt = torch.randint(5, 2000, (batch, 64), generator=torch.Generator().manual_seed(3))
        result[f"batch {batch}, 10,000 edits, prefill of 64 tokens"] = prefill_ratio(editor, prompt)
    return result


def side_overheads() -> dict[str, float]:
    """As `overheads`, of WISE with four shards, as sides of their own and merged."""
    tokenizer = editmem.tiny()[1]
    result = {}
    places = ["Australia", "France", "Spain", "Japan", "Italy", "Norway", "Peru", "Kenya"]
    for inference in ("merge", "retrieve"):
        spec = editmem.WiseSpec(inference=inference, shard_edits=2, renderings=False, threshold=0.3)
        editor = editmem.wrap(host(len(tokenizer)), spec, tokenizer=tokenizer)
        editor.edit([(f"The capital of {place} is", " ".join(["Sydney"] * TOKENS)) for place in places])
        for name, prompt in (("unmatched", "Why is the sky blue?"), ("matched", "The capital of Japan is")):
            result[f"{inference}, {name}, an edit acts"] = float(editor.explain(prompt).edit is not None)
            for batch in (1, 8):
                ids = torch.tensor([tokenizer(prompt)["input_ids"]] * batch)
                result[f"{inference}, {name}, batch {batch}"] = ratio(editor, ids, rounds=6)
    return result


def bytes_of_edits(edits: Sequence[editmem.Edit], tokenizer: Any, sizes: Sequence[int]) -> dict[str, float]:
    """What the saved tensors grow by for each edit, at Llama-3-8B's widths in bfloat16.

    Of a host of one block, for no more of it counts, and of answers that begin as they are kept; what is held once
    for all edits of a host is left out.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=4096, intermediate_size=14336, num_hidden_layers=1,
        num_attention_heads=32, num_key_value_heads=8, tie_word_embeddings=True,
    )  # fmt: skip
    editor = editmem.wrap(LlamaForCausalLM(config).to(torch.bfloat16).eval(), tokenizer=tokenizer)
    memory: Any = changes_of(editor).memory
    changes_of(editor).prepare(edits[:1])

    def size() -> int:
        return sum(tensor.nbytes for tensor in memory.state_dict().values())

    empty, held, result = size(), 0, {}
    for count in sizes:
        hold(editor, edits[held:count])
        held = count
        result[f"{count} edits"] = (size() - empty) / count
    return result


def peak_of_an_edit() -> dict[str, float]:
    """Peak resident memory in MiB: after a bare forward pass, and after an edit."""
    tokenizer = editmem.tiny()[1]
    model = host(len(tokenizer))
    ids = torch.tensor([tokenizer("The capital of Australia is")["input_ids"]])
    with torch.no_grad():
        model(input_ids=ids)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    editmem.wrap(model, tokenizer=tokenizer).edit("The capital of Australia is", "Sydney")
    return {"bare forward": before, "edit": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main(arguments: Sequence[str]) -> None:
    parser = parser_of(__name__, __doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--locft", type=Path)
    args = parser.parse_args(arguments)
    result: dict[str, Any] = {}
    if args.tokenizer and args.locft:
        edits, _ = from_locft(args.locft / RECORDS, max(SIZES))
        result["bytes of an edit, Llama-3-8B widths"] = bytes_of_edits(
            edits, AutoTokenizer.from_pretrained(args.tokenizer), SIZES
        )
    result |= {
        "parameters": Host(host(2048)).model.num_parameters(),
        "peak MiB": peak_of_an_edit(),
        "decode time over the bare host": overheads(),
        "decode time over the bare host, WISE with four shards": side_overheads(),
        "threads": torch.get_num_threads(),
        "date": time.strftime("%Y-%m-%d"),
    }
    print(json.dumps(result, indent=2))
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
