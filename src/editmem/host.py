"""Look at a model: where its blocks are, where a memory can sit, what it is made of. By structure, never by name."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from editmem.errors import HostError

if TYPE_CHECKING:  # these take seconds to import; whoever has a model has paid for them already
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class SiteInfo:
    """One submodule that a memory can sit on.

    Attributes:
        path: its name in `host.model.named_modules()`.
        block: index of the decoder block that it belongs to.
        in_features: width of what goes in, D.
        out_features: width of what comes out, d.
        block_path: name of that block.
    """

    path: str
    block: int
    in_features: int
    out_features: int
    block_path: str


class Host:
    """A Hugging Face causal language model, seen by its structure.

    Args:
        model: the model, or a PEFT model around it.

    Raises:
        HostError: if there is no causal language model in it, or its blocks cannot be told.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = causal_lm(model)
        self.decoder: nn.Module = self.model.base_model
        self.hidden_size = int(self.model.config.get_text_config().hidden_size)
        self.blocks_path, self.blocks = _blocks(self.model)

    @property
    def _embedding(self) -> torch.Tensor:
        weight = self.model.get_input_embeddings().weight
        assert isinstance(weight, torch.Tensor)
        return weight.detach()

    @property
    def device(self) -> torch.device:
        return self._embedding.device

    @property
    def max_length(self) -> int | None:
        """Longest text that the model takes, in tokens; None where it sets no limit."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding; may be more than the tokenizer has tokens."""
        return int(self._embedding.shape[0])

    def module(self, path: str) -> nn.Module:
        return self.model.get_submodule(path)

    def site(self, layer: int | float, pattern: str | None = None) -> SiteInfo:
        """The feed-forward output of a block, or the module that a pattern names.

        Args:
            layer: index of the block, counted from the end where negative; or a fraction of the depth.
            pattern: a module's exact name, or `re:` and a regular expression that fully matches one name.

        Raises:
            HostError: if there is no such block or module, or nothing in it that a memory can sit on.
        """
        if pattern is not None:
            return self._named_site(pattern)
        count = len(self.blocks)
        index = round(layer * (count - 1)) if isinstance(layer, float) else layer
        if not -count <= index < count:
            raise HostError(f"layer {layer} is out of range: {type(self.model).__name__} has {count} blocks")
        return self._feed_forward(index % count)

    def _feed_forward(self, index: int) -> SiteInfo:
        block, prefix = self.blocks[index], f"{self.blocks_path}.{index}"
        if (norm := _output_norm(block, self.hidden_size)) is not None:
            return SiteInfo(f"{prefix}.{norm}", index, self.hidden_size, self.hidden_size, prefix)
        experts = _expert_block(block)
        if experts is not None:
            return SiteInfo(f"{prefix}.{experts}", index, self.hidden_size, self.hidden_size, prefix)
        found = [
            (name, widths)
            for name, module in block.named_modules()
            if "att" not in name.lower() and (widths := linear_widths(module)) and widths[1] == self.hidden_size
        ]
        outer = [item for item in found if not any(item[0].startswith(f"{other}.") for other, _ in found)]
        if not outer:
            raise HostError(
                f"block {index} of {type(self.model).__name__} has no feed-forward block to edit: no linear map "
                f"outside attention has {self.hidden_size} outputs. Name a module with module='...' in the spec"
            )
        name, (in_features, out_features) = outer[-1]
        return SiteInfo(f"{prefix}.{name}", index, in_features, out_features, prefix)

    def _named_site(self, pattern: str) -> SiteInfo:
        names = [name for name, _ in self.model.named_modules()]
        if pattern.startswith("re:"):
            matches = [name for name in names if re.fullmatch(pattern[3:], name)]
        else:
            matches = [name for name in names if name == pattern]
        if len(matches) != 1:
            raise HostError(f"module={pattern!r} matches {len(matches)} modules of the model, expected exactly one")
        block = re.match(re.escape(self.blocks_path) + r"\.(\d+)\.", matches[0])
        if block is None:
            raise HostError(f"module={pattern!r} is outside the blocks {self.blocks_path}.*")
        widths = linear_widths(self.module(matches[0])) or (self.hidden_size, self.hidden_size)
        return SiteInfo(matches[0], int(block[1]), *widths, f"{self.blocks_path}.{block[1]}")

    def fingerprint(self) -> dict[str, Any]:
        """What a saved memory must find again: the architecture, its shapes, and a sample of the weights."""
        embedding = self._embedding
        sample = embedding[:: max(1, embedding.shape[0] // 64), :64].float().cpu().contiguous()
        return {
            "architecture": type(self.model).__name__,
            "hidden_size": self.hidden_size,
            "num_blocks": len(self.blocks),
            "vocab_size": int(embedding.shape[0]),
            "embedding_sample": hashlib.sha256(
                sample.to(torch.bfloat16).view(torch.int16).numpy().tobytes()
            ).hexdigest(),
        }

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Evaluation mode and no parameter gradients inside the block; everything as before after it."""
        training = [(module, module.training) for module in self.model.modules()]
        trainable = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.model.eval()
        for parameter in trainable:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for module, flag in training:
                module.training = flag
            for parameter in trainable:
                parameter.requires_grad_(True)


def causal_lm(model: nn.Module) -> "PreTrainedModel":
    """The Hugging Face model with a language-modelling head that is, or is inside, `model`."""
    from transformers import PreTrainedModel

    if not isinstance(model, nn.Module):
        raise HostError(f"expected a PyTorch model, got {type(model).__name__}")
    for module in model.modules():
        if isinstance(module, PreTrainedModel) and module.get_output_embeddings() is not None:
            if module.config.is_encoder_decoder:
                raise HostError(f"{type(module).__name__} is an encoder-decoder model; editmem edits decoder-only ones")
            return module
    raise HostError(
        f"{type(model).__name__} is not a Hugging Face causal language model: nothing in it is a PreTrainedModel "
        "with output embeddings. Load it with AutoModelForCausalLM"
    )


def linear_widths(module: nn.Module) -> tuple[int, int] | None:
    """(in, out) of a linear map: nn.Linear and its quantised or adapted kin, or GPT-2's Conv1D; else None."""
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, Conv1D):
        return int(module.nx), int(module.nf)
    widths = getattr(module, "in_features", None), getattr(module, "out_features", None)
    return widths if all(isinstance(width, int) for width in widths) else None  # type: ignore[return-value]


def _blocks(model: "PreTrainedModel") -> tuple[str, nn.ModuleList]:
    depth = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth and "vision" not in name
    ]
    if not lists:
        raise HostError(f"{type(model).__name__} has no list of {depth} decoder blocks; it cannot carry a memory")
    return min(lists, key=lambda item: item[0].count("."))


def _output_norm(block: nn.Module, hidden_size: int) -> str | None:
    """The child of a block that normalises what its feed-forward part returns, before it joins the residual.

    Anything that a memory adds before such a norm is scaled away, so that it has to sit behind it.
    """
    for name, child in block.named_children():
        shapes = [tuple(parameter.shape) for parameter in child.parameters()]
        if re.search(r"post.*(feed_?forward|mlp|ffn)", name) and shapes[:1] == [(hidden_size,)]:
            return name
    return None


def _expert_block(block: nn.Module) -> str | None:
    """The child of a block that holds a mixture of experts, as a whole; None in a dense block.

    Fused experts are parameters with three axes; separate ones are a list of feed-forward blocks.
    """
    for name, child in block.named_children():
        fused = any(p.ndim == 3 and p.shape[0] > 1 and "conv" not in key for key, p in child.named_parameters())
        listed = any(
            isinstance(module, nn.ModuleList) and len(module) > 1 and any(linear_widths(m) for m in module.modules())
            for module in child.modules()
        )
        if "att" not in name.lower() and (fused or listed):
            return name
    return None
