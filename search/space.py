"""From a configuration to its trials: the grid or what is drawn from it, its infeasible cells, the references."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from search.config import Config, ReferenceConfig, SpaceConfig, TrainConfig  # noqa: TC001 - pydantic reads the annotations

if TYPE_CHECKING:
    from search.feasibility import Feasibility


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
    gap: bool = False
    reference: bool
    epochs: int
    cpus: float
    gpus: float = 0.0
    micro: int | None = None
    processes: int = 1
    fold: int | None = None
    train: TrainConfig

    @property
    def configuration(self) -> str:
        """Everything that decides its numbers but the seed, as one text; trials with the same one are repeats."""
        return self.model_dump_json(exclude={"id", "seed", "reference", "cpus", "gpus", "micro", "processes", "fold"})


Setting = tuple[float, float, float]
"""Learning rate, weight decay and strength of augmentation."""
Cell = tuple[str, str, str, str]
"""Target, architecture, encoder and loss."""


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
    """The trials in the order they start, the cells left out, and what becomes trials later.

    Attributes
    ----------
    feasible
        Cells of the grid of architectures and encoders that run; StarDist's own network is counted with neither.
    of_winner
        References that wait for the best trial.
    rows, make
        Optuna mode: the feasible part of the grid that proposals are taken from, and what makes a trial of one.
    """

    trials: tuple[TrialConfig, ...]
    infeasible: tuple[Infeasible, ...]
    notes: tuple[str, ...] = ()
    of_winner: tuple[ReferenceConfig, ...] = ()
    rows: tuple[tuple[Cell, Setting], ...] = ()
    make: Callable[[Cell, Setting, int], TrialConfig] | None = None
    feasible: int = 0

    def possible(self) -> list[TrialConfig]:
        """Return the trials, and those that may be proposed, each with one seed."""
        return [*self.trials, *(self.make(*row, 0) for row in self.rows if self.make is not None)]


Examine = Callable[[list[tuple[str, str]]], "dict[tuple[str, str], Feasibility]"]


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
            from search.feasibility import Cache

            return Cache().examine(cells, train.crop, in_channels, depth=train.encoder_depth, width=train.decoder_width)

    cells = _cells(config)
    placed = [reference for reference in config.schedule.references if reference.architecture != "winner"]
    found = examine(list(dict.fromkeys((cell[1], cell[2]) for cell in [*map(_cell_of, placed), *cells])))
    left_out = [cell for cell in cells if not found[cell[1], cell[2]].ok]
    infeasible = tuple(Infeasible(*cell, reason=found[cell[1], cell[2]].reason) for cell in left_out)
    changed = {
        f"{a} on {e} runs with {found[a, e].reason}" for _, a, e, _ in cells if found[a, e].ok and found[a, e].reason
    }

    def trial(cell: Cell, setting: Setting, seed: int, reference: ReferenceConfig | None = None) -> TrialConfig:
        name = (weights or {}).get(cell[2])
        return make_trial(config, cell, setting, seed, found[cell[1], cell[2]], name, reference)

    space = config.space
    settings = list(itertools.product(space.learning_rate, space.weight_decay, space.augmentation))
    rows = [(cell, setting) for setting in settings for cell in cells if found[cell[1], cell[2]].ok]
    references = [trial(_cell_of(r), settings[0], space.seeds[0], r) for r in placed if found[_cell_of(r)[1:3]].ok]
    full = {t.id.removesuffix("-reference"): t.crop for t in references if t.epochs == config.train.max_epochs}

    def spared(row: tuple[Cell, Setting], seed: int) -> bool:
        made = trial(*row, seed)
        return full.get(made.id) == made.crop  # the reference is that very run, never stopped

    rows = [row for row in rows if not all(spared(row, seed) for seed in space.seeds)]
    proposed = tuple(rows) if space.mode == "optuna" else ()
    if proposed:
        rows = []
    elif space.mode == "random":
        rows = draw(space, rows, np.random.default_rng(config.seed))
    grid = [trial(*row, seed) for seed in space.seeds for row in rows if not spared(row, seed)]
    ordered = _placed(references, grid, config.schedule.references_placed)
    of_winner = tuple(reference for reference in config.schedule.references if reference.architecture == "winner")
    feasible = sum(cell[1] != "stardist_unet" for cell in cells) - len(infeasible)
    make = trial if proposed else None
    return Plan(tuple(ordered), infeasible, tuple(sorted(changed)), of_winner, proposed, make, feasible)


def draw(space: SpaceConfig, rows: list[tuple[Cell, Setting]], rng: np.random.Generator) -> list[tuple[Cell, Setting]]:
    """Draw `space.trials` of the rows of the grid: without repetition, or with settings between those listed.

    Between the smallest and the largest value listed, rates are drawn log-uniformly, strengths uniformly.
    """
    if not space.continuous:
        return [rows[i] for i in rng.permutation(len(rows))[: space.trials]]
    cells = list(dict.fromkeys(cell for cell, _ in rows))
    drawn = []
    for number in range(space.trials or 0):
        if number % len(cells) == 0:
            order = rng.permutation(len(cells))
        setting = (
            between(space.learning_rate, rng.random()),
            between(space.weight_decay, rng.random()),
            between(space.augmentation, rng.random(), logarithmic=False),
        )
        drawn.append((cells[order[number % len(cells)]], setting))
    return drawn


def between(values: tuple[float, ...], share: float, *, logarithmic: bool = True) -> float:
    """Return the value at a share (0 to 1) of the way from the smallest to the largest, logarithmic if none is 0."""
    low, high = min(values), max(values)
    if logarithmic and low > 0:
        return float(f"{low * (high / low) ** share:.4g}")
    return float(f"{low + (high - low) * share:.4g}")


def of_winner(config: Config, reference: ReferenceConfig, best: TrialConfig) -> TrialConfig:
    """Return the reference that trains the network of the best trial, with its settings, for another target."""
    from search.feasibility import Feasibility

    cell = (reference.target, best.architecture, best.encoder, reference.loss)
    setting = (best.learning_rate, best.weight_decay, best.augmentation)
    runs = Feasibility(ok=True, crop=best.crop, output_stride=best.output_stride)
    return make_trial(config, cell, setting, best.seed, runs, best.encoder_weights, reference)


def _cell_of(reference: ReferenceConfig) -> Cell:
    return reference.target, reference.architecture, reference.encoder, reference.loss


def _placed(references: list[TrialConfig], grid: list[TrialConfig], where: str) -> list[TrialConfig]:
    """Return both lists as one, the references first, last or spread evenly among the others."""
    if where == "last":
        return [*grid, *references]
    if where == "first" or not references:
        return [*references, *grid]
    every = max(1, round(len(grid) / len(references)))
    ordered: list[TrialConfig] = []
    for number, reference in enumerate(references):
        ordered += [reference, *grid[number * every : (number + 1) * every]]
    return [*ordered, *grid[len(references) * every :]]


def _cells(config: Config) -> list[Cell]:
    """(target, architecture, encoder, loss) of the grid; targets vary fastest, so every bracket fills early."""
    space = config.space
    cells: list[Cell] = []
    for architecture, encoder in itertools.product(space.architectures, space.encoders):
        losses = {target: space.losses[target] for target in space.targets}
        for position in range(max(map(len, losses.values()))):
            cells += [
                (t, architecture, encoder, names[position]) for t, names in losses.items() if position < len(names)
            ]
    if space.stardist_unet and "star" in space.targets:
        cells += [("star", "stardist_unet", "", loss) for loss in space.losses["star"]]
    return cells


def make_trial(
    config: Config,
    cell: Cell,
    setting: Setting,
    seed: int,
    runs: Feasibility,
    weights: str | None,
    reference: ReferenceConfig | None = None,
) -> TrialConfig:
    """Return one trial of the search; its id names the cell, and by a short hash the settings where they vary."""
    target, architecture, encoder, loss = cell
    rate, decay, strength = setting
    cores = config.resources.cpus_per_trial
    space, epochs, crop, gap = config.space, config.train.max_epochs, runs.crop, False
    if reference is not None:
        epochs, gap = config.schedule.reference_epochs or epochs, reference.gap
        if reference.crop is not None:
            from search.models import smallest_side

            crop = max(reference.crop, smallest_side(architecture, runs.output_stride))
    size = f"{crop}px" if crop != runs.crop else ""
    name = "-".join(part for part in (target, architecture, encoder, loss, "gap" if gap else "", size) if part)
    if (
        space.continuous
        or max(map(len, (space.learning_rate, space.weight_decay, space.augmentation, space.seeds))) > 1
    ):
        name += "-" + hashlib.sha256(json.dumps([rate, decay, strength, seed]).encode()).hexdigest()[:6]
    return TrialConfig(
        id=f"{name}-reference" if reference else name,
        target=target,
        architecture=architecture,
        encoder=encoder,
        loss=loss,
        learning_rate=rate,
        weight_decay=decay,
        augmentation=strength,
        seed=seed,
        crop=crop,
        output_stride=runs.output_stride,
        encoder_weights=weights,
        gap=gap,
        reference=reference is not None,
        epochs=epochs,
        cpus=1.0 if isinstance(cores, str) else cores,
        processes=1 if reference is None else config.resources.reference_processes,
        train=config.train,
    )
