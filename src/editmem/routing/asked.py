"""What texts ask, and of whom: the names of edits in them, and each question with the name taken out."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from editmem.hosts.forward import Mode
from editmem.routing.question_encoder import PLACE, QuestionEncoder, question_encoder
from editmem.routing.question_kinds import auxiliaries, kinds
from editmem.routing.subjects import Found, Subjects
from editmem.routing.text_questions import TextQuestions
from editmem.text.spelling import Is
from editmem.text.word_stream import Spoken, fitted

SHORT = 4
"""Words that a sentence has at least to stand for itself."""
LONGEST = 512
"""Words of a question that are heard, its first ones."""

_ENCODERS: dict[torch.device, QuestionEncoder] = {}


def encoder_on(device: torch.device) -> QuestionEncoder:
    """The encoder that comes with the package, on a device."""
    if device not in _ENCODERS:  # no `functools.cache`: torch.compile would look through it
        own = question_encoder()
        _ENCODERS[device] = own if device.type == "cpu" else copy.deepcopy(own).to(device)
    return _ENCODERS[device]


@dataclass
class Asked:
    """What texts ask of edits, C times that one is named: each name in its own sentence.

    Attributes:
        found: the names in the texts.
        text: int64 `[C]`, which text; place: int64 `[C]`, which of its names.
        row: int64 `[C]`, the edit.
        vectors: float32 `[C, V, d]`, what the sentence with the name asks, up to each of its words.
        kind: int64 `[C, V]`, what kind of answer it asks for.
        said: int64 `[C, P]`, which of these has been said up to each piece.
        spoken: the pieces.
    """

    found: Found
    text: Tensor
    place: Tensor
    row: Tensor
    vectors: Tensor
    kind: Tensor
    said: Tensor
    spoken: Spoken


def ask(
    subjects: Subjects, tails: Tensor, other: TextQuestions | None, text: Tensor, since: Tensor, mode: Mode
) -> Asked:
    """What texts ask of the edits that they name.

    Args:
        subjects: the names of all edits.
        tails: int64 `[N]`, of each edit the word behind its name that is part of the subject, see `nouns_behind`.
        other: makes the vectors in the place of the built-in encoder.
        text: int64 `[B, S]`, token ids; negative where nothing is known.
        since: int64 `[B, 1]`, the first column that counts.
        mode: as in `Subjects.find`.
    """
    spoken = subjects.stream.read(text)
    found = subjects.find(text, since, mode, spoken)
    b, k = _places(found.row >= 0)
    row, column, real = found.row[b, k], spoken.column[b], spoken.real[b]
    here = (column >= found.start[b, k][:, None]) & (column <= found.end[b, k][:, None]) & real
    edit = (b * found.row.shape[1] + found.place[b, k])[:, None].expand_as(column)
    every = torch.zeros((found.row.numel(), column.shape[1]), dtype=torch.long, device=text.device)
    inside = every.scatter_reduce(0, edit, here.long(), "amax").gather(0, edit) > 0  # all names of the same edit
    sentence, begun = (part[b] for part in sentences(spoken))
    own = torch.where(here, sentence, -1).amax(1, keepdim=True)
    heard = ((sentence == own) | ((sentence == own + 1) & begun)) & (column >= since[b])
    inside &= heard
    behind = _behind(spoken, inside, b) & (spoken.hashes[0][b] == tails[row.clamp(min=0)][:, None])
    last = inside & ~pad(inside[:, 1:], (0, 1))
    ids = torch.where(inside, torch.where(last, PLACE, 0), words(spoken)[b])
    ids = torch.where(heard & ~behind, ids, 0)
    if other is None:
        heard_words, said = _compact(ids, text.shape[1])
        vectors, kind = _read(heard_words)
    else:
        ends = real if mode is Mode.SCAN else _ends(spoken, text)[b]
        vectors, kind = other(text[b], column, heard, inside | behind, ends), kinds(ids)
        said = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    return Asked(found, b, k, row, vectors, kind, said, spoken)


def asked_of_anyone(subjects: Subjects, other: TextQuestions | None, text: Tensor, since: Tensor) -> Tensor:
    """What the last sentences of texts ask, whoever is named: float32 `[B, d]`; arguments as in `ask`."""
    spoken = subjects.stream.read(text)
    sentence, begun = sentences(spoken)
    heard = (sentence >= sentence[:, -1:] - begun[:, -1:].long()) & (spoken.column >= since)
    if other is None:
        return _read(_compact(torch.where(heard, words(spoken), 0), text.shape[1])[0])[0][:, -1]
    ends = _ends(spoken, text)
    return other(text, spoken.column, heard, torch.zeros_like(heard), ends)[ends]


def nouns_behind(subjects: Subjects, text: Tensor, first: int) -> Tensor:
    """The word behind the name in an edit's prompt that is part of the subject: "pie" in "The price of Lumaro pie is",
    which all that is asked of it has in common.

    Args:
        subjects: the names of all edits.
        text: int64 `[N, S]`, the prompts of edits from `first` on.

    Returns:
        int64 `[N]`, the word's hash, -1 where no verb behind it shows that it is one.
    """
    spoken = subjects.stream.read(text)
    found = subjects.find(text, torch.zeros_like(text[:, :1]), Mode.BOUNDARY, spoken)
    own = found.row == torch.arange(first, first + len(text), device=text.device)[:, None]
    column = spoken.column[:, None]
    named = (column >= found.start[..., None]) & (column <= found.end[..., None]) & own[..., None]
    named = named.any(1) & spoken.real
    every = torch.arange(len(text), device=text.device)
    behind, verb = _behind(spoken, named, every), torch.isin(words(spoken), auxiliaries(text.device))
    noun = behind & ~spoken.among("function") & ~verb & (spoken.word >= 0)
    before_verb = torch.where(_behind(spoken, noun, every) & verb, spoken.word - 1, -1).amax(1, keepdim=True)
    noun &= (spoken.word == before_verb) & (before_verb >= 0)
    at = torch.where(noun, torch.arange(noun.shape[1], device=text.device), 0).amax(1, keepdim=True)
    return torch.where(noun, spoken.hashes[0], -1).gather(1, at)[:, 0]


def words(spoken: Spoken) -> Tensor:
    """The encoder's ids of words at their last pieces, int64 `[B, P]`, 0 elsewhere."""
    kind = spoken.kind & 7
    word = spoken.real & ((kind == Is.LETTERS) | (kind == Is.CHARACTER))
    latest = torch.where(spoken.real, torch.arange(word.shape[1], device=word.device), word.shape[1])
    following = pad(latest.flip(1).cummin(1).values.flip(1)[:, 1:], (0, 1), value=word.shape[1])
    begins = pad(spoken.begins, (0, 1), value=True).gather(1, following)
    return encoder_on(word.device).ids(torch.where(word & begins, spoken.hashes[0], -1))


def sentences(spoken: Spoken) -> tuple[Tensor, Tensor]:
    """The number of each piece's sentence, int64 `[B, P]`, and bool `[B, P]`, whether that has only just begun: what is
    as short as "It was in" or "Answer:" goes with the sentence before it."""
    opens = spoken.opens & spoken.real
    sentence = opens.long().cumsum(1)
    first = torch.where(opens, spoken.word, -1).cummax(1).values
    return sentence, spoken.word - first < SHORT


def sentence_starts(spoken: Spoken) -> Tensor:
    """The column from which on what is said at each piece is one question, int64 `[B, P]`."""
    opens = spoken.opens & spoken.real
    start = torch.where(opens, spoken.column, 0).cummax(1).values
    before = torch.where(
        start > torch.nn.functional.pad(start, (1, 0))[:, :-1], torch.nn.functional.pad(start, (1, 0))[:, :-1], 0
    )
    before = before.cummax(1).values
    return torch.where(sentences(spoken)[1], before, start)


def latest(spoken: Spoken, until: Tensor) -> Tensor:
    """The last piece up to columns `[B, Q]`, int64 `[B, Q]`; 0 for none."""
    return (torch.searchsorted(spoken.column.contiguous(), until.contiguous(), right=True) - 1).clamp(min=0)


def _ends(spoken: Spoken, text: Tensor) -> Tensor:
    """Bool `[B, P]`, the last piece of each text: behind those of shorter texts nothing stands."""
    last = latest(spoken, torch.full_like(text[:, :1], text.shape[1] - 1))
    return torch.arange(spoken.column.shape[1], device=text.device) == last


def _places(there: Tensor) -> tuple[Tensor, Tensor]:
    """The rows and columns of what is there, `[C]` each; on other devices than CPUs of all, or they had to be waited
    for."""
    if there.device.type == "cpu":
        row, column = there.nonzero(as_tuple=True)
        return row, column
    count = torch.arange(there.numel(), device=there.device)
    return count // there.shape[1], count % there.shape[1]


def _behind(spoken: Spoken, inside: Tensor, row: Tensor) -> Tensor:
    """Bool `[N, P]`, the pieces of words right behind those `inside` `[N, P]`, in texts `[N]`."""
    outside = spoken.first.shape[1] - 1
    begins = spoken.first.gather(1, spoken.word.clamp(min=0)).clamp(max=outside)
    before = spoken.before.gather(1, begins)[row]
    return spoken.real[row] & ~inside & (before >= 0) & inside.gather(1, before.clamp(min=0))


def _compact(ids: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
    """Ids `[N, P]` without what is none, int64 `[N, W]`, and how many there are up to each piece, int64 `[N, P]`."""
    there = ids > 0
    order = there.long().cumsum(1)
    width = fitted(min(tokens, LONGEST), order[:, -1])
    target = torch.where(there & (order <= width), order - 1, width)
    found = ids.new_zeros((ids.shape[0], width + 1)).scatter(1, target, torch.where(there, ids, 0))
    return found[:, :width], order.clamp(max=width)


def _read(ids: Tensor) -> tuple[Tensor, Tensor]:
    """What the words with these ids `[N, W]` ask, float32 `[N, W + 1, d]`, and the kinds, int64 `[N, W + 1]`, up to
    none, one, two ... of them. Of many edits with the same name all ask the same."""
    if ids.device.type == "cpu" and len(ids) > 1:
        ids, which = ids.unique(dim=0, return_inverse=True)
        vectors, kind = _read_each(ids)
        return vectors[which], kind[which]
    return _read_each(ids)


def _read_each(ids: Tensor) -> tuple[Tensor, Tensor]:
    return pad(encoder_on(ids.device)(ids), (0, 0, 1, 0)), pad(kinds(ids), (1, 0))
