"""Memories that decide at a prompt's end and act while the answer is being said."""

from abc import abstractmethod

import torch
from torch import Tensor

from editmem.call import Call, Mode
from editmem.memory.answers import Action, Reach, follow, last_action, scan
from editmem.memory.base import Memory
from editmem.memory.router import prompt_ends

POOLED = ("sum", "count", "text")
"""What deciding keeps of a text from one forward to the next."""


class ActingMemory(Memory):
    """Decides once for each prompt which entry is for it (an edit, or a side that many edits share), and carries it."""

    @abstractmethod
    def decide(self, x: Tensor, out: Tensor, call: Call, carry: dict[str, Tensor]) -> Tensor:
        """The entry for each prompt that ends in this forward, -1 for none.

        Returns:
            int64 `[B]` in `Mode.BOUNDARY`, `[B, T]` in `Mode.SCAN`.
        """

    @abstractmethod
    def observe(self, x: Tensor, out: Tensor, call: Call, carry: dict[str, Tensor]) -> None:
        """Take note of tokens that end no prompt, where later decisions depend on them."""

    @property
    @abstractmethod
    def reach(self) -> Reach:
        """How far entries act."""

    @abstractmethod
    def proceed(self, call: Call, state: dict[str, Tensor]) -> tuple[Action, dict[str, Tensor]]:
        """The action on one more token of a cached text (`Mode.CONTINUE`), and what to carry on."""

    def remember(self, action: Action, call: Call) -> dict[str, Tensor]:
        """What `proceed` needs after a forward of another mode."""
        return last_action(action, call)

    def act(self, x: Tensor, out: Tensor, call: Call) -> Action | None:
        """What acts on which token; None where certainly nothing does."""
        state = call.carry.get(self.key, {})
        pooled = {name: state[name] for name in POOLED if name in state}
        if call.mode is Mode.SCAN or (call.mode is Mode.BOUNDARY and call.decides):
            return self._decided(x, out, call, state, pooled)
        with torch.no_grad():
            self.observe(x, out, call, pooled)
        if "edit" not in state or _surely_silent(state["edit"]):
            call.carry[self.key] = {**state, **pooled}
            return None
        if call.mode is Mode.BOUNDARY:
            call.carry[self.key] = {**state, **pooled}
            return follow(call, state["edit"], self.reach)
        action, carried = self.proceed(call, state)
        call.carry[self.key] = {**pooled, **carried}
        return action

    def _decided(
        self, x: Tensor, out: Tensor, call: Call, state: dict[str, Tensor], pooled: dict[str, Tensor]
    ) -> Action:
        with torch.no_grad():  # a decision is not trained, and what is kept for later ones keeps no graph
            edit = self.decide(x, out, call, pooled)
        if call.mode is Mode.SCAN:
            action = scan(call, edit, self.reach, self.window)
            call.carry[self.key] = {**pooled, **self.remember(action, call)}
            return action
        if "edit" in state:
            edit = torch.where(prompt_ends(call)[1], edit, state["edit"])
        action = follow(call, edit, self.reach)
        call.carry[self.key] = {**pooled, **self.remember(action, call), "edit": edit}
        return action


def _surely_silent(edit: Tensor) -> bool:
    """Whether no row has an edit: looked up where that costs nothing, False where a GPU would have to be waited for."""
    return edit.device.type == "cpu" and not torch.compiler.is_compiling() and bool((edit < 0).all())
