"""The teacher: MiniLM with its upper layers tuned on the relations. Writes its vector of every text.

python scripts/question_encoder/teacher.py MINILM DATA WORK --minutes 10
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from bank import texts
from batches import contrast, scale_and_bias
from measure import asks, table
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, AutoTokenizer

FROZEN = 3  # lower layers, whose states are worked out once
STAND_IN = "something"


class Teacher:
    """A sentence encoder in two halves: frozen lower layers and upper layers to tune."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder, attn_implementation="sdpa").eval()
        self.layers = self.model.encoder.layer

    def lower(self, lines: Sequence[str], size: int = 128) -> list[Tensor]:
        """Float16 `[T, 384]` for each text: its states after the frozen layers."""
        said = [line.replace("X", STAND_IN) for line in lines]
        ids = self.tokenizer(said, truncation=True, max_length=40)["input_ids"]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        found: list[Tensor] = [torch.empty(0)] * len(ids)
        with torch.inference_mode():
            for start in range(0, len(order), size):
                part = order[start : start + size]
                rows = pad_sequence([torch.tensor(ids[i]) for i in part], batch_first=True)
                lengths = torch.tensor([len(ids[i]) for i in part])
                states = self.model.embeddings(input_ids=rows)
                states = self.run(self.layers[:FROZEN], states, lengths)
                for i, row in zip(part, states.half(), strict=True):
                    found[i] = row[: len(ids[i])].clone()
        return found

    def run(self, layers: torch.nn.ModuleList, states: Tensor, lengths: Tensor) -> Tensor:
        """States after some layers."""
        real = torch.arange(states.shape[1]) < lengths[:, None]
        mask = torch.zeros(real.shape).masked_fill(~real, -1e9)[:, None, None]
        for layer in layers:
            states = layer(states, mask)
            states = states[0] if isinstance(states, tuple) else states
        return states

    def upper(self, states: Sequence[Tensor]) -> Tensor:
        """Float32 `[N, 384]`: unit vectors."""
        lengths = torch.tensor([len(row) for row in states])
        rows = self.run(self.layers[FROZEN:], pad_sequence([row.float() for row in states], batch_first=True), lengths)
        real = (torch.arange(rows.shape[1]) < lengths[:, None])[:, :, None]
        return normalize((rows * real).sum(1), dim=1)

    @torch.inference_mode()
    def vectors(self, states: Sequence[Tensor], size: int = 128) -> Tensor:
        """Float32 `[N, 384]`: unit vectors of many texts."""
        order = sorted(range(len(states)), key=lambda i: len(states[i]))
        found = torch.empty(len(states), 384)
        for start in range(0, len(order), size):
            part = order[start : start + size]
            found[part] = self.upper([states[i] for i in part])
        return found

    def __call__(self, lines: Sequence[str]) -> Tensor:
        return self.vectors(self.lower(lines))


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("minilm", "data", "work"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    torch.manual_seed(0)
    teacher = Teacher(options.minilm)
    lines, learning, _, _, only = texts(options.data)
    learned = len(lines) - sum(map(len, only.members))
    tested = asks(options.data / "asks/asks.py")
    print("plain", table(tested, teacher), flush=True)
    print(f"{len(lines)} texts", flush=True)
    start = time.time()
    states = teacher.lower(lines[:learned])
    print(f"lower {time.time() - start:.0f} s", flush=True)
    pooled = torch.stack([row.float().mean(0) for row in states])
    pooled = normalize(pooled - pooled.mean(0), dim=1)
    centres = normalize(torch.stack([pooled[mine].mean(0) for mine in learning.members]), dim=1)
    near = learning.neighbours(centres)
    scale, bias = scale_and_bias()
    tuned = [p for layer in teacher.layers[FROZEN:] for p in layer.parameters()]
    groups = [{"params": tuned, "lr": 1e-4}, {"params": [scale, bias], "lr": 1e-2}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    luck, start, step = torch.Generator().manual_seed(0), time.time(), 0
    while (spent := (time.time() - start) / 60 / options.minutes) < 1:
        for group, full in zip(optimizer.param_groups, (1e-4, 1e-2), strict=True):
            group["lr"] = full * min(1, (step + 1) / 20) * max(0.03, 1 - spent)
        numbers, labels = learning.draw(near, luck, seeds=5, each=7, texts=3)
        vectors = teacher.upper([states[i] for i in numbers])
        loss = contrast(vectors, labels, *learning.apart(labels), scale, bias)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tuned, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if step % 20 == 0:
            print(f"{step} {time.time() - start:.0f} s, loss {loss.item():.3f}", flush=True)
        if step % 80 == 0:
            print("tuned", table(tested, teacher), flush=True)
    print("tuned", table(tested, teacher), flush=True)
    torch.save(teacher.model.state_dict(), options.work / "teacher.pt")
    torch.save(torch.cat([teacher.vectors(states), teacher(lines[learned:])]).half(), options.work / "vectors.pt")
    print("written", flush=True)


if __name__ == "__main__":
    main()
