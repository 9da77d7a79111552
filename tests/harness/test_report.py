"""The report: its figures are those of scores.jsonl, and groups of metrics never share a table."""

import json
import random
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from benchmarks.folder import Progress, read_lines
from benchmarks.report import write_report
from benchmarks.report.results import Column, Figure, _lost, read_results
from benchmarks.report.tables import beaten, number, score_tables
from benchmarks.spec import RunSpec

pytestmark = pytest.mark.slow

METRICS = {
    "reliability": {"group": "greedy", "better": "higher"},
    "generality": {"group": "greedy", "better": "higher"},
    "locality": {"group": "greedy", "better": "higher"},
    "perplexity": {"group": "perplexity", "better": "lower"},
    "forgetting": {"group": "forgetting", "better": "lower"},
    "seconds per edit": {"group": "cost", "better": "lower"},
    "bytes per edit": {"group": "cost", "better": "lower"},
}
ABOUT = {
    "metrics": METRICS,
    "command": "python -m benchmarks run --model tiny",
    "versions": {"python": "3.12", "torch": "2.13"},
    "hardware": {"cpu": "a processor", "cores": 2, "threads": 1, "memory bytes": 2**33, "gpu": None},
    "commit": "abc",
}
Line = tuple[int, str, str, str, float]


def write_run(out: Path, method: str, lines: Sequence[Line], seed: int = 0, **others: Any) -> Path:
    sizes = tuple(sorted({line[0] for line in lines}))
    spec = RunSpec("../models/host", method, "world", sizes, seed, **others)
    folder = out / spec.slug
    folder.mkdir(parents=True)
    names = ("edits", "metric", "kind", "record", "value")
    text = "".join(json.dumps(dict(zip(names, line, strict=True))) + "\n" for line in lines)
    (folder / "scores.jsonl").write_text(text)
    (folder / "run.json").write_text(json.dumps({"spec": spec.to_dict(), **ABOUT}))
    progress = Progress(sizes[-1], len(sizes), True, lengths={"scores.jsonl": len(text)})
    (folder / "progress.json").write_text(json.dumps(asdict(progress)))
    return folder


def drawn_lines(rng: random.Random, sizes: Sequence[int]) -> list[Line]:
    lines: list[Line] = []
    for size in sizes:
        for record in range(8):
            for metric in ("reliability", "generality", "forgetting"):
                lines.append((size, metric, "", f"r{record}", float(rng.random() < 0.7)))
            lines += [(size, "locality", kind, f"r{record}", rng.random()) for kind in ("far", "near | same subject")]
        lines.append((size, "perplexity", "mean", "", 1 + 500 * rng.random()))
        lines += [(size, name, "", "", 1e4 * rng.random()) for name in ("seconds per edit", "bytes per edit")]
    return lines


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Four methods; three seeds of 10 and 100 edits, one of 1,000."""
    out = tmp_path / "results"
    rng = random.Random(0)
    for method in ("memoir", "wise-merge", "retrieval", "none"):
        for seed in range(3):
            folder = write_run(out, method, drawn_lines(rng, (10, 100, 1000) if seed == 0 else (10, 100)), seed)
            if method == "memoir":
                matches = {name: [rng.random() for _ in range(9)] for name in ("edits", "rephrasings", "unrelated")}
                (folder / "matches.json").write_text(json.dumps({**matches, "threshold": 0.5}))
    return out


def recomputed(results: Path, method: str, size: int, metric: str, kind: str) -> tuple[float, float | None]:
    """Mean and deviation over seeds, straight from the files."""
    means = []
    for folder in results.iterdir():
        if json.loads((folder / "run.json").read_text())["spec"]["method"] == method:
            found = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
            wanted = (size, metric, kind)
            values = [f["value"] for f in found if (f["edits"], f["metric"], f["kind"]) == wanted]
            means += [sum(values) / len(values)] if values else []
    mean = sum(means) / len(means)
    spread = sum((value - mean) ** 2 for value in means)
    return mean, (spread / (len(means) - 1)) ** 0.5 if len(means) > 1 else None


def markdown_tables(page: str) -> list[tuple[str, str, list[list[str]]]]:
    """(heading above, title, rows with header) of every table."""
    tables = []
    heading = title = ""
    for block in page.split("\n\n"):
        if block.startswith("#"):
            heading = block.lstrip("# ")
        elif block.startswith("**"):
            title = block.strip("*")
        elif block.startswith("| "):
            rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in block.splitlines()]
            cells = [[cell.strip().strip("*").replace("\\|", "|") for cell in row] for row in rows]
            tables.append((heading, title, [cells[0], *cells[2:]]))
    return tables


def test_figures_are_those_of_the_scores(results: Path, tmp_path: Path) -> None:
    write_report(results, tmp_path / "report")
    tables = markdown_tables((tmp_path / "report" / "report.md").read_text())
    checked = 0
    for heading, title, (header, *rows) in tables:
        if not heading.startswith("Metrics: "):
            continue
        metric, kind = re.fullmatch(r"(.+?)(?: \(([^()]*)\))? \((?:higher|lower) is better\)", title).groups()
        for method, *cells in rows:
            for size, cell in zip(header[1:], cells, strict=True):
                edits = int(size.removesuffix(" edits").replace(",", ""))
                mean, sd = recomputed(results, method, edits, metric, kind or "")
                assert cell == number(mean) + ("" if sd is None else f" ± {number(sd)}")
                checked += 1
    assert checked == 8 * 4 * 3  # columns, methods, sizes


def test_figures_as_data(results: Path, tmp_path: Path) -> None:
    write_report(results, tmp_path / "report")
    (group,) = read_results(results)
    lines = [json.loads(line) for line in (tmp_path / "report" / "figures.jsonl").read_text().splitlines()]
    for line in lines:
        figure = group.figure(line["method"], line["edits"], Column(line["metric"], line["kind"]))
        assert figure == Figure(line["mean"], line["sd"], line["seeds"])
    assert len({json.dumps(line) for line in lines}) == len(lines) > 10


def test_what_is_lost_of_each_hundred() -> None:
    order = {f"r{i}": i for i in range(250)}
    lines = [
        {"metric": "forgetting", "kind": "", "edits": 250, "record": f"r{i}", "value": float(i < 50 or i >= 200)}
        for i in range(250)
    ]
    earlier = [{**line, "edits": 100, "value": 1.0} for line in lines]
    assert _lost(lines + earlier, order, 250) == (0.5, 0.0, 1.0)


def test_groups_of_metrics_have_tables_of_their_own(results: Path) -> None:
    group = read_results(results)[0]
    assert {name: {c.metric for c in columns} for name, columns in group.columns.items()} == {
        "greedy": {"reliability", "generality", "locality"},
        "perplexity": {"perplexity"},
        "forgetting": {"forgetting"},
        "cost": {"seconds per edit", "bytes per edit"},
    }
    titles = [table.title for table in score_tables(group, "perplexity")]
    assert titles == ["perplexity (mean) (lower is better)"]


class Links(HTMLParser):
    """Collects what a page refers to, and which tags it opens and closes."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_both_pages_and_the_pictures(results: Path, tmp_path: Path) -> None:
    kernels, scale = tmp_path / "kernels.json", tmp_path / "scale.jsonl"
    stats = {"median": 1.5e-5, "mean": 2e-5, "stddev": 1e-6, "rounds": 1000}
    kernels.write_text(json.dumps({"benchmarks": [{"name": "test_match[1000]", "stats": stats}]}))
    names = ["reliability", "locality", "forward seconds", "forward seconds without", "match seconds"]
    line = dict.fromkeys([*names, "bytes per edit", "seconds per edit"], 0.5)
    scale.write_text("".join(json.dumps({"edits": size} | line) + "\n" for size in (1000, 3000)))
    written = write_report(results, tmp_path / "report", kernels, scale)
    assert sorted((tmp_path / "report").iterdir()) == sorted(written)
    page = (tmp_path / "report" / "report.md").read_text()
    pictures = re.findall(r"!\[.*\]\((.*)\)", page)
    ends = ("triangles", "curves", "forgetting", "matches", "cost")
    assert pictures == [*(f"world-on-host-{end}.png" for end in ends), "scale.png"]
    for name in pictures:
        assert (tmp_path / "report" / name).read_bytes().startswith(b"\x89PNG")
    assert "| test_match[1000] | 15.0 | 20.0 | 1.0 | 1,000 |" in page
    links = Links()
    links.feed((tmp_path / "report" / "report.html").read_text())
    assert len(links.links) == len(pictures)
    assert all(link.startswith("data:image/png;base64,") for link in links.links)
    assert links.open == []


def test_the_best_is_in_bold(tmp_path: Path) -> None:
    write_run(tmp_path, "memoir", [(10, "reliability", "", "", 0.5), (10, "perplexity", "", "", 3.0)])
    write_run(tmp_path, "rome", [(10, "reliability", "", "", 0.9), (10, "perplexity", "", "", 4.0)])
    group = read_results(tmp_path)[0]
    bold = [(table.rows[row][0], table.title) for name in group.columns for table in score_tables(group, name)
            for row, _ in table.bold]  # fmt: skip
    assert bold == [("rome", "reliability (higher is better)"), ("memoir", "perplexity (lower is better)")]


def test_where_a_baseline_is_better(tmp_path: Path) -> None:
    write_run(tmp_path, "memoir", [(10, "reliability", "", "", 0.90), (10, "perplexity", "", "", 3.0),
                                   (10, "bytes per edit", "", "", 1000.0)])  # fmt: skip
    write_run(tmp_path, "rome", [(10, "reliability", "", "", 0.92), (10, "perplexity", "", "", 2.995),
                                 (10, "bytes per edit", "", "", 995.0)])  # fmt: skip
    write_run(tmp_path, "retrieval", [(10, "reliability", "", "", 0.95), (10, "perplexity", "", "", 2.5),
                                      (10, "bytes per edit", "", "", 900.0)])  # fmt: skip
    write_run(tmp_path, "none", [(10, "reliability", "", "", 1.0), (10, "bytes per edit", "", "", 0.0)])
    write_run(tmp_path, "wise-merge", [(10, "reliability", "", "", 0.949)])
    found = [(case.ours, case.column.metric, case.baselines) for case in beaten(read_results(tmp_path)[0])]
    assert found == [
        ("memoir", "reliability", (("retrieval", 0.95), ("rome", 0.92))),
        ("memoir", "perplexity", (("retrieval", 2.5),)),
        ("memoir", "bytes per edit", (("retrieval", 900.0),)),
    ]


def test_no_baseline_is_better(tmp_path: Path) -> None:
    write_run(tmp_path / "results", "memoir", [(10, "reliability", "", "", 1.0)])
    write_report(tmp_path / "results", tmp_path)
    assert "No baseline is better" in (tmp_path / "report.md").read_text()


def test_settings_make_another_method(tmp_path: Path) -> None:
    write_run(tmp_path, "memoir", [(10, "reliability", "", "", 1.0)])
    write_run(tmp_path, "memoir", [(10, "reliability", "", "", 0.5)], options={"steps": 5})
    group = read_results(tmp_path)[0]
    assert group.labels == ["memoir", "memoir (steps=5)"]
    assert group.figure("memoir (steps=5)", 10, Column("reliability")).mean == 0.5


def test_scores_that_do_not_count_yet_are_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "memoir", [(10, "reliability", "", "r1", 1.0)])
    with (folder / "scores.jsonl").open("a") as file:
        file.write('{"edits": 10, "metric": "reliability", "kind": "", "record": "r2", "value": 0.0}\n{"torn')
    assert read_results(tmp_path)[0].figure("memoir", 10, Column("reliability")).mean == 1.0
    with pytest.raises(json.JSONDecodeError):
        read_lines(folder / "scores.jsonl")


def test_an_unfinished_run_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "results", "memoir", [(10, "reliability", "", "", 1.0)])
    progress = json.loads((folder / "progress.json").read_text())
    (folder / "progress.json").write_text(json.dumps({**progress, "finished": False}))
    write_report(tmp_path / "results", tmp_path)
    assert f"Not finished, shown as far as they are: {folder.name}." in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0.000"), (0.98765, "0.988"), (0.00123, "0.0012"), (12.3456, "12.346"), (123.4, "123"), (12345.6, "12,346"),
     (float("inf"), "inf")],
)  # fmt: skip
def test_numbers(value: float, shown: str) -> None:
    assert number(value) == shown


def test_what_is_not_results_is_refused(results: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no runs"):
        write_report(tmp_path / "empty", tmp_path / "report")
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(ValueError, match="not the JSON of pytest-benchmark"):
        write_report(results, tmp_path / "report", kernels=tmp_path / "no.json")
    with pytest.raises(ValueError, match="holds no lines"):
        write_report(results, tmp_path / "report", scale=tmp_path / "none.jsonl")


def test_deviation_is_over_seeds(tmp_path: Path) -> None:
    for seed, value in enumerate((0.5, 0.6, 0.9)):
        write_run(tmp_path, "memoir", [(10, "reliability", "", "", value)], seed)
    figure = read_results(tmp_path)[0].figure("memoir", 10, Column("reliability"))
    assert (figure.mean, figure.sd, figure.seeds) == (
        pytest.approx(2 / 3), pytest.approx(statistics.stdev([0.5, 0.6, 0.9])), 3,
    )  # fmt: skip
