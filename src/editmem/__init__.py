"""Editable memory modules for Hugging Face models."""

import importlib
import warnings
from typing import Any

from editmem.editor import Editor as Editor
from editmem.editor import ForgetCost as ForgetCost
from editmem.edits.edit import Edit as Edit
from editmem.edits.edit import EditRecord as EditRecord
from editmem.edits.edit import Item as Item
from editmem.edits.explanation import Candidate as Candidate
from editmem.edits.explanation import Explanation as Explanation
from editmem.edits.explanation import Preview as Preview
from editmem.edits.explanation import Taken as Taken
from editmem.edits.history import Event as Event
from editmem.edits.history import Ledger as Ledger
from editmem.edits.image import Picture as Picture
from editmem.errors import CheckpointError as CheckpointError
from editmem.errors import EditMemError as EditMemError
from editmem.errors import HostError as HostError
from editmem.errors import InvalidEditError as InvalidEditError
from editmem.errors import LedgerError as LedgerError
from editmem.errors import SpecError as SpecError
from editmem.errors import UnknownEditError as UnknownEditError
from editmem.memory import Spec as Spec
from editmem.methods import METHODS as METHODS
from editmem.methods.comem.spec import ComemSpec as ComemSpec
from editmem.methods.grace.spec import GraceSpec as GraceSpec
from editmem.methods.memeic.spec import MemeicSpec as MemeicSpec
from editmem.methods.memoir.spec import MemoirSpec as MemoirSpec
from editmem.methods.wise.spec import WiseSpec as WiseSpec
from editmem.real import real as real
from editmem.tiny import tiny as tiny
from editmem.wrap import load as load
from editmem.wrap import unwrap as unwrap
from editmem.wrap import wrap as wrap

__version__ = "0.1.0"
__all__ = [
    "METHODS",
    "Candidate",
    "CheckpointError",
    "ComemSpec",
    "Edit",
    "EditMemError",
    "EditRecord",
    "Editor",
    "Event",
    "Explanation",
    "ForgetCost",
    "GraceSpec",
    "HostError",
    "InvalidEditError",
    "Item",
    "Ledger",
    "LedgerError",
    "MemeicSpec",
    "MemoirSpec",
    "Picture",
    "Preview",
    "Spec",
    "SpecError",
    "Taken",
    "UnknownEditError",
    "WiseSpec",
    "load",
    "real",
    "tiny",
    "unwrap",
    "wrap",
]

_MOVED = {"connecting": "editmem.methods.memeic.connecting", "interop": "editmem.methods.memeic.interop"}


def __getattr__(name: str) -> Any:
    """Modules that had another name before 0.2."""
    if (path := _MOVED.get(name)) is None:
        raise AttributeError(f"module 'editmem' has no attribute {name!r}")
    warnings.warn(f"editmem.{name} is {path} now", DeprecationWarning, stacklevel=2)
    return importlib.import_module(path)
