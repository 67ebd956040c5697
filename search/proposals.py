"""Optuna as an adviser: it is told of every trial and, where asked, proposes the next configuration.

One study per target, since metrics of different targets cannot be compared; proposals go round the targets. A trial
that was stopped early is told as pruned, with its value at every epoch: TPE then ranks it by how far it came before it
looks at its value, so that a slow starter is no bad completed trial (Bergstra et al. 2011; Akiba et al. 2019).

The ledger is the record. The studies are filled from it, in memory or in an SQLite file that optuna-dashboard shows;
a file that cannot be written costs the picture, never the search.
"""

from __future__ import annotations

import sqlite3
import warnings
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.trial import BaseTrial, TrialState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from optuna.storages import BaseStorage

    from search.config import Config
    from search.space import Cell, Setting

ATTEMPTS = 10
"""Proposals that were tried before, after which one that was not is drawn."""
STARTUP = 10
"""Trials of a target that are drawn before Optuna learns from them."""
CURVE = 10
"""Values that a study gets of a trial that ended in an earlier sitting: thousands of trials may have hundreds."""
NUMBERS = ("learning_rate", "weight_decay", "augmentation")
STATES = {
    "completed": TrialState.COMPLETE,
    "budget": TrialState.PRUNED,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "diverged": TrialState.FAIL,
}


@dataclass
class Told:
    """What is known of one trial: its place in the space, its values by epoch, how it ended (None: it has not)."""

    cell: Cell
    setting: Setting
    values: dict[int, float] = field(default_factory=dict)
    status: str | None = None


class Proposer:
    """Studies of a search.

    Parameters
    ----------
    config
        ``space`` says what is varied, ``seed`` makes the k-th proposal after the same history the same.
    rows
        Feasible combinations; proposals are among them, or between their settings where ``space.continuous``.
    cells
        Cells outside the rows of which trials may be told (references).
    before
        What happened earlier, by the trials' ids, in the order in which they began.
    storage
        SQLite file, written anew; None keeps the studies in memory.
    say
        Where the notice goes when the file cannot be written.
    """

    def __init__(
        self,
        config: Config,
        rows: Iterable[tuple[Cell, Setting]],
        before: Mapping[str, Told] | None = None,
        storage: Path | None = None,
        cells: Iterable[Cell] = (),
        say: Callable[[str], None] = print,
    ) -> None:
        self.space = config.space
        self.seed = config.seed
        self.rows = list(dict.fromkeys(rows))
        self.known = list(dict.fromkeys([*(cell for cell, _ in self.rows), *cells]))
        self.say = say
        self.told = dict(before or {})
        self.file = storage
        self._open()

    def ask(self) -> tuple[Cell, Setting] | None:
        """Return the next configuration; None when there is no more. The k-th after the same history is the same."""
        number = len(self.told)
        targets = [t for t in dict.fromkeys(cell[0] for cell, _ in self.rows) if self._untried(t)]
        if not targets:
            return None
        target = targets[number % len(targets)]
        proposal: tuple[Cell, Setting] = self._guarded(lambda: self._propose(target, number), again=True)
        return proposal

    def begin(self, key: str, cell: Cell, setting: Setting) -> None:
        """Take note of a trial that starts, proposed or not; `key` is its id."""
        if key not in self.told:
            self.told[key] = Told(cell, setting)
            self._guarded(lambda: self._begin(key))

    def tell_epoch(self, key: str, epoch: int, value: float) -> None:
        """Take note of a trial's value after an epoch; one that is no finite number, or comes after the end, is not."""
        told = self.told[key]
        if told.status is None and isinstance(value, float) and np.isfinite(value) and epoch not in told.values:
            self.told[key].values[epoch] = value
            self._guarded(lambda: self.storage.set_trial_intermediate_value(self.running[key], epoch, value))

    def tell_end(self, key: str, status: str) -> None:
        """Take note of how a trial ended."""
        self.told[key].status = status
        self._guarded(lambda: self._end(key))

    def _open(self) -> None:
        """Begin the studies anew and fill them with everything told."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.storage: BaseStorage = optuna.storages.InMemoryStorage()
        self.studies: dict[str, optuna.Study] = {}
        self.running: dict[str, int] = {}
        """Optuna's number of each trial that has not ended."""
        self._guarded(self._fill)

    def _fill(self) -> None:
        if self.file is not None:
            self.file.unlink(missing_ok=True)
            self.storage = optuna.storages.RDBStorage("sqlite://", {"creator": partial(_connect, self.file)})
        for target in dict.fromkeys(cell[0] for cell in self.known):
            self.studies[target] = optuna.create_study(study_name=target, direction="maximize", storage=self.storage)
        for key in self.told:
            self._begin(key)

    def _guarded(self, step: Callable[[], Any], *, again: bool = False) -> Any:
        """Do a step; where the file fails, say so once and go on in memory, which then holds everything told."""
        try:
            return step()
        except Exception as error:
            if self.file is None:
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            self.say(f"note: {self.file} cannot be written ({reason}); the search goes on without it")
            self.file = None
            self._open()
            return step() if again else None

    def _begin(self, key: str) -> None:
        """Start a trial of its study with the values it has, or add one that has ended: at once, as each step costs."""
        study = self.storage.get_study_id_from_name(self.told[key].cell[0])
        number = self.storage.create_new_trial(study, self._as_told(key))
        if self.told[key].status is None:
            self.running[key] = number

    def _end(self, key: str) -> None:
        if (number := self.running.pop(key, None)) is not None:  # it had not ended before
            state, value = _outcome(self.told[key])
            self.storage.set_trial_state_values(number, state, None if value is None else [value])

    def _as_told(self, key: str) -> optuna.trial.FrozenTrial:
        """Return a trial as a study holds it."""
        told = self.told[key]
        fixed = optuna.trial.FixedTrial(self._named(told.cell, told.setting))
        self._suggest(fixed, told.cell[0])
        state, value = (TrialState.RUNNING, None) if told.status is None else _outcome(told)
        return optuna.trial.create_trial(
            state=state,
            value=value,
            params=fixed.params,
            distributions=fixed.distributions,
            intermediate_values=told.values if told.status is None else _few(told.values),
            user_attrs={"trial": key},
        )

    def _propose(self, target: str, number: int) -> tuple[Cell, Setting]:
        """Let the sampler choose; what was tried before gives way to what was not."""
        untried = self._untried(target)
        generator = np.random.default_rng([self.seed, number])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sampler = optuna.samplers.TPESampler(
                seed=int(generator.integers(2**31)), n_startup_trials=STARTUP, constant_liar=True
            )
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.add_trials(self.studies[target].get_trials(deepcopy=False))
        cells, tried = {row[0] for row in untried}, {(told.cell, told.setting) for told in self.told.values()}
        for _ in range(ATTEMPTS):
            proposal = self._suggest(study.ask(), target)
            allowed = proposal[0] in cells if self.space.continuous else proposal in untried
            if allowed and proposal not in tried:
                return proposal
        return untried[int(generator.integers(len(untried)))]

    def _untried(self, target: str) -> list[tuple[Cell, Setting]]:
        """Rows of a target that were not tried; all of them where settings lie between those listed."""
        tried = set() if self.space.continuous else {(told.cell, told.setting) for told in self.told.values()}
        return [row for row in self.rows if row[0][0] == target and row not in tried]

    def _suggest(self, trial: BaseTrial, target: str) -> tuple[Cell, Setting]:
        """Run through the space by definition: the encoders follow from the architecture, a single choice is none."""
        cells = [known for known in self.known if known[0] == target]
        architecture = _choice(trial, "architecture", [c[1] for c in cells])
        own = [c for c in cells if c[1] == architecture]
        encoder = _choice(trial, f"encoder of {architecture}", [c[2] for c in own])
        loss = _choice(trial, "loss", [c[3] for c in cells])
        rate, decay, strength = (self._number(trial, name) for name in NUMBERS)
        return (target, architecture, encoder, loss), (rate, decay, strength)

    def _number(self, trial: BaseTrial, name: str) -> float:
        """Return one of the listed values, or one between them where the space is continuous."""
        listed = getattr(self.space, name)
        low, high = min(listed), max(listed)
        if not self.space.continuous or low == high:
            return float(_choice(trial, name, list(listed)))
        return float(f"{trial.suggest_float(name, low, high, log=name != 'augmentation' and low > 0):.4g}")

    def _named(self, cell: Cell, setting: Setting) -> dict[str, Any]:
        """Return a configuration by the names of `_suggest`."""
        _, architecture, encoder, loss = cell
        model = {"architecture": architecture, f"encoder of {architecture}": encoder, "loss": loss}
        return model | dict(zip(NUMBERS, setting, strict=True))


def _connect(file: Path) -> sqlite3.Connection:
    """Open Optuna's file; nobody waits until the disk has it, as it is never read back."""
    connection = sqlite3.connect(file, check_same_thread=False)
    connection.execute("PRAGMA synchronous=OFF")
    return connection


def _outcome(told: Told) -> tuple[TrialState, float | None]:
    """State of a trial that has ended, and its value where that is its result."""
    state = STATES[str(told.status)] if told.values else TrialState.FAIL
    return state, max(told.values.values()) if state == TrialState.COMPLETE else None


def _few(values: Mapping[int, float]) -> dict[int, float]:
    """Return a part of a trial's values by epoch, spread over it: the last, from which Optuna learns, is among them.

    >>> list(_few({epoch: 0.5 for epoch in range(1, 26)}))
    [1, 4, 7, 10, 13, 16, 19, 22, 25]
    """
    kept = sorted(values, reverse=True)[:: -(-len(values) // CURVE) or 1]
    return {epoch: values[epoch] for epoch in reversed(kept)}


def _choice(trial: BaseTrial, name: str, values: list[Any]) -> Any:
    choices = list(dict.fromkeys(values))
    return choices[0] if len(choices) == 1 else trial.suggest_categorical(name, choices)
