"""Train a memory encoder: python -m editmem.methods.comem HOST EXAMPLES OUT

HOST is a folder or Hub id, or tiny or tiny-vision. EXAMPLES are JSON lines: an item's `text` and/or `image` (a path),
and a `question` with its `answer` and, if it has one, `question_image`. OUT is for `ComemSpec.of(OUT)`.

Exit codes: 0 done; 2 bad input.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

err = Console(stderr=True, markup=False, highlight=False)
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def train(
    host: Annotated[str, typer.Argument(help="Folder or Hub id, or: tiny, tiny-vision.")],
    examples: Annotated[Path, typer.Argument(help="JSON lines.")],
    out: Annotated[Path, typer.Argument(help="Folder of the encoder.")],
    steps: Annotated[int, typer.Option(min=1)] = 1000,
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    rate: Annotated[float, typer.Option(help="Of AdamW, at its highest.")] = 1e-3,
    distractors: Annotated[float, typer.Option(help="Share of examples with another's item beside their own.")] = 0.15,
    distil: Annotated[float, typer.Option(help="Share of self-distillation from the item as text.")] = 0.0,
    queries: Annotated[int, typer.Option(help="Embeddings of an item.", min=1)] = 8,
    rank: Annotated[int, typer.Option(help="Of the encoder's LoRA.", min=1)] = 16,
    checkpoint: Annotated[Path | None, typer.Option(help="Folder to go on from after an interruption.")] = None,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    import editmem
    from editmem.errors import EditMemError
    from editmem.hosts.loading import load_host
    from editmem.methods.comem import training
    from editmem.methods.comem.spec import ComemSpec

    recent: list[float] = []

    def report(progress: training.Progress) -> None:
        recent.append(progress.loss)
        if progress.step % 50 == 0 or progress.step == progress.steps:
            mean = sum(recent[-50:]) / len(recent[-50:])
            err.print(f"step {progress.step} of {progress.steps}: {mean:.3f} nats, {progress.seconds:.0f} s")

    try:
        read = training.read_examples(examples.read_text(encoding="utf-8").splitlines(), examples.parent)
        model, tokenizer = load_host(host)
        with editmem.wrap(model, ComemSpec(queries=queries, rank=rank), tokenizer=tokenizer) as editor:
            training.train(
                editor, read, steps=steps, batch_size=batch_size, rate=rate, distractors=distractors, distil=distil,
                seed=seed, checkpoint=checkpoint, progress=report,
            )  # fmt: skip
            training.save(editor, out)
    except (EditMemError, OSError, ValueError) as error:
        err.print(f"error: {error}", style="red")
        raise typer.Exit(2) from None


if __name__ == "__main__":
    app()
