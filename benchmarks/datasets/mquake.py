"""MQuAKE-CF: chains of facts of which some links are edited, asked as one question."""

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.datasets.base import FileDataset, Files
from benchmarks.datasets.counterfact import fill
from benchmarks.datasets.rows import Row
from benchmarks.records import Probe, Record


class Mquake(FileDataset):
    """Multi-hop questions whose answer changes with one to four edits.

    Zhong et al., arXiv 2305.14795. A case asks for several rewrites, and many cases share some. Each rewrite becomes
    one record, however many cases ask for it; the question form of the rewrite is its rephrasing. A case's questions
    (three wordings, with all aliases of the new answer) are portability probes "2-hop", "3-hop" or "4-hop" of the
    record of its last rewrite, and need the records of its other rewrites; the links of the new chain that the case
    leaves as they are become locality probes "hop". A case counts there wording by wording, not if any wording is
    right as in the paper.

    The first 200 cases are the calibration part; the test part is the later cases that share no rewrite with them.
    """

    names = ("MQuAKE-CF-3k.json", "MQuAKE-CF-3k-v2.json", "MQuAKE-CF.json")
    files = Files(names, names)
    calibration = 200  # cases

    def records(self, rows: Sequence[Row], others: Sequence[Row]) -> list[Record]:
        first = others[0].number if others else 0
        earlier = {rewrite.prompt for row in others if rows and first < rows[0].number for rewrite in _rewrites(row)}
        records: dict[tuple[str, str], Record] = {}
        for row in rows:
            rewrites = _rewrites(row)
            if not earlier.intersection(rewrite.prompt for rewrite in rewrites):
                _add(records, row, rewrites)
        return list(records.values())


def _rewrites(row: Row) -> list[Record]:
    found = [_rewrite(rewrite, f"{row.number}/{i}") for i, rewrite in enumerate(row.rows("requested_rewrite"))]
    if not found:
        raise row.error("requested_rewrite", "must hold a rewrite")
    return found


def _rewrite(row: Row, name: str) -> Record:
    target = row.row("target_new").text("str")
    return Record(
        id=name,
        prompt=fill(row.text("prompt"), row.text("subject")),
        target=target,
        answers=(target,),
        truth=row.row("target_true").text("str"),
        subject=row.text("subject"),
        rephrasings=(row.text("question"),),
        where=row.where,
    )


def _add(records: dict[tuple[str, str], Record], row: Row, rewrites: Sequence[Record]) -> None:
    """Add a case to the records, which stand under prompt and target."""
    keys = [(rewrite.prompt, rewrite.target) for rewrite in rewrites]
    for key, rewrite in zip(keys, rewrites, strict=True):
        records.setdefault(key, rewrite)
    last = records[keys[-1]]
    needs = tuple(records[key].id for key in keys if records[key].id != last.id)
    edited = {question for rewrite in rewrites for question in rewrite.rephrasings}
    records[keys[-1]] = replace(
        last,
        locality=last.locality + _hops(row, edited),
        portability=last.portability + _questions(row, needs),
    )


def _hops(row: Row, edited: set[str]) -> tuple[Probe, ...]:
    hops = [hop for hop in row.rows("new_single_hops") if hop.text("question") not in edited]
    return tuple(Probe(hop.text("question"), "hop", _answers(hop, "answer")) for hop in hops)


def _questions(row: Row, needs: tuple[str, ...]) -> tuple[Probe, ...]:
    kind = f"{len(row.rows('new_single_hops'))}-hop"
    return tuple(Probe(question, kind, _answers(row, "new_answer"), needs) for question in row.texts("questions"))


def _answers(row: Row, name: str) -> tuple[str, ...]:
    """An answer and, under the same name with `_alias`, its other forms."""
    alias = f"{name}_alias"
    return tuple(dict.fromkeys(row.aliases(name) + (row.aliases(alias) if alias in row else ())))
