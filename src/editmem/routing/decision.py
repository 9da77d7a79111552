"""Memories that decide at a prompt's end and act while the answer is being said."""

from abc import abstractmethod

import torch
from torch import Tensor

from editmem.hosts.decisions import KEPT
from editmem.hosts.forward import Call, Mode
from editmem.memory import Memory
from editmem.routing.answers import HISTORY, Action, Reach, follow, last_action, recorded, resumed, scan
from editmem.routing.router import prompt_ends

LASTING = ("sum", "count", *HISTORY)
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
        state = self._in_step(self.current(call.decisions.get(self.key, {})), call)
        lasting = {name: state[name] for name in LASTING if name in state}
        if call.mode is Mode.SCAN or (call.mode is Mode.BOUNDARY and call.decides):
            return self._decided(x, out, call, state, lasting)
        with torch.no_grad():
            self.observe(x, out, call, lasting)
        if "edit" not in state or _surely_silent(state["edit"]):
            call.decisions[self.key] = {**state, **lasting}
            return None
        if call.mode is Mode.BOUNDARY:
            call.decisions[self.key] = {**state, **lasting}
            return follow(call, state["edit"], self.reach)
        action, carried = self.proceed(call, state)
        call.decisions[self.key] = self.stamped({**lasting, **carried})
        return action

    def _in_step(self, state: dict[str, Tensor], call: Call) -> dict[str, Tensor]:
        """What was carried, worked out anew where the end of the text was taken away since. A running mean cannot be:
        it begins again."""
        if KEPT not in state:
            return state
        if call.before is None or "ends" not in state:
            return {}
        history = {name: state[name] for name in HISTORY}
        history["ended"] = torch.where(history["ends"] < state[KEPT][:, None], history["ended"], -1)
        action, whole = resumed(call.before, history, self.reach, self.window)
        return {**history, **self.remember(action, whole)}

    def _decided(
        self, x: Tensor, out: Tensor, call: Call, state: dict[str, Tensor], lasting: dict[str, Tensor]
    ) -> Action:
        with torch.no_grad():  # a decision is not trained, and what is kept for later ones keeps no graph
            edit = self.decide(x, out, call, lasting)
        lasting |= recorded(call, edit, lasting)
        if call.mode is Mode.SCAN:
            action = self._gone_on_with(scan(call, edit, self.reach, self.window), call, state)
            call.decisions[self.key] = self.stamped({**lasting, **self.remember(action, call)})
            return action
        if "edit" in state:
            edit = torch.where(prompt_ends(call)[1], edit, state["edit"])
        action = follow(call, edit, self.reach)
        call.decisions[self.key] = self.stamped({**lasting, **self.remember(action, call), "edit": edit})
        return action

    def _gone_on_with(self, action: Action, call: Call, state: dict[str, Tensor]) -> Action:
        """The action, but for rows that begin with more of an answer that the cached text ends in the middle of."""
        if "step" not in state or _surely_silent(state["edit"]):
            return action
        edit, step, active = action.edit.clone(), action.step.clone(), action.active.clone()
        for number in range(min(call.real.shape[1], self.window)):
            one = call.column(number)
            more, carried = self.proceed(one, state)
            state = {name: torch.where(one.real[:, 0], value, state[name]) for name, value in carried.items()}
            edit[:, number] = torch.where(more.active[:, 0], more.edit[:, 0], edit[:, number])
            step[:, number] = torch.where(more.active[:, 0], more.step[:, 0], step[:, number])
            active[:, number] |= more.active[:, 0]
        return Action(edit, step, active)


def _surely_silent(edit: Tensor) -> bool:
    """Whether no row has an edit: looked up where that costs nothing, False where a GPU would have to be waited for."""
    return edit.device.type == "cpu" and not torch.compiler.is_compiling() and bool((edit < 0).all())
