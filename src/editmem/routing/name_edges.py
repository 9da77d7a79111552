"""Where names begin and end in a text, by the capitals, numbers and signs around them."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from editmem.text.spelling import Has, Is
from editmem.text.word_stream import Spoken


@dataclass
class Edges:
    """Where names cannot begin or end, by piece `[B, P]`.

    Attributes:
        open: bool, whether a name can begin with the piece: what stands before is no part of it.
        part_open: bool, the same where the name is only part of one.
        after: bool, whether only a word with a capital is in the way, as titles and ends of headings are.
        goes_on: int64, the column in which the piece's word goes on; S for none.
        cut: int64, the column in which a name that ends with the piece becomes another; S for none.
    """

    open: Tensor
    part_open: Tensor
    after: Tensor
    goes_on: Tensor
    cut: Tensor


def edges_of(spoken: Spoken, count: int) -> Edges:
    """Where names can begin, and where they turn out to be others, in a text of `count` tokens."""
    around = _Around(spoken)
    goes_on, cut = _ends(around, count)
    return Edges(*_beginnings(around), goes_on, cut)


class _Around:
    """How the word of each piece, `[B, P]`, hangs together with those before it, as far as it has been said."""

    def __init__(self, spoken: Spoken) -> None:
        self.spoken = spoken
        self.last = spoken.before.clamp(min=0)
        begin = spoken.first.gather(1, spoken.word.clamp(min=0)).clamp(max=spoken.real.shape[1] - 1)
        self.begin_before = begin.gather(1, self.last)
        apart = spoken.has(Has.SPACE) & spoken.has(Has.APOSTROPHE | Has.DASH)
        self.joined = spoken.begins & (spoken.before >= 0) & ~spoken.opens & ~apart
        self.joined &= ~spoken.has(Has.STOP | Has.BREAK | Has.QUOTE)
        self.glued = self.joined & ~spoken.has(Has.SPACE | Has.DOT | Has.APOSTROPHE | Has.DASH)
        shouting = ~((spoken.has(Has.LOWER) & spoken.real).long().cummax(1).values > 0)
        self.shouting = shouting & (spoken.word > 1)
        self.number = spoken.has(Has.DIGIT)
        self.own = spoken.has(Has.UPPER) & ~spoken.among("function")
        self.cls = spoken.kind & 7
        self.sign = (self.cls == Is.SIGN) & ~spoken.has(Has.DECORATION)
        self.link = spoken.among("link") & ~spoken.has(Has.UPPER)
        self.katakana = self.glued & spoken.has(Has.KATAKANA) & self.before(spoken.has(Has.KATAKANA))

    def before(self, values: Tensor) -> Tensor:
        """At the last piece of the word before."""
        return values.gather(1, self.last)

    def earlier(self, values: Tensor) -> Tensor:
        """At the first piece of the word before."""
        return values.gather(1, self.begin_before)

    def two_before(self, values: Tensor) -> Tensor:
        """At the last piece of the word before that."""
        return self.earlier(self.before(values))

    def across(self, between: Tensor) -> Tensor:
        """Whether a word is joined to the one two before it by what is `between`."""
        return self.joined & self.earlier(self.joined) & self.before(between)

    def decorated(self, letters: Tensor) -> Tensor:
        """Whether a word is `letters` and written to the one two before it with a stroke or the like between."""
        tight = self.glued & self.earlier(self.glued)
        return tight & self.before(self.spoken.has(Has.DECORATION)) & letters


def _ends(around: _Around, count: int) -> tuple[Tensor, Tensor]:
    """`Edges.goes_on` and `Edges.cut`."""
    spoken, outside = around.spoken, around.spoken.real.shape[1]
    numeral = spoken.among("single") & spoken.has(Has.UPPER) & around.before(around.own)  # "Elizabeth I", "vitamin A"
    named = around.number | (around.own | numeral) & (~around.shouting | (spoken.word == 2))
    mark = spoken.has(Has.MARK) & (around.cls == Is.CHARACTER)
    follows = around.joined & (named | spoken.has(Has.LINKER)) | around.katakana | around.glued & (around.sign | mark)
    over = around.across(around.link | spoken.has(Has.LINKER)) & named | around.decorated(around.cls == Is.LETTERS)
    position = torch.arange(outside, device=named.device).expand_as(named)
    following = torch.full((named.shape[0], outside + 1), outside, device=named.device)
    from_piece = torch.where(spoken.real & (spoken.before >= 0), around.last, outside)
    following = following.scatter(1, from_piece, position)[:, :outside]

    def column_of(piece: Tensor, where: Tensor) -> Tensor:
        at = piece.clamp(max=outside - 1)
        return torch.where((piece < outside) & where.gather(1, at), spoken.column.gather(1, at), count)

    numbers = pad(spoken.first, (0, 2), value=outside)
    one, two = (numbers.gather(1, spoken.word.clamp(min=0) + by) for by in (1, 2))
    goes_on = column_of(following, ~spoken.begins)
    return goes_on, torch.minimum(goes_on, torch.minimum(column_of(one, follows), column_of(two, over)))


def _beginnings(around: _Around) -> tuple[Tensor, Tensor, Tensor]:
    """`Edges.open`, `Edges.part_open` and `Edges.after`."""
    spoken, before, two_before = around.spoken, around.before, around.two_before
    opened, small = around.earlier(spoken.opens), spoken.among("starter") & ~spoken.among("place")
    year = before(around.number & ~spoken.has(Has.UPPER)) & two_before(spoken.among("preposition"))
    name = before(around.number) | before(around.own) & ~around.shouting
    name &= around.joined & ~before(spoken.among("title")) & ~year
    starter = opened & before(small)
    further = two_before(around.own & ~spoken.among("title")) & ~around.shouting
    further &= ~(around.earlier(opened) & two_before(small))
    further &= ~before(spoken.among("preposition")) | ~around.earlier(opened) | two_before(spoken.among("head"))
    blocked = around.across(around.link & ~spoken.among("article")) & further
    blocked |= around.decorated(two_before(around.cls) == Is.LETTERS) | around.katakana
    blocked |= around.glued & spoken.has(Has.HANGUL) & before(spoken.has(Has.HANGUL))
    blocked |= around.glued & around.earlier(around.glued) & before(around.sign) | around.across(spoken.has(Has.LINKER))
    part_open = ~(name & ~(starter & ~before(spoken.among("given"))) | blocked)
    after = name & ~starter & ~blocked & ~before(around.number) & ~before(spoken.among("place", "head"))
    return ~(name & ~starter | blocked), part_open, after
