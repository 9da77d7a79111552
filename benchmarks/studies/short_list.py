"""What the default router's short list loses, and what a decision costs, up to a million edits.

    python -m benchmarks short-list [--out FILE]

Keys are made up: an edit has one to three name words, drawn by Zipf's law from 200,000, and four common ones; a query
has all words of its edit, four more common ones, twenty other names, and a state of cosine 0.7 to the edit's. States
of edits are drawn around 200 questions, so that many edits ask the same of different names. The decision is compared
with one that scores every edit.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from benchmarks.studies import parser_of
from editmem.routing.name_router import NameRouter
from editmem.text.word_hash import BUCKETS, heard

WIDTH, QUERIES = 256, 100
NAMES, COMMON, ASKED = 200_000, 500, 200


def router_of(count: int, generator: torch.Generator) -> NameRouter:
    router = NameRouter("", WIDTH, 0.4, 0.1)
    rank = torch.arange(1, NAMES + 1, dtype=torch.float64)
    bucket = torch.randint(COMMON, BUCKETS, (NAMES,), generator=generator)
    names = bucket[torch.multinomial(1 / rank, count * 3, replacement=True, generator=generator).view(count, 3)]
    used = torch.arange(3) < torch.randint(1, 4, (count, 1), generator=generator)
    common = torch.randint(0, COMMON, (count, 4), generator=generator)
    named = torch.zeros((count, router.WIDTH), dtype=torch.long)
    weights = torch.zeros((count, router.WIDTH))
    named[:, :3], named[:, 3:7] = names, common
    weights[:, :3], weights[:, 3:7] = used.float(), router.COMMON
    question = torch.randn((ASKED, WIDTH), generator=generator)[torch.randint(0, ASKED, (count,), generator=generator)]
    states = nn.functional.normalize(question + 0.6 * torch.randn((count, WIDTH), generator=generator), dim=1)
    router.named.append(named)
    router.weights.append(weights / weights.sum(1, keepdim=True))
    router.states.append(states)
    router.chats.append(torch.zeros(count, dtype=torch.bool))
    return router


def measure(count: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(count)
    router = router_of(count, generator)
    agree, seconds = 0, []
    lost = []
    for wanted in torch.randint(0, count, (QUERIES,), generator=generator).tolist():
        own = router.named.data[wanted].long()[router.weights.data[wanted] > 0]
        others = torch.randint(0, BUCKETS, (24,), generator=generator)
        present = heard(torch.cat([own, others])[None], torch.zeros((1, 1), dtype=torch.long))
        noise = nn.functional.normalize(torch.randn(WIDTH, generator=generator), dim=0)
        state = nn.functional.normalize(0.7 * router.states.data[wanted].float() + 0.7 * noise, dim=0)
        start = time.perf_counter()
        shared = nn.functional.embedding_bag(
            router.named.data, present.T.float(), per_sample_weights=router.weights.data, mode="sum"
        ).T
        listed = shared.topk(min(router.SHORT_LIST, shared.shape[1]), dim=1).indices[0]
        score = (router.states.data[listed].float() @ state).clamp(min=0) * shared[0, listed]
        found = int(listed[score.argmax()])
        seconds.append(time.perf_counter() - start)
        every = (router.states.used.float() @ state).clamp(min=0) * shared[0, :count]
        agree += int(every.argmax()) == found
        lost.append(wanted not in listed.tolist())
    return {
        "edits": count, "same decision as with all": agree / QUERIES, "wanted edit not listed": sum(lost) / QUERIES,
        "milliseconds": round(1000 * sorted(seconds)[QUERIES // 2], 2),
    }  # fmt: skip


def main(arguments: Sequence[str]) -> None:
    parser = parser_of(__name__, __doc__)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(arguments)
    table = [measure(count) for count in (1_000, 10_000, 100_000, 1_000_000)]
    print(json.dumps(table, indent=1))
    if args.out:
        args.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
