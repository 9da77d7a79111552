"""A server under load, and killed again and again.

    python -m benchmarks serving --seconds 600 --asking 8 --editing 2
    python -m benchmarks serving --kills 100

Under load some clients ask for capitals, while others give the countries new ones all the time, take them back and
forget them. An answer is wrong if it is not what the version of the memory has that it names: the target of the edit
that is active there, or what the bare model says. In the other part a server is started, edited, and killed at a random
moment (SIGKILL), and the next one is asked for every edit that was acknowledged.
"""

import argparse
import contextlib
import itertools
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from benchmarks.studies import parser_of
from editmem.edits.history import Ledger
from editmem.serve.client import Client

COUNTRIES = ("Australia", "France", "Japan", "Peru", "Chile", "Austria", "Brazil", "Norway")
ASKED = "What is the capital of {}?"
TARGETS = ("Sydney", "Perth", "Lyon", "Osaka", "Cusco", "Arica", "Graz", "Bergen")


@contextlib.contextmanager
def server(memory: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server on the embedded model as a process of its own, and its URL."""
    command = [sys.executable, "-c", "from editmem.cli import app; app()", "serve", "--model", "tiny", "--port", "0"]
    with (memory.parent / "server.log").open("a+", encoding="utf-8") as log:
        begun = log.tell()
        process = subprocess.Popen([*command, "--memory", str(memory), *options], stderr=log, stdout=log, text=True)
        try:
            yield process, _url(memory.parent / "server.log", begun, process)
        finally:
            process.terminate()
            process.wait()


def _url(log: Path, begun: int, process: subprocess.Popen[str]) -> str:
    while process.poll() is None:
        said = log.read_text(encoding="utf-8")[begun:]
        if "running on " in said:
            return said.split("running on ")[1].split()[0]
        time.sleep(0.05)
    raise RuntimeError(f"the server ended with {process.returncode}: {log.read_text(encoding='utf-8')[-2000:]}")


class Load:
    """Clients that ask and clients that edit, until the time is over.

    Args:
        url: of the server.
        seconds: how long.
    """

    def __init__(self, url: str, seconds: float) -> None:
        self.url, self.end = url, time.monotonic() + seconds
        self.took: dict[str, list[float]] = defaultdict(list)
        self.answers: list[tuple[str, int, str]] = []  # country, version, what was said
        self.errors: list[str] = []

    def run(self, asking: int, editing: int) -> None:
        workers = [threading.Thread(target=self._work, args=(self._ask, number)) for number in range(asking)]
        workers += [threading.Thread(target=self._work, args=(self._edit, number)) for number in range(editing)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    def _work(self, work: Any, number: int) -> None:
        rng = random.Random(number)
        with httpx.Client(base_url=self.url, timeout=120) as http:
            while time.monotonic() < self.end:
                start = time.perf_counter()
                try:
                    kind = work(http, rng, number)
                    self.took[kind].append(time.perf_counter() - start)
                except Exception as error:
                    self.errors.append(f"{type(error).__name__}: {error}")

    def _ask(self, http: httpx.Client, rng: random.Random, number: int) -> str:
        country = rng.choice(COUNTRIES)
        body = {
            "model": "tiny", "messages": [{"role": "user", "content": ASKED.format(country)}],
            "max_tokens": 12, "temperature": 0, "editmem": {"explain": True},
        }  # fmt: skip
        answer = http.post("/v1/chat/completions", json=body).raise_for_status().json()
        said = answer["choices"][0]["message"]["content"]
        self.answers.append((country, answer["editmem"]["version"], said))
        return "ask"

    def _edit(self, http: httpx.Client, rng: random.Random, number: int) -> str:
        """An edit mostly; now and then one is forgotten, or the last change undone."""
        client = Client(self.url, http=http)
        kind = rng.choices(["edit", "forget", "undo"], [8, 1, 1])[0]
        if kind == "forget" and (held := [record.id for record in client.edits()]):
            with contextlib.suppress(KeyError):  # the other one was first
                client.forget(rng.choice(held))
            return kind
        if kind == "undo" and client.version:
            client.undo()
            return kind
        country, target = rng.choice(COUNTRIES), rng.choice(TARGETS)
        record: Any = client.edit(ASKED.format(country), target, id=f"{country}-{number}-{time.time_ns()}")
        if not record.took:
            raise RuntimeError(f"did not take: {record}")
        return "edit"

    def wrong(self) -> list[tuple[str, int, str, str]]:
        """Answers that their version does not have: country, version, what was said, what it would be."""
        with Client(self.url) as client, httpx.Client(base_url=self.url) as http:
            events = list(client.history())
            bare = {country: self._bare(http, country) for country in COUNTRIES}
        held: dict[int, dict[str, str]] = {}
        ledger = Ledger()
        for version in range(len(events) + 1):
            held[version] = {str(record.edit.prompt): record.edit.target for record in ledger.edits().values()}
            ledger.take_over(events[version : version + 1])
        found = []
        for country, version, said in self.answers:
            target = held[version].get(ASKED.format(country))
            expected = bare[country] if target is None else target
            if said != expected:
                found.append((country, version, said, expected))
        return found

    @staticmethod
    def _bare(http: httpx.Client, country: str) -> str:
        body = {
            "model": "tiny", "messages": [{"role": "user", "content": ASKED.format(country)}],
            "max_tokens": 12, "temperature": 0, "editmem": {"off": True},
        }  # fmt: skip
        return str(http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"])


def under_load(seconds: float, asking: int, editing: int) -> None:
    with tempfile.TemporaryDirectory() as folder, server(Path(folder) / "memory") as (_, url):
        load = Load(url, seconds)
        load.run(asking, editing)
        wrong = load.wrong()
        versions = {version for _, version, _ in load.answers}
    print(f"{asking} clients asking, {editing} editing, {seconds:.0f} s")
    print(f"{'':8} {'requests':>9} {'p50 ms':>8} {'p99 ms':>8}")
    for kind, took in sorted(load.took.items()):
        cuts = statistics.quantiles(took, n=100) if len(took) > 1 else [took[0]] * 99
        print(f"{kind:8} {len(took):9} {1000 * cuts[49]:8.0f} {1000 * cuts[98]:8.0f}")
    print(f"answers of {len(versions)} versions; wrong: {len(wrong)}; errors: {len(load.errors)}")
    for line in [*wrong[:5], *load.errors[:5]]:
        print(f"  {line}")


def killed(times: int) -> None:
    """How many acknowledged edits are not there after kills at random moments."""
    rng, acknowledged, lost = random.Random(0), set[str](), set[str]()
    with tempfile.TemporaryDirectory() as folder:
        memory, names = Path(folder) / "memory", itertools.count()
        for _ in range(times):
            with server(memory, "--snapshot-every", "1") as (process, url):
                lost |= _missing(url, acknowledged)
                editing = threading.Thread(target=_edit_on, args=(url, names, acknowledged))
                editing.start()
                time.sleep(rng.uniform(0.1, 3))
                os.kill(process.pid, signal.SIGKILL)
                editing.join()
        with server(memory) as (_, url):
            lost |= _missing(url, acknowledged)
    print(f"{times} kills; {len(acknowledged)} edits acknowledged; lost: {len(lost)}")


def _missing(url: str, acknowledged: set[str]) -> set[str]:
    with Client(url) as client:
        return acknowledged - {record.id for record in client.edits()}


def _edit_on(url: str, names: Iterator[int], acknowledged: set[str]) -> None:
    with contextlib.suppress(httpx.HTTPError), Client(url) as client:
        for number in names:
            record: Any = client.edit(f"The capital of Land {number} is", "Rome", id=f"e{number}")
            acknowledged.add(record.id)


def main(arguments: Sequence[str]) -> None:
    parser: argparse.ArgumentParser = parser_of(__name__, __doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--asking", type=int, default=8)
    parser.add_argument("--editing", type=int, default=2)
    parser.add_argument("--kills", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.kills:
        killed(options.kills)
    else:
        under_load(options.seconds, options.asking, options.editing)
