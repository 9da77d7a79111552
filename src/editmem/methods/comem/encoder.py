"""What turns a knowledge item into a few embeddings: the host itself with an adapter, and a resampler."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from editmem.errors import CheckpointError
from editmem.hosts import compat
from editmem.hosts.forward import Context
from editmem.hosts.structure import Host
from editmem.methods.comem.adapter import Adapter
from editmem.methods.comem.resampler import Resampler
from editmem.storage import atomic

CONFIG, WEIGHTS = "encoder.json", "encoder.safetensors"
SHAPE = ("queries", "depth", "heads", "rank", "alpha")
"""Settings of a spec that say what an encoder is made of."""


class MemoryEncoder(nn.Module):
    """`E = host with adapter (item)`, `V = resampler(E)`: k embeddings of the host's width (CoMEM, section 3.2).

    One backbone: items are encoded with the adapter, prompts are read without it.

    Args:
        host: the host.
        queries, depth, heads: of the resampler.
        rank, alpha: of the adapter.
        seed: of all before training.

    Attributes:
        trained: whether its weights are of a training.
    """

    trained: Tensor

    def __init__(
        self,
        host: Host,
        queries: int = 8,
        depth: int = 8,
        heads: int = 8,
        rank: int = 16,
        alpha: float = 32.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.queries, self.width = queries, host.hidden_size
        self.adapter = Adapter(host.linears(), rank, alpha, generator)
        self.resampler = Resampler(host.hidden_size, host.hidden_size, queries, depth, heads, generator)
        self.register_buffer("trained", torch.zeros((), dtype=torch.bool))
        self.requires_grad_(False)

    def begin(self, embeddings: Tensor) -> None:
        """Have what leaves the resampler begin at the scale of the host's word embeddings `[n, d]`, not at one.

        They are as the host reads them: some hosts scale them on the way.
        """
        self.resampler.norm_out.weight.data.fill_(float(embeddings.detach().float().std()))

    def forward(self, host: Host, context: Context, inputs: Mapping[str, Any]) -> Tensor:
        """Float32 `[B, k, d]`.

        Args:
            host: the host that it was made for.
            context: of what is attached to it; nothing of that takes part.
            inputs: of the host's body, such as `input_ids` `[B, T]`, `attention_mask` and a picture's.
        """
        taken = compat.parameter_names(host.body.forward)
        options = {"use_cache": False} if "use_cache" in taken else {}
        with self.adapter.on(host.model), context.setting(silent=True):
            states = host.body(**inputs, **options).last_hidden_state
        return self.resampler(states.to(self.resampler.queries.device), inputs["attention_mask"].bool())

    # Keeping

    def save(self, folder: str | Path, shape: Mapping[str, Any], host: Mapping[str, Any]) -> None:
        """Write weights, `SHAPE` and the fingerprint of the host, whole or not at all."""
        atomic.replace(Path(folder), functools.partial(self._write, {"shape": dict(shape), "host": dict(host)}))

    def _write(self, config: Mapping[str, Any], folder: Path) -> None:
        state = {name: tensor.detach().cpu() for name, tensor in self.state_dict().items()}
        save_file(
            {name: t.to(_kept(t)).contiguous() for name, t in state.items()},
            folder / WEIGHTS,
            metadata={"format": "pt"},
        )
        (folder / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")

    def load(self, folder: str | Path) -> None:
        """Take over the weights that `save` wrote.

        Raises:
            CheckpointError: if they cannot be read, or are not those of this host and shape; nothing is changed then.
        """
        try:
            tensors = load_file(Path(folder) / WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{folder}: not a memory encoder: {error}") from error
        own = self.state_dict()
        for name in sorted(set(own) ^ set(tensors)):
            raise CheckpointError(f"{folder}: tensor {name!r} is {'missing' if name in own else 'unknown'}")
        for name, tensor in tensors.items():
            if tensor.shape != own[name].shape:
                raise CheckpointError(
                    f"{folder}: {name!r} is {list(tensor.shape)}, expected {list(own[name].shape)}; it was trained for "
                    "another host or with other settings"
                )
        self.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in tensors.items()})


def _kept(tensor: Tensor) -> torch.dtype:
    return torch.float16 if tensor.is_floating_point() else tensor.dtype


def config_of(folder: str | Path) -> dict[str, Any]:
    """What `MemoryEncoder.save` wrote beside the weights: "shape" and "host".

    Raises:
        CheckpointError: if there is no such file.
    """
    try:
        config = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
        return {"shape": {name: config["shape"][name] for name in SHAPE}, "host": config["host"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: not a memory encoder: {error!r}") from error
