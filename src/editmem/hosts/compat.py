"""What we rely on of transformers that changes between its releases: names of arguments, of inputs and of methods.

Nothing else in this package writes such a name down, so that a rename there is one line here.
"""

import copy
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

CACHE_NAMES = ("cache", "past_key_values")
"""The argument and output that holds the KV cache, newest name first."""
IMAGE_TOKEN_NAMES = ("image_token_id", "image_token_index")
"""The field of a configuration with the id that stands for a part of a picture."""
CONTINUOUS_BATCHING = ("generate_batch", "init_continuous_batching", "continuous_batching_context_manager")
"""Methods that begin to generate from packed rows."""
PACKED = ("cu_seq_lens_q", "block_table")
"""Inputs that say that a row holds several texts."""
OPTIONAL = ("position_ids", "logits_to_keep", "use_cache")
"""Arguments of a forward that we give where they are taken."""
PREFIX_MODELS = ("paligemma",)
"""Types of models that read their prompt in both directions, and only what follows it in one."""

_PICTURE = re.compile("pixel|image|video|grid|aspect|token_type|cross_attention_mask")
_NOT_PER_TOKEN = re.compile("pixel|image|video|grid|aspect|feature")


def parameter_names(forward: Callable) -> tuple[str, ...]:
    """The names of a forward's arguments, `self` left out."""
    return tuple(name for name in inspect.signature(forward).parameters if name != "self")


def cache_among(arguments: Mapping[str, Any]) -> Any:
    """The KV cache among arguments by name; None where there is none."""
    return next((arguments[name] for name in CACHE_NAMES if arguments.get(name) is not None), None)


def cache_of(out: Any) -> Any:
    """The KV cache in what a forward or `generate` returned; None where there is none."""
    if isinstance(out, tuple):
        return next((item for item in out if hasattr(item, "get_seq_length")), None)
    fields = getattr(type(out), "__dataclass_fields__", {})  # an old name may be there too, and warn when asked for
    return next((getattr(out, name) for name in CACHE_NAMES if name in fields), None)


def pick_rows(cache: Any, rows: Tensor) -> bool:
    """Have a KV cache hold these of its rows (int64 `[n]`) alone; False, and nothing is changed, where it cannot."""
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    layers = getattr(cache, "layers", None) or ()
    if not layers or any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        return False
    cache.batch_select_indices(rows)
    return True


def cache_after(out: Any, arguments: Mapping[str, Any]) -> Any:
    """The KV cache that a forward or `generate` with these arguments has filled; None where there is none."""
    cache = cache_of(out)
    return cache_among(arguments) if cache is None else cache  # an empty one is false


def returns_dict(model: Any, arguments: Mapping[str, Any]) -> bool:
    """Whether a forward with these arguments returns an output with named fields, and no tuple."""
    asked = arguments.get("return_dict")
    return bool(getattr(model.config, "return_dict", True) if asked is None else asked)


def cache_name(taken: Collection[str]) -> str:
    """What a forward that takes these arguments calls its KV cache."""
    return next((name for name in CACHE_NAMES if name in taken), CACHE_NAMES[0])


def given_cache(model: Any, cache: Any) -> dict[str, Any]:
    """A KV cache as an argument of the model's forward, by the name that it is taken under."""
    return {cache_name(parameter_names(model.forward)): cache}


def without_cache(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments but for the KV cache."""
    return {name: value for name, value in arguments.items() if name not in CACHE_NAMES}


def cache_length(cache: Any) -> int | None:
    """How many columns a KV cache holds; None where it does not know, as one of states without columns."""
    try:
        return int(cache.get_seq_length())
    except (AttributeError, ValueError):
        return None


def image_token(config: Any) -> int | None:
    """The id that stands for a part of a picture in a prompt; None where the host sees none."""
    found = (getattr(config, name, None) for name in IMAGE_TOKEN_NAMES)
    return next((int(token) for token in found if token is not None), None)


def prefix_inputs(model: Any, follows: Tensor) -> dict[str, Tensor]:
    """What says to a model that reads its prompt in both directions which tokens (bool `[B, T]`) follow it."""
    return {"token_type_ids": follows.long()} if model.config.model_type in PREFIX_MODELS else {}


def picture_inputs(names: Iterable[str]) -> set[str]:
    """Those of these inputs that say what is in pictures, and where."""
    return {name for name in names if _PICTURE.search(name)}


def is_per_token(name: str, value: Any, shape: tuple[int, ...]) -> bool:
    """Whether an input has a value for each token of a batch of `shape` `[B, T]`, be a picture's as long by chance."""
    return isinstance(value, Tensor) and value.shape[:2] == torch.Size(shape) and not _NOT_PER_TOKEN.search(name)


def longer(model: Any, arguments: Mapping[str, Any], added: int) -> dict[str, Any]:
    """Arguments of `generate` for prompts that grew by `added` tokens: limits that count the prompt grow with it."""
    given = arguments.get("generation_config")
    sources = [
        dict(arguments),
        *(config.to_dict() for config in (given, model.generation_config) if config is not None),
    ]
    grown: dict[str, int] = {}
    for name in ("max_length", "min_length"):
        new = f"{name.partition('_')[0]}_new_tokens"  # comes before the limit that counts the prompt
        limit = next((source[name] for source in sources if source.get(name)), None)
        if limit is not None and all(source.get(new) is None for source in sources):
            grown[name] = limit + added
    if given is None or any(arguments.get(name) is not None for name in grown):
        return {**arguments, **grown}
    config = copy.deepcopy(given)
    config.update(**grown)
    return {**arguments, "generation_config": config}
