"""The encoder in training: float word vectors, and its texts as ids."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from texts import SUBJECT, word_hash, words
from torch import Tensor, nn
from torch.nn.functional import dropout, normalize
from torch.nn.utils.rnn import pad_sequence

from editmem.routing.question_encoder import FIRST, PLACE, UNKNOWN, QuestionEncoder


def vocabulary(lines: Iterable[str], data: Path, size: int) -> list[str]:
    """The words of the texts and then the most frequent ones of other English text, ordered by hash."""
    known = dict.fromkeys(word for line in lines for word in words(line) if word != SUBJECT)
    counts: Counter[str] = Counter()
    for path in (*data.glob("wikitext2/*.txt"), *data.glob("*/*.json*"), *data.glob("knowedit/*/*.json")):
        counts.update(words(path.read_text()))
    common = [w for w, _ in counts.most_common() if w not in known and w.isascii() and len(w) < 18 and not w.isdigit()]
    chosen = [*known, *common][:size]
    return sorted({word_hash(word): word for word in chosen}.values(), key=word_hash)


class Student(QuestionEncoder):
    """The encoder with word vectors that can learn."""

    def __init__(self, known: Sequence[str], start: Tensor, layers: int) -> None:
        super().__init__(len(known), start.shape[1], layers)
        self.words.copy_(torch.tensor([word_hash(word) for word in known]))
        self.number = {word: i + FIRST for i, word in enumerate(known)}
        self.table = nn.Parameter(torch.cat([torch.randn(FIRST, start.shape[1]) * start.std(), start]))

    def look_up(self, ids: Tensor) -> Tensor:
        found = torch.nn.functional.embedding(ids, self.table)
        return dropout(found, 0.1, self.training)

    def numbers(self, line: str) -> list[int]:
        """The ids of a text."""
        return [PLACE if word == SUBJECT else self.number.get(word, UNKNOWN) for word in words(line)] or [UNKNOWN]

    def rows(self, lines: Sequence[Sequence[int]]) -> Tensor:
        """Float32 `[N, 192]`: the vectors of whole texts given as ids."""
        order = sorted(range(len(lines)), key=lambda i: len(lines[i]))
        size = -(-len(order) // 4)
        parts = [self._whole([lines[i] for i in order[at : at + size]]) for at in range(0, len(order), size)]
        return torch.cat(parts)[torch.tensor(order).argsort()]

    def _whole(self, lines: Sequence[Sequence[int]]) -> Tensor:
        ids = pad_sequence([torch.tensor(line[:48]) for line in lines], batch_first=True)
        if self.training:
            ids = torch.where((torch.rand(ids.shape) < 0.03) & (ids > PLACE), UNKNOWN, ids)
        return self(ids)[:, -1]

    @torch.no_grad()
    def encode(self, lines: Sequence[str]) -> Tensor:
        """Float32 `[N, 192]`: the vectors of whole texts."""
        was, parts = self.training, [lines[i : i + 512] for i in range(0, len(lines), 512)]
        self.eval()
        found = torch.cat([self.rows([self.numbers(line) for line in part]) for part in parts])
        self.train(was)
        return found

    def save(self, path: Path, background: Tensor) -> None:
        """Write what the package ships: int8 word vectors and background, float16 for the rest."""
        vectors, scales = _squeezed(self.table.detach())
        state = {name: value.detach().half() for name, value in self.state_dict().items() if name != "table"}
        state |= {"words": self.words.to(torch.int32), "vectors": vectors, "scales": scales.half()}
        state |= {"background": _squeezed(normalize(background, dim=1))[0]}
        save_file({name: value.contiguous() for name, value in state.items()}, path)


def _squeezed(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows in int8, and the scale of each."""
    scales = rows.abs().amax(1, keepdim=True).clamp(min=1e-8) / 127
    return (rows / scales).round().to(torch.int8), scales
