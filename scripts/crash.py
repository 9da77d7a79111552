"""Kill a process again and again while it edits, forgets and saves, and look for what is lost.

    python scripts/crash.py --kills 1000

Each round a child process opens the saved folder and the ledger, checks them, and then edits, forgets and saves at
random, until it is killed (SIGKILL) at a random moment. It writes down what it begins and what has returned. After
each kill

- the folder loads, with everything that was there when the last save returned;
- the ledger loads, and what is active in it is what all calls that returned have made, and perhaps all that the one
  call did that was under way, never a part of it;
- folder and ledger together make an editor with just these edits, and a prompt of each finds it.

The host is a small random one, made once: children are forks. Runs on POSIX systems. Prints a table, and exits with 1
if anything was lost. Ctrl-C ends it earlier.

Options:
    --kills N    how many rounds (1000).
    --seed N     of moments and operations (0).
    --within S   about the longest time until a kill, in seconds (0.4).
    --folder P   where to work; a new temporary folder if not given. It is kept if something was lost.
"""

import argparse
import collections
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # forks

import torch
import transformers
from tqdm import tqdm

import editmem

PROMPTS = [
    f"The capital of {place} is" for place in ("Australia", "Austria", "Brazil", "Chad", "Chile", "Cuba", "Fiji")
]
TARGETS = ["Sydney", "Graz", "Rio", "Sarh", "Arica", "Holguin", "Nadi", "Lima"]
MOMENTS = (("edit", 0.2), ("forget", 0.01), ("save", 0.03))
"""Kinds of calls, and about how long they take, in seconds."""
SPEC = {"method": "memoir", "steps": 30, "margin": 1.0, "renderings": False, "contexts": 0}


class Child:
    """Checks what is there, and works on it until it is killed.

    Args:
        root: the folder with all files.
        model, tokenizer: the host.
        rng: draws what is done.
    """

    def __init__(self, root: Path, model: Any, tokenizer: Any, rng: random.Random) -> None:
        self.root, self.model, self.tokenizer, self.rng = root, model, tokenizer, rng
        self.folder, self.ledger = root / "memory", root / "ledger.sqlite"
        self.log = os.open(root / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, *line: Any) -> None:
        os.write(self.log, (json.dumps(line) + "\n").encode())
        os.fsync(self.log)

    def open(self) -> tuple[Any, int]:
        """An editor of folder and ledger, and how many events the folder has."""
        if not any(self.root.glob("*memory*")):
            return editmem.wrap(self.model, SPEC, tokenizer=self.tokenizer, ledger=self.ledger), 0
        with editmem.load(self.model, self.folder, tokenizer=self.tokenizer) as alone:
            saved = len(alone.history)
        return editmem.load(self.model, self.folder, tokenizer=self.tokenizer, ledger=self.ledger), saved

    def found(self) -> dict[str, Any]:
        """What is there, for the parent."""
        self.editor, saved = self.open()
        edits = {record.edit.prompt: record.edit.target for record in self.editor.edits.values()}
        lost = [
            edit_id
            for edit_id, record in self.editor.edits.items()
            if (acting := self.editor.explain(record.edit.prompt).edit) is None or acting.id != edit_id
        ]
        return {"edits": edits, "saved": saved, "events": len(self.editor.history), "not acting": lost}

    def work(self, calls: int | None) -> None:
        """So many calls; None to go on until the end."""
        for number in itertools.count():
            if number == calls:
                return
            drawn = self.rng.choices(("edit", "forget", "save"), (2, 3, 3))[0]
            kind = drawn if calls is None else ("edit", "save")[number % 2]
            if kind == "edit":
                prompts = self.rng.sample(PROMPTS, self.rng.choice((1, 1, 2)))
                pairs = [(prompt, self.rng.choice(TARGETS)) for prompt in prompts]
                self.note("begin", kind, pairs)
                self.editor.edit(pairs, batch_size=1, progress=False)
            elif kind == "forget":
                gone = self.rng.sample(list(self.editor.edits), min(len(self.editor.edits), self.rng.choice((1, 2))))
                self.note("begin", kind, [self.editor.edits[edit_id].edit.prompt for edit_id in gone])
                self.editor.forget(*gone)
            else:
                self.note("begin", kind, None)
                self.editor.save_pretrained(self.folder)
            self.note("done", len(self.editor.history))


def after(edits: dict[str, str], kind: str, what: Any) -> dict[str, str]:
    """The edits after a call."""
    if kind == "edit":
        return {**edits, **dict(what)}
    return {p: t for p, t in edits.items() if kind != "forget" or p not in what}


class Parent:
    """Starts children, kills them, and keeps count.

    Args:
        root: the folder with all files.
        seed: of everything random.
        within: the longest time until a kill, in seconds.
    """

    def __init__(self, root: Path, seed: int, within: float) -> None:
        self.root, self.within, self.rng = root, within, random.Random(seed)
        self.tokenizer = editmem.tiny()[1]
        self.model = host(len(self.tokenizer))
        self.edits: dict[str, str] = {}  # after all calls that have returned
        self.begun: tuple[str, Any] | None = None  # the call that had not
        self.saved = 0  # events when the last save returned
        self.counts: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []

    def round(self, calls: int | None = None) -> None:
        """One child, from its start to its end, which is that of some calls where their number is given."""
        (self.root / "log").unlink(missing_ok=True)
        reading, writing = os.pipe()
        seed = self.rng.random()
        if (pid := os.fork()) == 0:
            os.close(reading)
            self.child(random.Random(seed), writing, calls)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            answer = json.loads(pipe.readline() or '{"error": "the child ended without a word"}')
        self.check(answer)
        if "error" not in answer and calls is None:
            self.wait()
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if "error" not in answer and calls is None and not os.WIFSIGNALED(status):
            self.failures.append("a child ended by itself; see above")
        self.read_log()

    def wait(self) -> None:
        """Until a random moment of a call of a kind that is drawn: most are much shorter than an edit."""
        time.sleep(self.rng.uniform(0, self.within))
        kind, longest = self.rng.choice(MOMENTS)
        until = time.monotonic() + 2
        while time.monotonic() < until and not self.log_text().rpartition("\n[")[2].startswith(f'"begin", "{kind}"'):
            time.sleep(0.0005)
        time.sleep(self.rng.uniform(0, longest))

    def log_text(self) -> str:
        path = self.root / "log"
        return path.read_text() if path.exists() else ""

    def child(self, rng: random.Random, pipe: int, calls: int | None) -> None:
        """What the fork does; does not return."""
        try:
            worker = Child(self.root, self.model, self.tokenizer, rng)
            try:
                answer = worker.found()
            except Exception:
                answer = {"error": traceback.format_exc()}
            os.write(pipe, (json.dumps(answer) + "\n").encode())
            if "error" not in answer:
                worker.work(calls)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def check(self, answer: dict[str, Any]) -> None:
        """Compare what a child found with what had returned before."""
        if "error" in answer:
            self.failures.append(answer["error"])
            return
        possible = [self.edits]
        if self.begun is not None:
            possible.append(after(self.edits, *self.begun))
        if answer["edits"] not in possible:
            self.failures.append(f"found the edits {answer['edits']}, expected one of {possible}")
        elif self.begun is not None and self.begun[0] != "save" and possible[0] != possible[1]:
            happened = answer["edits"] == possible[1]
            self.counts["under way, and had happened" if happened else "under way, and had not"] += 1
        if not self.saved <= answer["saved"] <= answer["events"]:
            self.failures.append(f"the folder has {answer['saved']} events, expected {self.saved} or more")
        if answer["not acting"]:
            self.failures.append(f"these edits are listed and do not act: {answer['not acting']}")
        self.edits, self.begun = answer["edits"], None
        if answer["events"] > answer["saved"]:
            self.counts["folders caught up with the ledger"] += 1

    def read_log(self) -> None:
        """What the child had done when it was killed."""
        text = self.log_text()
        for line in text[: text.rfind("\n") + 1].splitlines():
            word, *rest = json.loads(line)
            if word == "begin":
                self.begun = (rest[0], rest[1])
                continue
            assert self.begun is not None
            kind, what = self.begun
            self.counts[f"calls of {kind} that returned"] += 1
            self.edits, self.begun = after(self.edits, kind, what), None
            if kind == "save":
                self.saved = rest[0]
        if self.begun is not None:
            self.counts[f"kills during {self.begun[0]}"] += 1


def host(vocabulary: int) -> Any:
    """A small random host."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, pad_token_id=0,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # the usual initial weights are too small to tell prompts apart
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--within", type=float, default=0.4)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    root = args.folder or Path(tempfile.mkdtemp(prefix="crash-"))
    root.mkdir(parents=True, exist_ok=True)
    start, parent = time.monotonic(), Parent(root, args.seed, args.within)
    parent.round(calls=2)  # calibrates, edits and saves, so that the others need not
    with contextlib.suppress(KeyboardInterrupt):
        for _ in tqdm(range(args.kills), desc="killing", unit="kill", disable=not sys.stderr.isatty()):
            parent.round()
            parent.counts["kills"] += 1
    parent.counts["failures"] = len(parent.failures)
    for failure in parent.failures[:5]:
        print(failure)
    for name, count in sorted(parent.counts.items()):
        print(f"{name:40}{count:8}")
    print(f"{'minutes':40}{(time.monotonic() - start) / 60:8.1f}")
    if parent.failures:
        print(f"what was left is in {root}")
    elif args.folder is None:
        shutil.rmtree(root)
    return bool(parent.failures)


if __name__ == "__main__":
    sys.exit(main())
