"""What a memory found, put into the prompt as text; and questions about pictures, put in words."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from editmem.editing.encoder import Encoder
from editmem.edits.edit import Prompt
from editmem.text.seams import join

FORMS = ("plain", "paper")

# "[the owner of this emblem]", as data sets mark it
_MARKED = re.compile(r"\[[^\[\]]*\]")
# "the owner of this emblem", "the city shown in the picture", "this bird"
_PICTURED = re.compile(
    r"\b(?:the|that)\s+(?:(?!the\b|this\b|that\b|of\b)[\w'-]+\s+){1,6}?"
    r"(?:of\s+this\s+[\w-]+|(?:in|on|from|by|of)\s+(?:the|this)\s+(?:picture|image|photo|photograph|figure|scene)\b)"
    r"|\bthis\s+[\w-]+",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Said:
    """An edit as evidence.

    Attributes:
        question: its prompt.
        answer: its target.
    """

    question: str
    answer: str


def about(question: str, name: str) -> str:
    """A question about what a picture shows, as a question about the name of that: MemEIC's second sub-query.

    The words for what is in the picture, in brackets or not, give way to the name; where there are none, the name is
    put in front.
    """
    for pattern in (_MARKED, _PICTURED):
        put, count = pattern.subn(lambda _: name, question, count=1)
        if count:
            return put
    return f"{name}: {question}"


class Evidence:
    """Composes prompts.

    Args:
        encode: of the host.
        image_token: the id that stands for a part of a picture; None for hosts without pictures.
        form: "plain": question and answer in front of the prompt, one after the other, and the prompt with a name in it
            for what its picture shows. "paper": the prompt as it is, with MemEIC's headings where there are both a
            visual and a textual edit (its released prompt).
    """

    def __init__(self, encode: Encoder, image_token: int | None, form: str) -> None:
        self.encode, self.image_token, self.form = encode, image_token, form

    @functools.cached_property
    def _special(self) -> set[int]:
        return set(self.encode.tokenizer.all_special_ids) | {
            i for i, token in self.encode.tokenizer.added_tokens_decoder.items() if token.special
        }

    @functools.cached_property
    def _turn(self) -> tuple[list[int], int]:
        """The special tokens of a user's turn as (what stands before the content, how many tokens after it)."""
        if not self.encode.has_chat_template:
            return [], 0
        text = self.encode.text([{"role": "user", "content": "Hello"}])
        before, _, after = text.partition("Hello")
        tokenizer = self.encode.tokenizer
        ids = tokenizer(before, add_special_tokens=False)["input_ids"]
        if ids[:1] == [tokenizer.bos_token_id]:
            ids = ids[1:]
        return ids, len(tokenizer(after, add_special_tokens=False)["input_ids"])

    def span(self, ids: Sequence[int]) -> tuple[int, int, bool]:
        """Where the question of a prompt begins and ends, and whether it is a turn of a chat."""
        ids = list(ids)
        before, after = self._turn
        starts = [i for i in range(len(ids) - len(before) + 1) if before and ids[i : i + len(before)] == before]
        chat = bool(starts)
        start = starts[-1] + len(before) if chat else next((i for i, t in enumerate(ids) if t not in self._special), 0)
        seen = [i for i, token in enumerate(ids) if token == self.image_token]
        if (seen and seen[-1] >= start) or (seen and not chat):
            start = seen[-1] + 1
            while start < len(ids) and ids[start] in self._special:
                start += 1
        return start, len(ids) - (after if chat else 0), chat

    def question(self, ids: Sequence[int]) -> str:
        """The question of a prompt, in words."""
        start, end, _ = self.span(ids)
        return self.encode.decode(ids[start:end]).strip()

    def about(self, ids: Sequence[int], name: str, question: str | None = None) -> list[int]:
        """A prompt without its picture, with a name for what the picture shows; rendered as it is.

        `question` is how it asks in words, where that is known.
        """
        text = about(question or self.question(ids), name)
        prompt: Prompt = [{"role": "user", "content": text}] if self.span(ids)[2] else text
        return self.encode.prompt(prompt)

    def fits(self, count: int) -> bool:
        """Whether the host takes so many tokens, and goes on from them."""
        return self.encode.max_length is None or count < self.encode.max_length

    def compose(
        self,
        ids: Sequence[int],
        visual: Said | None,
        textual: Said | None,
        asked: bool = True,
        question: str | None = None,
    ) -> tuple[list[int], int]:
        """A prompt with evidence in it; one that is not what the visual edit was `asked`, put in words ("plain").

        `question` is how it asks in words, where that is known.

        Returns:
            token ids, and how many of the first are as they were.
        """
        start, end, _ = self.span(ids)
        own = self.encode.decode(ids[start:end]).strip()
        if visual is not None and not asked and self.form == "plain":
            own = about(question or own, visual.answer)
        text = self._text(visual, textual, own)
        body = self.encode.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [*ids[:start], *body, *ids[end:]], start

    def _text(self, visual: Said | None, textual: Said | None, question: str) -> str:
        given = [said for said in (visual, textual) if said is not None]
        if self.form == "paper":
            if visual is not None and textual is not None:
                return (
                    f"Visual Editing Knowledge: {visual.question} -> {visual.answer}\n"
                    f"Text Editing Knowledge: {textual.question} -> {textual.answer}\n"
                    f"{'-' * 32}\nQuestion: {question}\nAnswer:"
                )
            return f"{given[0].question} {given[0].answer}  {question}"
        return " ".join([*(join(f"{join(said.question, said.answer)}", ".") for said in given), question])
