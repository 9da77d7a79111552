"""Other names of what was edited: which does the default router find?

    python -m benchmarks aliases [--model FOLDER]

For each pair in `aliases.csv` one edit, "The capital of <edited> is", is asked as "The capital of <asked> is", the
other name being all that differs; beside it one edit of another country, to confuse it with. "Most words shared" says
that the question has at least half of the edit's words by weight, "found" that the edit acts. The pairs are hand-made;
nothing was chosen on them.
"""

import csv
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import transformers

import editmem
from benchmarks.studies import parser_of

PAIRS = Path(__file__).with_name("aliases.csv")


def main(arguments: Sequence[str]) -> None:
    parser = parser_of(__name__, __doc__)
    parser.add_argument("--model", help="folder of a model; the embedded one if not given")
    args = parser.parse_args(arguments)
    transformers.utils.logging.disable_progress_bar()
    if args.model:
        model = transformers.AutoModelForCausalLM.from_pretrained(args.model).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
    else:
        model, tokenizer = editmem.tiny()
    editor = editmem.wrap(model, "memoir", tokenizer=tokenizer)
    editor.edit("The capital of Fiji is", "Rome")
    kinds: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    with PAIRS.open(encoding="utf-8") as file:
        for pair in csv.DictReader(file):
            record = editor.edit(f"The capital of {pair['edited']} is", "Paris")
            explanation = editor.explain(f"The capital of {pair['asked']} is")
            words = [c.parts["words"] for c in explanation.candidates if c.record.id == record.id]
            acts = explanation.edit is not None and explanation.edit.id == record.id
            kinds[pair["kind"]].append((words[0] if words else 0.0, acts))
            editor.forget(record.id)
    table = {
        kind: {
            "cases": len(cases),
            "most words shared": sum(words >= 0.5 for words, _ in cases),
            "found": sum(acts for _, acts in cases),
        }
        for kind, cases in kinds.items()
    }
    print(json.dumps(table, indent=1))
