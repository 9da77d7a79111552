"""Print the words that many questions have, whatever they are about: the line "asked" of `small_words.txt`."""

from collections import Counter
from importlib import resources

from relations import written
from texts import SUBJECT, words

FEWEST = 15  # relations that have the word


def main() -> None:
    lines = resources.files("editmem.text").joinpath("small_words.txt").read_text(encoding="utf-8").splitlines()
    function = set(next(line for line in lines if line.startswith("function ")).split())
    counts: Counter[str] = Counter()
    for relation in written():
        counts.update({word for text in relation.phrasings for word in words(text)} - {SUBJECT})
    often = [word for word, count in counts.items() if count >= FEWEST and word.isascii() and word.isalpha()]
    print("asked", *sorted(word for word in often if len(word) > 2 and word not in function))


if __name__ == "__main__":
    main()
