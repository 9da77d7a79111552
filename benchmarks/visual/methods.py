"""Every method that can be run on pictures, by name: the memories of the library, and what they are compared with."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import editmem
from benchmarks.visual.baselines import BASELINES
from benchmarks.visual.memories import Astray, Connected, Decomposed, VisualMemory
from benchmarks.visual.session import VisualSession

Method = Callable[[Any, Any, Mapping[str, Any], int], VisualSession]


def _paper(*host: Any) -> VisualSession:
    spec: Any = editmem.METHODS["memeic"]
    return VisualMemory(spec.paper().to_dict(), *host)


SHARED = {"method": "memeic", "storage": "shared", "rank": 8, "alpha": 32.0, "rate": 3e-3, "steps": 10}
"""The paper's adapters, with a step that suits small hosts."""

METHODS: dict[str, Method] = {
    **{name: partial(VisualMemory, {"method": name}) for name in ("memeic", "external", "dual-adapters", "wise")},
    "memoir-external": partial(VisualMemory, [{"method": "memoir"}, {"method": "external"}]),
    "memeic-split": partial(Decomposed, {"method": "memeic"}),
    "memeic-shared": partial(VisualMemory, SHARED),
    "memeic-connector": partial(Connected, {"method": "memeic", "connector": True, "evidence": "paper", "both": "all"}),
    "memeic-shared-connector": partial(Connected, SHARED | {"connector": True, "evidence": "paper", "both": "all"}),
    "memeic-astray": partial(Astray, {"method": "memeic"}),
    "memeic-paper": _paper,
    **BASELINES,
}
