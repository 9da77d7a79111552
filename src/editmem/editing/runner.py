"""Run the host on a batch: bare, with its memories, with something else in their place, or from a recording.

Everything below the edited block is frozen. It runs once; what its blocks return is recorded, and replayed
in every optimiser step, so that a step costs the blocks above only. This holds for any architecture.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from editmem.editing.batches import Batch, collate, vision_of
from editmem.edits.edit import EncodedEdit
from editmem.errors import InvalidEditError
from editmem.hosts import compat
from editmem.hosts.decisions import Decisions
from editmem.hosts.forward import IGNORED_LABEL, Call, Context, Tape
from editmem.hosts.structure import Host, SiteInfo
from editmem.memory import Prompts


class Runner:
    """Runs the host on batches with a module of our choice at a site, from the first block or from a recording.

    Args:
        host: the host.
        site: where the stand-in sits.
        context: the context of the slots on this host.
    """

    def __init__(self, host: Host, site: SiteInfo, context: Context) -> None:
        self.host, self.site, self.context = host, site, context
        parameters = compat.parameter_names(host.model.forward)
        self.options = {name for name in compat.OPTIONAL if name in parameters}
        self.cache_name = compat.cache_name(parameters)

    @property
    def on_last_block(self) -> bool:
        """Whether nothing but norms and the head is above the site."""
        return self.site.block == len(self.host.blocks) - 1

    def logits(
        self, batch: Batch, stand_ins: Mapping[str, Callable] | None = None, wanted: Tensor | None = None
    ) -> Tensor:
        """Logits `[B, L, V]` of the target's tokens, with `stand_ins` in place of the memories at these paths.

        Args:
            wanted: bool `[B, L]`, of which of them; `[n, V]` comes back then, and the head does not run for others.
        """
        keep = batch.labels.shape[1]
        inputs = self._inputs(batch)
        if "position_ids" in self.options and not batch.vision:
            inputs["position_ids"] = (batch.mask.cumsum(1) - 1).clamp(min=0)
        if "logits_to_keep" in self.options:
            inputs["logits_to_keep"] = keep
        if "use_cache" in self.options:
            inputs["use_cache"] = False
        lengths = (batch.mask * (batch.step <= 0)).sum(1)
        with self.context.setting(stand_ins=stand_ins or {}, lengths=lengths, silent=False, wanted=wanted):
            logits = self.host.model(**inputs).logits.to(batch.ids.device)
        if wanted is None:
            return logits[:, -keep:]
        # A head that is compiled, replaced or no plain linear map has run for all tokens.
        chosen = logits.shape[:2] == (1, int(wanted.sum()))
        return logits[0] if chosen else logits[:, -keep:][wanted]

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        follows = compat.prefix_inputs(self.host.model, batch.step > 0)
        return {"input_ids": batch.ids, "attention_mask": batch.mask, **batch.vision, **follows}

    def decided(self, batch: Batch, decisions: Decisions) -> Tensor:
        """Logits `[B, L, V]` of the target's tokens, with what is to act decided beforehand; for training."""
        keep, lengths = batch.labels.shape[1], (batch.mask * (batch.step <= 0)).sum(1)
        with self.context.setting(stand_ins={}, lengths=lengths, decided=decisions, silent=False):
            out = self.host.model(**self._inputs(batch))
        return out.logits[:, -keep:].to(batch.ids.device)

    def greedy(self, batch: Batch, counts: Sequence[int], pad: int, bare: bool = False) -> list[list[int]]:
        """The next tokens of each text, so many as `counts` says, the likeliest at each step, memories included unless
        `bare`."""
        if batch.vision:
            texts = self._greedy_seeing(batch, max(counts), pad, bare)
            return [text[:count] for text, count in zip(texts, counts, strict=True)]
        mask, tokens = batch.mask, batch.ids
        said = torch.full((len(counts), max(counts)), pad, device=tokens.device)
        rows = list(range(len(counts)))
        lengths: Tensor | None = (mask * (batch.step <= 0)).sum(1)
        inputs: dict[str, Any] = {"use_cache": True} if "use_cache" in self.options else {}
        follows = compat.prefix_inputs(self.host.model, batch.step > 0)
        for length in range(1, max(counts) + 1):
            if "position_ids" in self.options:
                inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
            if "logits_to_keep" in self.options:
                inputs["logits_to_keep"] = 1
            with torch.no_grad(), self.context.setting(stand_ins={}, lengths=lengths, silent=bare):
                out = self.host.model(input_ids=tokens, attention_mask=mask, **inputs, **follows)
            likeliest, cache = out.logits[:, -1].argmax(-1).to(tokens.device), compat.cache_of(out)
            said[rows, length - 1] = likeliest
            mask = nn.functional.pad(mask, (0, 1), value=1)
            going = [place for place, row in enumerate(rows) if counts[row] > length]
            if 0 < len(going) < len(rows) and compat.pick_rows(cache, torch.tensor(going, device=tokens.device)):
                rows, mask, likeliest = [rows[place] for place in going], mask[going], likeliest[going]
            tokens, lengths, follows = likeliest[:, None], None, {}
            inputs[self.cache_name] = cache
        return [text[:count] for text, count in zip(said.tolist(), counts, strict=True)]

    def go_on(
        self, rows: Sequence[tuple[EncodedEdit, Sequence[int]]], count: int, pad: int, bare: bool
    ) -> list[list[int]]:
        """As `greedy`, of edits' prompts with what was said after them."""
        batch = collate([(i, edit.prompt, [*said, pad]) for i, (edit, said) in enumerate(rows)], pad, self.host.device)
        seen = [(edit.vision, len(edit.prompt), len(edit.prompt)) for edit, _ in rows]
        return self.greedy(dataclasses.replace(batch, vision=vision_of(seen, batch)), [count] * len(rows), pad, bare)

    def _greedy_seeing(self, batch: Batch, count: int, pad: int, bare: bool) -> list[list[int]]:
        """By `generate`: where a picture's tokens are in the text, hosts count positions in ways of their own."""
        from transformers import GenerationConfig

        config = GenerationConfig(max_new_tokens=count, do_sample=False, num_beams=1, pad_token_id=pad)
        with self.context.setting(stand_ins={}, silent=bare):
            said = cast(Any, self.host.model).generate(generation_config=config, **self._inputs(batch))
        return said[:, batch.ids.shape[1] :].tolist()

    def see(self, inputs: Mapping[str, Any], lengths: Tensor) -> Prompts:
        """What the site of the bare host sees of prompts of `lengths` (int64 `[B]`) tokens."""
        seen, look = _looking()
        options: dict[str, Any] = {"use_cache": False} if "use_cache" in self.options else {}
        if "logits_to_keep" in self.options:
            options["logits_to_keep"] = 1
        if "position_ids" in self.options and set(inputs) == {"input_ids", "attention_mask"}:
            options["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
        with torch.no_grad(), self.context.setting(stand_ins={self.site.path: look}, lengths=lengths, silent=False):
            self.host.model(**inputs, **options)
        return seen[0]

    def record(self, batch: Batch) -> tuple[Tensor, Prompts, Tape]:
        """As `probe`, and what the parts of the host below the site returned."""
        tape = Tape()
        with self.context.setting(tape=tape):
            logits, prompts = self.probe(batch)
        below = {path for path, _ in self.host.below(self.site)}
        tape.outputs = {path: out for path, out in tape.outputs.items() if path in below}
        return logits, prompts, tape.rewound()

    def probe(self, batch: Batch) -> tuple[Tensor, Prompts]:
        """One pass through the bare host: logits `[n, V]` of all labelled tokens, row by row, and what the site saw."""
        seen, look = _looking()
        with torch.no_grad():
            logits = self.logits(batch, {self.site.path: look}, batch.labels != IGNORED_LABEL)
        if not torch.isfinite(seen[0].x[seen[0].call.real]).all():
            raise InvalidEditError(
                f"the host's activations at {self.site.path} are not finite (NaN or infinity); nothing was written. "
                "Check the host's weights and dtype"
            )
        return logits, seen[0]


def _looking() -> tuple[list[Prompts], Callable[[Tensor, Tensor, Call], Tensor]]:
    """A stand-in that changes nothing, and the list in which it notes what it sees."""
    seen: list[Prompts] = []

    def look(x: Tensor, out: Tensor, call: Call) -> Tensor:
        seen.append(Prompts(x, out, call))
        return out

    return seen, look
