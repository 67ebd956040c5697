"""One trial without Ray: alone, as ``wandb agent`` calls it, or once more to see that its numbers come out again."""

from __future__ import annotations

import math
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from data_io import errors, files
from data_io.damage import one_line
from data_io.errors import BadInput
from search import prepare, strict_yaml, trust
from search.asha import has_diverged
from search.config import dump, load
from search.console import say
from search.lock import only_driver
from search.metrics import COLUMNS, Row, read_metrics
from search.options import CONFIG_OF_A_RUN
from search.predict import RUN_FACTS, dataset_of
from search.recorder import Diverged
from search.signals import Ended
from search.space import TrialConfig
from search.tracking import make_tracker

if TYPE_CHECKING:
    from collections.abc import Callable

    from data_io.store import Dataset
    from search.config import Config
    from search.frames import Banks

NOT_REPRODUCED = {"seconds", "memory_mb"}
"""Columns of metrics.csv that tell of the machine."""


def one_trial(config: Config, run_dir: Path) -> int:
    """Train the only trial of a configuration in ``run_dir/trials/<id>``; a trial that was cut goes on.

    The folder is held as that of a search is: a second process is refused, each trial has a folder of its own.
    """
    config = config.model_copy(update={"schedule": config.schedule.model_copy(update={"references": ()})})
    trust.refuse_foreign(run_dir)
    config = prepare.settled_config(config, run_dir)
    made = prepare.make_folder(run_dir)
    with only_driver(run_dir, say):
        try:
            config = prepare.settled_config(config, run_dir)  # another may have been here meanwhile
            prepare.remove_half_written(run_dir)
            dataset = prepare.prepare_data(config, run_dir)
            config = prepare.resolve(config, dataset)
            trial = _only_trial(config, dataset, run_dir)
        except BadInput:
            if made:
                prepare.remove_unstarted(run_dir)
            raise
        files.write_text(run_dir / CONFIG_OF_A_RUN, dump(config))
        files.write_json(run_dir / RUN_FACTS, prepare.run_facts(config, dataset, run_dir))
        return _tracked(config, trial, dataset, run_dir)


def _tracked(config: Config, trial: TrialConfig, dataset: Dataset, run_dir: Path) -> int:
    """Train a trial and pass its epochs on; returns the exit code."""
    tracker = make_tracker(config.tracking, run_dir, run_dir.name)
    tracker.start_trial(trial.id, trial.model_dump(mode="json"))
    status, hurry = "failed", False
    try:
        banks = prepare.decode_frames(config, dataset, run_dir)
        best = _train(trial, banks, run_dir / "trials" / trial.id, run_dir, told=partial(tracker.epoch, trial.id))
        status = "completed"
    except Diverged as fault:
        status = "diverged"
        say(f"DIVERGED {trial.id}: {fault}")
        return errors.NO_TRIAL
    except Ended:
        status, hurry = "interrupted", True
        raise
    finally:
        tracker.finish_trial(trial.id, {"status": status})
        tracker.close(hurry=hurry)
    say(f"{trial.id}: best epoch {best['epoch']}, validation dataset IoU {best['val_dataset_iou']:.6f}")
    return errors.DONE


def _only_trial(config: Config, dataset: Dataset, run_dir: Path) -> TrialConfig:
    plan, notes = prepare.make_plan(config, dataset, run_dir)
    for cell in plan.infeasible:
        raise BadInput(f"{cell.target} {cell.architecture} {cell.encoder} {cell.loss}: infeasible: {cell.reason}")
    if len(plan.trials) != 1:
        raise BadInput(f"{len(plan.trials)} trials; name one target, architecture, encoder, loss and seed")
    for note in notes:
        say(f"note: {note}")
    return plan.trials[0]


def replay(trial_folder: Path, out: Path | None = None) -> int:
    """Train a trial of a finished run once more and hold its metrics against the recorded ones.

    Parameters
    ----------
    trial_folder
        ``RUN/trials/<id>``.
    out
        Where to train; None takes a folder that is removed afterwards.

    Returns
    -------
    int
        An exit code: 0 where every recorded value came out bit by bit, 4 where one differs, which is printed. On a GPU
        only training with ``train.deterministic`` can be expected to repeat.
    """
    try:
        recorded = read_metrics(trial_folder / "metrics.csv")
    except (ValueError, KeyError, TypeError) as fault:
        told = f"{trial_folder / 'metrics.csv'}: damaged ({one_line(fault)})"
        raise BadInput(f"{told}; restore it as the search wrote it") from fault
    file = trial_folder / "config.yaml"
    if not recorded or not file.is_file():
        raise BadInput(f"{trial_folder}: no trained trial; give RUN/trials/ID")
    run_dir = trial_folder.absolute().parent.parent
    trial = _recorded_trial(file)
    if trial.processes > 1:
        raise BadInput(
            f"{trial.id}: {trial.processes} processes trained it together; only a trial of one can be replayed"
        )
    config, dataset = load(None, run_dir / CONFIG_OF_A_RUN, []), dataset_of(run_dir)
    if trial.fold is not None:
        dataset = dataset.in_fold(trial.fold)
    with tempfile.TemporaryDirectory() as scratch:
        folder = out or Path(scratch)
        if (folder / "metrics.csv").exists():
            raise BadInput(f"{folder}: holds a trial; give a new folder with --out")
        banks = prepare.decode_frames(config, dataset, run_dir, into=Path(scratch))
        _train(trial, banks, folder, run_dir, last=recorded[-1]["epoch"])
        again = read_metrics(folder / "metrics.csv")
    if (difference := first_difference(recorded, again)) is not None:
        say(f"{trial.id}: differs: {difference}")
        return errors.PARTIAL
    say(f"{trial.id}: {len(recorded)} epochs, every metric equal to the recorded one")
    return errors.DONE


def _recorded_trial(file: Path) -> TrialConfig:
    try:
        tree, _ = strict_yaml.read(file.read_text(encoding="utf-8"), str(file))
        return TrialConfig.model_validate(tree)
    except UnicodeDecodeError as fault:
        raise BadInput(f"{file}: not UTF-8 text; restore the file as the search wrote it") from fault
    except ValidationError as fault:
        first = fault.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise BadInput(f"{file}: {place}: {first['msg']}; restore the file as the search wrote it") from fault


class _Enough(Exception):
    """The last epoch to be trained is over."""


def _train(
    trial: TrialConfig,
    banks: Banks,
    folder: Path,
    run_dir: Path,
    last: int | None = None,
    told: Callable[[Row], None] | None = None,
) -> Row:
    """Train in this process, on the threads the trial had; every epoch is printed and `told`; stop after `last`."""
    import torch

    from search.metrics import best_row
    from search.trial import run_trial
    from search.weights import FOLDER

    def report(row: Row) -> None:
        values = "  ".join(f"{name} {row[name]:.6g}" for name in ("train_loss", "val_loss", "val_dataset_iou"))
        say(f"epoch {row['epoch']}/{trial.epochs}  {values}  {row['seconds']:.1f} s")
        if told is not None:
            told(row)
            if has_diverged(row["train_loss"]) or has_diverged(row["rung_metric"]):
                raise Diverged(f"epoch {row['epoch']}: training loss {row['train_loss']}, rung {row['rung_metric']}")
        if row["epoch"] == last:
            raise _Enough

    torch.set_num_threads(max(1, int(trial.cpus)))
    try:
        return run_trial(trial, banks, folder, report, run_dir / FOLDER)
    except _Enough:
        return best_row(read_metrics(folder / "metrics.csv"))


def first_difference(recorded: list[Row], again: list[Row]) -> str | None:
    """Return where two metrics tables differ first, None where every value but the times is the same."""
    if len(recorded) != len(again):
        return f"{len(recorded)} epochs recorded, {len(again)} trained"
    for old, new in zip(recorded, again, strict=True):
        for name in COLUMNS:
            same = old[name] == new[name] or (math.isnan(old[name]) and math.isnan(new[name]))
            if name not in NOT_REPRODUCED and not same:
                return f"epoch {old['epoch']}: {name} {old[name]!r}, now {new[name]!r}"
    return None
