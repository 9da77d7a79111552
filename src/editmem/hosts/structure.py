"""Look at a model: where its blocks are, where a memory can sit, what it is made of. By structure, never by name."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from editmem.errors import HostError
from editmem.hosts import compat
from editmem.hosts.gate import Together
from editmem.hosts.offload import runs_on

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

    Of a model that takes images too it is the language model: its blocks, its width, its longest text.

    Args:
        model: the model, or a PEFT model around it.

    Attributes:
        enclosed: whether another model stands around it, which calls it with embeddings.

    Raises:
        HostError: if there is no causal language model in it, or its blocks cannot be told.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = causal_lm(model)
        _refuse_virtual_tokens(model)
        self.enclosed = any(outer is not self.model for outer in _models_around(model, self.model))
        self.hidden_size = int(self.model.config.get_text_config().hidden_size)
        self.decoder, self.blocks_path, self.blocks = _blocks(self.model)
        self._evaluation = Together(self._evaluate)

    @property
    def embedding(self) -> str:
        """The name of the word embeddings' weight."""
        words = self.model.get_input_embeddings()
        return next(f"{name}.weight" for name, module in self.model.named_modules() if module is words)

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        return runs_on(self.model, self.embedding)

    @property
    def max_length(self) -> int | None:
        """Longest text that the model takes, in tokens; None where it sets no limit."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding; may be more than the tokenizer has tokens."""
        return int(self.model.get_input_embeddings().weight.shape[0])  # type: ignore[union-attr,index]

    @property
    def image_token(self) -> int | None:
        """The id that stands for a part of a picture in a prompt; None where the host sees none."""
        return compat.image_token(self.model.config)

    @property
    def vision(self) -> list[nn.Module]:
        """The modules beside the language model that make of pictures what it reads, outermost first."""
        found: list[nn.Module] = []
        module: nn.Module = self.model
        head = self.model.get_output_embeddings()
        for name in self.blocks_path.split("."):
            if isinstance(module, nn.ModuleList):
                break
            children = dict(module.named_children())
            beside = [child for key, child in children.items() if key != name and child is not head]
            found += [child for child in beside if any(True for _ in child.parameters()) and module is not self.decoder]
            module = children[name]
        return found

    def below(self, site: SiteInfo) -> list[tuple[str, nn.Module]]:
        """What runs before the block of a site and is the same whatever the site returns: by path."""
        names = {module: name for name, module in self.model.named_modules()}
        return [(names[module], module) for module in (*self.vision, *self.blocks[: site.block])]

    @property
    def vision_tower(self) -> str | None:
        """The path of the vision tower: what has a configuration of its own, beside the language model."""
        from transformers import PreTrainedModel

        names = {module: name for name, module in self.model.named_modules()}
        return next((names[module] for module in self.vision if isinstance(module, PreTrainedModel)), None)

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
        own, cross = self._attention(index)
        if cross and not own:
            raise HostError(
                f"block {index} of {type(self.model).__name__} has cross-attention alone: text without a picture "
                "passes it by. Choose another layer"
            )
        if (norm := _output_norm(block, self.hidden_size)) is not None:
            return SiteInfo(f"{prefix}.{norm}", index, self.hidden_size, self.hidden_size, prefix)
        experts = _expert_block(block)
        if experts is not None:
            return SiteInfo(f"{prefix}.{experts}", index, self.hidden_size, self.hidden_size, prefix)
        linears = [site for site in self._linears(index) if "att" not in _inside(site)]
        found = [site for site in linears if site.out_features == self.hidden_size]
        if not found:
            raise HostError(
                f"block {index} of {type(self.model).__name__} has no feed-forward block to edit: no linear map "
                f"outside attention has {self.hidden_size} outputs. Name a module with module='...' in the spec"
            )
        return found[-1]

    def _linears(self, index: int) -> list[SiteInfo]:
        """The linear maps of a block, not those that adapters keep inside them."""
        prefix = f"{self.blocks_path}.{index}"
        found = [
            (name, widths)
            for name, module in self.blocks[index].named_modules(prefix=prefix)
            if (widths := linear_widths(module))
        ]
        outer = [item for item in found if not any(item[0].startswith(f"{other}.") for other, _ in found)]
        return [SiteInfo(name, index, *widths, prefix) for name, widths in outer]

    def _attention(self, index: int) -> tuple[list[SiteInfo], list[SiteInfo]]:
        """The linear maps of a block's self-attention, and of its cross-attention."""
        attention = [site for site in self._linears(index) if "att" in _inside(site)]
        return [s for s in attention if "cross" not in _inside(s)], [s for s in attention if "cross" in _inside(s)]

    def feed_forward_linears(self) -> list[SiteInfo]:
        """The up and down projections of the feed-forward part of every block, in order; gates are left out.

        Raises:
            HostError: if a block has none of one kind, as where a mixture of experts takes their place.
        """
        sites = []
        for index, block in enumerate(self.blocks):
            linears = [site for site in self._linears(index) if "att" not in _inside(site)]
            up = [s for s in linears if s.in_features == self.hidden_size < s.out_features and not _is_gate(s)]
            down = [s for s in linears if s.out_features == self.hidden_size < s.in_features]
            missing = " and ".join(kind for kind, maps in (("up", up), ("down", down)) if not maps)
            experts = _expert_block(block)
            if missing or experts is not None:
                reason = f"no {missing} projection" if experts is None else f"a mixture of experts in {experts!r}"
                raise HostError(
                    f"block {index} of {type(self.model).__name__} has {reason}; expected linear maps outside "
                    f"attention that go from {self.hidden_size} features to more, and back"
                )
            sites += [site for site in linears if site in up or site in down]
        return sites

    def linears(self) -> list[SiteInfo]:
        """All linear maps of the model, vision tower included, but for its output embeddings; with adapters around one
        of them, that as a whole."""
        head, sites = self.model.get_output_embeddings(), list[SiteInfo]()
        for path, module in self.model.named_modules():
            inside = bool(sites) and path.startswith(f"{sites[-1].path}.")
            if not inside and module is not head and (widths := linear_widths(module)) is not None:
                block = re.match(re.escape(self.blocks_path) + r"\.(\d+)\.", path)
                sites.append(SiteInfo(path, int(block[1]) if block else -1, *widths, block[0][:-1] if block else ""))
        return sites

    @property
    def body(self) -> nn.Module:
        """The model without its language-modelling head."""
        return cast(nn.Module, self.model.base_model)

    def query_key_linears(self) -> list[SiteInfo]:
        """The query and key projections of self-attention of every block, in order; none where it has no such part.

        Raises:
            HostError: if a block has self-attention without a query and a key projection of their own.
        """
        sites = []
        for index in range(len(self.blocks)):
            own, cross = self._attention(index)
            found = [site for site in own if _query_or_key(site)]
            if {_query_or_key(site) for site in found} != {"q", "k"} and (own or not cross):
                names = ", ".join(_inside(site) for site in own) or "nothing"
                raise HostError(
                    f"block {index} of {type(self.model).__name__} has no separate query and key projections in "
                    f"self-attention (it has {names}); where they are fused in one map, they cannot be told apart"
                )
            sites += found
        return sites

    def block_of(self, path: str) -> str:
        """The path of the block that a module of the blocks is in."""
        number = path.removeprefix(f"{self.blocks_path}.").partition(".")[0]
        return f"{self.blocks_path}.{number}"

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

    def frozen(self) -> AbstractContextManager[None]:
        """Evaluation mode inside the block, of modules that are being trained; as before after it.

        Gradients are asked for by name, so that none reach the host's parameters, whatever they require.
        """
        return self._evaluation.inside()

    def _evaluate(self) -> Callable[[], None]:
        training = [module for module in self.model.modules() if module.training]

        def switch(on: bool) -> None:
            for module in training:
                module.training = on

        switch(False)
        return lambda: switch(True)


def causal_lm(model: nn.Module) -> "PreTrainedModel":
    """The Hugging Face model with a language-modelling head that is, or is inside, `model`."""
    from transformers import PreTrainedModel

    if not isinstance(model, nn.Module):
        raise HostError(f"expected a PyTorch model, got {type(model).__name__}")
    for module in model.modules():
        if isinstance(module, PreTrainedModel) and (head := module.get_output_embeddings()) is not None:
            # Some image-text models hold a whole language model and can only be called with a picture.
            parts = (part for part in module.modules() if isinstance(part, PreTrainedModel))
            *_, module = (part for part in parts if part.get_output_embeddings() is head)
            if module.config.is_encoder_decoder:
                raise HostError(f"{type(module).__name__} is an encoder-decoder model; editmem edits decoder-only ones")
            return module
    raise HostError(
        f"{type(model).__name__} is not a Hugging Face causal language model: nothing in it is a PreTrainedModel "
        "with output embeddings. Load it with AutoModelForCausalLM"
    )


def _refuse_virtual_tokens(model: nn.Module) -> None:
    """Refuse PEFT's prompt learning around the host.

    It has taken hold of how `generate` goes on, and edits would be learned without its virtual tokens.
    """
    for module in model.modules():
        configs = getattr(module, "peft_config", {})
        for config in configs.values() if isinstance(configs, dict) else ():
            if getattr(config, "is_prompt_learning", False):
                raise HostError(
                    f"the model is inside a {type(module).__name__} with virtual tokens ({type(config).__name__}); "
                    "wrap the model itself first, and put the adapter around it after"
                )


def _models_around(model: nn.Module, inner: "PreTrainedModel") -> "list[PreTrainedModel]":
    """The Hugging Face models that `inner` is, or is inside of."""
    from transformers import PreTrainedModel

    models = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    return [outer for outer in models if any(part is inner for part in outer.modules())]


def linear_widths(module: nn.Module) -> tuple[int, int] | None:
    """(in, out) of a linear map: nn.Linear and its quantised or adapted kin, or GPT-2's Conv1D; else None."""
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, Conv1D):
        return int(module.nx), int(module.nf)
    widths = getattr(module, "in_features", None), getattr(module, "out_features", None)
    return widths if all(isinstance(width, int) for width in widths) else None  # type: ignore[return-value]


def _blocks(model: "PreTrainedModel") -> tuple[nn.Module, str, nn.ModuleList]:
    """The language model in it, the path of its blocks in `model`, and the blocks.

    The language model is the innermost one that holds the word embeddings; what stands beside it, as a vision tower
    or a Q-Former, does not.
    """
    from transformers import PreTrainedModel

    depth = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    words = model.get_input_embeddings()
    models = [(name, module) for name, module in model.named_modules() if isinstance(module, PreTrainedModel)]
    for path, decoder in reversed(models):
        if not any(module is words for module in decoder.modules()):
            continue
        lists = [
            (name, module)
            for name, module in decoder.named_modules(prefix=path)
            if isinstance(module, nn.ModuleList) and len(module) == depth
        ]
        if lists:
            return decoder, *min(lists, key=lambda item: item[0].count("."))
    raise HostError(f"{type(model).__name__} has no list of {depth} decoder blocks; it cannot carry a memory")


def _inside(site: SiteInfo) -> str:
    """Name of a linear map in its block, in small letters."""
    return site.path.removeprefix(f"{site.block_path}.").lower()


def _is_gate(site: SiteInfo) -> bool:
    return "gate" in _inside(site) and "gate_up" not in _inside(site)


def _query_or_key(site: SiteInfo) -> str | None:
    """`q` or `k` where the map's own name says that it makes queries or keys alone."""
    match = re.fullmatch(r"(?:w?([qk])|(q)uery|(k)ey)(?:_proj|_layer)?", _inside(site).rpartition(".")[2])
    return match[match.lastindex] if match and match.lastindex else None


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
