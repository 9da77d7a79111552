"""The operations that memories are made of. What each does, `reference.py` defines; `ops.py` picks who does it."""

from editmem.kernels.ops import factored_delta as factored_delta
from editmem.kernels.ops import factored_delta_ as factored_delta_
from editmem.kernels.ops import match as match
from editmem.kernels.ops import shared_delta as shared_delta
from editmem.kernels.ops import shared_delta_ as shared_delta_
from editmem.kernels.ops import tophash as tophash
from editmem.kernels.reference import overlaps as overlaps
from editmem.kernels.reference import pack as pack
from editmem.kernels.reference import unpack as unpack
from editmem.kernels.reference import words as words
