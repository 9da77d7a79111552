"""What a memory that sits on several linear maps does at each of them."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from editmem.hosts.forward import Call
from editmem.memory import Draft, Memory

Act = Callable[[int, Tensor, Tensor, Call], Tensor]


class Part(nn.Module):
    """One of the sites of a memory.

    Args:
        memory: the memory.
        act: what it does at map `number`, with what went in, what came out, and the call; None for nothing.
        number: of the linear map.
        moves: what of the memory's state moves with this site.
    """

    def __init__(
        self, memory: Memory, act: Act | None = None, number: int = 0, moves: Sequence[nn.Module] = ()
    ) -> None:
        super().__init__()
        self.held = [memory]  # not as a submodule: it has many parts
        self.act, self.number, self.moves = act, number, list(moves)

    def __len__(self) -> int:
        return len(self.held[0])

    @property
    def window(self) -> int:
        return self.held[0].window

    def begun(self, tail: Tensor) -> Tensor:
        return self.held[0].begun(tail)

    def forward(self, x: Tensor, out: Tensor, call: Call) -> Tensor:
        return out if self.act is None else self.act(self.number, x, out, call)

    def _apply(self, fn: Callable, recurse: bool = True) -> "Part":
        moving = self.held[0].moving(fn)
        for module in self.moves:
            module._apply(moving, recurse)
        return self


class NoDraft(Draft):
    """Nothing to learn: edits act by what they say."""

    def forward(self, x: Tensor, out: Tensor, call: Call) -> Tensor:
        return out

    def step(self, loss: Tensor, unfinished: Tensor) -> None:
        pass
