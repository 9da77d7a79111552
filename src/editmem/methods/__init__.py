"""The memories, by name. A new one is a line here."""

from editmem.memory import Spec
from editmem.methods.comem.spec import ComemSpec
from editmem.methods.grace.spec import GraceSpec
from editmem.methods.memeic.spec import ConnectorSpec, DualAdaptersSpec, ExternalSpec, MemeicSpec
from editmem.methods.memoir.spec import MemoirSpec
from editmem.methods.wise.spec import WiseSpec

METHODS: dict[str, type[Spec]] = {
    MemoirSpec.method: MemoirSpec,
    WiseSpec.method: WiseSpec,
    GraceSpec.method: GraceSpec,
    MemeicSpec.method: MemeicSpec,
    ExternalSpec.method: ExternalSpec,
    DualAdaptersSpec.method: DualAdaptersSpec,
    ComemSpec.method: ComemSpec,
}
"""What `wrap` puts on a model, by the names that it takes."""
PARTS: dict[str, type[Spec]] = {ConnectorSpec.method: ConnectorSpec}
"""What is joined with a memory and is none by itself."""
