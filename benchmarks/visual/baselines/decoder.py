"""The decoder's linear maps, found by structure: those of the vision tower often have the same names."""

from collections.abc import Sequence
from typing import Any

from torch import nn

UP_AND_DOWN = ("up_proj", "down_proj")


def decoder_maps(method: str, model: Any, names: Sequence[str]) -> list[dict[str, nn.Linear]]:
    """For each block of a model's language decoder its linear maps of some names, by their paths in the model.

    Args:
        method: for messages.
        model: the host.
        names: last parts of paths, such as "up_proj".

    Raises:
        ValueError: if some block has no linear map of one of the names.
    """
    decoder = model.get_decoder()
    lists = [module for module in decoder.modules() if isinstance(module, nn.ModuleList)]
    blocks = max(lists, key=lambda those: sum(p.numel() for p in those.parameters()), default=nn.ModuleList())
    paths = {module: path for path, module in model.named_modules()}
    found = []
    for number, block in enumerate(blocks):
        maps = {name: m for name, m in block.named_modules() if isinstance(m, nn.Linear)}
        chosen = {paths[m]: m for name, m in maps.items() if name.rpartition(".")[2] in names}
        missing = set(names) - {path.rpartition(".")[2] for path in chosen}
        if missing:
            has = sorted({name.rpartition(".")[2] for name in maps})
            raise ValueError(
                f"{method}: block {number} has no linear map {', '.join(sorted(missing))}; it has {', '.join(has)}"
            )
        found.append(chosen)
    if not found:
        raise ValueError(f"{method}: {type(model).__name__} has no list of decoder blocks")
    return found
