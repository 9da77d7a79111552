"""Train the encoder that the package ships.

    python scripts/question_encoder/train.py MINILM DATA WORK --minutes 30

Learns from the relations and from the teacher's vectors (`teacher.py`) in WORK.
"""

import argparse
import time
from pathlib import Path
from random import Random
from typing import Any

import torch
from bank import texts
from batches import Bank, contrast, scale_and_bias
from composed import Composed
from made import other, same
from measure import asks, held, table
from student import Student, vocabulary
from teacher import Teacher
from torch import Tensor
from torch.nn.functional import kl_div, normalize

from editmem.routing.question_encoder import FIRST, OUTPUT, question_encoder

SIZE, WIDTH = 34_000, 192
SHARP = 0.07
FRESH = 6  # one step in so many is on texts in fresh manners, which the teacher has not read
COMPOSED = 3  # and one in so many on composed relations, likewise


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


def clustered(rows: Tensor, count: int = 1024, rounds: int = 15) -> Tensor:
    """So many mean directions of unit vectors, by spherical k-means."""
    means = rows[torch.randperm(len(rows))[:count]]
    for _ in range(rounds):
        nearest = (rows @ means.T).argmax(1)
        means = normalize(torch.zeros_like(means).index_add_(0, nearest, rows) + 1e-6 * means, dim=1)
    return means


def turned(target: Tensor, student: Student, lines: list[str], mine: list[int]) -> Tensor:
    """The teacher's vectors, turned to where the student's are already."""
    some = [mine[i] for i in torch.randperm(len(mine))[:4000].tolist()]
    left, _, right = torch.linalg.svd(target[some].T @ student.encode([lines[n] for n in some]))
    return target @ (left @ right)


def fresh(bank: Bank, numbers: list[int], labels: list[int], lines: list[str], chance: Random) -> list[str]:
    """Drawn texts in fresh manners of asking, with fresh look-alikes."""
    return [
        same(lines[n], bank.relations[label].kind, chance)
        if label >= 0
        else other(chance.choice(bank.relations[-1 - label].phrasings), chance)
        for n, label in zip(numbers, labels, strict=True)
    ]


def followed(guess: Tensor, turned: Tensor, truth: Tensor) -> Tensor:
    """How far vectors are from the teacher's: each by itself, the cosines of all pairs, and which are near to which.

    The texts are those of relations that lie close together: pairs drawn at random would all be far apart.
    """
    itself = torch.eye(len(guess), dtype=torch.bool)
    ours, theirs = guess @ guess.T, truth @ truth.T
    cosines = (ours - theirs)[~itself].square().mean()
    near, wanted = (part.masked_fill(itself, -1e4) / SHARP for part in (ours, theirs))
    order = kl_div(near.log_softmax(1), wanted.log_softmax(1), reduction="batchmean", log_target=True)
    return 3 * (1 - (guess * turned).sum(1)).mean() + 20 * cosines + 2 * order


def started(student: Student, scale: Tensor, bias: Tensor, saved: dict[str, Any]) -> None:
    """Go on from a saved student; layers that it does not have begin by changing nothing."""
    for layer in student.layers:
        torch.nn.init.zeros_(layer.join.weight)
        torch.nn.init.zeros_(layer.back.weight)
    student.load_state_dict(saved["student"], strict=False)
    scale.data, bias.data = saved["scale"], saved["bias"]


def shipped(student: Student) -> dict[str, Tensor]:
    """The weights of the encoder that the package has, with what this student begins with where that knows no word."""
    encoder, table = question_encoder(), student.table.detach().clone()
    ids = encoder.ids(student.words)
    known = ids >= FIRST
    table[FIRST:][known] = encoder.look_up(ids[known])
    table[:FIRST] = encoder.look_up(torch.arange(FIRST))
    print(f"{int(known.sum())} of {len(known)} words are known", flush=True)
    return {**{name: tensor.clone() for name, tensor in encoder.named_parameters()}, "table": table}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("minilm", "data", "work"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--name", default="student")
    parser.add_argument("--start", type=Path, help="a student to go on from")
    parser.add_argument("--shipped", action="store_true", help="go on from the encoder that the package has")
    parser.add_argument("--rate", type=float, default=1e-3)
    return parser.parse_args()


def main() -> None:
    given = options()
    torch.manual_seed(0)
    lines, learning, checking, loose, only = texts(given.data)
    scale, bias = scale_and_bias()
    if given.start:
        saved = torch.load(given.start)
        known = saved["words"]
        student = Student(known, saved["student"]["table"][FIRST:], given.layers)
        started(student, scale, bias, saved)
    else:
        known = vocabulary(lines, given.data, SIZE)
        student = Student(known, word_vectors(known, given.minilm, given.work), given.layers)
        if given.shipped:
            started(student, scale, bias, {"student": shipped(student), "scale": scale.data, "bias": bias.data})
    ours, apart = asks(given.data / "asks/asks.py"), held(checking.relations)
    rest = [p for name, p in student.named_parameters() if name != "table"]
    groups = [{"params": part} for part in (rest, [student.table], [scale, bias])]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
    mine = [n for members in (*learning.members, *learning.others, list(loose)) for n in members]
    numbers = [student.numbers(line) for line in lines]
    luck, chance, start, step = torch.Generator().manual_seed(0), Random(0), time.time(), 0
    whole = torch.load(given.work / "vectors.pt").float()
    about = only.neighbours(normalize(torch.stack([whole[members].mean(0) for members in only.members]), dim=1), 12)
    target = turned(normalize(squeezed(whole, OUTPUT), dim=1), student, lines, mine)
    composed = Composed()
    while (spent := (time.time() - start) / 60 / max(given.minutes, 1e-9)) < 1:
        if step % 1000 == 0:
            near = learning.neighbours(centres(student, learning, lines))
        for group, full in zip(optimizer.param_groups, (given.rate, given.rate, 1e-2), strict=True):
            group["lr"] = full * min(1, (step + 1) / 50) * max(0.02, 1 - spent)
        drawn, labels = learning.draw(near, luck, seeds=7, each=7, texts=3)
        if step % COMPOSED == 1:
            drawn, labels = composed.together(chance, groups=7, texts=3)
            said = [same(composed.lines[n], "thing", chance) for n in drawn]
            guess = student.rows([student.numbers(text) for text in said])
            loss = contrast(guess, labels, *composed.apart(labels), scale, bias)
        elif step % FRESH == 0:
            guess = student.rows([student.numbers(t) for t in fresh(learning, drawn, labels, lines, chance)])
            loss = contrast(guess, labels, *learning.apart(labels), scale, bias)
        else:
            some = drawn + only.draw(about, luck, seeds=10, each=5, texts=2)[0]
            some += [loose[int(i)] for i in torch.randint(len(loose), (32,), generator=luck)]
            guess = student.rows([numbers[n] for n in some])
            loss = contrast(guess[: len(drawn)], labels, *learning.apart(labels), scale, bias)
            loss = loss + followed(guess, target[some], whole[some])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(rest, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if step % 400 == 0:
            print(f"{step} {time.time() - start:.0f} s, loss {loss.item():.3f}", flush=True)
            print("asks", table(ours, student.encode), "| held out", table(apart, student.encode), flush=True)
    print("asks", table(ours, student.encode), "| held out", table(apart, student.encode), flush=True)
    saved = {"student": student.state_dict(), "scale": scale.data, "bias": bias.data, "words": known}
    torch.save(saved, given.work / f"{given.name}.pt")
    usual = [n for n, relation in enumerate(learning.relations) if not relation.name.startswith("pair ")]
    background = clustered(centres(student, learning, lines)[usual])
    student.save(given.work / f"{given.name}.safetensors", background)


if __name__ == "__main__":
    main()
