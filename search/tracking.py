"""Tracking of the trials in Weights & Biases, from the driver, without ever stopping a training.

`make_tracker` chooses once. Behind W&B's tracker stands a process of its own
(`search.wandb_writer`) that gets one JSON line per call: whatever W&B does - fails, hangs, loses its service - the
search only sees one warning. When the driver is killed the process sees the end of its input, finishes the runs and
ends, so that the rows of the last epochs are not lost. One tracker serves a search from its first trial to its report
and is closed once. What W&B did not take then, `search.wandb_sync` sends later.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from data_io import files
from data_io.secrecy import without_secrets
from search.sweep import REPORT_FILE
from search.tensorboard import TensorBoard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from data_io.store import Dataset
    from search.config import TrackingConfig

CLOSE_SECONDS = 30.0
HURRY_SECONDS = 4.0
"""How long the end of W&B's process is waited for when this one was asked to end."""
WRITER = ("-m", "search.wandb_writer")
REPORT_FOLDER = "shown"
AGENT = "WANDB_SWEEP_ID"
"""Variable that ``wandb agent`` sets for what it starts."""
TIME = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+(?:[+-]\d\d:\d\d)?")
"""When a report was written; one that differs in nothing else is the same."""

log = logging.getLogger(__name__)


class Tracker(Protocol):
    """What the driver tells about its trials."""

    def start_trial(self, trial_id: str, config: dict[str, Any]) -> None:
        """Begin or go on with the run of a trial; secrets are taken out of its configuration."""

    def epoch(self, trial_id: str, row: dict[str, Any]) -> None:
        """Log one row; ``row["epoch"]`` is its step. A row of an epoch already logged is ignored."""

    def finish_trial(self, trial_id: str, summary: dict[str, Any]) -> None:
        """Write the summary of a trial and finish its run."""

    def report(self, report: Report) -> None:
        """Pass on what the search came to."""

    def close(self, *, hurry: bool = False) -> None:
        """Finish every run and the report, within 30 s in all; in a hurry 4 s, the rest without anyone waiting."""


@dataclass(frozen=True)
class Report:
    """What a finished search shows.

    Attributes
    ----------
    file
        report.html as it may be sent.
    trials
        trials.parquet.
    pictures
        Captions and PNG files; none unless images may be sent.
    """

    file: Path
    trials: Path
    pictures: Sequence[tuple[str, Path]] = ()


def make_tracker(
    tracking: TrackingConfig, run_dir: Path, experiment: str, sweep: dict[str, Any] | None = None
) -> Tracker:
    """Return the trackers of a search as one: TensorBoard events under ``run_dir/tensorboard``, W&B unless disabled.

    W&B has one run per trial, grouped by experiment and, with `sweep`, in one sweep of that description; the files are
    under ``run_dir/wandb``. A process that ``wandb agent`` started writes online to the run it was given.
    """
    trackers: list[Tracker] = [TensorBoard(run_dir)]
    mode = "online" if tracking.wandb == "offline" and AGENT in os.environ else tracking.wandb
    if mode != "disabled":
        trackers.append(ProcessTracker(mode, tracking.project, run_dir, experiment, sweep))
    return Trackers(trackers)


def send_report(tracker: Tracker, tracking: TrackingConfig, run_dir: Path, dataset: Dataset, report: Path) -> None:
    """Hand the report of a finished search to its tracker; pictures of the data are in it only where they may be sent.

    The tracker reads the files when it comes to them, so they must stay until it is closed.
    """
    from search import examples

    if tracking.wandb == "disabled":
        return
    folder = run_dir / "wandb" / REPORT_FOLDER
    try:
        file, pictures = report, []
        if tracking.images:
            targets = [path.name for path in sorted((run_dir / "best").iterdir()) if path.is_dir()]
            pictures = examples.draw(run_dir, dataset, targets, folder)
        else:
            file = folder / report.name
            folder.mkdir(parents=True, exist_ok=True)
            files.write_text(file, examples.without_pictures(report.read_text(encoding="utf-8")))
        tracker.report(Report(file, run_dir / "trials.parquet", pictures))
    except Exception as error:
        log.warning("W&B: the report is not sent (%s); it stands in %s", error, report)


class Trackers:
    """Several trackers that hear the same; none of them raises."""

    def __init__(self, trackers: list[Tracker]) -> None:
        self.trackers = trackers

    def start_trial(self, trial_id: str, config: dict[str, Any]) -> None:
        """See `Tracker`."""
        for tracker in self.trackers:
            tracker.start_trial(trial_id, config)

    def epoch(self, trial_id: str, row: dict[str, Any]) -> None:
        """See `Tracker`."""
        for tracker in self.trackers:
            tracker.epoch(trial_id, row)

    def finish_trial(self, trial_id: str, summary: dict[str, Any]) -> None:
        """See `Tracker`."""
        for tracker in self.trackers:
            tracker.finish_trial(trial_id, summary)

    def report(self, report: Report) -> None:
        """See `Tracker`."""
        for tracker in self.trackers:
            tracker.report(report)

    def close(self, *, hurry: bool = False) -> None:
        """See `Tracker`."""
        for tracker in self.trackers:
            tracker.close(hurry=hurry)


class ProcessTracker:
    """Hands every call as a JSON line to a process that writes it to W&B; a call returns at once."""

    def __init__(
        self, mode: str, project: str, run_dir: Path, experiment: str, sweep: dict[str, Any] | None = None
    ) -> None:
        self._run_dir = run_dir
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._warned = threading.Event()
        self._closed = False
        self._process = self._started(mode, project, run_dir, experiment)
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._send, self._listen)]
        for thread in self._threads:
            thread.start()
        self._tell(do="sweep", trial="", values=sweep or {})

    def start_trial(self, trial_id: str, config: dict[str, Any]) -> None:
        """See `Tracker`."""
        self._tell(do="start", trial=trial_id, values=without_secrets(config))

    def epoch(self, trial_id: str, row: dict[str, Any]) -> None:
        """See `Tracker`."""
        self._tell(do="epoch", trial=trial_id, step=int(row["epoch"]), values=row)

    def finish_trial(self, trial_id: str, summary: dict[str, Any]) -> None:
        """See `Tracker`."""
        self._tell(do="finish", trial=trial_id, values=without_secrets(summary))

    def report(self, report: Report) -> None:
        """See `Tracker`; nothing is sent twice."""
        pictures = [(caption, str(file.absolute())) for caption, file in report.pictures]
        told: dict[str, Any] = {
            "file": str(report.file.absolute()),
            "trials": str(report.trials.absolute()),
            "pictures": pictures,
        }
        text = TIME.sub("", report.file.read_text(encoding="utf-8"))
        told["sha256"] = hashlib.sha256(text.encode()).hexdigest()
        files.write_json(self._run_dir / "wandb" / REPORT_FILE, told)
        self._tell(do="report", trial="", values=told)

    def close(self, *, hurry: bool = False) -> None:
        """See `Tracker`; a process that needs longer is killed, which is said."""
        if self._closed:
            return
        self._closed = True
        seconds = HURRY_SECONDS if hurry else CLOSE_SECONDS
        deadline = time.monotonic() + seconds
        self._lines.put(None)
        if self._process is None:
            return
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            if hurry:
                return  # it has all rows and ends by itself, within `wandb_writer.END_SECONDS`
            self._warn(f"it did not finish within {CLOSE_SECONDS:.0f} s and was ended")
            _kill_tree(self._process.pid)
            self._process.wait()
        else:
            if code:
                self._warn(f"its process ended with code {code}")
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _started(self, mode: str, project: str, run_dir: Path, experiment: str) -> subprocess.Popen[bytes] | None:
        folder = run_dir / "wandb"
        command = [sys.executable, *WRITER, mode, project, experiment, str(folder.absolute())]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "writer.log").open("ab") as errors:
                return subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=_environment(mode),
                    start_new_session=True,
                )
        except OSError as error:
            self._warn(f"its process could not be started ({error})")
            return None

    def _tell(self, **message: Any) -> None:
        if self._process is not None and not self._closed:
            self._lines.put(json.dumps(message, default=_plain))

    def _send(self) -> None:
        """Write the lines to the process, away from the search, which a full pipe must not hold up."""
        if self._process is None or self._process.stdin is None:
            return
        pipe = self._process.stdin
        try:
            while (line := self._lines.get()) is not None:
                pipe.write(line.encode() + b"\n")
                pipe.flush()
        except OSError:
            self._warn("its process ended")
        with contextlib.suppress(OSError):
            pipe.close()

    def _listen(self) -> None:
        """Pass on what the process has to say; each line of its output is a warning."""
        if self._process is None or self._process.stdout is None:
            return
        with self._process.stdout as output:
            for line in output:
                self._warn(line.decode(errors="replace").strip())

    def _warn(self, fault: str) -> None:
        if not self._warned.is_set():
            self._warned.set()
            later = f"send what is missing later: python -m search.wandb_sync {self._run_dir}"
            log.warning("W&B: %s; the search goes on, its own records are complete; %s", fault, later)


def _environment(mode: str) -> dict[str, str]:
    """Return the environment of the process: ours can be imported, and without need it knows no W&B key."""
    environment = dict(os.environ)
    if mode == "offline":
        environment = {name: value for name, value in environment.items() if not name.startswith("WANDB_")}
    home = str(Path(__file__).resolve().parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [home, environment.get("PYTHONPATH")]))
    return environment


def _plain(value: Any) -> Any:
    """Return a NumPy scalar or array as plain values, anything else as text, for JSON."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _kill_tree(pid: int) -> None:
    """Kill a process and, where Linux lists them, its children: the W&B service leads a session of its own."""
    for child in _children(pid):
        _kill_tree(child)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children.extend(int(child) for child in task.read_text().split())
    return children
