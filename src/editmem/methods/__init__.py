"""The memories, by name. A new one is a line here."""

from editmem.memory import Spec
from editmem.methods.grace.memory import GraceSpec
from editmem.methods.memeic.memory import ConnectorSpec, DualAdaptersSpec, ExternalSpec, MemeicSpec
from editmem.methods.memoir.memory import MemoirSpec
from editmem.methods.wise.memory import WiseSpec

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
