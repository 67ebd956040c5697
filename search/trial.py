"""One trial as a plain function: train a network, report every epoch, keep its best and newest checkpoint.

    run_trial(trial, banks, out_dir, report=print)

It knows neither Ray nor W&B: `report` gets one row per completed epoch and may end the trial by raising. A trial
whose folder holds a complete checkpoint goes on from there and gives the numbers of an undisturbed one.
"""

from __future__ import annotations

import io
import logging
import warnings
from typing import TYPE_CHECKING

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from ruamel.yaml import YAML

from data_io import files
from search import checkpoints, models
from search.batches import Batches, augmentation_of, passes_per_step
from search.losses import loss_for
from search.metrics import best_row, rows_until
from search.module import SegmentationModule, memory_format
from search.recorder import Recorder, WholeFiles
from search.weights import stored

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from search.frames import Banks
    from search.metrics import Row
    from search.space import TrialConfig

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def run_trial(
    trial: TrialConfig,
    banks: Banks,
    folder: Path,
    report: Callable[[Row], None],
    encoders: Path | None = None,
    rank: int = 0,
) -> Row:
    """Train one configuration to its last epoch, or until `report` raises; return the row of the best epoch.

    Parameters
    ----------
    trial
        The configuration.
    banks
        Decoded training and validation frames.
    folder
        The trial's own folder: config.yaml, augmentation.json, metrics.csv, examples.npz, checkpoints/.
    report
        Called once per completed epoch with the row of metrics.csv; after an interruption once more with the last one.
    encoders
        Folder of the pretrained encoders of the run (`weights.resolve`); needed where the trial names a pretraining.
    rank
        Number of this process where several train the trial together (`search.processes`); only the first one writes.

    Raises
    ------
    Diverged
        When the training loss is NaN or infinite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if rank == 0:
        files.write_text(folder / "config.yaml", to_yaml(trial))
        files.write_json(folder / "augmentation.json", augmentation_of(trial).record())
    newest = checkpoints.newest(folder / "checkpoints")
    recorder = Recorder(trial, folder, report, writes=rank == 0)
    if newest is not None:
        last = checkpoints.epoch_of(newest)
        recorder.rows = rows_until(last, newest, folder)
        report(recorder.rows[-1])  # a kill between the checkpoint and its report would lose this epoch
        if last >= trial.epochs:
            return best_row(recorder.rows)
    data = Batches(trial, banks, rank)
    pl.seed_everything(trial.seed, verbose=False)
    module = SegmentationModule(
        make_network(trial, data.bank.channels, stored(encoders, trial.encoder, trial.encoder_weights)),
        loss_for(trial.loss),
        trial,
        data.steps_per_epoch,
    )
    module.calibration = data.calibration
    with quiet_lightning():
        trainer = pl.Trainer(
            max_epochs=trial.epochs,
            accelerator="auto",
            devices=1,
            num_nodes=trial.processes,
            strategy="ddp" if trial.processes > 1 else "auto",
            sync_batchnorm=trial.processes > 1 and torch.cuda.is_available(),  # torch has it for GPUs only
            use_distributed_sampler=False,
            accumulate_grad_batches=passes_per_step(trial),
            plugins=[WholeFiles(), *([LightningEnvironment()] if trial.processes > 1 else [])],
            precision=PRECISIONS[trial.train.precision],  # type: ignore[arg-type]
            gradient_clip_val=trial.train.gradient_clip,
            deterministic="warn" if trial.train.deterministic else False,
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


def make_network(trial: TrialConfig, channels: int, weights: Path | None = None) -> models.Network:
    """Network of a trial in its memory format; its encoder from a file of `weights.stored`, random without one."""
    network = models.build(
        trial.architecture,
        trial.encoder,
        trial.target,
        channels,
        weights=weights,
        depth=trial.train.encoder_depth,
        width=trial.train.decoder_width,
        output_stride=trial.output_stride,
    )
    return network.to(memory_format=memory_format(trial))


def load_best(trial: TrialConfig, folder: Path, channels: int) -> tuple[models.Network, int]:
    """Network with the weights of the trial's best epoch, in evaluation mode, and that epoch.

    Raises
    ------
    FileNotFoundError
        When the trial has no complete checkpoint, or none of its best epoch.
    """
    root = folder / "checkpoints"
    if (newest := checkpoints.newest(root)) is None:
        raise FileNotFoundError(f"{root}: no complete checkpoint")
    rows = rows_until(checkpoints.epoch_of(newest), newest, folder)
    best = checkpoints.folder_of(root, best_row(rows)["epoch"]) if rows else newest
    if checkpoints.manifest(best) is None:
        raise FileNotFoundError(f"{best}: the checkpoint of the best epoch is damaged or missing")
    state = checkpoints.read_state(best / checkpoints.STATE)["state_dict"]
    network = make_network(trial, channels)
    network.load_state_dict({key.removeprefix("network."): value for key, value in state.items()})
    return network.eval().to(models.device()), checkpoints.epoch_of(best)


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
