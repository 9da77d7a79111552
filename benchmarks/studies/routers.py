"""What tells one question about a subject from another, on a real host: its states, or an encoder of questions.

    python -m benchmarks routers --model FOLDER --asks asks.py [--encoder FOLDER] [--picture FILE] [--out FILE]

Whom a prompt is about is taken as known: each edit is compared with other ways to ask it (`asks`), with other
questions about the same subject, and with tricky ones. Every score is shown at the threshold at which 1, 4 and 10 % of
the other questions match: what it can do, wherever its threshold would be set. `--picture` draws the scores of the
default router, with the threshold that it has.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.asker import Asker, Given
from benchmarks.models import load_host
from benchmarks.studies import parser_of
from benchmarks.studies.asking import items_of
from editmem.routing.prompts import hard_negatives, neutral_prompts
from editmem.routing.sentence_encoder import SentenceEncoder
from editmem.routing.text_questions import STAND_IN
from editmem.routing.whitening import Whitening
from editmem.text.vocabulary import Vocabulary

KINDS = ("asks", "other_question", "tricky")
LEVELS = (0.01, 0.04, 0.1)
Score = Callable[[Sequence[str], Sequence[str]], Tensor]
"""Of the edits' prompts and queries, one of each a row: how alike they are, float32 `[N]`."""


class States:
    """What a host makes of prompts: the states at their ends and their means, of every layer, `[L, 2, d]` a prompt."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.seen: dict[str, Tensor] = {}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Float32 `[L, 2, N, d]`."""
        new = [text for text in dict.fromkeys(texts) if text not in self.seen]
        for start in range(0, len(new), 32):
            part = new[start : start + 32]
            batch = self.tokenizer(part, return_tensors="pt", padding=True, padding_side="left")
            with torch.no_grad():
                hidden = torch.stack(self.model(**batch, output_hidden_states=True).hidden_states).float()
            real = batch["attention_mask"][None, :, :, None]
            both = torch.stack([hidden[:, :, -1], (hidden * real).sum(2) / real.sum(2)], 1)
            self.seen |= dict(zip(part, both.unbind(2), strict=True))
        return torch.stack([self.seen[text] for text in texts], 2)

    def cosine(self, layer: int, how: int) -> Score:
        """Of states less their mean over neutral prompts; `how`: 0 at the end, 1 the mean over the prompt."""
        mean = self(neutral_prompts())[layer, how].mean(0)
        unit = lambda texts: normalize(self(texts)[layer, how] - mean, dim=1)  # noqa: E731
        return lambda prompts, queries: (unit(prompts) * unit(queries)).sum(1)

    def damped(self, layer: int) -> Score:
        """With the directions damped in which states move with names: the router on names."""
        names, forms = hard_negatives()
        grid = self([form.format(name) for name in names for form in forms])[layer, 0].unflatten(0, (len(names), -1))
        space = Whitening(grid.shape[-1])
        space.fit(self(neutral_prompts())[layer, 0], grid)
        unit = lambda texts: space(self(texts)[layer, 0])  # noqa: E731
        return lambda prompts, queries: (unit(prompts) * unit(queries)).sum(1)

    def tophash(self, layer: int, share: float = 0.25) -> Score:
        """The overlap of the masks of the largest entries, as a share of them."""
        mean = self(neutral_prompts())[layer, 0].mean(0)
        k = round(share * len(mean))

        def mask(texts: Sequence[str]) -> Tensor:
            size = (self(texts)[layer, 0] - mean).abs()
            return torch.zeros_like(size).scatter(1, size.topk(k, 1).indices, 1.0)

        return lambda prompts, queries: (mask(prompts) * mask(queries)).sum(1) / k


def encoded(name: str) -> Score:
    encoder = SentenceEncoder(name, torch.device("cpu"))
    unit = lambda texts: normalize(encoder(list(texts)), dim=1)  # noqa: E731
    return lambda prompts, queries: (unit(prompts) * unit(queries)).sum(1)


def pairs_of(
    items: Sequence[dict[str, Any]], written: Callable[[str, str], str]
) -> dict[str, tuple[list[str], list[str]]]:
    """Of each kind the edits' prompts and the queries, `written` with the subject in sight."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for kind in KINDS:
        each = [(item["prompt"], text, item["subject"]) for item in items for text in item[kind]]
        found[kind] = ([written(p, s) for p, _, s in each], [written(text, s) for _, text, s in each])
    return found


def best_of(scores: dict[str, Score], rows: dict[str, tuple[list[str], list[str]]]) -> tuple[str, Score]:
    """The one that finds most at 4 %: with hindsight."""
    name = max(scores, key=lambda name: figures(scores[name], rows)[1])
    return name, scores[name]


def figures(score: Score, rows: dict[str, tuple[list[str], list[str]]]) -> list[float]:
    """Share of the asks above the thresholds of `LEVELS`."""
    mine, others = (score(*rows[kind]) for kind in ("asks", "other_question"))
    return [float((mine > torch.quantile(others, 1 - rate)).float().mean()) for rate in LEVELS]


def routed(items: Sequence[dict[str, Any]], tokenizer: Any) -> dict[str, list[float]]:
    """The scores that the default router gives the edits asked about, less how far their thresholds are above its."""
    asker = Asker(tokenizer, Vocabulary(tokenizer, len(tokenizer)))
    asker.add([item["prompt"] for item in items], [Given()] * len(items))
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for n, item in enumerate(items):
        for kind in KINDS:
            for matches in asker.near(item[kind]):
                own = [m.score - m.threshold + asker.router.threshold for m in matches if m.row == n]
                found[kind].append(max(own, default=-1.0))
    return found


def draw(scores: dict[str, list[float]], threshold: float, file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(KINDS), 1, figsize=(8, 6), sharex=True)
    for axis, kind in zip(axes, KINDS, strict=True):
        axis.hist([max(0.0, score) for score in scores[kind]], bins=50, range=(0, 1), color="tab:blue")
        axis.axvline(threshold, color="tab:red", label=f"threshold {threshold:.2f}")
        axis.set_ylabel("prompts")
        axis.set_title(f"{kind.replace('_', ' ')} ({len(scores[kind])})", loc="left", fontsize=10)
    axes[0].legend()
    axes[-1].set_xlabel("score of the edit asked about")
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def main(arguments: Sequence[str]) -> None:
    parser = parser_of(__name__, __doc__)
    parser.add_argument("--model", required=True, help="folder or Hub name")
    parser.add_argument("--asks", type=Path, required=True, help="a file with `items()`, edits with what is asked")
    parser.add_argument("--encoder", help="a sentence encoder to compare with; folder or Hub name")
    parser.add_argument("--picture", type=Path, help="write histograms to this PNG file")
    parser.add_argument("--out", type=Path, help="write the table to this JSON file")
    args = parser.parse_args(arguments)
    model, tokenizer = load_host(args.model)
    items = items_of(args.asks)
    rows, bare = pairs_of(items, lambda text, _: text), pairs_of(items, lambda text, name: text.replace(name, STAND_IN))
    states, layers = States(model, tokenizer), range(1, model.config.num_hidden_layers + 1)
    table = {}
    for how, name in ((0, "last token"), (1, "mean over the prompt")):
        best, score = best_of({f"cosine, {name}, layer {n}": states.cosine(n, how) for n in layers}, rows)
        table[f"{best} (the best)"] = figures(score, rows)
    best, score = best_of({f"damped, layer {n}": states.damped(n) for n in layers}, rows)
    table[f"{best} (the best)"] = figures(score, rows)
    table["damped, last block (router on names)"] = figures(states.damped(len(layers) - 1), rows)
    table["TopHash, last block, k/D 1/4"] = figures(states.tophash(len(layers) - 1), rows)
    if args.encoder:
        table["sentence encoder"] = figures(encoded(args.encoder), rows)
        table["sentence encoder, subject taken out"] = figures(encoded(args.encoder), bare)
    scores = routed(items, tokenizer)
    own, others = (torch.tensor(scores[kind]) for kind in ("asks", "other_question"))
    table["router on questions"] = [float((own > others.quantile(1 - rate)).float().mean()) for rate in LEVELS]
    for name, row in table.items():
        print(f"{name:50}", " ".join(f"{rate:.0%}: {value:.3f}" for rate, value in zip(LEVELS, row, strict=True)))
    if args.out:
        args.out.write_text(json.dumps({"levels": LEVELS, "routers": table}, indent=1) + "\n", encoding="utf-8")
    if args.picture:
        draw(scores, Asker(tokenizer, Vocabulary(tokenizer, len(tokenizer))).router.threshold, args.picture)
