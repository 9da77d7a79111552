"""All texts that are learned from, in one numbered list."""

from pathlib import Path
from random import Random

from batches import Bank
from made import other, same
from relations import TESTED_WORDS, Relation, held_out, loose, pairs, public, written
from spread import spread


def texts(data: Path) -> tuple[list[str], Bank, Bank, range, Bank]:
    """Texts; the relations to learn and those held out, as numbers into them; which texts have no relation; and texts
    that only the student learns from, by the word that they are about."""
    luck = Random(0)
    numbered: list[str] = []
    learned = [relation for relation in written() if not held_out(relation)]
    kept = [relation for relation in written() if held_out(relation)]
    names = {relation.name for relation in kept}
    learned = [relation for relation in learned if not relation.alike & names]

    def bank(relations: list[Relation], more: float, others_too: float = 0.5) -> Bank:
        members, others_of = [], []
        for relation in relations:
            mine = list(relation.phrasings)
            mine += [same(text, relation.kind, luck) for text in relation.phrasings if luck.random() < more]
            made = [other(text, luck) for text in relation.phrasings if luck.random() < others_too]
            members.append(list(range(len(numbered), len(numbered) + len(mine))))
            numbered.extend(mine)
            others_of.append(list(range(len(numbered), len(numbered) + len(made))))
            numbered.extend(made)
        return Bank(relations, members, others_of)

    learning = bank(learned + public(data) + pairs(data), 0.3)
    checking = bank(kept, 0.0)
    start = len(numbered)
    numbered.extend(text for text in dict.fromkeys(loose(data)) if not TESTED_WORDS.search(text))
    loosely = range(start, len(numbered))
    groups = [Relation(f"word {i}", "thing", group) for i, group in enumerate(spread(data))]
    return numbered, learning, checking, loosely, bank(groups, 0.0, 0.0)
