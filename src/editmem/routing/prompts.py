"""The built-in prompts that memories are calibrated with."""

from importlib import resources


def neutral_prompts() -> tuple[str, ...]:
    """Prompts about nothing in particular, for background and threshold."""
    text = resources.files(__package__).joinpath("data/neutral.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line)


def hard_negatives() -> tuple[list[str], list[str]]:
    """Names, and questions to put to each of them, as format strings."""
    text = resources.files(__package__).joinpath("data/hard_negatives.txt").read_text(encoding="utf-8")
    names, forms = (part.splitlines() for part in text.strip().split("\n\n"))
    return names, forms
