"""Train the encoder that the package ships.

    python scripts/question_encoder/train.py MINILM DATA WORK --minutes 30

Learns from the relations at once, and from the teacher's vectors (`teacher.py`) as soon as WORK has them.
"""

import argparse
import time
from pathlib import Path
from random import Random

import torch
from bank import texts
from batches import Bank, contrast, scale_and_bias
from made import other, same
from measure import asks, held, table
from student import Student, vocabulary
from teacher import Teacher
from torch import Tensor
from torch.nn.functional import normalize

SIZE, WIDTH = 34_000, 192


def squeezed(rows: Tensor, width: int) -> Tensor:
    """Rows in their first principal directions."""
    rows = rows.float()
    sample = rows[torch.randperm(len(rows))[:20_000]]
    return rows @ torch.linalg.eigh(sample.T @ sample).eigenvectors[:, -width:]


def word_vectors(known: list[str], minilm: Path, work: Path) -> Tensor:
    """Float32 `[V, D]`: what MiniLM makes of each word by itself, and of its pieces."""
    path = work / "words.pt"
    if path.exists():
        return torch.load(path)
    teacher = Teacher(minilm)
    table = teacher.model.embeddings.word_embeddings.weight.detach()
    pieces = teacher.tokenizer(known, add_special_tokens=False)["input_ids"]
    shallow = torch.stack([table[row or [100]].mean(0) for row in pieces])
    deep = teacher(known)
    both = [normalize(part - part.mean(0), dim=1) for part in (shallow, deep)]
    rows = squeezed(torch.cat(both, dim=1), WIDTH)
    rows = rows / rows.std()
    torch.save(rows, path)
    return rows


def centres(student: Student, bank: Bank, lines: list[str]) -> Tensor:
    """Float32 `[R, 192]`: the mean direction of each relation's texts."""
    rows = student.encode([lines[n] for members in bank.members for n in members])
    parts = rows.split([len(members) for members in bank.members])
    return normalize(torch.stack([part.mean(0) for part in parts]), dim=1)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("minilm", "data", "work"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--name", default="student")
    parser.add_argument("--start", type=Path)
    parser.add_argument("--rate", type=float, default=1e-3)
    options = parser.parse_args()
    torch.manual_seed(0)
    lines, learning, checking, loose = texts(options.data)
    known = vocabulary(lines, options.data, SIZE)
    student = Student(known, word_vectors(known, options.minilm, options.work), options.layers)
    scale, bias = scale_and_bias()
    if options.start:
        saved = torch.load(options.start)
        student.load_state_dict(saved["student"])
        scale.data, bias.data = saved["scale"], saved["bias"]
    print(f"{len(lines)} texts, {len(known)} words, {len(learning.relations)} relations", flush=True)
    ours, apart = asks(options.data / "asks/asks.py"), held(checking.relations)
    rest = [p for name, p in student.named_parameters() if name != "table"]
    rates = (options.rate, options.rate, 1e-2)
    groups = [{"params": part} for part in (rest, [student.table], [scale, bias])]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
    mine = [n for members in (*learning.members, *learning.others, list(loose)) for n in members]
    numbers_of = {n: student.numbers(lines[n]) for n in mine}
    luck, chance, start, step = torch.Generator().manual_seed(0), Random(0), time.time(), 0
    target, near = None, torch.empty(0)
    while (spent := (time.time() - start) / 60 / max(options.minutes, 1e-9)) < 1:
        if step % 400 == 0:
            near = learning.neighbours(centres(student, learning, lines))
        if target is None and step % 50 == 0 and (options.work / "vectors.pt").exists():
            time.sleep(2)
            target = normalize(squeezed(torch.load(options.work / "vectors.pt"), 192), dim=1)
            print("teacher found", flush=True)
        for group, full in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = full * min(1, (step + 1) / 50) * max(0.02, 1 - spent)
        numbers, labels = learning.draw(near, luck, seeds=12, each=7, texts=3)
        batch = [
            same(lines[n], learning.relations[label].kind, chance)
            if label >= 0
            else other(chance.choice(learning.relations[-1 - label].phrasings), chance)
            for n, label in zip(numbers, labels, strict=True)
        ]
        vectors = student.rows([student.numbers(line) for line in batch])
        loss = contrast(vectors, labels, *learning.apart(labels), scale, bias)
        followed = torch.zeros(())
        if target is not None:
            picked = [mine[i] for i in torch.randint(len(mine), (256,), generator=luck).tolist()]
            guess, truth = student.rows([numbers_of[n] for n in picked]), target[picked]
            pairs = (guess @ guess.T - truth @ truth.T).square().mean()
            followed = 5 * (1 - (guess * truth).sum(1)).mean() + 10 * pairs
        (loss + followed).backward()
        torch.nn.utils.clip_grad_norm_(rest, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if step % 50 == 0:
            print(f"{step} {time.time() - start:.0f} s, loss {loss.item():.3f} {followed.item():.3f}", flush=True)
        if step % 200 == 0 or spent > 0.999:
            print("asks", table(ours, student.encode), "| held out", table(apart, student.encode), flush=True)
            saved = {"student": student.state_dict(), "scale": scale.data, "bias": bias.data, "words": known}
            torch.save(saved, options.work / f"{options.name}.pt")
    print("asks", table(ours, student.encode), "| held out", table(apart, student.encode), flush=True)
    saved = {"student": student.state_dict(), "scale": scale.data, "bias": bias.data, "words": known}
    torch.save(saved, options.work / f"{options.name}.pt")
    usual = [n for n, relation in enumerate(learning.relations) if not relation.name.startswith("pair ")]
    student.save(options.work / f"{options.name}.safetensors", centres(student, learning, lines)[usual])


if __name__ == "__main__":
    main()
