"""The settings of CoMEM (arXiv 2505.17670)."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import torch

from editmem.checks import check_ranges
from editmem.errors import HostError
from editmem.hosts.fingerprint import differences
from editmem.hosts.structure import Host, SiteInfo
from editmem.lookup.spec import LookupSpec
from editmem.methods.comem.encoder import SHAPE, config_of
from editmem.methods.comem.memory import ComemMemory


@dataclass(frozen=True)
class ComemSpec(LookupSpec):
    """CoMEM: items of knowledge as a few embeddings each, put in front of the prompt of the frozen model.

    How items are found, `LookupSpec` says; more pictures may pass for another's than by default there, because an item
    answers what is asked and not what one edit says.

    Attributes:
        encoder: the folder of a trained `MemoryEncoder`; None for the built-in one where the host is the embedded
            vision-language model, and an untrained one elsewhere. Once edits are saved it is saved with them.
        items: most items that are put in front of a prompt: that of the question, that of the picture, and then others
            that are found by either, nearest first (paper: 10, by picture).
        queries: embeddings of an item, k (paper: 8).
        depth, heads: of the resampler (paper's code: 8, 16).
        rank, alpha: of the encoder's LoRA (paper's code: 16, 32).
        steps, learning_rate, margin: of Adam on the embeddings of an edit (not of an item, which has no answer), until
            each token of its answer beats all others together by `margin` nats; the rate is a share of the embeddings'
            standard deviation. 0 steps: as they were encoded (paper).
        renderings: as in `MemoirSpec`.

    Examples:
        >>> import editmem
        >>> editmem.ComemSpec(items=1).queries
        8
    """

    method: ClassVar[str] = "comem"

    picture_false_match_rate: float = 0.07
    encoder: str | None = None
    items: int = 2
    queries: int = 8
    depth: int = 8
    heads: int = 8
    rank: int = 16
    alpha: float = 32.0
    steps: int = 40
    learning_rate: float = 0.1
    margin: float = 2.0
    renderings: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, steps=(0, 10_000), learning_rate=(0.0, 10.0), margin=(0.0, 100.0))
        check_ranges(self, items=(1, 64), queries=(1, 1024), depth=(1, 64), heads=(1, 256), rank=(1, 4096))

    @property
    def shape(self) -> dict[str, Any]:
        """What its encoder is made of."""
        return {name: getattr(self, name) for name in SHAPE}

    def build_on(self, host: Host, dtype: torch.dtype) -> tuple[SiteInfo, ComemMemory]:
        if host.enclosed:
            raise HostError(
                f"the {type(host.model).__name__} in this model is called with embeddings, so that its prompts cannot "
                "be looked up; 'memoir' edits it in words"
            )
        if host.hidden_size % self.heads:
            raise HostError(f"heads={self.heads} does not divide the model's width, {host.hidden_size}")
        read = host.site(self.layer, self.module)
        return read, ComemMemory(self, host, read, self._encoder(host)).to(host.device)

    def _encoder(self, host: Host) -> str | Path | None:
        """The folder of the encoder: the built-in one where it is for this host, and none is given."""
        built_in = Path(str(resources.files(__package__) / "tiny_encoder"))
        if self.encoder is not None or not built_in.is_dir():
            return self.encoder
        config = config_of(built_in)
        fits = config["shape"] == self.shape and config["host"]["hidden_size"] == host.hidden_size
        return built_in if fits and not differences(config["host"], host) else None

    @classmethod
    def of(cls, encoder: str | Path, **fields: Any) -> "ComemSpec":
        """The settings for a trained encoder.

        Raises:
            CheckpointError: if the folder holds none.
        """
        return cls(encoder=str(encoder), **{**config_of(encoder)["shape"], **fields})
