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

if TYPE_CHECKING:
    from search.config import Config
    from search.space import Plan, TrialConfig

BACKWARD = 3.0
"""A training step costs about three forward passes."""
OVERHEAD = 1.6
"""Measured factor from bare convolutions to a trial's epoch on a CPU: small layers, optimiser, crops, validation."""


@dataclass(frozen=True)
class Cost:
    """Estimated epochs and wall-clock seconds of a search here, and the trials expected to run to the end."""

    epochs: int
    seconds: float
    finishing: int


@cache
def forward_flops(
    architecture: str, encoder: str, target: str, crop: int, channels: int, depth: int, width: float
) -> float:
    """Floating-point operations of one forward pass of one crop, without computing it."""
    with torch.device("meta"):
        network = models.build(architecture, encoder, target, channels, depth=depth, width=width).eval()
        counter = FlopCounterMode(display=False)
        with counter:
            network(torch.empty(1, channels, crop, crop))
    return float(counter.get_total_flops())


def machine_flops(threads: int = 1) -> float:
    """Floating-point operations per second of a typical training convolution here, per trial of `threads` threads."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        layer = torch.nn.Conv2d(32, 32, 3, padding=1).to(device)
        x = torch.randn(4, 32, 64, 64, device=device, requires_grad=True)
        for repeat in range(4):
            if repeat == 1:
                began = time.perf_counter()
            layer(x).sum().backward()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - began) / 3
    finally:
        torch.set_num_threads(before)
    return BACKWARD * 2 * 4 * 64 * 64 * 32 * 32 * 9 / seconds


def slots_here(config: Config) -> int:
    """Trials that run at the same time on this machine."""
    resources = config.resources
    slots = len(os.sched_getaffinity(0)) / resources.cpus_per_trial
    if torch.cuda.is_available():
        share = 1.0 if isinstance(resources.gpus_per_trial, str) else resources.gpus_per_trial
        slots = min(slots, torch.cuda.device_count() / share) if share else slots
    return max(1, int(slots))


def estimate(config: Config, plan: Plan, slots: int, crops_per_epoch: int, channels: int = 1) -> Cost:
    """Cost of the plan on `slots` parallel trials; every target is expected to stop as ASHA's reduction says."""
    speed = machine_flops(max(1, int(config.resources.cpus_per_trial)))
    epochs = {trial.id: _expected_epochs(config, plan, trial) for trial in plan.trials}
    seconds = sum(
        epochs[t.id] * crops_per_epoch * BACKWARD * _flops(t, channels) * OVERHEAD / speed for t in plan.trials
    )
    limit = 60 * config.budget.minutes if config.budget.minutes else math.inf
    finishing = sum(t.reference or not config.schedule.asha for t in plan.trials)
    if config.schedule.asha:
        finishing += len({t.target for t in plan.trials if not t.reference})
    return Cost(round(sum(epochs.values())), min(seconds / max(1, slots), limit), finishing)


def _flops(trial: TrialConfig, channels: int) -> float:
    train = trial.train
    return forward_flops(
        trial.architecture, trial.encoder, trial.target, trial.crop, channels, train.encoder_depth, train.decoder_width
    )


def _expected_epochs(config: Config, plan: Plan, trial: TrialConfig) -> float:
    """Mean epochs of a trial when at each rung the share 1 / eta of its target's trials goes on, at least one."""
    schedule = config.schedule
    if trial.reference or not schedule.asha:
        return trial.epochs
    rivals = sum(t.target == trial.target and not t.reference for t in plan.trials)
    total, share, rung = 0.0, 1.0, 0
    upper = schedule.grace_epochs
    while rung < trial.epochs:
        upper = min(upper, trial.epochs)
        total += share * (upper - rung)
        share = max(1 / rivals, share / schedule.reduction_factor)
        rung, upper = upper, round(upper * schedule.reduction_factor)
    return total
