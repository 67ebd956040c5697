"""One trial as a plain function: train a network, report every epoch, keep its best and newest checkpoint.

    run_trial(trial, banks, out_dir, report=print)

It knows neither Ray nor W&B: `report` gets one row per completed epoch and may end the trial by raising. A trial
whose folder holds a complete checkpoint goes on from there and gives the numbers of an undisturbed one.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from ruamel.yaml import YAML
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from data_io import crops, files
from data_io.crops import FrameBank
from search import checkpoints, models, targets
from search.losses import loss_for
from search.module import SegmentationModule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from postprocess.prediction import Prediction
    from search.space import TrialConfig

Row = dict[str, Any]
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

COLUMNS = (
    "epoch",
    "train_loss",
    "val_loss",
    "val_dataset_iou",
    "val_per_image_iou",
    "rung_metric",
    "learning_rate",
    "seconds",
)
EXAMPLES = 4
"""Validation crops kept in examples.npz."""
CALIBRATION_BATCHES = 6
"""Batches over which the statistics of batch normalisation are taken before a validation."""
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


class Diverged(RuntimeError):
    """The training loss or the rung metric is no finite number."""


@dataclass(frozen=True)
class Banks:
    """Folders of the decoded training and validation frames, shared read-only by all trials of a node."""

    train: Path
    val: Path


class CropBatches(IterableDataset[Batch]):
    """Encoded batches of one epoch; worker w of W cuts every W-th, so that their order is the same for any W."""

    def __init__(self, bank: FrameBank, trial: TrialConfig, epoch: int) -> None:
        self.bank = bank
        self.trial = trial
        self.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        """Yield (images ``(N, C, S, S)`` float32, encoded target, labels ``(N, S, S)`` int32)."""
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for number, (images, labels) in enumerate(epoch_batches(self.bank, self.trial, self.epoch)):
            if number % step == first:
                yield _tensors(self.trial.target, images, labels)


def epoch_batches(bank: FrameBank, trial: TrialConfig, epoch: int) -> Iterator[tuple[Any, Any]]:
    """Augmented crops of one epoch, a pure function of the trial's seed and `epoch`."""
    train = trial.train
    return crops.batches(
        bank,
        seed=trial.seed,
        epoch=epoch,
        n=crops_per_epoch(bank.shapes, trial),
        size=trial.crop,
        batch=train.batch_size,
        strength=trial.augmentation,
        foreground=train.foreground,
    )


def crops_per_epoch(shapes: Sequence[tuple[int, int]], trial: TrialConfig) -> int:
    """Crops of an epoch: as configured, else as many as cover the area of the training frames once."""
    if trial.train.crops_per_epoch is not None:
        return trial.train.crops_per_epoch
    return max(trial.train.batch_size, math.ceil(sum(y * x for y, x in shapes) / trial.crop**2))


class Batches(pl.LightningDataModule):
    """Training batches of the current epoch and the fixed validation crops."""

    def __init__(self, trial: TrialConfig, banks: Banks) -> None:
        super().__init__()
        self.trial = trial
        self.bank = FrameBank.open(banks.train)
        images, labels = crops.tiles(FrameBank.open(banks.val), size=trial.crop, limit=trial.train.validation_crops)
        size = trial.train.batch_size
        self.calibration = self._calibration(size)
        self.val = [
            _tensors(trial.target, images[i : i + size], labels[i : i + size]) for i in range(0, len(images), size)
        ]

    def _calibration(self, batch: int) -> list[torch.Tensor]:
        """Whole batches of training crops as each epoch draws them, but not augmented; none when switched off."""
        trial = self.trial
        if not trial.train.calibrate_batchnorm:
            return []
        count = CALIBRATION_BATCHES * batch
        places = crops.plan(
            self.bank, seed=trial.seed, epoch=0, n=count, size=trial.crop, foreground=trial.train.foreground
        )
        images, _ = crops.cut(self.bank, places, trial.crop)
        return [torch.from_numpy(images[i : i + batch]) for i in range(0, count, batch)]

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch."""
        return crops_per_epoch(self.bank.shapes, self.trial) // self.trial.train.batch_size

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of the epoch the trainer is in."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        workers = self.trial.train.workers
        context = "forkserver" if workers else None
        return DataLoader(
            CropBatches(self.bank, self.trial, epoch),
            batch_size=None,
            num_workers=workers,
            multiprocessing_context=context,
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the same crops in every epoch and every trial of one crop size."""
        return DataLoader(self.val, batch_size=None)  # type: ignore[arg-type]


def _tensors(target: str, images: Any, labels: Any) -> Batch:
    return torch.from_numpy(images), torch.from_numpy(targets.encode(target, labels)), torch.from_numpy(labels)


class Recorder(pl.Callback):
    """Closes every epoch: metrics.csv, the checkpoint when one is due, then the report, in this order."""

    def __init__(self, trial: TrialConfig, folder: Path, report: Callable[[Row], None]) -> None:
        self.trial = trial
        self.folder = folder
        self.report = report
        self.rows: list[Row] = read_metrics(folder / "metrics.csv")
        self.started = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed what the epoch draws (dropout), so that a repeated epoch is the same."""
        torch.manual_seed((self.trial.seed * 1_000_003 + trainer.current_epoch) % 2**63)
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write and report the row of this epoch; raise Diverged when it has no finite loss."""
        if not isinstance(pl_module, SegmentationModule):
            raise TypeError(f"Recorder records a SegmentationModule, not {type(pl_module).__name__}")
        row = self._row(trainer, pl_module)
        self.rows = [r for r in self.rows if r["epoch"] < row["epoch"]] + [row]
        improved = row["epoch"] == best_row(self.rows)["epoch"]
        if improved:
            save_examples(self.folder / "examples.npz", pl_module, trainer.datamodule.val)  # type: ignore[attr-defined]
        write_metrics(self.folder / "metrics.csv", self.rows)
        if improved or row["epoch"] % self.trial.train.checkpoint_every == 0 or row["epoch"] == self.trial.epochs:
            self._checkpoint(trainer, row)
        self.report(row)
        if not math.isfinite(row["train_loss"]):
            raise Diverged(f"training loss is {row['train_loss']} after epoch {row['epoch']}")

    def _row(self, trainer: pl.Trainer, module: SegmentationModule) -> Row:
        overlap = module.overlap
        losses, module.train_losses = module.train_losses, []
        values = (
            trainer.current_epoch + 1,
            float(torch.stack(losses).mean()),
            float(np.mean(module.val_losses)),
            overlap.dataset_iou,
            overlap.per_image_iou,
            targets.rung_metric(self.trial.target, overlap),
            float(trainer.optimizers[0].param_groups[0]["lr"]),
            time.perf_counter() - self.started,
        )
        return dict(zip(COLUMNS, values, strict=True))

    def _checkpoint(self, trainer: pl.Trainer, row: Row) -> None:
        root = self.folder / "checkpoints"
        folder = checkpoints.folder_of(root, row["epoch"])
        checkpoints.prune(root, {r["epoch"] for r in self.rows if r["epoch"] < row["epoch"]})
        folder.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.save_checkpoint(folder / checkpoints.STATE)
        checkpoints.seal(folder, row["epoch"], row["rung_metric"])
        checkpoints.prune(root, {row["epoch"], best_row(self.rows)["epoch"]})


def run_trial(trial: TrialConfig, banks: Banks, folder: Path, report: Callable[[Row], None]) -> Row:
    """Train one configuration to its last epoch, or until `report` raises; return the row of the best epoch.

    Parameters
    ----------
    trial
        The configuration.
    banks
        Decoded training and validation frames.
    folder
        The trial's own folder: config.yaml, metrics.csv, examples.npz, checkpoints/.
    report
        Called once per completed epoch with the row of metrics.csv; after an interruption once more with the last one.

    Raises
    ------
    Diverged
        When the training loss is NaN or infinite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files.write_text(folder / "config.yaml", to_yaml(trial))
    newest = checkpoints.newest(folder / "checkpoints")
    recorder = Recorder(trial, folder, report)
    if newest is None:
        recorder.rows = []
    else:
        last = int(newest.name.removeprefix("epoch_"))
        recorder.rows = [row for row in recorder.rows if row["epoch"] <= last]
        report(recorder.rows[-1])  # a kill between the checkpoint and its report would lose this epoch
        if last >= trial.epochs:
            return best_row(recorder.rows)
    data = Batches(trial, banks)
    pl.seed_everything(trial.seed, verbose=False)
    module = SegmentationModule(
        make_network(trial, data.bank.channels), loss_for(trial.loss), trial, data.steps_per_epoch
    )
    module.calibration = data.calibration
    with quiet_lightning():
        trainer = pl.Trainer(
            max_epochs=trial.epochs,
            accelerator="auto",
            devices=1,
            precision=PRECISIONS[trial.train.precision],  # type: ignore[arg-type]
            gradient_clip_val=trial.train.gradient_clip,
            callbacks=[recorder],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,
            default_root_dir=folder,
        )
        trainer.fit(module, data, ckpt_path=newest / checkpoints.STATE if newest else None, weights_only=True)
    return best_row(recorder.rows)


def to_yaml(trial: TrialConfig) -> str:
    """Return the trial's configuration as YAML."""
    text = io.StringIO()
    YAML(typ="safe", pure=True).dump(trial.model_dump(mode="json"), text)
    return text.getvalue()


def make_network(trial: TrialConfig, channels: int) -> models.Network:
    """Network of a trial, channels last."""
    network = models.build(
        trial.architecture,
        trial.encoder,
        trial.target,
        channels,
        weights=trial.encoder_weights,
        depth=trial.train.encoder_depth,
        width=trial.train.decoder_width,
        output_stride=trial.output_stride,
    )
    return network.to(memory_format=torch.channels_last)


def load_best(trial: TrialConfig, folder: Path, channels: int) -> tuple[models.Network, int]:
    """Network with the weights of the trial's best complete checkpoint, in evaluation mode, and its epoch.

    Raises
    ------
    FileNotFoundError
        When the trial has no complete checkpoint.
    """
    root = folder / "checkpoints"
    complete = {p: facts for p in root.glob("epoch_*") if (facts := checkpoints.manifest(p))}
    if not complete:
        raise FileNotFoundError(f"{root}: no complete checkpoint")
    best = max(complete, key=lambda p: (complete[p]["value"], -int(p.name.removeprefix("epoch_"))))
    state = torch.load(best / checkpoints.STATE, map_location="cpu", weights_only=True)["state_dict"]
    network = make_network(trial.model_copy(update={"encoder_weights": None}), channels)
    network.load_state_dict({key.removeprefix("network."): value for key, value in state.items()})
    return network.eval().to(models.device()), int(best.name.removeprefix("epoch_"))


def best_row(rows: list[Row]) -> Row:
    """Row with the highest finite rung metric, the earliest of equals."""
    return max(rows, key=lambda r: (r["rung_metric"] if math.isfinite(r["rung_metric"]) else -math.inf, -r["epoch"]))


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


def read_metrics(path: Path) -> list[Row]:
    """Rows of a metrics.csv, none where it is missing."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{k: int(v) if k == "epoch" else float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def write_metrics(path: Path, rows: list[Row]) -> None:
    """Write metrics.csv whole and atomically."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_text(path, text.getvalue())


class quiet_lightning:
    """Silences Lightning's notes on hardware and on data loading choices that are made on purpose here."""

    def __enter__(self) -> None:
        self.loggers = [logging.getLogger(n) for n in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch")]
        self.levels = [logger.level for logger in self.loggers]
        for logger in self.loggers:
            logger.setLevel(logging.ERROR)
        self.warnings = warnings.catch_warnings()
        self.warnings.__enter__()
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        warnings.filterwarnings("ignore", module="lightning_fabric")

    def __exit__(self, *exception: object) -> None:
        self.warnings.__exit__(*exception)  # type: ignore[arg-type]
        for logger, level in zip(self.loggers, self.levels, strict=True):
            logger.setLevel(level)
