"""Training and validation batches of a trial: crops cut and augmented by `data_io`, encoded here."""

from __future__ import annotations

import math
import multiprocessing
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from data_io import crops, stream
from data_io.augment import Augmentation
from data_io.crops import FrameBank
from search import targets

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from data_io.stream import FrameStream
    from search.frames import Banks
    from search.space import TrialConfig

    Frames = FrameBank | FrameStream

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
CALIBRATION_BATCHES = 6
"""Batches over which the statistics of batch normalisation are taken before a validation."""


class CropBatches(IterableDataset[Batch]):
    """Encoded batches of one epoch; worker w of W cuts every W-th, so that their order is the same for any W."""

    def __init__(self, bank: Frames, trial: TrialConfig, epoch: int, rank: int = 0) -> None:
        self.bank = bank
        self.trial = trial
        self.epoch = epoch
        self.rank = rank

    def __iter__(self) -> Iterator[Batch]:
        """Yield (images ``(N, C, S, S)`` float32, encoded target, labels ``(N, S, S)`` int32).

        A batch of the optimiser comes in parts of `micro_batch` crops; of several processes each gets its parts.
        """
        worker = get_worker_info()
        share = (worker.id, worker.num_workers) if worker else (0, 1)
        size, processes = micro_batch(self.trial), self.trial.processes
        for images, labels in epoch_batches(self.bank, self.trial, self.epoch, *share):
            for start in range(self.rank * size, len(images), processes * size):
                yield _tensors(self.trial, images[start : start + size], labels[start : start + size])


def loader(batches: IterableDataset[Batch], workers: int) -> DataLoader[Batch]:
    """Load the batches of an epoch in `workers` processes beside this one, or in this one where there are none.

    The processes are forked from a server that has imported this file: they start anew for every epoch, and importing
    PyTorch each time takes seconds.
    """
    context = None
    if workers:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
    return DataLoader(batches, batch_size=None, num_workers=workers, multiprocessing_context=context)


def epoch_batches(
    bank: Frames, trial: TrialConfig, epoch: int, worker: int = 0, workers: int = 1
) -> Iterator[tuple[Any, Any]]:
    """Augmented crops of one epoch, a pure function of the trial's seed and `epoch`; one worker's share of them."""
    train = trial.train
    return crops.batches(
        bank,
        seed=trial.seed,
        epoch=epoch,
        n=crops_per_epoch(bank.shapes, trial),
        size=trial.crop,
        batch=train.batch,
        strength=augmentation_of(trial),
        foreground=train.foreground,
        worker=worker,
        workers=workers,
    )


def micro_batch(trial: TrialConfig) -> int:
    """Crops that go through the network at once: a batch, or its part where memory or processes divide it."""
    return trial.micro or trial.train.batch // trial.processes


def passes_per_step(trial: TrialConfig) -> int:
    """Forward passes of one process whose gradients make one step of the optimiser."""
    return trial.train.batch // (micro_batch(trial) * trial.processes)


def augmentation_of(trial: TrialConfig) -> Augmentation:
    """Return what a trial does to its training crops."""
    train = trial.train
    return Augmentation(trial.augmentation, rotation=train.rotation, elastic=train.elastic, defocus=train.defocus)


def crops_per_epoch(shapes: Sequence[tuple[int, int]], trial: TrialConfig) -> int:
    """Crops of an epoch: as configured, else as many as cover the area of the training frames once."""
    if trial.train.crops_per_epoch is not None:
        return trial.train.crops_per_epoch
    return max(trial.train.batch, math.ceil(sum(y * x for y, x in shapes) / trial.crop**2))


class Batches(pl.LightningDataModule):
    """Training batches of the current epoch and the fixed validation crops."""

    def __init__(self, trial: TrialConfig, banks: Banks, rank: int = 0) -> None:
        super().__init__()
        self.trial = trial
        self.rank = rank
        self.bank = stream.reopen(banks.train)
        images, labels = crops.tiles(FrameBank.open(banks.val), size=trial.crop, limit=trial.train.validation_crops)
        size = micro_batch(trial)
        self.calibration = self._calibration(size)
        self.val = [_tensors(trial, images[i : i + size], labels[i : i + size]) for i in range(0, len(images), size)]

    def _calibration(self, batch: int) -> list[torch.Tensor]:
        """Whole batches of training crops as each epoch draws them, but not augmented; none when switched off."""
        trial = self.trial
        if not trial.train.calibrate_batchnorm:
            return []
        drawn = self.bank.crops(
            seed=trial.seed,
            epoch=0,
            n=CALIBRATION_BATCHES * trial.train.batch,
            size=trial.crop,
            batch=trial.train.batch,
            foreground=trial.train.foreground,
        )
        whole = [torch.from_numpy(images) for _, (images, _) in islice(drawn, CALIBRATION_BATCHES)]
        return [images[start : start + batch] for images in whole for start in range(0, len(images), batch)]

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch."""
        return crops_per_epoch(self.bank.shapes, self.trial) // self.trial.train.batch

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of the epoch the trainer is in."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        return loader(CropBatches(self.bank, self.trial, epoch, self.rank), self.trial.train.workers)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the same crops in every epoch and every trial of one crop size."""
        return DataLoader(self.val, batch_size=None)  # type: ignore[arg-type]


def _tensors(trial: TrialConfig, images: Any, labels: Any) -> Batch:
    encoded = targets.encode(trial.target, labels, gap=trial.gap)
    return torch.from_numpy(images), torch.from_numpy(encoded), torch.from_numpy(labels)
