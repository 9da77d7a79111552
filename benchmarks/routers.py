"""Routers side by side: which finds the edit that a rephrased question asks for, and none for its look-alikes?

    python benchmarks/routers.py --model FOLDER --counterfact counterfact-edit.json [--split dev] [--picture FILE]

Routing only: keys come from a record's `prompt`; a *rephrasing* is found if its own edit has the best score and
reaches the threshold; a *neighbour* (`locality_prompt`), a *same-subject* question (another fact of an edited
subject, see `counterfact.py`) or an *unrelated* prompt matches falsely if any edit reaches it. Every router is shown
at the threshold at which 1%, 3% and 5% of the neighbours, or 5% and 20% of the same-subject questions, match: what it
can do, wherever its threshold would be set. `--picture` draws the default router's scores and calibrated threshold.
"""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from counterfact import same_subject
from torch import Tensor, nn

import editmem
from editmem.memory.distinct import Distinct
from editmem.memory.names import NameRouter
from editmem.prompts import alike_prompts, neutral_prompts
from editmem.words import Words

SPLITS = {"dev": (0, 1000), "dev2": (1000, 2000), "report": (2000, 3000)}
QUERIES = ("rephrased", "neighbour", "same subject", "unrelated")
LEVELS = (("neighbour", 0.01), ("neighbour", 0.03), ("neighbour", 0.05), ("same subject", 0.05), ("same subject", 0.2))


def prompts_of(path: Path, split: str) -> dict[str, list[str]]:
    """The edits' prompts and the queries of one split, by kind."""
    records = json.loads(path.read_text(encoding="utf-8"))
    low, high = SPLITS[split]
    edited, others = records[low:high], records[high : high + 500]
    subjects = {record["subject"] for record in edited}
    beside = same_subject(records, edited)

    def free(text: str) -> bool:
        return not any(subject in text for subject in subjects)

    return {
        "edited": [record["prompt"] for record in edited],
        "rephrased": [record["rephrase_prompt"] for record in edited],
        "neighbour": [record["locality_prompt"] for record in edited if free(record["locality_prompt"])],
        "same subject": beside["real"] + beside["made"],
        "unrelated": [record["prompt"] for record in others if free(record["prompt"])],
    }


class Features:
    """What the host makes of prompts.

    Attributes:
        states, acts: what goes into each block, and into its down-projection, at the last token: `[layers, P, d]`.
        tokens: of each prompt all states into the last block, `[T, d]`.
        ids: token ids of each prompt.
    """

    def __init__(self, model: nn.Module, tokenizer, prompts: list[str]) -> None:
        blocks = model.model.layers
        seen: dict[int, Tensor] = {}
        hooks = [
            block.mlp.down_proj.register_forward_pre_hook(lambda _, args, i=i: seen.__setitem__(i, args[0][:, -1]))
            for i, block in enumerate(blocks)
        ]
        states, acts, self.tokens, self.ids = [], [], [], []
        for start in range(0, len(prompts), 64):
            batch = tokenizer(
                prompts[start : start + 64], return_tensors="pt", padding=True, padding_side="left",
                return_token_type_ids=False,
            )  # fmt: skip
            with torch.no_grad():
                hidden = model(**batch, output_hidden_states=True).hidden_states
            states.append(torch.stack([layer[:, -1] for layer in hidden]))
            acts.append(torch.stack([seen[i] for i in range(len(blocks))]))
            for row, mask in enumerate(batch["attention_mask"].bool()):
                self.tokens.append(hidden[-2][row][mask])
                self.ids.append(batch["input_ids"][row][mask].tolist())
        for hook in hooks:
            hook.remove()
        self.states, self.acts = torch.cat(states, 1), torch.cat(acts, 1)


class Study:
    """Features of all prompts of a split, and scores `[queries, edits]` of different routers."""

    def __init__(self, model: nn.Module, tokenizer, prompts: dict[str, list[str]]) -> None:
        self.model, self.tokenizer, self.prompts = model, tokenizer, prompts
        self.of = {kind: Features(model, tokenizer, texts) for kind, texts in prompts.items()}
        self.neutral = Features(model, tokenizer, list(neutral_prompts()))
        names, self.forms = alike_prompts()
        self.alike = Features(model, tokenizer, [form.format(name) for name in names for form in self.forms])
        self.names = len(names)
        self.shared = {kind: self._shared_words(kind) for kind in QUERIES}

    def _shared_words(self, kind: str) -> Tensor:
        """The share of each edit's words that each query has, as the default router weighs them."""
        vocabulary = Words.of_tokenizer(self.tokenizer, len(self.tokenizer))
        router = NameRouter("", 1, None, 0.1)
        router.words = vocabulary
        router.neutral = torch.tensor(sorted({w for ids in self.neutral.ids for w in vocabulary.spoken(ids)}))
        keys = [router._words_of(torch.tensor(ids), None) for ids in self.of["edited"].ids]
        named, weights = torch.stack([k for k, _ in keys]), torch.stack([w for _, w in keys])
        rows = []
        for ids in self.of[kind].ids:
            said = torch.tensor([word % (1 << 17) for word in vocabulary.spoken(ids)] or [-1])
            rows.append(torch.where(torch.isin(named, said), weights, 0).sum(1))
        return torch.stack(rows)

    def cosine(self, of: str, layer: int) -> Callable[[str], Tensor]:
        """Cosine of activations ("acts") or states ("states") less those of neutral prompts."""
        mean = getattr(self.neutral, of)[layer].mean(0)
        unit = lambda f: nn.functional.normalize(getattr(f, of)[layer] - mean, dim=1)  # noqa: E731
        return lambda kind: unit(self.of[kind]) @ unit(self.of["edited"]).T

    def tophash(self, layer: int, density: float) -> Callable[[str], Tensor]:
        """MEMOIR's overlap of masks, as a share of k."""
        mean = self.neutral.acts[layer].mean(0)
        k = round(density * len(mean))

        def mask(features: Features) -> Tensor:
            size = (features.acts[layer] - mean).abs()
            return torch.zeros_like(size).scatter(1, size.topk(k, 1).indices, 1.0)

        return lambda kind: mask(self.of[kind]) @ mask(self.of["edited"]).T / k

    def questions_at(self, layer: int) -> Distinct:
        space = Distinct(self.neutral.states.shape[-1])
        space.fit(self.neutral.states[layer], self.grid(layer))
        return space

    def grid(self, layer: int) -> Tensor:
        return self.alike.states[layer].unflatten(0, (self.names, -1))

    def damped(self, layer: int) -> Callable[[str], Tensor]:
        """Cosine of states with the directions of names damped: the default router's."""
        space = self.questions_at(layer)
        return lambda kind: space(self.of[kind].states[layer]) @ space(self.of["edited"].states[layer]).T

    def mean_of(self, *scores: Callable[[str], Tensor]) -> Callable[[str], Tensor]:
        return lambda kind: sum(score(kind) for score in scores) / len(scores)

    def normed(self, layer: int) -> Callable[[str], Tensor]:
        """Cosines as standard scores against a cohort of built-in prompts (s-norm of speaker verification)."""
        mean = self.neutral.states[layer].mean(0)
        unit = lambda x: nn.functional.normalize(x - mean, dim=1)  # noqa: E731
        cohort = unit(torch.cat([self.neutral.states[layer], self.alike.states[layer]]))
        edits = unit(self.of["edited"].states[layer])
        against = edits @ cohort.T

        def score(kind: str) -> Tensor:
            queries = unit(self.of[kind].states[layer])
            own = queries @ cohort.T
            plain = queries @ edits.T
            by_edit = (plain - against.mean(1)) / against.std(1)
            return (by_edit + (plain - own.mean(1, keepdim=True)) / own.std(1, keepdim=True)) / 2

        return score

    def own_negatives(self, layer: int, share: float) -> Callable[[str], Tensor]:
        """Cosines less a share of what the edit's own name reaches in the built-in questions: a threshold per edit."""
        plain = self.cosine("states", layer)
        mean = self.neutral.states[layer].mean(0)
        names = [" ".join(re.findall(r"[A-Z0-9]\w*", text[1:])) or text for text in self.prompts["edited"]]
        made = Features(self.model, self.tokenizer, [form.format(name) for name in names for form in self.forms[:8]])
        unit = lambda x: nn.functional.normalize(x - mean, dim=-1)  # noqa: E731
        states = unit(made.states[layer]).unflatten(0, (len(names), 8))
        reached = torch.einsum("nfd,nd->nf", states, unit(self.of["edited"].states[layer])).mean(1).clamp(min=0)
        return lambda kind: plain(kind) - share * reached

    def late(self, tokens: int) -> Callable[[str], Tensor]:
        """Late interaction: each of an edit's rarest tokens looks for its like among the query's, rarity-weighted."""
        mean = torch.cat(self.neutral.tokens).mean(0)
        count = torch.zeros(len(self.tokenizer))
        for ids in self.of["edited"].ids:
            count[list(set(ids))] += 1
        rarity = torch.log((len(self.of["edited"].ids) + 1) / (count + 0.5))
        keys, weights = [], []
        for states, ids in zip(self.of["edited"].tokens, self.of["edited"].ids, strict=True):
            rarest = rarity[ids].argsort(descending=True)[:tokens]
            pad = tokens - len(rarest)
            keys.append(nn.functional.pad(nn.functional.normalize(states[rarest] - mean, dim=1), (0, 0, 0, pad)))
            weights.append(nn.functional.pad(rarity[ids][rarest].clamp(min=0), (0, pad)))
        key, weight = torch.stack(keys).flatten(0, 1), nn.functional.normalize(torch.stack(weights), p=1, dim=1)

        def score(kind: str) -> Tensor:
            queries = [nn.functional.normalize(states[1:] - mean, dim=1) for states in self.of[kind].tokens]
            best = [(key @ query.T).max(1).values.view(-1, tokens) for query in queries]
            return torch.stack([(b * weight).sum(1) for b in best])

        return score

    def prefixed(self, layer: int, prefixes: int) -> Callable[[str], Tensor]:
        """Cosine with the mean state of the edit's prompt behind several prefixes of other text."""
        mean = self.neutral.states[layer].mean(0)
        texts = [f"{prefix}. {p}" for prefix in neutral_prompts()[:prefixes] for p in self.prompts["edited"]]
        made = Features(self.model, self.tokenizer, texts).states[layer].unflatten(0, (prefixes, -1))
        key = torch.cat([made, self.of["edited"].states[layer][None]]).mean(0)
        unit = lambda x: nn.functional.normalize(x - mean, dim=1)  # noqa: E731
        return lambda kind: unit(self.of[kind].states[layer]) @ unit(key).T

    def with_words(self, score: Callable[[str], Tensor]) -> Callable[[str], Tensor]:
        return lambda kind: score(kind).clamp(min=0) * self.shared[kind]


def figures(score: Callable[[str], Tensor]) -> dict[str, float]:
    found = {kind: score(kind) for kind in QUERIES}
    best = {kind: scores.max(1).values for kind, scores in found.items()}
    right = found["rephrased"].argmax(1) == torch.arange(len(found["rephrased"]))
    row = {"best is right": right.float().mean().item()}
    for kind, rate in LEVELS:
        threshold = torch.quantile(best[kind], 1 - rate)
        level = f"{rate:.0%} {kind}"
        row[level] = (right & (best["rephrased"] > threshold)).float().mean().item()
        row[f"{level}: same subject"] = (best["same subject"] > threshold).float().mean().item()
        row[f"{level}: unrelated"] = (best["unrelated"] > threshold).float().mean().item()
    return row


def routers(study: Study) -> dict[str, Callable[[str], Tensor]]:
    last = len(study.model.model.layers) - 1
    plain = {
        "tophash, last block, k/D 1/4": study.tophash(last, 0.25),
        "tophash, block before, k/D 1/4": study.tophash(last - 1, 0.25),
        "tophash, last block, k/D 1/16": study.tophash(last, 0.0625),
        "cosine of activations": study.cosine("acts", last),
        "cosine of states": study.cosine("states", last),
        "late interaction, 4 tokens": study.late(4),
    }
    lexical = {
        "words alone": lambda kind: study.shared[kind],
        "words x tophash": study.with_words(study.tophash(last, 0.25)),
        "words x cosine of activations": study.with_words(study.cosine("acts", last)),
        "words x cosine of states": study.with_words(study.cosine("states", last)),
        "words x states, mean of last two blocks": study.with_words(
            study.mean_of(study.cosine("states", last), study.cosine("states", last - 1))
        ),
        "words x states, s-norm": study.with_words(study.normed(last)),
        "words x states, threshold per edit": study.with_words(study.own_negatives(last, 0.5)),
        "words x states behind 5 prefixes": study.with_words(study.prefixed(last, 5)),
        "words x late interaction": study.with_words(study.late(4)),
        "words x damped states (default)": study.with_words(study.damped(last)),
    }
    return plain | lexical


def draw(study: Study, file: Path) -> None:
    """Histograms of the default router's best scores, with the threshold that it calibrates."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    last = len(study.model.model.layers) - 1
    threshold = study.questions_at(last).threshold(study.grid(last), editmem.MemoirSpec().false_match_rate)
    score = study.with_words(study.damped(last))
    figure, axes = pyplot.subplots(len(QUERIES), 1, figsize=(8, 8), sharex=True)
    for axis, kind in zip(axes, QUERIES, strict=True):
        axis.hist(score(kind).max(1).values.tolist(), bins=60, range=(0, 1), color="tab:blue")
        axis.axvline(float(threshold), color="tab:red", label=f"threshold {float(threshold):.2f}")
        axis.set_ylabel("prompts")
        axis.set_title(f"{kind} ({len(study.prompts[kind])})", loc="left", fontsize=10)
    axes[0].legend()
    axes[-1].set_xlabel("best score over all edits")
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a model that knows CounterFact")
    parser.add_argument("--counterfact", type=Path, required=True, help="counterfact-edit.json")
    parser.add_argument("--split", choices=SPLITS, default="dev")
    parser.add_argument("--picture", type=Path, help="write histograms to this PNG file")
    parser.add_argument("--out", type=Path, help="write the table to this JSON file")
    args = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
    study = Study(model, tokenizer, prompts_of(args.counterfact, args.split))
    table = {}
    columns = ["best is right", *(f"{rate:.0%} {kind}" for kind, rate in LEVELS)]
    print("rephrasings found:\n" + " " * 42 + " ".join(f"{name:>16s}" for name in columns))
    for name, score in routers(study).items():
        table[name] = figures(score)
        print(f"{name:42s}" + " ".join(f"{table[name][column]:16.3f}" for column in columns), flush=True)
    if args.out:
        args.out.write_text(json.dumps({"split": args.split, "routers": table}, indent=1) + "\n", encoding="utf-8")
    if args.picture:
        draw(study, args.picture)


if __name__ == "__main__":
    main()
