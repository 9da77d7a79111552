"""Texts without a relation, for the student to learn from its teacher what words mean to a question.

Every frequent word in a few manners of asking, pairs of words that often stand together, and sentences of an
encyclopaedia.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from random import Random

NOUNS = (
    "What is the W of X?|The W of X is|X's W is|Which W does X have?|Who is the W of X?|X has a W that|"
    "Name the W of X.|Where is the W of X?|When was the W of X?|How many W does X have?|What W does X use?|X W|"
    "Tell me about the W for X|How W is X?|Is there a W at X?|What kind of W is X?|Who has the W of X?|"
    "For X the W is|What does the W of X cost?|In X the W is|Which W is X known for?"
).split("|")
VERBS = (
    "Who W X?|When was X W?|X was W by|Where did X W?|What does X W?|X W in|By whom was X W?|What did X W?|"
    "Why did X W?|How was X W?|X W with|To whom did X W?|When did X W?|Whom did X W?|What was W by X?"
).split("|")
WORDS, PAIRS, SENTENCES = 12_000, 5_000, 10_000
NAME = re.compile(r"(?<![.\w] )(?<!^)\b[A-Z][a-z]+(?: [A-Z][a-z]+){0,2}\b")


def spread(data: Path) -> list[list[str]]:
    """Groups of texts about one word each; what stands by itself is a group of one."""
    luck, found = Random(1), []
    words, pairs = _frequent(data)
    for word in words:
        forms = luck.sample(NOUNS, 3) + luck.sample(VERBS, 2)
        found.append([re.sub(r"\bW\b", word, form) for form in forms])
    for pair in pairs:
        found.append([re.sub(r"\bW\b", pair, form) for form in luck.sample(NOUNS, 2)])
    sentences = list(_sentences(data, luck))
    luck.shuffle(sentences)
    return found + [[text] for text in sentences[:SENTENCES]]


def _frequent(data: Path) -> tuple[list[str], list[str]]:
    small = set(resources.files("editmem.text").joinpath("small_words.txt").read_text(encoding="utf-8").split())
    counts: Counter[str] = Counter()
    together: Counter[str] = Counter()
    for path in (*data.glob("wikitext2/*.txt"), *data.glob("*/*.json*"), *data.glob("knowedit/*/*.json")):
        said = re.findall(r"[a-z]+|[^a-z\s]", path.read_text())
        counts.update(said)
        good = [word if len(word) > 3 and word not in small else "" for word in said]
        together.update(f"{one} {two}" for one, two in itertools.pairwise(good) if one and two)
    words = [word for word, _ in counts.most_common() if 3 <= len(word) < 16 and word not in small]
    return words[:WORDS], [pair for pair, _ in together.most_common(PAIRS)]


def _sentences(data: Path, luck: Random) -> Iterator[str]:
    """Sentences of a few words, one of their names taken out."""
    for path in sorted(data.glob("wikitext2/*.txt")):
        for sentence in re.split(r" [.;] ", path.read_text()):
            text = " ".join(sentence.split())
            if 4 <= len(text.split()) <= 16 and "@" not in text and (names := list(NAME.finditer(text))):
                name = luck.choice(names)
                yield re.sub(r"\bX\b", "Y", text[: name.start()]) + "X" + re.sub(r"\bX\b", "Y", text[name.end() :])
