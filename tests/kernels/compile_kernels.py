"""Compile every Triton kernel for several GPUs, on a machine without any, and print what each takes, as JSON."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

from editmem.kernels import triton_kernels as gpu

TARGETS = (80, 90, 100)


def signatures():
    pointers = {"fp32": "*fp32", "bf16": "*bf16", "fp16": "*fp16"}
    for dtype, pointer in pointers.items():
        yield f"tophash {dtype}", "tophash_kernel", {
            "x_ptr": pointer, "background_ptr": "*fp32", "permutation_ptr": "*i64", "mask_ptr": "*i32",
            "width": "i32", "k": "i32", "mask_words": "i32",
        }, {"BLOCK": 2048}  # fmt: skip
        yield f"factored {dtype}", "factored_delta_kernel", {
            "out_ptr": pointer, "offset_ptr": pointer, "index_ptr": "*i64", "active_ptr": "*i1", "width": "i32",
        }, {"BLOCK": 1024}  # fmt: skip
        yield f"shared {dtype}", "shared_delta_kernel", {
            "out_ptr": pointer, "x_ptr": pointer, "weight_ptr": "*fp32", "mask_ptr": "*i32", "edit_ptr": "*i64",
            "active_ptr": "*i1", "in_width": "i32", "out_width": "i32", "mask_words": "i32",
        }, {"IN": 256, "OUT": 16}  # fmt: skip
    for every in (False, True):
        for queries in (1, 4):
            yield f"match {every} {queries}", "match_kernel", {
                "query_ptr": "*i32", "mask_ptr": "*i32", "alive_ptr": "*i1", "out_ptr": "*i32" if every else "*i64",
                "queries": "i32", "rows": "i32", "mask_words": "i32",
            }, {"EVERY": every, "QUERIES": queries, "ROWS": 32, "WORDS": 32}  # fmt: skip


def report(kernel, signature, constants, target):
    """Registers, shared memory and spills of one kernel, as `ptxas` says."""
    whole = {**signature, **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(fn=getattr(gpu, kernel), signature=whole, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", target, 32))
    ptx = compiled.asm["ptx"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.ptx")
        file.write_text(ptx, encoding="utf-8")
        name = re.search(r"\.target (sm_\w+)", ptx)[1]
        command = [
            get_ptxas(target).path,
            "-v",
            f"--gpu-name={name}",
            str(file),
            "-o",
            str(Path(folder, "kernel.cubin")),
        ]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said).groups()
    return {
        "registers": int(re.search(r"Used (\d+) registers", said)[1]),
        "shared memory": compiled.metadata.shared,
        "spilled bytes": sum(map(int, spills)),
    }


def main():
    reports = {
        f"sm_{target} {name}": report(kernel, signature, constants, target)
        for target in TARGETS
        for name, kernel, signature, constants in signatures()
    }
    json.dump(reports, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
