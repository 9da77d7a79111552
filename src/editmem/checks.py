"""Refuse what a spec or a file says, where it cannot be."""

from collections.abc import Sequence
from typing import Any

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
