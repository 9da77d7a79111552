"""The default router: what is asked, by the state at the prompt's end; about whom, by the words."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from editmem.edits.edit import EncodedEdit
from editmem.hosts.forward import Call, Mode
from editmem.memory import Calibration, Kept, Match, Prompts
from editmem.routing.router import Router, at_prompt_ends, prompt_ends
from editmem.routing.whitening import Whitening
from editmem.storage.table import Rows
from editmem.text.chat_turns import Turns
from editmem.text.vocabulary import Vocabulary
from editmem.text.word_hash import BUCKETS, Words, heard


class NameRouter(Router):
    """What is asked by the state at the prompt's end, about whom by the words.

    One similarity blurs the two: another subject asked about in the same words is as near as the same
    subject in other words. Here the score is the product of two: the cosine of the prompts' `Whitening`, from
    the host's states as they enter the memory's block; and the share of the edit's words that the query has
    too, in which names (written with a capital, a digit, or in a script without case) weigh most and words of
    neutral prompts least. Words are compared folded (no case, no accents), however the tokenizer cuts them;
    of a conversation those of the last turn count.

    Plain text and turns of a chat end in different states, and are kept apart: each has its own `Whitening`, an
    edit answers prompts that are rendered as its own is, and the threshold is the stricter of the two.

    All edits are scored by their words; the states of the best `SHORT_LIST` of them are compared.

    Args:
        block_path: the block whose input is compared.
        width: d, of that input.
        threshold: the score from which an edit acts; None to calibrate it.
        false_match_rate: share of built-in pairs of prompts that name the same and ask something else whose
            states may be nearer than the threshold, for the calibration.
    """

    WIDTH = 12
    """Words kept of each edit, the weightiest."""
    COMMON = 0.05
    """Weight of a word that is not a name, against one that is."""
    NEUTRAL = 0.1
    """Factor on the weight of a word that neutral prompts have."""
    BEHIND = 0.98
    """Factor on the cosine of a plain prompt's last word, where white space follows it: an edit of the prompt with that
    white space comes first."""
    SHORT_LIST = 128
    HELD_OUT = 5
    """One in so many built-in names is kept out of the calibration, to estimate false matches with."""

    keys = ("states", "named", "weights", "chats")

    threshold: Tensor
    neutral: Tensor
    cohort: Tensor

    def __init__(self, block_path: str, width: int, threshold: float | None, false_match_rate: float) -> None:
        super().__init__()
        self.block_path, self.fixed_threshold, self.false_match_rate = block_path, threshold, false_match_rate
        self.plain, self.chat = Whitening(width), Whitening(width)
        self.words, self.turns = Words(), Turns()
        self.register_buffer("threshold", torch.tensor(torch.nan, dtype=torch.float32))
        self.register_buffer("neutral", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("cohort", torch.zeros((2, 0, width), dtype=torch.float16))
        self.states = Rows((width,), torch.float16)
        self.named = Rows((self.WIDTH,), torch.int32)
        self.weights = Rows((self.WIDTH,), torch.float32)
        self.chats = Rows((), torch.bool)

    def __len__(self) -> int:
        return len(self.states)

    @property
    def _spaces(self) -> tuple[Whitening, Whitening]:
        return self.plain, self.chat

    # Calibrating

    def calibrate(self, host: Calibration) -> None:
        self.hear(host.vocabulary)
        self.neutral = self._neutral_words(host.neutral[0])
        cohorts, calibrated = [], []
        for chat, questions in enumerate(self._spaces):
            rendering = min(chat, len(host.neutral) - 1)  # without a chat template there is plain text only
            neutral = self._ends(host.neutral[rendering].call)[0][:, 0]
            grid = self._ends(host.hard_negatives[rendering].call)[0][:, 0].unflatten(0, (host.names, -1))
            held_out = torch.arange(len(grid), device=grid.device) % self.HELD_OUT == self.HELD_OUT - 1
            questions.fit(neutral, grid[~held_out])
            cohorts.append(torch.cat([questions(neutral), questions(grid[held_out]).flatten(0, 1)]))
            calibrated.append(questions.threshold(grid[~held_out], self.false_match_rate))
        self.cohort = torch.stack(cohorts).half()
        strictest = torch.stack(calibrated).max()
        given = self.fixed_threshold
        self.threshold = strictest if given is None else torch.full_like(strictest, given)

    def hear(self, vocabulary: Vocabulary) -> None:
        self.words = vocabulary.words.to(self.threshold.device)
        self.turns = vocabulary.turns.to(self.threshold.device)

    def _neutral_words(self, neutral: Prompts) -> Tensor:
        texts, real = _texts(neutral)
        said = [self.words.spoken(row[own].tolist()) for row, own in zip(texts, real, strict=True)]
        return torch.tensor(sorted({word for words in said for word in words}), device=self.threshold.device)

    def _ends(self, call: Call) -> tuple[Tensor, Tensor]:
        return at_prompt_ends(call.noted_at(self.block_path), call)

    def _states(self, call: Call, chat: Tensor) -> tuple[Tensor, Tensor]:
        """Unit states `[B, Q, d]` of the prompts that end in this forward, and bool `[B, Q]`, which do.

        `chat` is bool `[B, Q]`, whether they are turns of a chat.
        """
        ends, found = self._ends(call)
        return torch.where(chat[..., None], self.chat(ends), self.plain(ends)), found

    # Writing

    def append(self, prompts: Prompts, edits: Sequence[EncodedEdit]) -> list[Kept]:
        first, count = len(self.states), len(edits)
        texts, real = _texts(prompts)
        keys = [self._words_of(texts[row][real[row]], edit.subject) for row, edit in enumerate(edits)]
        chat = self.turns.chats(prompts.call.text()[0])
        states = self._states(prompts.call, chat[:, None])[0][:count, 0]
        chat = chat[:count]
        self.named.append(torch.stack([named for named, _ in keys]))
        self.weights.append(torch.stack([weights for _, weights in keys]))
        self.states.append(states)
        self.chats.append(chat)
        scores = (self.cohort[chat.long()].float() @ states[..., None]).squeeze(-1)
        near = (scores >= self.threshold).float().mean(1)
        alike = self.alike(prompts, range(first, first + count))
        return [Kept(matches, rate) for matches, rate in zip(alike, near.tolist(), strict=True)]

    def _words_of(self, text: Tensor, subject: Sequence[int] | None) -> tuple[Tensor, Tensor]:
        """Buckets int32 and weights float32 (sum 1) of an edit's weightiest words, `[WIDTH]` each."""
        spoken = self.words.spoken(text[int(self.turns.starts(text[None])[0, -1]) :].tolist())
        about = self.words.spoken(subject) if subject is not None else {}
        neutral = set(self.neutral.tolist())

        def weight(word: int, name: bool) -> float:
            if about:
                name = word in about
            elif word in neutral:
                name = False  # with a capital it stands at the beginning of a sentence
            return 1.0 if name else self.COMMON * (self.NEUTRAL if word in neutral else 1.0)

        weigh = {word: weight(word, name) for word, name in spoken.items()}
        best = sorted(weigh.items(), key=lambda item: -item[1])[: self.WIDTH]
        named, weights = torch.zeros(self.WIDTH, dtype=torch.int32), torch.zeros(self.WIDTH)
        for i, (word, share) in enumerate(best):
            named[i], weights[i] = word % BUCKETS, share
        return named, weights / weights.sum().clamp(min=1e-6)

    def keep(self, rows: Tensor) -> None:
        for table in (self.states, self.named, self.weights, self.chats):
            table.keep(rows)

    # Reading

    def decide(self, x: Tensor, call: Call, carry: dict[str, Tensor]) -> Tensor:
        listed, state, shared, found = self._score(call)
        best, at = (state * shared).max(-1)
        edit = torch.where(found & (best >= self.threshold), listed.gather(1, at), -1)
        return edit.squeeze(1) if call.mode is Mode.BOUNDARY else edit

    def _score(self, call: Call) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The short list and how well it fits.

        Returns:
            rows int64 `[B, K]`; their states' cosines and their words' shares, float32 `[B, Q, K]`; and bool
            `[B, Q]`, which prompts end here.
        """
        text, first = call.text()
        bucket, start = self.words.hashes(text), self.turns.starts(text)
        bucket = torch.where(bucket >= 0, bucket % BUCKETS, -1)
        boundary = call.mode is Mode.BOUNDARY
        since = start[:, -1:] if boundary else torch.zeros_like(start[:, :1])
        chat = (since if boundary else start[:, first:]) > 0
        said = heard(bucket, since).T.to(self.weights.data.dtype)
        named, weights = self.named.data, self.weights.data
        everywhere = nn.functional.embedding_bag(named, said, per_sample_weights=weights, mode="sum").T.float()
        count = min(self.SHORT_LIST, everywhere.shape[1])
        listed = everywhere.topk(count, dim=1).indices.sort(dim=1).values
        shared = everywhere.gather(1, listed)[:, None] if boundary else self._so_far(bucket, start, listed)[:, first:]
        states, found = self._states(call, chat)
        keys = self.states.data[listed].float().transpose(1, 2)
        state, at = states @ keys, self._last_words(call)[..., None]
        if boundary:
            residual = call.noted_at(self.block_path)
            words = self.plain(residual.gather(1, at.expand(-1, -1, residual.shape[-1]))) @ keys
        else:
            words = state.gather(1, at.expand_as(state))
        state = torch.where(chat[:, :, None], state, state.maximum(self.BEHIND * words))
        same = chat[:, :, None] == self.chats.data[listed][:, None]
        return listed, torch.where(same, state.clamp(min=0), 0), shared, found

    def _last_words(self, call: Call) -> Tensor:
        """The column of the last token that is not white space, as of each prompt that ends in this forward: int64
        `[B, Q]`; the prompt's end itself where this forward has no such token."""
        column = torch.arange(call.real.shape[1], device=call.real.device).expand(call.real.shape)
        if call.tokens is not None:
            latest = torch.where(call.real & ~self.words.blank(call.tokens), column, -1).cummax(1).values
            column = torch.where(latest >= 0, latest, column)
        return column.gather(1, prompt_ends(call)[0][:, None]) if call.mode is Mode.BOUNDARY else column

    def _so_far(self, bucket: Tensor, start: Tensor, listed: Tensor) -> Tensor:
        """At each token the weight of the listed edits' words that its turn had so far: float32 `[B, S, K]`."""
        named, weights = self.named.data[listed], self.weights.data[listed]
        position = torch.arange(bucket.shape[1], dtype=torch.int32, device=bucket.device)[:, None]
        shared = torch.zeros((*bucket.shape, listed.shape[1]), dtype=weights.dtype, device=bucket.device)
        for word in range(self.WIDTH):
            said = bucket[:, :, None] == named[:, None, :, word]
            latest = torch.where(said, position, -1).cummax(1).values
            shared += torch.where(latest >= start[..., None], weights[:, None, :, word], 0)
        return shared

    def rank(self, prompts: Prompts, top: int) -> list[list[Match]]:
        listed, state, shared, _ = self._score(prompts.call)
        best = (state * shared)[:, 0].sort(dim=1, descending=True, stable=True)
        threshold = float(self.threshold)
        ranked = []
        for row, (scores, places) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
            parts = [{"words": float(shared[row, 0, at]), "state": float(state[row, 0, at])} for at in places[:top]]
            found = zip(listed[row][best.indices[row]].tolist(), scores, parts, strict=False)
            ranked.append([Match(i, s, threshold, part) for i, s, part in found if i < len(self.states)])
        return ranked


def _texts(prompts: Prompts) -> tuple[Tensor, Tensor]:
    """Token ids `[B, T]` of prompts and which of them are the prompt's own, bool `[B, T]`."""
    call = prompts.call
    assert call.tokens is not None
    assert call.step is not None
    return call.tokens, call.real & (call.step <= 0)
