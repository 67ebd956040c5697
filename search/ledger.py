"""The run's ledger: one fsynced JSON line per event, the single source of truth about what a search has done.

Events: ``start`` and ``epoch`` (one per completed epoch, with its metrics), ``stop`` (early stopping's decision, with
rung, value and cutoff), ``complete``, ``fail``, ``diverge``, ``budget``, ``oom`` (put back with more memory),
``retry`` (its process died, hung or failed, and it comes again), ``propose`` (a trial that came up during the search),
``sitting`` (a driver began), ``accept`` (a change that was accepted), ``end``. A trial's state and ASHA's rungs follow
from the events by replay; Ray's own state is never read back.

Each line ends with a checksum of itself and of all lines before it, so that a changed or missing line is noticed.
``ledger.backup.jsonl`` is a copy that is at most minutes old.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import time
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from data_io import files
from data_io.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

FINAL = {"stop": "stopped", "complete": "completed", "fail": "failed", "diverge": "diverged", "budget": "budget"}
"""Events that end a trial, and the status they give it."""
LEDGER = "ledger.jsonl"
BACKUP = "ledger.backup.jsonl"
BACKUP_SECONDS = 300.0
"""Time between two copies of a ledger that grows."""
BLOCK = 2**16
"""Bytes in which the end of a ledger is looked for."""
CHECKED = re.compile(rb'(.*), "check": "([0-9a-f]{8})"\}')


@dataclass
class TrialState:
    """What the ledger knows of one trial: its rows by epoch and how it ended (None while it has not)."""

    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    status: str | None = None
    ending: dict[str, Any] = field(default_factory=dict)


class Ledger:
    """Append-only ``ledger.jsonl`` of a run.

    A line that a kill cut short is dropped when the file is opened again, which `notes` then says; a damaged line
    before the last is an error.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events, self._check = _read(path) if path.exists() else ([], 0)
        self._seen = {(e["trial"], e["epoch"]) for e in self.events if e["event"] == "epoch"}
        self._states: dict[str, TrialState] = {}
        self._told = 0
        """How many events the states are made of: a search asks for them often, and there may be millions."""
        self.notes = _drop_torn_tail(path)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._copied = time.monotonic()
        self._copy_end: int | None = None
        """How far the copy goes, by this process; None before the first."""

    @classmethod
    def of_run(cls, run_dir: Path) -> Ledger:
        """Open the ledger of a run, or begin it; lines at its end that it lost and its copy has are put back.

        Raises
        ------
        BadInput
            The file is gone, empty or damaged although the run has trained trials; the newest copy is named.
        """
        path, trials = run_dir / LEDGER, run_dir / "trials"
        end = _end_of_whole_lines(path) if path.exists() else 0
        if not end and trials.is_dir() and any(trials.iterdir()):
            empty = "holds no whole line" if path.exists() and path.stat().st_size else "is empty"
            fault = empty if path.exists() else "is missing"
            raise BadInput(f"{path}: {fault}, though the run has trials; {_remedy(path)}")
        lost = _put_back(path, end) if end else 0
        ledger = cls(path)
        if lost:
            ledger.notes.append(f"{path}: its last {lost} lines were lost and are put back from {BACKUP}")
        return ledger

    def append(self, event: str, trial: str, **facts: Any) -> None:
        """Write one event and force it to disk before returning."""
        record = {"event": event, "trial": trial, "time": round(time.time(), 3), **facts}
        body = json.dumps(record, allow_nan=False).encode()[:-1]
        check = zlib.crc32(body, self._check)
        _write_whole(self._descriptor, self.path, b'%s, "check": "%08x"}\n' % (body, check))
        self.events.append(record)
        self._check = check
        if time.monotonic() - self._copied > BACKUP_SECONDS:
            self.back_up()

    def epoch(self, trial: str, row: dict[str, Any]) -> bool:
        """Record one completed epoch; False for an epoch already recorded (a trial repeats some after a restart)."""
        if (trial, row["epoch"]) in self._seen:
            return False
        self.append("epoch", trial, **{key: _plain(value) for key, value in row.items()})
        self._seen.add((trial, row["epoch"]))
        return True

    def trials(self) -> dict[str, TrialState]:
        """State of every trial that has an event, in the order of first mention; they change with the ledger."""
        for event in self.events[self._told :]:
            if not event["trial"]:
                continue
            state = self._states.setdefault(event["trial"], TrialState())
            if event["event"] == "epoch":
                state.rows[event["epoch"]] = event
            elif event["event"] in FINAL:
                state.status, state.ending = FINAL[event["event"]], event
            elif event["event"] == "start":
                state.status, state.ending = None, {}
        self._told = len(self.events)
        return dict(self._states)

    @property
    def epochs(self) -> int:
        """Completed epochs of all trials together."""
        return len(self._seen)

    def back_up(self) -> None:
        """Copy the file beside itself: once in whole, then what was added since, as there may be a gigabyte of it."""
        copy = self.path.with_name(BACKUP)
        with self.path.open("rb") as file:
            if copy.exists() and copy.stat().st_size == self._copy_end:
                file.seek(self._copy_end)
                with copy.open("ab") as out, files.space_for(copy):
                    shutil.copyfileobj(file, out)
                    out.flush()
                    os.fsync(out.fileno())
            else:
                files.write_bytes(copy, file.read())
            self._copy_end = file.tell()
        self._copied = time.monotonic()

    def close(self) -> None:
        """Close the file; a copy of it stays."""
        os.close(self._descriptor)
        if self.events:
            with contextlib.suppress(OSError):  # the disk may be full, and the ledger itself is whole
                self.back_up()


def _write_whole(descriptor: int, path: Path, line: bytes) -> None:
    """Append a line and force it to disk; take a part of it back when the disk is full."""
    end = os.fstat(descriptor).st_size
    try:
        with files.space_for(path, len(line)):
            written = 0
            while written < len(line):
                written += os.write(descriptor, line[written:])
            os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, end)
        raise


def _plain(value: Any) -> Any:
    """Return `value`, or its text where JSON has no such value (nan, inf, a value of another library)."""
    if isinstance(value, float) and value - value != 0:
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the events of all whole lines, and the checksum so far; lines from before there were checksums count."""
    events, check = [], 0
    with path.open("rb") as lines:
        try:
            for event, so_far in _parsed(lines):
                events.append(event)
                check = so_far
        except Damaged as fault:
            raise BadInput(f"{path}:{fault.line}: damaged line; {_remedy(path)}") from None
    return events, check


class Damaged(ValueError):
    """A line is not as it was written, or does not follow the one before it."""

    def __init__(self, line: int) -> None:
        super().__init__(f"line {line}")
        self.line = line


def is_sound(lines: Iterable[bytes]) -> bool:
    """Whether lines are the beginning of a ledger as it was written; the last may be cut short."""
    try:
        for _ in _parsed(lines):
            pass
    except Damaged:
        return False
    return True


def _parsed(lines: Iterable[bytes]) -> Iterator[tuple[dict[str, Any], int]]:
    """Give the event of each whole line, and the checksum so far."""
    check, checked = 0, False
    for number, whole in enumerate(lines, start=1):
        if not whole.endswith(b"\n"):  # cut short
            break
        line = whole[:-1]
        found = CHECKED.fullmatch(line)
        checked = checked or found is not None
        body = found[1] if found else line
        check = zlib.crc32(body, check)
        try:
            if checked and (found is None or int(found[2], 16) != check):
                raise ValueError("another checksum")
            event = json.loads(body + b"}" if found else line, object_pairs_hook=_lean)
            if not _is_event(event):
                raise ValueError("no event")
        except (ValueError, RecursionError):
            raise Damaged(number) from None
        yield event, check


def _is_event(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("event"), str):
        return False
    return isinstance(value.get("trial"), str) and (value["event"] != "epoch" or isinstance(value.get("epoch"), int))


def _lean(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an event whose keys and texts are those of all others: there may be millions of them."""
    return {sys.intern(key): sys.intern(value) if isinstance(value, str) else value for key, value in pairs}


def _remedy(path: Path) -> str:
    """Say what to do about a damaged ledger; name its copy where that is whole."""
    copy = path.with_name(BACKUP)
    try:
        events = _read(copy)[0] if path.name != BACKUP and copy.exists() else []
    except BadInput:
        events = []
    if not events:
        return "restore the file from a copy or start a new run with --out"
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(events[-1].get("time", 0)))
    return (
        f"the newest good copy is {copy}, {len(events)} events until {when}: copy it over the file and resume (epochs "
        "since then are read from the trials), or start a new run with --out"
    )


def _end_of_whole_lines(path: Path) -> int:
    """Size of a ledger without a last line that was cut short; only its end is read."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - BLOCK)
            file.seek(start)
            if found := file.read(end - start).rfind(b"\n") + 1:
                return start + found
            end = start
    return 0


def _put_back(path: Path, end: int) -> int:
    """Append the lines that a ledger, whole up to `end`, lost and its copy has; return how many."""
    copy = path.with_name(BACKUP)
    if not copy.exists() or copy.stat().st_size <= end:
        return 0
    kept = copy.read_bytes()
    lines = kept[end:].splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    with path.open("r+b") as file:
        if file.read(end) != kept[:end] or not is_sound(kept.splitlines(keepends=True)):
            return 0
        file.truncate(end)
        file.seek(end)
        with files.space_for(path):
            file.write(b"".join(lines))
            file.flush()
            os.fsync(file.fileno())
    return len(lines)


def _drop_torn_tail(path: Path) -> list[str]:
    if not path.exists():
        return []
    whole, size = _end_of_whole_lines(path), path.stat().st_size
    if whole == size:
        return []
    with path.open("r+b") as file:
        file.truncate(whole)
    return [f"{path}: the last line was cut short ({size - whole} bytes) and was dropped; its epoch is read again"]
