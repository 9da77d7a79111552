"""What the memories are compared with, each a `Session`. A new one is a line here."""

from benchmarks.baselines.closed_form import AlphaEdit, Emmet, Memit, Rome
from benchmarks.baselines.finetune import FineTune
from benchmarks.baselines.lora import LowRank
from benchmarks.baselines.none import NoEdit
from benchmarks.baselines.retrieval import Retrieval
from benchmarks.baselines.ultraedit import UltraEdit
from benchmarks.session import Session

EVERY = (NoEdit, FineTune, LowRank, Retrieval, Rome, Emmet, Memit, AlphaEdit, UltraEdit)
BASELINES: dict[str, type[Session]] = {method.name: method for method in EVERY}
