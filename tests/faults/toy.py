"""A trial without a network: its numbers are a closed formula of trial and epoch, its state must survive every restart.

It writes, seals and reads checkpoints through the code that real trials use. What goes wrong with it stands in
``RUN.behaviour.json`` beside the run: ``{trial: {"what": ..., "epoch": ..., "times": ...}}``, see `misbehave`; there,
``seconds`` is how long an epoch takes, ``limit`` how many epochs of all trials are recorded before it waits.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import time
from typing import TYPE_CHECKING, Any

from data_io import files
from search import checkpoints
from search.asha import has_diverged
from search.metrics import COLUMNS, Row, best_row, rows_until, write_metrics

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from search.space import TrialConfig

BEHAVIOUR = ".behaviour.json"
PADDING = 20_000
"""Bytes that a checkpoint has beside the state, so that its writing takes time and room."""


class NoFrames:
    """Stands for the frames, which the toy does not need."""

    def of_fold(self, fold: int | None) -> NoFrames:
        """See `search.frames.Banks`."""
        return self

    def here(self) -> NoFrames:
        """See `search.frames.Banks`."""
        return self


def start(trial: str) -> bytes:
    """State of a trial before its first epoch."""
    return hashlib.sha256(trial.encode()).digest()


def step(state: bytes, epoch: int) -> bytes:
    """State after one more epoch."""
    return hashlib.sha256(state + epoch.to_bytes(4, "big")).digest()


def value(trial: str, epoch: int) -> float:
    """Rung metric of an epoch: it rises towards the trial's own quality, at the trial's own pace."""
    seed = start(trial)
    quality, pace = 0.3 + 0.6 * seed[0] / 255, 0.5 + 7.5 * seed[1] / 255
    return quality * (1 - math.exp(-epoch / pace))


def row_of(trial: str, epoch: int, state: bytes) -> Row:
    """Row of an epoch; ``val_loss`` tells whether the state went through every epoch exactly once."""
    walked = int.from_bytes(state[:6], "big") / 2**48
    facts = {"epoch": epoch, "train_loss": 1.0 / epoch, "val_loss": walked, "rung_metric": value(trial, epoch)}
    return dict.fromkeys(COLUMNS, 0.5) | facts | {"seconds": 0.01, "memory_mb": 1.0}


def expected(trial: str, epochs: int) -> list[Row]:
    """Rows of an undisturbed trial."""
    rows, state = [], start(trial)
    for epoch in range(1, epochs + 1):
        state = step(state, epoch)
        rows.append(row_of(trial, epoch, state))
    return rows


def train(trial: TrialConfig, banks: NoFrames, folder: Path, report: Callable[[Row], None], encoders: Path) -> None:
    """Train the toy; parameters as those of `search.trial.run_trial`."""
    folder.mkdir(parents=True, exist_ok=True)
    behaviour = behaviour_of(folder)
    root, rows, state = folder / "checkpoints", [], start(trial.id)
    if (newest := checkpoints.newest(root)) is not None:
        state = (newest / checkpoints.STATE).read_bytes()[: len(state)]
        rows = rows_until(checkpoints.epoch_of(newest), newest, folder)
        report(rows[-1])
    for epoch in range(len(rows) + 1, trial.epochs + 1):
        time.sleep(behaviour.get("seconds", 0.0))
        while "limit" in behaviour and epochs_on_record(folder) >= behaviour["limit"]:
            time.sleep(0.1)
        state = step(state, epoch)
        row = row_of(trial.id, epoch, state)
        misbehave(behaviour, folder, epoch, row)
        rows.append(row)
        write_metrics(folder / "metrics.csv", rows)
        slow = behaviour.get("what") == "slow write" and epoch == behaviour["epoch"] and _is_due(behaviour, folder)
        due = epoch % trial.train.checkpoint_every == 0 or epoch == trial.epochs or slow
        if due and not has_diverged(row.get("rung_metric")) and not has_diverged(row["train_loss"]):
            save(root, rows, state, behaviour["write_seconds"] if slow else 0.0)
        report(row)


def save(root: Path, rows: list[Row], state: bytes, seconds: float) -> None:
    """Write a checkpoint as the recorder of real trials does; for so many seconds only a half of it is there."""
    epoch = rows[-1]["epoch"]
    folder = checkpoints.begin(root, epoch)
    if seconds:
        (folder / checkpoints.STATE).write_bytes(b"half")
        time.sleep(seconds)
    files.write_bytes(folder / checkpoints.STATE, state + bytes(PADDING))
    write_metrics(folder / checkpoints.METRICS, rows)
    checkpoints.seal(folder, epoch, rows[-1]["rung_metric"])
    checkpoints.prune(root, {epoch, best_row(rows)["epoch"]})


def behaviour_of(folder: Path) -> dict[str, Any]:
    """What is to go wrong with the trial of `folder`; ``*`` holds for every trial."""
    run_dir = folder.parent.parent
    file = run_dir.with_name(run_dir.name + BEHAVIOUR)
    told = json.loads(file.read_text()) if file.exists() else {}
    return dict(told.get("*", {}) | told.get(folder.name, {}))


def epochs_on_record(folder: Path) -> int:
    """Epochs of all trials in the ledger of the run."""
    return (folder.parent.parent / "ledger.jsonl").read_bytes().count(b'{"event": "epoch"')


def misbehave(behaviour: dict[str, Any], folder: Path, epoch: int, row: Row) -> None:
    """Do what the behaviour says at its ``epoch``, ``times`` times in all (always, without that)."""
    what = behaviour.get("what")
    if what in {None, "slow write"} or epoch != behaviour.get("epoch") or not _is_due(behaviour, folder):
        return
    if what in {"raise", "out of memory"}:
        raise RuntimeError("no such layer" if what == "raise" else "CUDA out of memory. Tried to allocate 2 GiB")
    if what == "hang":
        time.sleep(3600)
    elif what == "exit":
        os._exit(7)
    elif what == "full":
        with files.space_for(folder / "checkpoints", 123456):
            raise OSError(errno.ENOSPC, "No space left on device")
    elif what == "report":
        row["rung_metric"] = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}.get(
            str(behaviour["value"]), behaviour["value"]
        )
    elif what == "missing":
        del row["rung_metric"]
    elif what == "lossless":
        row["train_loss"] = math.nan


def _is_due(behaviour: dict[str, Any], folder: Path) -> bool:
    """Count how often it happened, in files that outlive the process."""
    for number in range(behaviour.get("times", 10**6)):
        with contextlib.suppress(FileExistsError):
            (folder / f"misbehaved.{number}").touch(exist_ok=False)
            return True
    return False
