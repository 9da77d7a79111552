"""The command line of the harness: `python -m benchmarks run | visual | report | scale`, and a study by its name.

Exit codes: 0 done; 1 a run failed; 2 bad input.
"""

import importlib
import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

ANY_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True}
app = typer.Typer(
    help=__doc__, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)
err = Console(stderr=True)


@contextmanager
def _errors() -> Iterator[None]:
    """What the user got wrong becomes one line and exit code 2."""
    try:
        yield
    except (ImportError, OSError, ValueError) as error:
        err.print(f"error: {error}", style="red", markup=False, highlight=False)
        raise typer.Exit(2) from None


def _command() -> str:
    return shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])


@app.command()
def run(
    model: Annotated[list[str], typer.Option(help="tiny, a folder or a Hub name; may be given again.")],
    method: Annotated[list[str], typer.Option(help="A method; may be given again.")],
    dataset: Annotated[list[str], typer.Option(help="A data set; may be given again.")],
    edits: Annotated[str, typer.Option(help="Sizes, such as 10,100,1000; with seeds for each: 10:3,100:3,1000:1.")],
    seeds: Annotated[int, typer.Option(help="Seeds for sizes that do not say.", min=1)] = 1,
    data: Annotated[list[str] | None, typer.Option(help="Folder of the data set, or dataset=folder.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="A metric; may be given again. [default: all]")] = None,
    option: Annotated[list[str] | None, typer.Option(help="A setting, method.key=json.")] = None,
    within: Annotated[int | None, typer.Option(help="Draw from the first so many records only.", min=1)] = None,
    scored: Annotated[int | None, typer.Option(help="Ask about so many edits, evenly spread.", min=1)] = None,
    part: Annotated[str, typer.Option(help="Part of the data set: test or calibration.")] = "test",
    out: Annotated[Path, typer.Option(help="Folder of results; finished runs in it are not made again.")] = Path(
        "results"
    ),
    jobs: Annotated[int, typer.Option(help="Runs at a time on this machine.", min=1)] = 1,
    ray: Annotated[str | None, typer.Option(help="Address of a Ray cluster, or local.")] = None,
) -> None:
    """Edit with every method, on every model and data set, and score after each number of edits."""
    with _errors():
        from benchmarks import sweep, watch
        from benchmarks.run import check_names, registry
        from benchmarks.spec import parse_data, parse_options, parse_sizes

        parts = registry()
        runs = sweep.specs(
            model,
            method,
            dataset,
            parse_sizes(edits, seeds),
            parse_options(option or [], method),
            parse_data(data or [], dataset),
            metric or parts.default_metrics,
            part,
            within,
            scored,
        )
        for spec in runs:
            check_names(spec, parts)
        ends = (
            sweep.in_processes(runs, out, _command(), jobs)
            if ray is None
            else sweep.on_ray(runs, out, ray, _command(), jobs)
        )
        failed = watch.until_done(runs, out, ends, err)
    raise typer.Exit(bool(failed))


@app.command()
def visual(
    model: Annotated[list[str], typer.Option(help="tiny-vision, a folder or a Hub name; may be given again.")],
    method: Annotated[list[str], typer.Option(help="A method; may be given again.")],
    dataset: Annotated[list[str], typer.Option(help="emblems, cckeb or vlkeb; may be given again.")],
    edits: Annotated[int, typer.Option(help="Records that are edited.", min=1)],
    gaps: Annotated[str, typer.Option(help="Records between an edit and its scores.")] = "0,10,20,50,100",
    scored: Annotated[int | None, typer.Option(help="Score the first so many records only.", min=1)] = None,
    final: Annotated[bool, typer.Option(help="Score once more after the last edit.")] = True,
    seed: Annotated[int, typer.Option(help="For methods that draw at random.")] = 0,
    data: Annotated[list[str] | None, typer.Option(help="Folder of the data set, or dataset=folder.")] = None,
    pictures: Annotated[list[str] | None, typer.Option(help="Folder of pictures, or dataset=folder.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="A setting, method.key=json.")] = None,
    part: Annotated[str, typer.Option(help="Part of the data set: test or calibration.")] = "test",
    out: Annotated[Path, typer.Option(help="Folder of results; finished runs in it are not made again.")] = Path(
        "results"
    ),
    jobs: Annotated[int, typer.Option(help="Runs at a time on this machine.", min=1)] = 1,
    figures: Annotated[Path | None, typer.Option(help="JSONL for the means of all finished runs in --out.")] = None,
) -> None:
    """Edit pictures and facts in pairs, and score each pair when a number of later ones has been edited."""
    with _errors():
        from benchmarks import sweep, watch
        from benchmarks.folder import write_atomically
        from benchmarks.spec import parse_data, parse_options
        from benchmarks.visual import table
        from benchmarks.visual.run import check_names, execute
        from benchmarks.visual.spec import VisualSpec, parse_gaps

        options = parse_options(option or [], method)
        places, folders = parse_data(data or [], dataset), parse_data(pictures or [], dataset)
        runs = [
            VisualSpec(
                one, how, which, edits, parse_gaps(gaps), scored, final, seed, part, options.get(how, {}),
                places.get(which), folders.get(which),
            )
            for one in model for which in dataset for how in method
        ]  # fmt: skip
        for spec in runs:
            check_names(spec)
        failed = watch.until_done(runs, out, sweep.in_processes(runs, out, _command(), jobs, execute), err)
        typer.echo(table.tables([out / spec.slug for spec in runs]), nl=False)
        if figures:
            lines = (json.dumps(line, ensure_ascii=False) for line in table.figures(out))
            write_atomically(figures, "".join(f"{line}\n" for line in lines))
    raise typer.Exit(bool(failed))


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="Folder of results, as run wrote it.")],
    out: Annotated[Path, typer.Option(help="Folder for report.md, report.html and the pictures.")] = Path("report"),
    kernels: Annotated[Path | None, typer.Option(help="JSON of pytest-benchmark.")] = None,
    scale: Annotated[Path | None, typer.Option(help="JSON lines that scale wrote.")] = None,
) -> None:
    """Tables and pictures of everything in a folder of results."""
    with _errors():
        from benchmarks.report import write_report

        for path in write_report(results, out, kernels, scale):
            typer.echo(path)


@app.command()
def scale(
    out: Annotated[Path, typer.Option(help="File of JSON lines, a line per size.")] = Path("scale.jsonl"),
    edits: Annotated[str, typer.Option(help="Sizes.")] = "1000,3000,10000,30000,100000",
    seed: Annotated[int, typer.Option(help="Decides the invented people and their facts.")] = 0,
    option: Annotated[list[str] | None, typer.Option(help="A setting of the memory, memoir.key=json.")] = None,
) -> None:
    """Edits of invented facts on the embedded model, up to 100,000, with `memoir` in factored storage."""
    with _errors():
        from benchmarks.methods import METHODS
        from benchmarks.scale import measure
        from benchmarks.spec import parse_options, parse_sizes

        options = {"storage": "factored"} | parse_options(option or [], ["memoir"]).get("memoir", {})
        for line in measure(out, parse_sizes(edits)[0], seed, METHODS["memoir"], options, _command()):
            typer.echo(json.dumps({name: line[name] for name in line if isinstance(line[name], int | float)}))


STUDIES = {
    "aliases": "Other names of what was edited: which does the default router find?",
    "asking": "What the router on questions finds and leaves alone, on a real tokenizer.",
    "comem": "What CoMEM's items answer on the embedded vision-language model, and what is left alone.",
    "comem-real": "Train CoMEM's encoder for a real language model, and see what its items answer.",
    "connector": "Train a connector for the embedded vision-language model.",
    "cost": "What an edit costs on a host, alone and in batches, in forward passes of the host.",
    "counterfact": "Real facts, edited in sequence, on a model that knows them.",
    "holding": "What forgetting, undoing and looking cost where many edits are held already.",
    "serving": "A server under load, and killed again and again.",
    "leads": "By how much answers lead on offsets that nobody learned.",
    "main-job": "The main job, measured as users meet it: greedy answers after the last edit.",
    "other-world": "A second small model of invented facts, other ones than the embedded model's.",
    "overhead": "What a memory costs at decoding: time, bytes per edit, peak memory.",
    "routers": "What tells one question about a subject from another, on a real host.",
    "said": "What a real model says once it is edited, by the default spec.",
    "seeing": "What the embedded vision-language model knows and reads, without any memory.",
    "short-list": "What the default router's short list loses, and what a decision costs.",
}
"""Measurements of one thing each, in `studies/`: what each is, in a line."""


def _study(name: str, what: str) -> None:
    """Add a study to the commands; it reads its own arguments, and is imported when it is called."""

    @app.command(name, help=what, add_help_option=False, context_settings=ANY_ARGUMENTS)
    def call(context: typer.Context) -> None:
        module = importlib.import_module(f"benchmarks.studies.{name.replace('-', '_')}")
        module.main(context.args)


for name, what in STUDIES.items():
    _study(name, what)


if __name__ == "__main__":
    app()
