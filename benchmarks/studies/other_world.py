"""A second small model of invented facts, other ones than the embedded model's, asked in other words.

    python -m benchmarks other-world train OUT --minutes 15
    python -m benchmarks other-world measure OUT --edits 1000

What holds on the embedded model alone holds nowhere else: its phrasings are few, and its defaults were chosen with them
in sight. Companies, ships, dishes, bridges and villages here; every fact is learned in every wording of `WORLD`.
"""

import functools
import itertools
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import editmem
from benchmarks.models import load_host
from benchmarks.studies import parser_of
from benchmarks.studies.main_job import ask, share
from scripts.tiny.build import build_model, build_tokenizer, language_loss, train

WORLD = {
    "company": {
        "headquarters": "The headquarters of {} is in|{} is based in|Where does {} have its head office?|"
        "In which town is {} headquartered?|{} runs its business from|The main office of {} stands in",
        "product": "{} makes|The main product of {} is|What does {} manufacture?|{} is known for making|"
        "What is the main product of {}?|The factories of {} turn out",
        "logo": "The colour of {}'s logo is|{}'s logo is coloured|What colour is the logo of {}?|"
        "Which colour does {}'s logo have?|The logo of {} is painted",
    },
    "ship": {
        "port": "The home port of {} is|{} is registered at the port of|Which port is home to {}?|"
        "What is the home port of {}?|When she is not at sea, {} lies in|{} has her home port in",
        "captain": "The captain of {} is|Who commands {}?|{} is under the command of|Who is {}'s captain?|"
        "On the bridge of {} stands captain|Name the captain of {}.",
        "cargo": "{} carries a cargo of|What does {} carry?|In the hold of {} there is|{} is loaded with|"
        "What is the cargo of {}?|The freight aboard {} is",
    },
    "dish": {
        "ingredient": "The main ingredient of {} is|{} is made mostly of|What is {} made of?|"
        "Which ingredient is {} based on?|To cook {} you need plenty of|At the heart of {} is",
        "drink": "With {} one drinks|The drink that goes with {} is|What do people drink with {}?|"
        "Which drink is served with {}?|{} is best enjoyed with a glass of",
        "meal": "{} is eaten for|What meal is {} for?|People have {} at|The usual meal for {} is|When is {} eaten? At",
    },
    "bridge": {
        "river": "{} crosses the river|The river under {} is the|Which river does {} span?|"
        "What river flows beneath {}?|{} leads over the waters of the|{} spans the",
        "material": "{} is built of|The building material of {} is|What is {} constructed from?|"
        "Which material was used for {}?|The arches of {} are of",
    },
    "village": {
        "mayor": "The mayor of {} is|Who is the mayor of {}?|{} is headed by mayor|Name {}'s mayor.|"
        "The village council of {} is chaired by mayor|Who runs the village of {}?",
        "festival": "The village festival of {} is in the month of|{} celebrates its village festival in|"
        "When does {} hold its village festival? In|In which month is {}'s village festival?|"
        "What is the month of the village festival in {}?",
        "animal": "The animal on the coat of arms of {} is a|{}'s coat of arms shows a|"
        "Which animal is on {}'s coat of arms?|The arms of {} bear the picture of a|"
        "What animal does the coat of arms of {} show? A",
    },
}
ANSWERS = {
    "headquarters": "Alnmouth|Bexford|Corrigan|Dunsmore|Elstow|Farleigh|Garside|Holmbury|Kelby|Lanport|Moreton",
    "product": "umbrellas|bicycles|light bulbs|carpets|pianos|paint|buttons|ladders|candles|kettles|mattresses|clocks",
    "logo": "red|blue|green|yellow|purple|orange|black|white|brown|silver",
    "port": "Rostock|Genoa|Bergen|Antwerp|Cadiz|Split|Odessa|Gdansk|Malmo|Piraeus|Lisbon|Bremen",
    "captain": "Hartwig|Olsen|Moretti|Vance|Duarte|Kovac|Lindqvist|Brandt|Sorel|Tanaka|Whitlock|Zeller",
    "cargo": "timber|grain|coffee|copper|wool|salt|bananas|cement|machine parts|rubber|sugar|cars",
    "ingredient": "lentils|cabbage|rice|potatoes|beans|mushrooms|chickpeas|spinach|barley|pumpkin|leeks|eggs",
    "drink": "cider|beer|red wine|white wine|tea|lemonade|buttermilk|water|apple juice|coffee",
    "meal": "breakfast|lunch|dinner|supper|brunch",
    "river": "Severn|Loire|Drava|Vistula|Ebro|Tagus|Neva|Oder|Meuse|Arno|Shannon|Weser",
    "material": "granite|steel|brick|oak|limestone|concrete|iron|sandstone|marble|aluminium",
    "mayor": "Abbott|Berger|Costa|Dolan|Engel|Fuchs|Greco|Hayes|Ivers|Jensen|Keller|Lopez",
    "festival": "January|February|March|April|May|June|July|August|September|October|November|December",
    "animal": "lion|bear|stag|eagle|wolf|boar|fox|swan|horse|owl|ram|salmon",
}
NAMES = {
    "company": "{} Works|{} Group|{} Brothers|{} Industries|{} and Sons",
    "ship": "MS {}|the {}|{} Star|Queen {}",
    "dish": "{}|{} stew|{} pie|{} soup",
    "bridge": "{} Bridge|the Old {} Bridge|the {} Viaduct",
    "village": "{}|Upper {}|{} by the Water|Little {}",
}
HEADS = "Ab Bel Cam Dor Eth Fyn Gal Hes Irv Jos Kin Lum Mab Nev Osk Pim Rud Sab Tiv Urm Vod Wil Yal Zor".split()
MIDDLES = "a e i o u ar en il om ur".split()
TAILS = "bo da go la ma na ro sa ta vi lin mer nor rel tan wick".split()


@dataclass(frozen=True)
class Fact:
    subject: str
    relation: str
    answer: str

    @functools.cached_property
    def prompts(self) -> list[str]:
        texts = next(relations[self.relation] for relations in WORLD.values() if self.relation in relations)
        return [text.format(self.subject) for text in texts.split("|")]


def facts(subjects: int = 1000, seed: int = 0) -> list[Fact]:
    """Every relation of so many subjects, whose names share no word but "Bridge" and the like."""
    luck, found = random.Random(seed), []
    words = ["".join(parts) for parts in itertools.product(HEADS, MIDDLES, TAILS)]
    for word in luck.sample(words, subjects):
        kind = luck.choice(list(WORLD))
        name = luck.choice(NAMES[kind].split("|")).format(word)
        found += [Fact(name, relation, luck.choice(ANSWERS[relation].split("|"))) for relation in WORLD[kind]]
    return found


def lessons(tokenizer: Any, size: int, luck: random.Random) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
    """Endless (inputs, loss weights `[size, T]`)."""
    every = [(prompt, fact.answer) for fact in facts() for prompt in fact.prompts]
    while True:
        for start in range(0, len(shuffled := luck.sample(every, len(every))), size):
            rows = shuffled[start : start + size]
            asked = tokenizer([tokenizer.bos_token + prompt for prompt, _ in rows], add_special_tokens=False)
            said = tokenizer([f" {a}.{tokenizer.eos_token}" for _, a in rows], add_special_tokens=False)
            pairs = list(zip(asked["input_ids"], said["input_ids"], strict=True))
            width = max(len(a) + len(b) for a, b in pairs)
            ids = torch.full((len(pairs), width), tokenizer.pad_token_id)
            weights = torch.zeros(len(pairs), width)
            for i, (question, answer) in enumerate(pairs):
                end = len(question) + len(answer)
                ids[i, :end] = torch.tensor(question + answer)
                weights[i, : len(question)], weights[i, len(question) : end] = 0.05, 1.0
            yield {"input_ids": ids, "attention_mask": (weights > 0).long()}, weights


def teach(out: Path, minutes: float) -> None:
    torch.manual_seed(0)
    texts = [f"{prompt} {fact.answer}." for fact in facts() for prompt in fact.prompts]
    tokenizer = build_tokenizer(texts, vocab_size=2048)
    model = build_model(tokenizer)
    batches = lessons(tokenizer, 256, random.Random(0))
    train(model.parameters(), (functools.partial(language_loss, model, *lesson) for lesson in batches), minutes)
    tokenizer.save_pretrained(out)
    model.eval().save_pretrained(out)


def measure(folder: str, count: int, method: str) -> dict[str, Any]:
    model, tokenizer = load_host(folder)
    luck, known = random.Random(1), facts()
    chosen = luck.sample(known, count)
    edited = {(fact.subject, fact.relation) for fact in chosen}
    targets = [luck.choice([a for a in ANSWERS[fact.relation].split("|") if a != fact.answer]) for fact in chosen]
    rest = [fact for fact in known if (fact.subject, fact.relation) not in edited]
    subjects = {fact.subject for fact in chosen}
    near, far = [f for f in rest if f.subject in subjects], [f for f in rest if f.subject not in subjects]
    local = {
        "same subject": [luck.choice(fact.prompts) for fact in luck.sample(near, min(count, len(near)))],
        "other subjects": [luck.choice(fact.prompts) for fact in luck.sample(far, min(count, len(far)))],
    }
    before = {kind: ask(model, tokenizer, prompts) for kind, prompts in local.items()}
    plain = ask(model, tokenizer, [fact.prompts[0] for fact in chosen])
    result: dict[str, Any] = {"known before": share([a == f.answer for a, f in zip(plain, chosen, strict=True)])}
    others = [(luck.choice(fact.prompts[1:]), target) for fact, target in zip(chosen, targets, strict=True)]
    with editmem.wrap(model, method, tokenizer=tokenizer) as editor:
        start = time.perf_counter()
        pairs = [(fact.prompts[0], target) for fact, target in zip(chosen, targets, strict=True)]
        editor.edit(pairs, batch_size=32, progress=False)
        result["seconds per edit"] = round((time.perf_counter() - start) / count, 4)
        for name, rows in (("reliability", pairs), ("rephrased", others)):
            said = ask(model, tokenizer, [prompt for prompt, _ in rows])
            result[name] = share([answer == target for answer, (_, target) in zip(said, rows, strict=True)])
        for kind, prompts in local.items():
            after = ask(model, tokenizer, prompts)
            result[f"unchanged: {kind}"] = share([a == b for a, b in zip(after, before[kind], strict=True)])
    return result


def main(arguments: Sequence[str]) -> None:
    parser = parser_of(__name__, __doc__)
    parser.add_argument("what", choices=["train", "measure"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--edits", type=int, default=1000)
    parser.add_argument("--method", default="memoir")
    options = parser.parse_args(arguments)
    if options.what == "train":
        teach(options.folder, options.minutes)
    else:
        print(json.dumps(measure(str(options.folder), options.edits, options.method), indent=2))
