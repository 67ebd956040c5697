"""From a configuration to the list of trials: the grid, its infeasible cells with their reasons, and the references."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from search.config import Config, TrainConfig  # noqa: TC001 - pydantic reads the annotations
from search.feasibility import Cache, Feasibility


class TrialConfig(BaseModel):
    """One trial: everything that decides its numbers, given the data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    target: str
    architecture: str
    encoder: str
    loss: str
    learning_rate: float
    weight_decay: float
    augmentation: float
    seed: int
    crop: int
    output_stride: int | None
    encoder_weights: str | None
    reference: bool
    epochs: int
    cpus: float
    train: TrainConfig


@dataclass(frozen=True)
class Infeasible:
    """A cell that cannot run, and why."""

    target: str
    architecture: str
    encoder: str
    loss: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """The trials in the order they start (references first), and the cells left out."""

    trials: tuple[TrialConfig, ...]
    infeasible: tuple[Infeasible, ...]
    notes: tuple[str, ...] = ()


Examine = Callable[[list[tuple[str, str]]], dict[tuple[str, str], Feasibility]]


def plan(
    config: Config, in_channels: int = 1, examine: Examine | None = None, weights: dict[str, str | None] | None = None
) -> Plan:
    """Plan of the whole search.

    Parameters
    ----------
    config
        The resolved configuration.
    in_channels
        Channels of the images.
    examine
        Feasibility of (architecture, encoder) cells; by default measured on the meta device and cached.
    weights
        Pretraining per encoder, resolved beforehand; None trains all from scratch.
    """
    train = config.train
    if examine is None:

        def examine(cells: list[tuple[str, str]]) -> dict[tuple[str, str], Feasibility]:
            if train.crop is None:
                raise ValueError("the crop must be filled in from the data before planning")
            return Cache().examine(cells, train.crop, in_channels, depth=train.encoder_depth, width=train.decoder_width)

    cells = _cells(config)
    references = [(r.target, r.architecture, r.encoder, r.loss) for r in config.schedule.references]
    found = examine(list(dict.fromkeys((a, e) for _, a, e, _ in [*references, *cells])))
    left_out = [cell for cell in cells if not found[cell[1], cell[2]].ok]
    infeasible = tuple(Infeasible(*cell, reason=found[cell[1], cell[2]].reason) for cell in left_out)
    changed = {
        f"{a} on {e} runs with {found[a, e].reason}" for _, a, e, _ in cells if found[a, e].ok and found[a, e].reason
    }

    space = config.space
    settings = list(itertools.product(space.learning_rate, space.weight_decay, space.augmentation, space.seeds))
    grid = [(*cell, *setting) for setting in settings for cell in cells if found[cell[1], cell[2]].ok]
    spared = [(*r, *settings[0]) for r in references if found[r[1], r[2]].ok]
    if config.schedule.reference_epochs in {None, train.max_epochs}:
        grid = [row for row in grid if row not in spared]  # the reference is that very run, spared from stopping
    if space.mode == "random":
        order = np.random.default_rng(config.seed).permutation(len(grid))[: space.trials]
        grid = [grid[i] for i in order]
    several = len(settings) > 1
    trials = [_trial(config, row, found, weights or {}, several, reference=True) for row in spared]
    trials += [_trial(config, row, found, weights or {}, several, reference=False) for row in grid]
    return Plan(tuple(trials), infeasible, tuple(sorted(changed)))


def _cells(config: Config) -> list[tuple[str, str, str, str]]:
    """(target, architecture, encoder, loss) of the grid; targets vary fastest, so every bracket fills early."""
    space = config.space
    cells: list[tuple[str, str, str, str]] = []
    for architecture, encoder in itertools.product(space.architectures, space.encoders):
        losses = {target: space.losses[target] for target in space.targets}
        for position in range(max(map(len, losses.values()))):
            cells += [
                (t, architecture, encoder, names[position]) for t, names in losses.items() if position < len(names)
            ]
    if space.stardist_unet and "star" in space.targets:
        cells += [("star", "stardist_unet", "", loss) for loss in space.losses["star"]]
    return cells


def _trial(
    config: Config,
    row: tuple[str, str, str, str, float, float, float, int],
    found: dict[tuple[str, str], Feasibility],
    weights: dict[str, str | None],
    several: bool,
    *,
    reference: bool,
) -> TrialConfig:
    target, architecture, encoder, loss, rate, decay, augmentation, seed = row
    cell = found[architecture, encoder]
    name = "-".join(part for part in (target, architecture, encoder, loss) if part)
    if several:
        name += "-" + hashlib.sha256(json.dumps([rate, decay, augmentation, seed]).encode()).hexdigest()[:6]
    epochs = config.train.max_epochs
    return TrialConfig(
        id=f"{name}-reference" if reference else name,
        target=target,
        architecture=architecture,
        encoder=encoder,
        loss=loss,
        learning_rate=rate,
        weight_decay=decay,
        augmentation=augmentation,
        seed=seed,
        crop=cell.crop,
        output_stride=cell.output_stride,
        encoder_weights=weights.get(encoder),
        reference=reference,
        epochs=(config.schedule.reference_epochs or epochs) if reference else epochs,
        cpus=config.resources.cpus_per_trial,
        train=config.train,
    )
