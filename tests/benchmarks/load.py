"""The load a search has to hold, measured: many trials, going on, a long reference that is killed, preflight, W&B.

    python -m tests.benchmarks.load                              everything, about ten minutes on two cores
    python -m tests.benchmarks.load trials --trials 2000         one of: trials, reference, preflight, wandb, closing

The trials are toys that train nothing (`tests.faults.toy`); driver, ledger, queue, Ray, Optuna's and TensorBoard's
files are those of a real search. Prints each figure beside its limit; exit code 1 where one is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import psutil

from data_io import synthetic
from data_io.convert import convert
from search.config import TrackingConfig
from search.tracking import Report, make_tracker
from tests.faults.disturbed import Search, assert_exact, small_dataset

if TYPE_CHECKING:
    from collections.abc import Callable

NOBODY = "http://127.0.0.1:9"
"""An address at which no W&B server answers."""


@dataclass
class Figures:
    """What was measured, beside its limits."""

    missed: int = 0

    def tell(self, what: str, value: float, limit: float, unit: str) -> None:
        """Print a figure that must not exceed its limit."""
        held = value <= limit
        self.missed += not held
        print(f"{'holds' if held else 'MISSED':6s}  {what}: {value:.4g} {unit}, at most {limit:g}", flush=True)


class Watch:
    """Looks again and again at something while a search runs, and keeps the largest value."""

    def __init__(self, look: Callable[[], float], seconds: float = 0.2) -> None:
        self.look, self.seconds, self.most = look, seconds, 0.0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.over.set()
        self.thread.join()

    def _run(self) -> None:
        while not self.over.wait(self.seconds):
            with contextlib.suppress(psutil.Error, OSError, AssertionError):
                self.most = max(self.most, self.look())


def trials(folder: Path, figures: Figures, number: int) -> None:
    """Run many trials once through, and once more with a kill in the middle."""
    data = small_dataset(folder / "data")
    search = Search(folder / "trials", data, trials=number, references=0, settings=("train.max_epochs=3",))
    try:
        began = time.monotonic()
        search.begin()
        with Watch(lambda: _driver(search).memory_info().rss / 1e9) as memory:
            code = search.finish(3600)
        assert code == 0, search.said[-2000:]
        figures.tell(f"{number} trials", time.monotonic() - began, 0.6 * number, "s")
        figures.tell("memory of the driver", memory.most, 1.5, "GB")
        assert_exact(search, search.outcome())
        search.folder = folder / "killed"
        search.begin()
        search.wait_for_epochs(number)
        search.kill()
        before = len(search.events("epoch"))
        began = time.monotonic()
        search.begin("--resume")
        search.wait_for_epochs(before + 1)
        figures.tell(f"going on with {number} trials, to the first new epoch", time.monotonic() - began, 60, "s")
        search.kill(signal.SIGTERM)
    finally:
        search.end()


def reference(folder: Path, figures: Figures, epochs: int, kills: int) -> None:
    """Kill the driver and the worker of one long reference in turn."""
    settings = ("train.max_epochs=27", f"schedule.reference_epochs={epochs}", "train.checkpoint_every=10")
    search = Search(folder / "reference", small_dataset(folder / "data"), trials=0, references=1, settings=settings)
    search.behave(every={"seconds": 0.01})
    root = search.folder / "trials" / "reference-0" / "checkpoints"
    try:
        began = time.monotonic()
        with Watch(lambda: float(len(list(root.iterdir()))), 0.01) as kept:
            for number in range(kills):
                if number % 2 == 0:
                    search.begin(*(["--resume"] if number else []))
                search.wait_for_epochs((number + 1) * epochs // (kills + 2))
                if number % 2 == 0:
                    [worker] = search.workers()
                    worker.kill()
                else:
                    search.kill()
            search.begin("--resume")
            assert search.finish(1200) == 0, search.said[-2000:]
        assert_exact(search, search.outcome())
        done = len(search.events("epoch"))
        print(f"        a reference of {epochs} epochs killed {kills} times: {time.monotonic() - began:.0f} s")
        figures.tell("epochs missing or twice", abs(done - epochs), 0, "")
        figures.tell("checkpoints of a trial on disk", kept.most, 3, "")
    finally:
        search.end()


def preflight(folder: Path, figures: Figures, frames: int) -> None:
    """Check every chunk of a store of many frames."""
    movie = synthetic.write(folder / "movie", fields=4, frames=frames // 4, size=(256, 256), preset="easy", seed=0)
    dataset = convert(movie, folder / "movie.zarr")
    began = time.monotonic()
    dataset.preflight()
    figures.tell(f"preflight of {frames} frames of 256 x 256 px", time.monotonic() - began, 60, "s")


def wandb(folder: Path, figures: Figures, number: int) -> None:
    """Train the same trials with W&B switched off and with a W&B that cannot be reached."""
    data, seconds, closing = small_dataset(folder / "data"), {}, {}
    os.environ |= {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": NOBODY}
    for mode in ("disabled", "online"):
        settings = (f"tracking.wandb={mode}", "train.max_epochs=9")
        search = Search(folder / mode, data, trials=number, references=0, settings=settings)
        search.behave(every={"seconds": 0.2})
        try:
            search.begin()
            assert search.finish(1200) == 0, search.said[-2000:]
            closed = time.time()
        finally:
            search.end()
        times = [event["time"] for event in search.events("epoch")]
        seconds[mode], closing[mode] = times[-1] - times[0], closed - times[-1]
    figures.tell("training with W&B out of reach", 100 * (seconds["online"] / seconds["disabled"] - 1), 5, "% longer")
    figures.tell("closing with W&B out of reach", closing["online"] - closing["disabled"], 30, "s longer")


def closing(folder: Path, figures: Figures, number: int) -> None:
    """Close what tracks a search, its report included, where W&B cannot be reached; nothing is trained around it."""
    os.environ |= {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": NOBODY}
    for kind, seconds in {"trials of a second": 1.0, "trials that end at once": 0.0}.items():
        run = folder / kind.replace(" ", "_")
        run.mkdir()
        pd.DataFrame({"trial": ["toy-000"]}).to_parquet(run / "trials.parquet")
        (run / "report.html").write_text("<html></html>")
        tracker = make_tracker(TrackingConfig(wandb="online"), run, "load", {"method": "custom", "parameters": {}})
        for trial in range(number):
            tracker.start_trial(f"toy-{trial:03d}", {})
            for epoch in range(1, 10):
                tracker.epoch(f"toy-{trial:03d}", {"epoch": epoch})
                time.sleep(seconds / 9)
            tracker.finish_trial(f"toy-{trial:03d}", {"status": "completed"})
        began = time.monotonic()
        tracker.report(Report(run / "report.html", run / "trials.parquet"))
        tracker.close()
        figures.tell(f"closing after {number} {kind}, W&B out of reach", time.monotonic() - began, 30, "s")
        kept = len(list(run.glob("wandb/offline-run-*")))
        print(f"        {kept} of {number + 1} run files are there; wandb_sync makes others from the trials' tables")


def _driver(search: Search) -> psutil.Process:
    assert search.process is not None
    return psutil.Process(search.process.pid)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.load", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "what", nargs="*", metavar="trials|reference|preflight|wandb|closing", help="default: all of them"
    )
    parser.add_argument("--trials", type=int, default=500, help="trials of the search (default: 500)")
    parser.add_argument("--epochs", type=int, default=1000, help="epochs of the reference (default: 1000)")
    parser.add_argument("--kills", type=int, default=10, help="how often it is killed (default: 10)")
    parser.add_argument("--frames", type=int, default=2000, help="frames of the store (default: 2000)")
    parser.add_argument("--wandb-trials", type=int, default=40, help="trials with and without W&B (default: 40)")
    given = parser.parse_args(arguments)
    figures = Figures()
    parts: dict[str, Callable[[Path], None]] = {
        "trials": lambda folder: trials(folder, figures, given.trials),
        "reference": lambda folder: reference(folder, figures, given.epochs, given.kills),
        "preflight": lambda folder: preflight(folder, figures, given.frames),
        "wandb": lambda folder: wandb(folder, figures, given.wandb_trials),
        "closing": lambda folder: closing(folder, figures, given.wandb_trials),
    }
    if unknown := set(given.what) - set(parts):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(parts)}")
    for name in given.what or parts:
        with tempfile.TemporaryDirectory(prefix=f"load-{name}-", ignore_cleanup_errors=True) as folder:
            parts[name](Path(folder))
    return 1 if figures.missed else 0


if __name__ == "__main__":
    sys.exit(main())
