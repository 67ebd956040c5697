"""Searches in a process of their own, killed, corrupted and watched: what tests and chaos share."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from data_io import synthetic
from data_io.convert import convert
from search.asha import Bracket, has_diverged
from search.ledger import Ledger
from tests.faults import toy

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
REDUCTION = 3.0
MARK = "TOY_RUN"
"""Environment variable that all processes of a run inherit, so that none can hide."""


def small_dataset(folder: Path) -> Path:
    """Make a data set of a few small frames."""
    synthetic.write(folder / "raw", fields=3, frames=2, size=(128, 128), preset="easy", seed=1)
    return Path(convert(folder / "raw", folder / "dataset.zarr").path)


@dataclass
class Search:
    """A toy search; see `tests.faults.driver`."""

    folder: Path
    data: Path
    trials: int = 6
    references: int = 1
    slots: int = 2
    settings: tuple[str, ...] = ()
    code: str = "1"
    process: subprocess.Popen[str] | None = field(default=None, repr=False)
    sittings: int = 0

    def behave(self, **trials: dict[str, Any]) -> None:
        """Say what goes wrong with which trial (``every`` for all; dashes of a name are underscores)."""
        told = {"*" if name == "every" else name.replace("_", "-"): what for name, what in trials.items()}
        self.folder.with_name(self.folder.name + toy.BEHAVIOUR).write_text(json.dumps(told))

    def begin(self, *options: str) -> subprocess.Popen[str]:
        """Start a driver."""
        command = [sys.executable, "-m", "tests.faults.driver", str(self.folder), str(self.trials)]
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "200",
            "TOY_REFERENCES": str(self.references),
            "TOY_SLOTS": str(self.slots),
            "TOY_CODE": self.code,
            MARK: str(self.folder),
        }
        resumed = "--resume" in options
        settings = [] if resumed else [f"data.path={json.dumps(str(self.data))}", *self.settings]
        self.sittings += 1
        with self.output(self.sittings).open("w") as output:
            self.process = subprocess.Popen(
                [*command, *settings, *options],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        return self.process

    def finish(self, seconds: float = 300.0) -> int:
        """Wait for the driver; its exit code."""
        assert self.process is not None
        return self.process.wait(seconds)

    def run(self, *options: str) -> int:
        """Run a driver to its end."""
        self.begin(*options)
        return self.finish()

    def output(self, sitting: int | None = None) -> Path:
        """File with what a sitting said, the last one's by default."""
        return self.folder.with_name(f"{self.folder.name}.{sitting or self.sittings}.txt")

    @property
    def said(self) -> str:
        """What the last sitting said."""
        return self.output().read_text()

    def outcome(self) -> dict[str, dict[str, Any]]:
        """What the last sitting's driver says of every trial."""
        lines = [line for line in self.said.splitlines() if line.startswith("outcome: ")]
        assert lines, self.said[-3000:]
        return dict(json.loads(lines[-1].removeprefix("outcome: ")))

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Events of the ledger, whole lines only."""
        path = self.folder / "ledger.jsonl"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        events = [json.loads(line) for line in lines]
        return [event for event in events if kind is None or event["event"] == kind]

    def wait_for(self, ready: Callable[[], Any], seconds: float = 120.0) -> Any:
        """Wait until something is so, or the driver has ended."""
        deadline = time.monotonic() + seconds
        while not (found := ready()):
            assert time.monotonic() < deadline, f"waited {seconds:.0f} s\n{self.said[-3000:]}"
            assert self.process is None or self.process.poll() is None, self.said[-3000:]
            time.sleep(0.05)
        return found

    def wait_for_epochs(self, number: int) -> None:
        """Wait until the ledger has so many epochs."""
        self.wait_for(lambda: len(self.events("epoch")) >= number)

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send the driver a signal and wait for its end; its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.finish(60)

    def processes(self) -> list[psutil.Process]:
        """All living processes of the run, whoever their parent is."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == str(self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def named(self, *names: str) -> list[psutil.Process]:
        """Processes of the run by a word of their name or command."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if any(name in f"{process.name()} {' '.join(process.cmdline()[:1])}" for name in names):
                    found.append(process)
        return found

    def workers(self) -> list[psutil.Process]:
        """Processes that train a trial."""
        return self.named("ray::Impl", "ray::Trainable", "ray::work", "ImplicitFunc")

    def no_orphans(self, seconds: float = 120.0) -> list[str]:
        """Commands of the processes that are still there when there should be none.

        Ray's agents on a node whose head was killed with them try to tell it of their raylet's death, for a minute.
        """
        deadline = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        told = []
        for process in left:
            with contextlib.suppress(psutil.Error):
                told.append(f"{process.pid} {' '.join(process.cmdline())[:200]}")
        return told

    def end(self) -> None:
        """End whatever is left of the run."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        if self.process is not None:
            self.process.wait(30)


def assert_exact(search: Search, outcome: dict[str, dict[str, Any]]) -> None:
    """Every epoch of every trial is there once, with the numbers of an undisturbed trial."""
    events = search.events("epoch")
    keys = [(event["trial"], event["epoch"]) for event in events]
    assert len(keys) == len(set(keys)), "an epoch stands twice in the ledger"
    assert len(outcome) == search.trials + search.references
    for trial, found in outcome.items():
        rows = {event["epoch"]: event for event in events if event["trial"] == trial}
        assert sorted(rows) == list(range(1, found["epochs"] + 1)), trial
        for wanted in toy.expected(trial, found["epochs"]):
            got = {name: rows[wanted["epoch"]][name] for name in wanted}
            assert got == wanted, trial


def undisturbed(
    search: Search, *, grace: int = 1, epochs: int = 9, reduction: float = REDUCTION
) -> list[tuple[str, int]]:
    """Epochs of a search with one slot that nothing disturbs, in their order: the toy's formula and a model of ASHA."""
    brackets: dict[int, Bracket] = {}
    order = []
    for index in range(search.references + search.trials):
        name = f"reference-{index}" if index < search.references else f"toy-{index - search.references:03d}"
        bracket = brackets.setdefault(index % 2, Bracket(grace, epochs, reduction))
        for epoch in range(1, epochs + 1):
            order.append((name, epoch))
            judged = index >= search.references and epoch < epochs
            if judged and bracket.judge(name, epoch, toy.value(name, epoch)).stop:
                break
    return order


def replayed(search: Search, *, grace: int = 1, epochs: int = 9, reduction: float = REDUCTION) -> dict[str, int]:
    """Trials that a model of ASHA, fed with the ledger in its order, stops, and at which epoch."""
    brackets: dict[str, Bracket] = {}
    stopped: dict[str, int] = {}
    for event in search.events("epoch"):
        name = event["trial"]
        if name.startswith("reference") or event["epoch"] >= epochs or has_diverged(event["rung_metric"]):
            continue
        target = int(name.split("-")[1]) + search.references
        bracket = brackets.setdefault(str(target % 2), Bracket(grace, epochs, reduction))
        if bracket.judge(name, event["epoch"], event["rung_metric"]).stop:
            stopped[name] = event["epoch"]
    return stopped


def stopped(search: Search) -> dict[str, int]:
    """Trials that the run stopped, and at which epoch."""
    return {event["trial"]: event["rung"] for event in search.events("stop")}


def temporary_files(folder: Path) -> list[str]:
    """Files that a finished run must not have."""
    patterns = ("**/.*.tmp", "**/*.partial", "**/hung.txt", "cache")
    return [str(path) for pattern in patterns for path in folder.glob(pattern)]


def corrupt(path: Path, how: str) -> None:
    """Damage a file: ``cut`` to half, in the middle of a line, ``empty``, ``flipped`` (one bit in it), ``absent``."""
    if how == "absent":
        path.unlink()
        return
    data = bytearray(path.read_bytes())
    if how == "flipped":
        data[len(data) // 2] ^= 1
    path.write_bytes(data if how == "flipped" else data[: len(data) // 2].rstrip(b"\n") if how == "cut" else b"")


def ledger_of(search: Search) -> Ledger:
    """Open the ledger of a run that nobody else writes."""
    return Ledger(search.folder / "ledger.jsonl")


def here(pid: int) -> str:
    """How a lock names a process of this machine."""
    return f"{socket.gethostname()}/{pid}"
