"""Subclasses that pass for the class that they are made of, for objects whose class is swapped in place."""

import copy
from typing import Any


class Disguised:
    """What such a subclass has besides what it is made for: copies keep it."""

    _host_class: type

    def __deepcopy__(self, memo: dict) -> Any:
        clone = self.__class__.__new__(self.__class__)
        memo[id(self)] = clone
        clone.__dict__.update({key: copy.deepcopy(value, memo) for key, value in self.__dict__.items()})
        return clone


def disguised(mixin: type[Disguised], cls: type, **names: Any) -> type:
    """A subclass of `mixin` and `cls` that goes by the name of `cls`, as checkpoints and pipelines do."""
    own = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (mixin, cls), {**own, "_host_class": cls, **names})


def host_class(cls: type) -> type | None:
    """The class that a class is the disguise of; None of any other, subclasses of one included."""
    return vars(cls).get("_host_class")
