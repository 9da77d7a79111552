"""Refuse what a spec or a file says, where it cannot be."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from editmem.errors import SpecError


def check_choices(spec: Any, **choices: Sequence[str | None]) -> None:
    """Refuse a spec with a field that is none of those allowed.

    Raises:
        SpecError: naming the field, its value and what there is.
    """
    for name, allowed in choices.items():
        if getattr(spec, name) not in allowed:
            raise SpecError(f"{name} must be one of {tuple(allowed)}, got {getattr(spec, name)!r}")


def check_ranges(spec: Any, **ranges: tuple[float, float]) -> None:
    """Refuse a spec with a field outside of its range, ends included; None passes.

    Raises:
        SpecError: naming the field, its value and the range.
    """
    for name, (low, high) in ranges.items():
        if (value := getattr(spec, name)) is not None and not low <= value <= high:
            raise SpecError(f"{name} must be between {low} and {high}, got {value!r}")


def check_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not those of an (empty) memory but for their number of rows.

    Floats may be wider or narrower, as they are where the same host was loaded in another dtype.

    Raises:
        ValueError: naming the first tensor that is missing, unknown, or of another dtype or number of axes.
    """
    for name in sorted(set(found) ^ set(expected)):
        raise ValueError(f"tensor {name!r} is {'missing' if name in expected else 'unknown'}")
    for name, tensor in expected.items():
        floats = found[name].is_floating_point() and tensor.is_floating_point()
        if found[name].ndim != tensor.ndim or not (floats or found[name].dtype == tensor.dtype):
            raise ValueError(
                f"tensor {name!r} is {found[name].dtype} with {found[name].ndim} axes, "
                f"expected {tensor.dtype} with {tensor.ndim}"
            )
