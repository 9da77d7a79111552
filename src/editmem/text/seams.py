"""What stands between a prompt and its answer, so that the two read as one text."""

# ruff: noqa: RUF001  (signs of many scripts)
import re
import unicodedata

from editmem.text.word_hash import writes_no_space

_PAIRS = {"“": "„", "«": "»", "‘": "‚", "‹": "›"}
"""Marks that close what these opened, in some languages, and open in others."""
_CLOSING = tuple(".,;:!?)]}%…°™®²³″′‰")
_ENDING = re.compile(r"['’](?:(?:s|t|re|ve|ll|d|m)\b(?!['’])|\W|$)", re.IGNORECASE)
"""What begins with an apostrophe and belongs to the word before."""
_ELIDED = re.compile(
    r"\b(?:[a-z]|qu|lorsqu|jusqu|puisqu|quoiqu|aujourd|un|all|dell|dall|nell|sull|coll|quest|quell|bell|sant)['’]$",
    re.IGNORECASE,
)
_ENDINGS = frozenset(
    "com org net edu gov io ai dev co uk de fr eu ch at nl it es jp cn ru js ts py rs go rb sh txt md csv json jsonl "
    "xml yaml yml toml html htm css php pdf doc docx xls xlsx png jpg jpeg gif svg zip gz tar exe".split()
)
"""Of names of hosts and of files."""
_STATEMENT = re.compile(
    r"^\s*(?:>>> |\.\.\. |\$ )|^\s*(?:from|import|def|class|return|await|assert|const|var|elif|if|while|for|with)\s.*"
    r"[()\[\]{}=_]|^\s*import\s+\w|\s(?:[-+*/%&|^]?=|==|!=|<=|>=|:=|=>|->|&&|\|\|)\s|[;{]\s*$|\w\((?!s\))[^()]*$"
)
"""In a line of a program."""
_PATH = re.compile(r"^(?:self|cls|www)$|\w[(\[@\\=]|_|://|^[~./\\]|\w{2,}\.\w{2,}$")
"""In a last word that is one of a program, or the name of a file or a host."""
_PROSE = re.compile(r"[A-Z][\w'’]*,?\s+\w")


def join(prompt: str, target: str, between: str | None = None) -> str:
    """Prompt and answer as one text.

    Args:
        prompt: text that is not empty.
        target: likewise.
        between: what to put between the two; None for a space where the text would be written with one.
    """
    if between is None:
        touching = prompt[-1].isspace() or target[0].isspace() or _opens(prompt, target) or _goes_on(prompt, target)
        between = "" if touching else " "
    return prompt + between + target


def _opens(prompt: str, target: str) -> bool:
    """Whether the prompt ends with something that the next word touches."""
    last, line = prompt[-1], prompt.rsplit("\n", 1)[-1]
    before = line[:-1]
    word = line.split()[-1]
    if last in "\"'`" or last == "’":
        return _quoting(line, last) or bool(_ELIDED.search(line))
    if last in _PAIRS:
        return line.rfind(_PAIRS[last]) <= before.rfind(last)  # else it closes
    if last == "»":
        return "«" not in line
    if unicodedata.category(last) in ("Ps", "Pi") or last in "¿¡_@\\~":
        return True
    if unicodedata.category(last) == "Sc":
        return not before.rstrip()[-1:].isdigit()
    if last == ".":
        return _dotted(line, word[:-1], target)
    if last == ":":
        return word.endswith("::") or target.startswith(("//", "\\")) or _digits(before, target)
    if last == ",":
        return bool(re.search(r"(?<!\d)\d{1,3},$", line) and re.match(r"\d{3}(?!\d)", target))
    if last == "#":
        return bool(before.strip(" #")) and not before[-1:].isalpha()
    if last in "/-–—=<>&+*^|":
        return _operator(before, word, last, target)
    return _spaceless(last) or (_spaceless(target[0]) and any(map(_spaceless, prompt)))


def _operator(before: str, word: str, last: str, target: str) -> bool:
    """Of signs that have spaces on both sides or on none."""
    if word.strip(last):  # something touches it
        return not (last == "+" and word.endswith("++")) and not (last == ">" and word.endswith(("->", "=>")))
    ahead = before.rstrip(last).rstrip()[-1:]
    counted = ahead.isdigit() or ahead in tuple(")]")
    if last == "/":
        return not counted
    if last == "-":
        option = re.fullmatch(r"-[a-z][\w-]+.*|[a-zA-Z]", "-" * (len(word) - 1) + target)
        return bool(option) or (target[0].isdigit() and not counted and bool(ahead))
    if last == "<":
        return bool(re.match(r"[a-z][\w-]*[ />]", target))
    return word == "**" and not counted and before.count("**") % 2 == 0 and bool(ahead)


def _dotted(line: str, word: str, target: str) -> bool:
    """Of a full stop: whether it stands inside a number, a name of a program, a file or a host."""
    if _digits(line[:-1], target):
        return not (line.strip(" \t.").isdigit() and re.match(r"\d+\s", target))  # else it is an item of a list
    if not re.search(r"[\w)\]]$", word) or not re.match(r"\w", target):
        return False
    first = re.split(r"\W", target, maxsplit=1)[0]
    if first in _ENDINGS:
        return True
    if _PROSE.match(target) or (first[:1].isupper() and word.rsplit(".", 1)[-1].lower() in _ENDINGS):
        return False
    called = re.match(r"[a-z_]\w*\(|\w*[a-z0-9]_\w", target)
    return bool(called or _PATH.search(word) or _STATEMENT.search(line))


def _goes_on(prompt: str, target: str) -> bool:
    """Whether the answer begins with something that touches the word before."""
    first, rest = target[0], target[1:2]
    line = prompt.rsplit("\n", 1)[-1]
    word = line.split()[-1]
    if first in "\"'`’" and _quoting(line, first):
        return True
    if first in "'’":
        return bool(_ENDING.match(target))
    if first in "”»›":
        return first not in "»›" or target.count("«") + target.count("‹") == 0
    if first in "([":
        return bool(_STATEMENT.search(line) or _PATH.search(word)) and (word[-1].isalnum() or word[-1] in "_)]")
    if first == "/":
        return "/" in word or bool(re.match(r"/(?:or|h|s|min|day|week|month|year|kg|km|m²|m2)\b", target))
    if first == "@":
        return bool(re.match(r"@[\w-]+\.\w", target)) and bool(re.search(r"\w$", word))
    if first == "." and (rest.isalnum() or rest == "_"):
        return _digits(prompt, target[1:]) or bool(_STATEMENT.search(line) or _PATH.search(word))
    if first in ".:!?%" and (rest.isalnum() or rest in tuple("=/_")):
        return _digits(prompt, target[1:]) and first == ":"
    return first in _CLOSING


def _digits(before: str, after: str) -> bool:
    return before[-1:].isdigit() and after[:1].isdigit()


def _spaceless(character: str) -> bool:
    return writes_no_space(character) or unicodedata.name(character, "").startswith(("FULLWIDTH", "HALFWIDTH"))


def _quoting(text: str, mark: str) -> bool:
    """Whether a quotation is open at the end of a text, where the same mark opens and closes it."""
    inside = False
    for at, character in enumerate(text):
        if character != mark:
            continue
        before, after = text[at - 1 : at], text[at + 1 : at + 2]
        if not inside:
            inside = not before.isalnum()  # else it is an apostrophe, or says minutes or inches
        elif not (before.isalnum() and after.isalnum()):
            inside = False
    return inside
