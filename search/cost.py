"""What a search will cost: forward FLOPs counted on the meta device, held against the speed this machine shows."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch.utils.flop_counter import FlopCounterMode

from search import models
from search.asha import Bracket
from search.batches import crops_per_epoch
from search.trial import make_network

if TYPE_CHECKING:
    from data_io.store import Dataset
    from search.config import Config
    from search.space import Plan, TrialConfig

BACKWARD = 3.0
"""A training step costs about three forward passes."""
OVERHEAD = 1.15
"""Validation and calibration on top of the training steps, as a factor."""
STEP_SECONDS = 0.06
"""What a step costs beside its convolutions (crops, optimiser, bookkeeping), measured on a CPU core."""


@dataclass(frozen=True)
class Cost:
    """Estimated epochs of all trials and wall-clock seconds of a search on this machine."""

    epochs: int
    seconds: float


@cache
def forward_flops(
    architecture: str,
    encoder: str,
    crop: int,
    channels: int,
    depth: int,
    width: float,
    output_stride: int | None = None,
) -> float:
    """Floating-point operations of one forward pass of one crop, without computing it; targets hardly differ."""
    target = "star" if architecture == "stardist_unet" else "two_class"
    with torch.device("meta"):
        network = models.build(
            architecture, encoder, target, channels, depth=depth, width=width, output_stride=output_stride
        ).eval()
        counter = FlopCounterMode(display=False)
        with counter:
            network(torch.empty(1, channels, crop, crop))
    return float(counter.get_total_flops())


def measured_speed(trial: TrialConfig, channels: int) -> float:
    """Floating-point operations per second of a real training step of `trial` on two crops, in its threads.

    Crops are cut to 512 px: larger ones go no faster, and would fill the memory of a machine that is only asked.
    """
    trial = trial.model_copy(update={"crop": min(trial.crop, 512)})
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, int(trial.cpus)))
    try:
        network = make_network(trial, channels).to(models.device()).train()
        images = torch.randn(2, channels, trial.crop, trial.crop, device=models.device())
        fastest = math.inf
        for _ in range(3):
            began = time.perf_counter()
            network(images.contiguous(memory_format=torch.channels_last)).float().square().mean().backward()
            if images.is_cuda:
                torch.cuda.synchronize()
            fastest = min(fastest, time.perf_counter() - began)
    finally:
        torch.set_num_threads(before)
    return BACKWARD * 2 * flops_of(trial, channels) / fastest


def slots_here(config: Config) -> int:
    """Trials that run at the same time on this machine."""
    resources = config.resources
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    slots = cores / (1.0 if isinstance(resources.cpus_per_trial, str) else resources.cpus_per_trial)
    if torch.cuda.is_available():
        share = 1.0 if isinstance(resources.gpus_per_trial, str) else resources.gpus_per_trial
        slots = min(slots, torch.cuda.device_count() / share) if share else slots
    return max(1, int(slots))


def estimate(config: Config, plan: Plan, slots: int, dataset: Dataset) -> Cost:
    """Cost of the plan on `slots` parallel trials, as if early stopping passed the share it does on average."""
    channels = dataset.channels
    by_cost = sorted(plan.possible(), key=lambda trial: flops_of(trial, channels))
    speed = measured_speed(by_cost[len(by_cost) // 2], channels)
    shapes = [dataset.fields[ref.field].shape for ref in dataset.frames("train")]
    epochs, seconds = 0.0, 0.0
    for trial in expected_trials(config, plan):
        expected = _expected_epochs(config, plan, trial)
        crops = crops_per_epoch(shapes, trial)
        epochs += expected
        steps = crops // trial.train.batch
        seconds += expected * (crops * BACKWARD * flops_of(trial, channels) * OVERHEAD / speed + steps * STEP_SECONDS)
    limit = 60 * config.budget.minutes if config.budget.minutes else math.inf
    return Cost(round(epochs), min(seconds / slots, limit))


def expected_trials(config: Config, plan: Plan) -> list[TrialConfig]:
    """Return the trials that will come; of those that Optuna may propose as many as it will, spread evenly."""
    if plan.make is None or config.space.trials is None:
        return list(plan.trials)
    every = max(1, len(plan.rows) // config.space.trials)
    proposed = [plan.make(*row, seed) for row in plan.rows[::every] for seed in config.space.seeds]
    return [*plan.trials, *proposed[: config.space.trials * len(config.space.seeds)]]


def flops_of(trial: TrialConfig, channels: int) -> float:
    """Floating-point operations of one forward pass of one crop of a trial."""
    train = trial.train
    return forward_flops(
        trial.architecture,
        trial.encoder,
        trial.crop,
        channels,
        train.encoder_depth,
        train.decoder_width,
        trial.output_stride,
    )


def _expected_epochs(config: Config, plan: Plan, trial: TrialConfig) -> float:
    """Mean epochs of a trial: at each rung the first always goes on, of the others about the share 1 / eta."""
    schedule = config.schedule
    if trial.reference or not schedule.asha:
        return trial.epochs
    rivals = float(sum(t.target == trial.target and not t.reference for t in expected_trials(config, plan)))
    everyone, total, below = rivals, 0.0, 0
    for rung in [*Bracket(schedule.grace_epochs, trial.epochs, schedule.reduction_factor).rungs, trial.epochs]:
        total += rivals * (rung - below)
        below, rivals = rung, 1 + (rivals - 1) / schedule.reduction_factor
    return total / everyone
