"""The run's ledger: one fsynced JSON line per event, the single source of truth about what a search has done.

Events: ``start`` and ``epoch`` (one per completed epoch, with its metrics), ``stop`` (early stopping's decision, with
rung, value and cutoff), ``complete``, ``fail``, ``diverge``, ``budget``, ``oom`` (put back with more memory),
``propose`` (a trial that came up during the search). A trial's state and ASHA's rungs follow from the events by replay;
Ray's own state is never read back.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from data_io.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

FINAL = {"stop": "stopped", "complete": "completed", "fail": "failed", "diverge": "diverged", "budget": "budget"}
"""Events that end a trial, and the status they give it."""


@dataclass
class TrialState:
    """What the ledger knows of one trial: its rows by epoch and how it ended (None while it has not)."""

    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    status: str | None = None
    ending: dict[str, Any] = field(default_factory=dict)


class Ledger:
    """Append-only ``ledger.jsonl`` of a run.

    A line that a kill cut short is dropped when the file is opened again; a damaged line before the last is an error.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events = _read(path) if path.exists() else []
        self._seen = {(e["trial"], e["epoch"]) for e in self.events if e["event"] == "epoch"}
        _drop_torn_tail(path)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def append(self, event: str, trial: str, **facts: Any) -> None:
        """Write one event and force it to disk before returning."""
        record = {"event": event, "trial": trial, "time": round(time.time(), 3), **facts}
        line = json.dumps(record, allow_nan=False) + "\n"
        _write_whole(self._descriptor, line.encode())
        self.events.append(record)

    def epoch(self, trial: str, row: dict[str, Any]) -> bool:
        """Record one completed epoch; False for an epoch already recorded (a trial repeats some after a restart)."""
        if (trial, row["epoch"]) in self._seen:
            return False
        self._seen.add((trial, row["epoch"]))
        self.append("epoch", trial, **{key: _finite(value) for key, value in row.items()})
        return True

    def trials(self) -> dict[str, TrialState]:
        """State of every trial that has an event, in the order of first mention."""
        states: dict[str, TrialState] = {}
        for event in self.events:
            if not event["trial"]:
                continue
            state = states.setdefault(event["trial"], TrialState())
            if event["event"] == "epoch":
                state.rows[event["epoch"]] = event
            elif event["event"] in FINAL:
                state.status, state.ending = FINAL[event["event"]], event
            elif event["event"] == "start":
                state.status, state.ending = None, {}
        return states

    @property
    def epochs(self) -> int:
        """Completed epochs of all trials together."""
        return len(self._seen)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def _write_whole(descriptor: int, line: bytes) -> None:
    """Append a line and force it to disk; take a part of it back when the disk is full."""
    end = os.fstat(descriptor).st_size
    try:
        written = 0
        while written < len(line):
            written += os.write(descriptor, line[written:])
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, end)
        raise


def _finite(value: Any) -> Any:
    """Return `value`, or its text where JSON has no number for it (nan, inf)."""
    if isinstance(value, float) and value - value != 0:
        return str(value)
    return value


def _read(path: Path) -> list[dict[str, Any]]:
    lines = path.read_bytes().split(b"\n")
    events = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            events.append(json.loads(line))
        except ValueError:
            raise BadInput(f"{path}:{number}: damaged line; restore the file from a copy or start a new run") from None
    return events


def _drop_torn_tail(path: Path) -> None:
    if not path.exists():
        return
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)
