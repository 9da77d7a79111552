"""What the memories are compared with, each a `Session`. A new one is a line here."""

from benchmarks.baselines.breadth_first import BreadthFirst
from benchmarks.baselines.closed_form import AlphaEdit, Emmet, JointAlphaEdit, JointMemit, Memit, Rome
from benchmarks.baselines.evidence import Evidence
from benchmarks.baselines.finetune import FineTune
from benchmarks.baselines.lora import LowRank
from benchmarks.baselines.neuraldb import NeuralDb
from benchmarks.baselines.none import NoEdit
from benchmarks.baselines.retrieval import Retrieval
from benchmarks.baselines.ultraedit import UltraEdit
from benchmarks.session import Session

EVERY = (
    NoEdit, FineTune, BreadthFirst, LowRank, Retrieval, Evidence, Rome, Emmet, Memit, JointMemit, AlphaEdit,
    JointAlphaEdit, UltraEdit, NeuralDb,
)  # fmt: skip
BASELINES: dict[str, type[Session]] = {method.name: method for method in EVERY}
