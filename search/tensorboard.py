"""TensorBoard events of every trial: ``tensorboard --logdir RUN/tensorboard``.

The events of a trial are written anew from its ``metrics.csv`` when it starts or goes on, so that every epoch stands in
them once, whatever was killed in between. A disk that is full costs the events, never the search.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from typing import TYPE_CHECKING, Any

from data_io.secrecy import without_secrets
from search.metrics import read_metrics

if TYPE_CHECKING:
    from pathlib import Path

    from tensorboardX import SummaryWriter

    from search.tracking import Report

FOLDER = "tensorboard"
FLUSH_SECONDS = 10
HYPERPARAMETERS = (
    "target",
    "architecture",
    "encoder",
    "loss",
    "learning_rate",
    "weight_decay",
    "augmentation",
    "seed",
)

log = logging.getLogger(__name__)


class TensorBoard:
    """A `search.tracking.Tracker` that writes event files under ``run_dir/tensorboard/<trial>``."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.writers: dict[str, SummaryWriter] = {}
        self.epochs: dict[str, set[int]] = {}
        self.best: dict[str, float] = {}
        self.configs: dict[str, dict[str, Any]] = {}
        self.broken = False

    def start_trial(self, trial_id: str, config: dict[str, Any]) -> None:
        """See `search.tracking.Tracker`."""
        self._try(lambda: self._start(trial_id, without_secrets(config)))

    def epoch(self, trial_id: str, row: dict[str, Any]) -> None:
        """See `search.tracking.Tracker`."""
        self._try(lambda: self._epoch(trial_id, row))

    def finish_trial(self, trial_id: str, summary: dict[str, Any]) -> None:
        """See `search.tracking.Tracker`."""
        self._try(lambda: self._finish(trial_id, summary))

    def report(self, report: Report) -> None:
        """See `search.tracking.Tracker`; TensorBoard shows trials only."""

    def close(self, *, hurry: bool = False) -> None:
        """See `search.tracking.Tracker`."""
        for trial in list(self.writers):
            self._try(self.writers.pop(trial).close)

    def _start(self, trial: str, config: dict[str, Any]) -> None:
        from tensorboardX import SummaryWriter

        if trial in self.writers:
            return
        folder = self.run_dir / FOLDER / trial
        shutil.rmtree(folder, ignore_errors=True)
        self.writers[trial] = SummaryWriter(str(folder), flush_secs=FLUSH_SECONDS)
        self.epochs[trial], self.configs[trial] = set(), config
        self.writers[trial].add_text("config", f"```\n{json.dumps(config, indent=1)}\n```")
        for row in read_metrics(self.run_dir / "trials" / trial / "metrics.csv"):
            self._epoch(trial, row)

    def _epoch(self, trial: str, row: dict[str, Any]) -> None:
        if trial not in self.writers:
            self._start(trial, {})
        step = int(row["epoch"])
        if step in self.epochs[trial]:
            return
        self.epochs[trial].add(step)
        for name, value in row.items():
            if name != "epoch" and isinstance(value, int | float) and math.isfinite(value):
                self.writers[trial].add_scalar(name, value, step)
        metric = row.get("rung_metric")
        if isinstance(metric, float) and math.isfinite(metric):
            self.best[trial] = max(metric, self.best.get(trial, -math.inf))

    def _finish(self, trial: str, summary: dict[str, Any]) -> None:
        from tensorboardX.summary import hparams

        writer = self.writers.pop(trial, None)
        if writer is None:
            return
        config, best = self.configs.pop(trial), self.best.pop(trial, 0.0)
        del self.epochs[trial]
        varied = {name: config[name] for name in HYPERPARAMETERS if name in config}
        varied["status"] = str(summary.get("status", ""))
        for part in hparams(varied, {"best": best}):  # add_hparams would begin a second file
            writer.file_writer.add_summary(part)
        writer.add_scalar("best", best, 0)
        writer.close()

    def _try(self, step: Any) -> None:
        """Do a step; after the first that fails nothing more is written, and that is said once."""
        if self.broken:
            return
        try:
            step()
        except Exception as error:
            self.broken = True
            log.warning("TensorBoard: %s; the search goes on, its own records are complete", error)
