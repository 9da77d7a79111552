"""Train a connector for the embedded vision-language model, on subjects that the test part never edits.

    python -m benchmarks connector OUT [--rate 0.001] [--passes 10]

Writes `OUT/connector` in PEFT's format; copied over `src/editmem/tiny/connector` it is the one that comes with the
library. The paper's prompt and both adapters are on; evidence is right with probability 0.84 (MemEIC, stage 2).
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.studies import parser_of
from benchmarks.visual import datasets, models
from benchmarks.visual.methods import METHODS
from editmem.methods.memeic import interop


def main(arguments: Sequence[str]) -> None:
    parser = parser_of(__name__, __doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rate", type=float, default=1e-3, help="of AdamW")
    parser.add_argument("--passes", type=int, default=10, help="over the questions of the calibration part")
    args = parser.parse_args(arguments)
    model, processor = models.load_host("tiny-vision")
    model.name_or_path = ""
    options = {"connector_rate": args.rate, "connector_passes": args.passes}
    session = METHODS["memeic-connector"](model, processor, options, 0)
    session.prepare(lambda: datasets.load("emblems", part="calibration"))
    interop.save(session.editor, args.out)  # type: ignore[attr-defined]
