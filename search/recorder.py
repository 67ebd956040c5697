"""What a trial leaves after each epoch: its row of metrics.csv, example crops, the checkpoint that is due."""

from __future__ import annotations

import io
import math
import os
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from data_io import files
from search import checkpoints, targets
from search.asha import has_diverged
from search.metrics import COLUMNS, Row, best_row, write_metrics
from search.module import SegmentationModule

if TYPE_CHECKING:
    from collections.abc import Callable

    from postprocess.prediction import Prediction
    from search.batches import Batch
    from search.space import TrialConfig

EXAMPLES = 4
"""Validation crops kept in examples.npz."""


class Diverged(RuntimeError):
    """The training loss or the rung metric is no finite number."""


class Recorder(pl.Callback):
    """Closes every epoch: metrics.csv, the checkpoint when one is due, then the report, in this order."""

    def __init__(self, trial: TrialConfig, folder: Path, report: Callable[[Row], None], *, writes: bool = True) -> None:
        self.trial = trial
        self.folder = folder
        self.report = report
        self.writes = writes
        self.rows: list[Row] = []
        self.started = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed what the epoch draws (dropout), so that a repeated epoch is the same."""
        torch.manual_seed((self.trial.seed * 1_000_003 + trainer.current_epoch) % 2**63)
        self.started = time.perf_counter()
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write and report the row of this epoch; raise Diverged when it has no finite loss."""
        if not isinstance(pl_module, SegmentationModule):
            raise TypeError(f"Recorder records a SegmentationModule, not {type(pl_module).__name__}")
        row = self._row(trainer, pl_module)
        self.rows = [r for r in self.rows if r["epoch"] < row["epoch"]] + [row]
        improved = row["epoch"] == best_row(self.rows)["epoch"]
        if self.writes and improved:
            save_examples(self.folder / "examples.npz", pl_module, trainer.datamodule.val)  # type: ignore[attr-defined]
        if self.writes:
            write_metrics(self.folder / "metrics.csv", self.rows)
        due = improved or row["epoch"] % self.trial.train.checkpoint_every == 0 or row["epoch"] == self.trial.epochs
        due = due and not has_diverged(row["rung_metric"]) and not has_diverged(row["train_loss"])
        if trainer.strategy.broadcast(due):  # the first process decides for all: saving waits for everyone
            self._checkpoint(trainer, row)
        self.report(row)
        if not math.isfinite(row["train_loss"]):
            raise Diverged(f"training loss is {row['train_loss']} after epoch {row['epoch']}")

    def _row(self, trainer: pl.Trainer, module: SegmentationModule) -> Row:
        overlap = module.overlap
        losses, module.train_losses = module.train_losses, []
        values = (
            trainer.current_epoch + 1,
            float(trainer.strategy.reduce(torch.stack(losses).mean(), reduce_op="mean")),
            float(np.mean(module.val_losses)),
            overlap.dataset_iou,
            overlap.per_image_iou,
            targets.rung_metric(self.trial.target, overlap),
            float(trainer.optimizers[0].param_groups[0]["lr"]),
            time.perf_counter() - self.started,
            memory_mb(module.device),
        )
        return dict(zip(COLUMNS, values, strict=True))

    def _checkpoint(self, trainer: pl.Trainer, row: Row) -> None:
        root = self.folder / "checkpoints"
        folder = checkpoints.begin(root, row["epoch"]) if self.writes else checkpoints.folder_of(root, row["epoch"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.save_checkpoint(folder / checkpoints.STATE)
        if not self.writes:
            return
        write_metrics(folder / checkpoints.METRICS, self.rows)
        checkpoints.seal(folder, row["epoch"], row["rung_metric"])
        checkpoints.prune(root, {row["epoch"], best_row(self.rows)["epoch"]})


class WholeFiles(TorchCheckpointIO):
    """Writes Lightning's state to disk whole or not at all; Lightning's own way leaves a copy in /tmp when killed.

    Reads it without ever unpickling.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write the state."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        files.write_bytes(path, buffer.getvalue())

    def load_checkpoint(self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True) -> Any:
        """Read the state, whatever Lightning thinks of it; BadInput where it holds more than weights."""
        return checkpoints.read_state(Path(path), map_location)


def save_examples(path: Path, module: SegmentationModule, batches: list[Batch]) -> None:
    """Write the first validation crops with their foreground probability: image, truth, foreground ``(N, Y, X)``."""
    images, _, labels = batches[0]
    images, labels = images[:EXAMPLES], labels[:EXAMPLES]
    shape = (labels.shape[1], labels.shape[2])
    module.eval()
    with torch.no_grad():
        predictions = targets.to_predictions(module.trial.target, module.network(images.to(module.device)), shape)
    module.train()
    foreground = np.stack([_foreground(p) for p in predictions])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, image=images[:, 0].numpy(), truth=labels.numpy(), foreground=foreground)
    files.write_bytes(path, buffer.getvalue())


def _foreground(prediction: Prediction) -> np.ndarray[Any, Any]:
    """Probability of being a cell, ``(Y, X)`` float32; star samples are repeated to pixels."""
    probability = prediction.probability.astype(np.float32) / 255
    mask = 1 - probability[0] if len(probability) == 3 else probability[0]
    height, width = prediction.shape
    return np.asarray(mask.repeat(prediction.grid, 0).repeat(prediction.grid, 1)[:height, :width])


def memory_mb(device: torch.device) -> float:
    """Peak memory on a GPU since it was last asked, elsewhere the memory of the process, in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    resident = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(resident) * os.sysconf("SC_PAGE_SIZE") / 1e6
