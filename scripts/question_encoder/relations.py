"""The relations to learn from: names, kinds of subject, phrasings with X for the subject."""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from texts import masked, words

HERE = Path(__file__).parent / "relations"
# Relations of the test set (`asks`), in whichever wording: never learned from.
TESTED = frozenset(
    "P38 P35 P30 P26 P106 founded_when hours closes composer inventor version allergy fd_allergen support_email "
    "P571 P86 P61 country_currency landmark_on_continent person_occupation".split()
)
TESTED_WORDS = re.compile(
    r"currenc|legal tender|spouse|\bmarr|wife|husband|invent|inception|founded in|occupation|profession|for a living|"
    r"was \w+ (?:founded|formed|established|created)|year \w* ?\w* ?\w* (?:founded|formed|established)|continent|"
    r"compos|\bmusic (?:of|for|by)|president|head of state|allerg|opening hours|latest version|works as|career|"
    r"what job|job of",
    re.I,
)


@dataclass
class Relation:
    """One question in several wordings, and the names of those that must not count as others."""

    name: str
    kind: str
    phrasings: list[str]
    alike: frozenset[str] = frozenset()


def written() -> list[Relation]:
    """The hand-written relations; lines with a common phrasing are one."""
    found: dict[str, Relation] = {}
    owner: dict[tuple[str, ...], str] = {}
    for path in ("bank.txt", "bank2.txt", "a.txt", "b.txt"):
        for line in (HERE / path).read_text().splitlines():
            if line.count("|") != 2 or line.startswith("#"):
                continue
            name, kind, phrasings = line.split("|")
            if name in TESTED:
                continue
            texts = [text.strip() for text in phrasings.split(";") if "X" in words(text)]
            known = next((owner[key] for text in texts if (key := tuple(words(text))) in owner), None)
            relation = found.setdefault(known or name, Relation(known or name, kind, []))
            for text in texts:
                if owner.setdefault(tuple(words(text)), relation.name) == relation.name:
                    relation.phrasings.append(text)
            found[name] = relation
    groups: dict[str, set[str]] = defaultdict(set)
    for line in (HERE / "alike.txt").read_text().splitlines():
        names = {found[n].name for n in line.replace("bank:", "").split() if n in found} if line[:1] != "#" else set()
        for name in names:
            groups[name] |= names - {name}
    unique = {relation.name: relation for relation in found.values()}
    for name, relation in unique.items():
        relation.phrasings = list(dict.fromkeys(relation.phrasings))
        relation.alike = frozenset(groups[name])
    return [relation for relation in unique.values() if len(relation.phrasings) > 1]


def held_out(relation: Relation) -> bool:
    """Whether a hand-written relation serves for stopping and thresholds only."""
    return hashlib.sha256(relation.name.encode()).digest()[0] < 25


def public(data: Path) -> list[Relation]:
    """Relations of public data sets under MIT licences, without the tested ones."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted((data / "pararel").glob("P*.jsonl")):
        for line in path.read_text().splitlines():
            text = json.loads(line)["pattern"].rstrip(" .")
            if text.endswith("[Y]") and text.count("[X]") == 1:
                found[path.stem].append(text[: -len("[Y]")].replace("[X]", "X").strip())
    for record in json.loads((data / "mquake/MQuAKE-CF-3k.json").read_text()):
        for fact in record["requested_rewrite"]:
            found[fact["relation_id"]].append(fact["prompt"].replace("{}", "X"))
            if question := masked(fact["question"], fact["subject"]):
                found[fact["relation_id"]].append(question)
    for path in sorted((data / "relations/factual").glob("*.json")):
        record = json.loads(path.read_text())
        for text in (*record["prompt_templates"], *record["prompt_templates_zs"]):
            found[path.stem].append(text.replace("{}", "X"))
    kept = {name: list(dict.fromkeys(texts)) for name, texts in found.items() if name not in TESTED}
    return [
        Relation(f"public {name}", "thing", texts)
        for name, texts in kept.items()
        if len(texts) > 1 and not any(TESTED_WORDS.search(text) for text in texts)
    ]


def pairs(data: Path) -> list[Relation]:
    """Questions of ZsRE with their paraphrase, one relation a wording; records of the evaluation files are left out."""
    tested = {record["src"] for record in json.loads((data / "locft/zsre_2k.json").read_text())}
    seen: dict[str, Relation] = {}
    for path in ("zsre/zsre_mend_edit.json", "zsre/zsre_mend_train-1k.json", "knowedit/ZsRE/ZsRE-test-all.json"):
        for record in json.loads((data / path).read_text()):
            question = record.get("src") or record["prompt"]
            again = record.get("rephrase") or record["rephrase_prompt"]
            texts = [masked(text, record["subject"]) for text in (question, again)]
            if question in tested or None in texts or any(TESTED_WORDS.search(str(text)) for text in texts):
                continue
            relation = seen.setdefault(str(texts[0]), Relation(f"pair {texts[0]}", "thing", [str(texts[0])]))
            if str(texts[1]) not in relation.phrasings:
                relation.phrasings.append(str(texts[1]))
    return [relation for relation in seen.values() if len(relation.phrasings) > 1]


def loose(data: Path) -> Iterator[str]:
    """Questions and statements without a relation, for the student to follow its teacher on."""
    for line in (data / "nq_open/NQ-open.dev.jsonl").read_text().splitlines():
        yield json.loads(line)["question"]
    for record in json.loads((data / "mquake/MQuAKE-CF-3k.json").read_text()):
        subject = record["requested_rewrite"][0]["subject"]
        yield from filter(None, (masked(text, subject) for text in record["questions"][:1]))
    tested = {record["case_id"] for record in json.loads((data / "locft/counterfact_2k.json").read_text())}
    for record in json.loads((data / "counterfact/counterfact-edit.json").read_text())[:6000]:
        if record["case_id"] not in tested:
            texts = [record["prompt"], record["rephrase_prompt"]]
            yield from filter(None, (masked(text, record["subject"]) for text in texts))
    for path in ("knowedit/wiki_recent/recent_test.json", "knowedit/wiki_counterfact/test_cf.json"):
        for record in json.loads((data / path).read_text()):
            asked = [p for group in (record.get("locality") or {}).values() for p in group]
            asked += [p for group in (record.get("portability") or {}).values() for p in group]
            texts = [record["prompt"], *(p["prompt"] for p in asked if isinstance(p.get("prompt"), str))]
            yield from filter(None, (masked(text, record["subject"]) for text in texts))
