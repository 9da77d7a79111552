"""The memories, by name. A new one is a line here."""

from editmem.memory.base import Spec
from editmem.memory.grace import GraceSpec
from editmem.memory.memeic import ConnectorSpec, DualAdaptersSpec, ExternalSpec, MemeicSpec
from editmem.memory.residual import MemoirSpec
from editmem.memory.side import WiseSpec

METHODS: dict[str, type[Spec]] = {
    MemoirSpec.method: MemoirSpec,
    WiseSpec.method: WiseSpec,
    GraceSpec.method: GraceSpec,
    MemeicSpec.method: MemeicSpec,
    ExternalSpec.method: ExternalSpec,
    DualAdaptersSpec.method: DualAdaptersSpec,
}
PARTS: dict[str, type[Spec]] = {ConnectorSpec.method: ConnectorSpec}
"""What is joined with a memory and is none by itself."""
