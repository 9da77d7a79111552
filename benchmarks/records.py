"""What every data set is turned into: one edit, and everything that is asked about it afterwards."""

from dataclasses import dataclass

NEIGHBOUR = "neighbour"  # the kind of probe that asks the edited relation of another subject


@dataclass(frozen=True)
class Probe:
    """A question that is asked after the edits.

    Attributes:
        prompt: what is asked.
        kind: what it tests, such as `NEIGHBOUR`, "same subject", "portability: Reasoning".
        answers: every accepted answer, aliases included, the main one first; empty where only the host's own
            answer counts.
        needs: ids of the other records that must be edited too for the answers to be right; it is asked only then.
    """

    prompt: str
    kind: str
    answers: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """An edit and its questions.

    Attributes:
        id: unique in its data set.
        prompt, target: the edit.
        answers: every accepted form of the target, the target itself first.
        truth: what was right before the edit; None where the data set does not say.
        subject: whom or what it is about, as it stands in the prompt; None where the data set does not say.
        rephrasings: the same question in other words; the answer is to be the target.
        locality: what must stay as it was.
        portability: what follows from the edit.
        passage: text about the subject from elsewhere, for out-of-distribution scores.
        where: file and line or number, for messages.
    """

    id: str
    prompt: str
    target: str
    answers: tuple[str, ...]
    truth: str | None = None
    subject: str | None = None
    rephrasings: tuple[str, ...] = ()
    locality: tuple[Probe, ...] = ()
    portability: tuple[Probe, ...] = ()
    passage: str | None = None
    where: str = ""


class RecordError(ValueError):
    """A record that cannot be read; the message names file and line."""
