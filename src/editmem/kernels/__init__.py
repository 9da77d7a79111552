"""The operations that memories use."""

from editmem.kernels.reference import match as match
from editmem.kernels.reference import overlaps as overlaps
from editmem.kernels.reference import pack as pack
from editmem.kernels.reference import tophash as tophash
from editmem.kernels.reference import unpack as unpack
from editmem.kernels.reference import words as words
