"""Questions made from others: ways of asking that change nothing, and small changes that change everything."""

import re
from random import Random

BEFORE = (
    "Could you tell me|Please tell me|Please|I was wondering|Do you know|Can you tell me|"
    "I would like to know|Hi,|Hello,|Q:|Question:|Quick question:|Tell me|Hey,|Can you say|So|"
    "Excuse me,|I need to know|Any idea|Answer this:|Remind me|Does anyone know|Just curious,|"
    "Please answer:|Let me ask:|You know,|According to our records,|As of today|Currently|We all know that|"
    "It is known that|As far as I know|Well,|User:|Complete the sentence:|Fact:|Officially,"
).split("|")
AFTER = (
    "A:|Answer:|The answer is|please|thanks|The answer:|Answer briefly.|today|now|exactly|currently|It is|Assistant:"
).split("|")
ASIDE = (
    "The weather was fine that day.|Many people came to the meeting.|It is part of the northern district.|"
    "He was elected twice.|The album received mixed reviews.|They have two children.|"
    "The river flows to the south.|I had a long day at work.|She moved there in the spring.|"
    "The train was late again.|It contains around forty species.|The team lost the final game.|"
    "We are preparing a small report.|My colleague asked me this morning.|It was built of stone.|"
    "This is for a quiz."
).split("|")
KIN = (
    "mother|father|wife|husband|boss|neighbour|founder|owner|brother|sister|competitor|predecessor|"
    "successor|daughter|son|teacher|capital|home country|employer|partner|friend|manager|birthplace|"
    "author|best friend|biggest rival|sister company|headquarters|successor company|supplier|"
    "main customer|former colleague|lawyer|twin town|main port|largest city"
).split("|")
PASSING = (
    "When I visited X,|I read about X yesterday and|After X we|Thanks to X my evening was|"
    "As X was around we|With X in mind I|We talked about X for an hour and|My friend likes X because|"
    "I took notes about X and|Before we knew X,|X again!|I saw X on television and|Since X came up, I|"
    "I have never heard of X but|They asked me about X and I|What do you think of X?|Tell me about X|"
    "I dreamt of X and|X shrugged because|Last year X and I|Because of X we had to|He thinks of X whenever|"
    "Write a poem about X|I am a big fan of X and|The story about X that you told me|Is X overrated?|"
    "Yesterday X was in the news because"
).split("|")
ABOUT = (
    "I forgot the {n} of X and|We argued about the {n} of X until|The {n} of X is none of your business|"
    "I wonder why the {n} of X matters|The {n} of X was in the papers because|"
    "Someone asked about the {n} of X and I|Thanks to the {n} of X we"
).split("|")
VALUES = (
    "Paris|Cleopatra|blue|seven|1492|Berlin|John Smith|gold|the peseta|Lapland|a plumber|sunrise|5|"
    "Picasso|sugar|Monday|Google|English|red|football|Mars|steel|Einstein|Tokyo|2 euros|100|Anna|"
    "10 am|Brazil|water|Amazon|Latin|tomorrow|a cat|wood|0.4"
).split("|")
TURN = (
    "previous|former|first|next|last|second|future|old|wrong|alternative|unofficial|original|deputy|"
    "most expensive|worst|new"
).split("|")
AUXILIARY = "is|are|was|were|does|do|did|can|has|have|will|should|may|must|would|could"
ASKING = ("who", "when", "where", "why", "how", "what", "which", "whom")
_ASKED = re.compile(rf"^((?:who|what|when|where|why|how|which|whom|on|in|from|to|at)\b.*?)?\b({AUXILIARY})\b", re.I)


def _lower(text: str) -> str:
    return text if text.startswith(("X", "I ")) else text[:1].lower() + text[1:]


def same(text: str, kind: str, luck: Random) -> str:
    """The same question in another manner."""
    roll = luck.random()
    if roll < 0.25:
        return text
    if luck.random() < 0.12:
        text = re.sub(r"\bX\b", luck.choice(["the X", f"the {kind} X", f"{kind} X", "our X", "this X"]), text, count=1)
    if luck.random() < 0.1:
        text = re.sub(r"^(What|Who|Where|When) is\b", r"\1's", text)
    if luck.random() < 0.06:
        text = re.sub(r"^What\b", "Which", text) if text.startswith("What") else re.sub(r"^Which\b", "What", text)
    if luck.random() < 0.08:
        text = re.sub(r"\bX's\b", luck.choice(["Xs", "X"]), text)
    if roll < 0.5:
        text = f"{luck.choice(BEFORE)} {_lower(text)}"
    elif roll < 0.6:
        text = f"{luck.choice(ASIDE)} {text}"
    if luck.random() < 0.12:
        text = f"{text} {luck.choice(AFTER)}"
    return text


def other(text: str, luck: Random) -> str:
    """A question that looks like the given one and must not be taken for it."""
    makers = (*[_negated] * 3, *[_value] * 3, _swapped, *[_chained] * 2, _turned, _cut, _passing)
    for _ in range(6):
        if made := luck.choice(makers)(text, luck):
            return made
    return luck.choice(PASSING)


def _negated(text: str, luck: Random) -> str | None:
    text = text.rstrip("?.: ")
    if found := re.match(r"^(Who|What|Which \w+)( \w+?)(ed|s) (.*)$", text):
        if found[2].strip() in ("i", "wa", "ha", "doe") or len(found[2]) < 4:
            pass
        else:
            tense = "did" if found[3] == "ed" else "does"
            return f"{found[1]} {tense} {luck.choice(['not', 'never', 'no longer'])}{found[2]} {found[4]}"
    if not (found := _ASKED.search(text)) and not (found := re.search(rf"()\b({AUXILIARY})\b", text)):
        return None
    head, tail = text[: found.end()], text[found.end() :]
    word = luck.choice(["not", "not", "not", "no longer", "never", "not yet", "n't", "not really"])
    if word == "n't":
        return f"{head}n't{tail}"
    if (behind := re.match(r"^( the| a)? (X)\b(?!')", tail)) and luck.random() < 0.7:
        return f"{head}{tail[: behind.end()]} {word}{tail[behind.end() :]}"
    return f"{head} {word}{tail}"


def _value(text: str, luck: Random) -> str | None:
    value, text = luck.choice(VALUES), text.rstrip("?.: ")
    if found := re.match(r"^(What|Who|Which \w+|Where|When) (is|are|was|were) (.*)$", text):
        order = (value, found[3]) if luck.random() < 0.6 else (found[3], value)
        return " ".join([found[2].capitalize(), *order])
    if found := re.match(r"^(?:What|Who|Which|Where|When|How|In|On|At|To|From)\b.*?\b(does|do|did|can) (.*)$", text):
        return f"{found[1].capitalize()} {found[2]} {value}"
    if found := re.match(r"^(.*X(?:'s \w+)*) (is|was|are|were|has|can|will) (.*)$", text):
        return f"{found[2].capitalize()} {found[1]} {found[3]} {value}"
    if found := re.match(r"^(.*) (is|was|are|were)$", text):
        return f"{found[2].capitalize()} {value} {found[1]}"
    if found := re.match(r"^Who (\w+?)(ed)? (.*)$", text):
        return f"Did {value} {found[1]} {found[3]}"
    return None


def _swapped(text: str, luck: Random) -> str | None:
    first = text.split()[0].lower()
    if first not in ASKING or first in ("what", "which"):
        return None
    return luck.choice([w for w in ("Who", "When", "Where", "Why", "How") if w.lower() != first]) + text[len(first) :]


def _chained(text: str, luck: Random) -> str | None:
    kin = luck.choice(KIN)
    if "X's" in text and luck.random() < 0.5:
        return text.replace("X's", f"X's {kin}'s", 1)
    return re.sub(r"\bX\b", luck.choice([f"the {kin} of X", f"X's {kin}"]), text, count=1)


def _turned(text: str, luck: Random) -> str | None:
    turn = luck.choice(TURN)
    if re.search(rf"\b({turn})\b", text):
        return None
    if re.search(r"\b[Tt]he \w+( \w+)? (of|for|in) X", text):
        return re.sub(r"\b([Tt]he) (?=\w+( \w+)? (of|for|in) X)", rf"\1 {turn} ", text, count=1)
    if re.search(r"X's \w", text):
        return re.sub(r"X's ", f"X's {turn} ", text, count=1)
    if re.match(r"^(Who|What|Where) is ", text):
        when = luck.choice([" before", " before the current one", " ten years ago"])
        return re.sub(" is ", " was ", text, count=1).rstrip("?") + when
    return None


def _cut(text: str, luck: Random) -> str | None:
    parts = text.split()
    at = next((i for i, part in enumerate(parts) if part.startswith("X")), len(parts))
    end = max(at + 1, len(parts) // 3)
    return " ".join(parts[:end]) if len(parts) - end >= 3 and end >= 2 else None


def _passing(text: str, luck: Random) -> str | None:
    if (found := re.search(r"\b[Tt]he (\w+(?: \w+)?) of X", text)) and luck.random() < 0.5:
        return luck.choice(ABOUT).format(n=found[1])
    return luck.choice(PASSING)
