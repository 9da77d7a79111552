"""Settings of baselines: frozen data classes, made from plain data."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def check(method: str, options: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Refuse options that a method does not have.

    Raises:
        ValueError: naming the unknown one and what there is.
    """
    for name in options:
        if name not in known:
            raise ValueError(f"{method} has no option {name!r}; it has {', '.join(known) or 'none'}")


def settings(method: str, default: T, options: Mapping[str, Any]) -> T:
    """A method's settings with some of them changed; lists become tuples.

    Args:
        method: its name, for messages.
        default: a data class.
        options: field -> value.

    Raises:
        ValueError: if a field is unknown, or a number is not one or below 0.
    """
    fields = {field.name: getattr(default, field.name) for field in dataclasses.fields(default)}  # type: ignore[arg-type]
    check(method, options, fields)
    for name, value in options.items():
        number = isinstance(fields[name], (int, float)) and not isinstance(fields[name], bool)
        if number and (isinstance(value, (bool, str)) or value is None or not value >= 0):
            raise ValueError(f"option {name} of {method} must be a number of 0 or more, not {value!r}")
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    return dataclasses.replace(default, **plain)  # type: ignore[type-var]
