"""Editable memory modules for Hugging Face models."""

from editmem.edit import Edit as Edit
from editmem.edit import EditRecord as EditRecord
from editmem.editor import Editor as Editor
from editmem.errors import EditMemError as EditMemError
from editmem.explanation import Explanation as Explanation
from editmem.memory import METHODS as METHODS
from editmem.memory.grace import GraceSpec as GraceSpec
from editmem.memory.memeic import MemeicSpec as MemeicSpec
from editmem.memory.residual import MemoirSpec as MemoirSpec
from editmem.memory.side import WiseSpec as WiseSpec
from editmem.tiny import tiny as tiny
from editmem.wrap import load as load
from editmem.wrap import unwrap as unwrap
from editmem.wrap import wrap as wrap

__version__ = "0.1.0"
__all__ = [
    "METHODS",
    "Edit",
    "EditMemError",
    "EditRecord",
    "Editor",
    "Explanation",
    "GraceSpec",
    "MemeicSpec",
    "MemoirSpec",
    "WiseSpec",
    "load",
    "tiny",
    "unwrap",
    "wrap",
]
