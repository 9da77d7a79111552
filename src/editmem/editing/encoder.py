"""How prompts, pictures and edits become what the host takes."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from editmem.edits.edit import Edit, EncodedEdit, Prompt, check_prompt
from editmem.edits.image import Picture
from editmem.errors import InvalidEditError
from editmem.text.seams import join

PICTURE = "This picture"
"""In the place of the text of an item that has none."""


class Encoder:
    """Turns prompts and edits into token ids, the same way everywhere.

    Args:
        tokenizer: a Hugging Face tokenizer, or a processor that holds one.
        max_length: the longest text that the host takes, in tokens; None for no limit.
    """

    def __init__(self, tokenizer: Any, max_length: int | None) -> None:
        self.processor: Any = tokenizer if hasattr(tokenizer, "image_processor") else None
        self.tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
        self.max_length = max_length

    @property
    def has_chat_template(self) -> bool:
        return bool(getattr(self.tokenizer, "chat_template", None))

    def text(self, prompt: Prompt, pictured: bool = False) -> str:
        """The prompt as the host reads it, chat template applied, with the place of a picture in it if `pictured`."""
        if isinstance(prompt, str):
            return f"{self._placeholder}{prompt}" if pictured and self._placeholder not in prompt else prompt
        if not self.has_chat_template:
            raise InvalidEditError("the prompt is chat messages, but this tokenizer has no chat template; give text")
        messages: list[dict[str, Any]] = [dict(message) for message in prompt]
        if not pictured:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        if not getattr(self.processor, "chat_template", None):
            messages[-1]["content"] = f"{self._placeholder}{messages[-1]['content']}"
            return self.text(messages)
        messages[-1]["content"] = [{"type": "image"}, {"type": "text", "text": messages[-1]["content"]}]
        return str(self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    @functools.cached_property
    def _placeholder(self) -> str:
        """What stands for a picture in plain text; empty where the processor puts it there itself."""
        picture = Picture.of(np.zeros((32, 32, 3), dtype=np.uint8)).pil()
        token = str(getattr(self.processor, "boi_token", None) or getattr(self.processor, "image_token", "<image>"))
        start, end = (getattr(self.processor, f"vision_{side}_token", "") for side in ("start", "end"))
        ways = (self._in_template(), f"{start}{token}{end}", token, "")
        return next((way for way in ways if way is not None and self._takes(f"{way}a", picture)), token)

    def _in_template(self) -> str | None:
        """What the chat template writes for a picture; None without one."""
        if not getattr(self.processor, "chat_template", None):
            return None
        parts = [{"type": "image"}, {"type": "text", "text": "a"}]
        before, after = (
            self.processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
            for content in (parts, parts[1:])
        )
        start = next(i for i, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1])
        return str(before[start : start + len(before) - len(after)].strip())

    def _takes(self, text: str, picture: Any) -> bool:
        """Whether the processor takes a text with one picture."""
        try:
            self.processor(text=[text], images=[picture], return_tensors="pt")
        except (ValueError, IndexError):  # it counts the places in the text
            return False
        return True

    def prompt(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt, special tokens as at inference."""
        check_prompt(prompt)
        # A rendered template already holds its special tokens.
        ids = self.tokenizer(self.text(prompt), add_special_tokens=isinstance(prompt, str))["input_ids"]
        self._check_length(len(ids))
        return list(ids)

    def seen(self, prompt: Prompt, picture: Picture) -> tuple[list[int], dict[str, Any]]:
        """Token ids of a prompt with a picture, and what else the host takes to see it, for a batch of one.

        Raises:
            InvalidEditError: if there is no processor, or the prompt is too long.
        """
        check_prompt(prompt)
        if self.processor is None:
            raise InvalidEditError(
                "a picture needs the model's processor: editmem.wrap(model, spec, tokenizer=processor)"
            )
        inputs = dict(
            self.processor(
                text=[self.text(prompt, pictured=True)],
                images=[picture.pil()],
                return_tensors="pt",
                add_special_tokens=isinstance(prompt, str),
            )
        )
        ids = inputs.pop("input_ids")[0].tolist()
        for name in ("attention_mask", "labels"):
            inputs.pop(name, None)
        self._check_length(len(ids))
        return ids, inputs

    def _check_length(self, count: int) -> None:
        if self.max_length is not None and count >= self.max_length:
            raise InvalidEditError(f"the prompt has {count} tokens, the model takes fewer than {self.max_length}")

    def edit(self, edit: Edit, prefixes: Sequence[str] = ()) -> EncodedEdit:
        """An edit as token ids, also behind each of `prefixes` (raw prompts only).

        Raises:
            InvalidEditError: if the tokenizer cannot encode the target, or the text is too long for the model.
        """
        vision: Mapping[str, Any] = {}
        if edit.image is None:
            prompt = self.prompt(edit.prompt)
        else:
            prompt, vision = self.seen(edit.prompt, edit.image)
        target = self._target(edit, prompt if edit.image is None else self.prompt(edit.prompt))
        total = len(prompt) + len(target)
        if self.max_length is not None and total > self.max_length:
            raise InvalidEditError(
                f"edit {edit.id}: prompt and target have {total} tokens together, the model takes {self.max_length}"
            )
        prefixes = prefixes if edit.image is None else ()
        contexts = [self.prompt(f"{prefix} {edit.prompt}") for prefix in prefixes if isinstance(edit.prompt, str)]
        fitting = [c for c in contexts if self.max_length is None or len(c) + len(target) <= self.max_length]
        subject = None if edit.subject is None else self._inside(edit.subject)
        said = {name: tuple(map(self._inside, getattr(edit, name))) for name in ("aliases", "phrasings", "unlike")}
        behind, chat = tuple(map(tuple, fitting)), not isinstance(edit.prompt, str)
        return EncodedEdit(edit, tuple(prompt), tuple(target), subject, behind, vision, **said, chat=chat)

    def _inside(self, text: str) -> tuple[int, ...]:
        """Ids of a text as it stands within another."""
        return tuple(self.tokenizer(f" {text}", add_special_tokens=False)["input_ids"])

    def renderings(self, edit: Edit, prefixes: Sequence[str] = ()) -> list[EncodedEdit]:
        """The edit as `edit` encodes it; then, where that is another text, without the white space that its prompt ends
        in; and, if it can be, for plain text where it is a chat and the reverse."""
        own = self.edit(edit, prefixes)
        encoded = [own]
        for prompt, between in self._other_prompts(edit):
            try:
                other = self.edit(dataclasses.replace(edit, prompt=prompt, join=between))
            except InvalidEditError:  # too long with the template around it
                continue
            if other.prompt != own.prompt:
                encoded.append(dataclasses.replace(other, edit=edit))
        return encoded

    def item(self, item: Edit) -> list[EncodedEdit]:
        """What an item is found by: its picture and its text, each as plain text and as a user's turn of a chat.

        Raises:
            InvalidEditError: if it is too long for the model.
        """
        said = {name: tuple(map(self._inside, getattr(item, name))) for name in ("aliases", "phrasings", "unlike")}
        subject = None if item.subject is None else self._inside(item.subject)
        text = item.text.strip() or PICTURE
        prompts: list[Prompt] = [text]
        if self.has_chat_template:
            prompts.append([{"role": "user", "content": text}])
        keys: list[tuple[bool, Sequence[int], Mapping[str, Any]]] = []
        if item.image is not None:
            keys += [(prompt is not text, *self.seen(prompt, item.image)) for prompt in prompts]
        if item.text.strip():
            keys += [(prompt is not text, self.prompt(prompt), {}) for prompt in prompts]
        return [EncodedEdit(item, tuple(ids), (), subject, (), seen, **said, chat=chat) for chat, ids, seen in keys]

    def _other_prompts(self, edit: Edit) -> Iterator[tuple[Prompt, str | None]]:
        """In what other ways an edit's prompt is given, each with what stands between it and its answer."""
        if isinstance(edit.prompt, str):
            bare = edit.prompt.rstrip()
            if bare != edit.prompt:
                yield bare, None if edit.join is None else edit.prompt[len(bare) :] + edit.join
            if self.has_chat_template:
                yield [{"role": "user", "content": bare}], None
        elif [message["role"] for message in edit.prompt] == ["user"]:
            yield edit.prompt[0]["content"].rstrip(), edit.join

    def _target(self, edit: Edit, prompt: list[int]) -> list[int]:
        raw = isinstance(edit.prompt, str)
        text = self.text(edit.prompt)
        joined = join(text, edit.target, edit.join) if raw else text + edit.target
        ids = list(self.tokenizer(joined, add_special_tokens=raw)["input_ids"])
        if raw and ids[-1:] == [self.tokenizer.eos_token_id] and prompt[-1:] != ids[-1:]:
            ids = ids[:-1]
        if ids[: len(prompt)] == prompt and len(ids) > len(prompt):
            target = ids[len(prompt) :]
        else:
            # The tokenizer merges across the border; the model will have to answer from the prompt's own tokens.
            target = list(self.tokenizer(joined[len(text) :], add_special_tokens=False)["input_ids"])
        unknown = self.tokenizer.unk_token_id
        lost = not self.decode(target).strip() or (unknown is not None and unknown in target)
        if lost:
            raise InvalidEditError(
                f"edit {edit.id}: the tokenizer cannot encode the target {edit.target!r} (it gives {target})"
            )
        return target

    def decode(self, ids: Iterable[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))
