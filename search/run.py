"""From a folder of annotated microscope frames to the best model per target and a defended comparison.

    python -m search.run                                 synthetic movies, minutes on two CPU cores
    python -m search.run --data FOLDER --out RUN         your frames and masks

Each stage reads what the one before wrote; the same command on an existing RUN does what is missing.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
import traceback
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_io import errors, files, sealed
from data_io.errors import BadInput
from data_io.job_folder import refuse_relative
from data_io.location import refuse_remote
from data_io.secrecy import veiled
from search import console, destination, nodes, prepare, trust
from search.config import Config, dump
from search.console import say
from search.options import CONFIG_OF_A_RUN, parse
from search.signals import Ended, Halted, Signals
from search.storage import StorageLost
from search.stored_run import Unstored, kept_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from data_io.store import Dataset
    from search.frames import Banks
    from search.ledger import Ledger
    from search.metrics import Row
    from search.options import Options
    from search.scheduler import Watcher
    from search.space import Plan, TrialConfig
    from search.tracking import Tracker


OPTUNA = "optuna.db"
REFUSED = {errno.EACCES, errno.EPERM}
OUT_OF_ORDER = {*REFUSED, errno.EROFS, errno.EIO, errno.ESTALE}
"""What the file system says of a path of the run that it does not write or read."""


def main(arguments: list[str] | None = None) -> int:
    """Command line of the whole way."""
    trust.write_for_owner_only()
    trust.refuse_forced_pickles()
    options = parse(arguments)
    if (printed := options.printed()) is not None:
        print(printed, end="")
        return errors.DONE
    if options.replay is not None:
        from search.single import replay

        if isinstance(options.out, str):
            raise BadInput(f"{options.out}: a replay needs a folder; give one with --out")
        refuse_remote(options.replay)
        return replay(options.replay, options.out)
    kept = kept_at(options.resume, resumed=True)
    config = options.config(kept.bring_settings())
    if options.dry_run:
        return dry_run(config)
    where = place(options, config.data.path)
    kept = kept if kept.place else kept_at(where)
    run_dir = kept.folder or Path(where)
    if kept.place:
        say(f"{kept.place} is worked on in {run_dir}")
    signals = Signals()
    signals.install()
    try:
        if options.one_trial:
            from search.single import one_trial

            if kept.place:
                raise BadInput(f"{kept.place}: a single trial needs a folder; give one with --out")
            return one_trial(config, run_dir)
        return run(config, run_dir, signals, kept, accept_change=options.accept_change)
    except Ended as end:
        signals.ignore()
        print(f"{end}: stopped; go on with: {_how_to_go_on(run_dir, options, kept)}", file=sys.stderr)
        return end.code
    except Exception as fault:
        told = of_the_machine(fault, run_dir)
        if told is None:
            raise
        line = f"error: {told}; mend that, then go on with: {_how_to_go_on(run_dir, options, kept)}"
        print(errors.printable(veiled(line)), file=sys.stderr)
        return errors.PREEMPTED


def of_the_machine(fault: Exception, run_dir: Path) -> str | None:
    """Return what to say of a fault that lies in the machine, not in the program: a disk that is full, cannot be
    written to any more or does not answer. None of any other.
    """
    if isinstance(fault, Halted | StorageLost):
        return str(fault)
    if errors.is_disk_full(fault):
        return str(errors.disk_full(fault, run_dir))
    inner: BaseException | None = fault
    while inner is not None:
        if isinstance(inner, OSError) and inner.errno in OUT_OF_ORDER:
            named = inner.filename2 or inner.filename or (run_dir if inner.errno not in REFUSED else "/")
            path = Path(os.fsdecode(named))
            if path.resolve().is_relative_to(run_dir.resolve()):
                return f"{path}: cannot be written or read ({inner.strerror})"
        inner = inner.__cause__ or inner.__context__
    return None


def _how_to_go_on(run_dir: Path, options: Options, kept: Unstored) -> str:
    begun, where = (run_dir / CONFIG_OF_A_RUN).is_file() and not options.one_trial, kept.place or run_dir
    return f"python -m search.run --resume {where}" if begun else f"the same command and --out {where}"


def place(options: Options, data: str | None) -> Path | str:
    """Return where the run goes; inside a Ray job that is said, and every node of the cluster sees the place."""
    from cluster.joined import ALLOW, blind_nodes, without_reach
    from cluster.start import belongs_to_job, cluster_of_job

    asked = options.resume or options.out
    if not belongs_to_job(os.environ):
        return asked if isinstance(asked, str) else destination.outside_a_job(asked)
    if options.allow_insecure_cluster:
        os.environ[ALLOW] = "1"
    if asked is not None:
        refuse_relative(asked, "--resume" if options.resume else "--out", stores=True)
    destination.check_data(data)
    try:
        with cluster_of_job() as nodes:
            chosen, why = destination.in_a_job(asked, os.environ, len(nodes))
            say(f"run folder: {chosen} ({why})")
            destination.check_seen(chosen, nodes, blind_nodes)
            destination.check_reached([chosen, data], nodes, without_reach)
    except ConnectionError as fault:
        raise BadInput(str(fault)) from fault
    return chosen


def dry_run(config: Config) -> int:
    """Print the trials, the infeasible cells and the estimated cost; nothing is kept or trained."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = prepare.prepare_data(config, Path(folder))
        config = prepare.resolve(config, dataset)
        plan, notes = prepare.make_plan(config, dataset, Path(folder), fetch=False)
        console.show_plan(config, dataset, plan, notes)
    return errors.DONE


def run(
    config: Config, run_dir: Path, signals: Signals, kept: Unstored | None = None, *, accept_change: bool = False
) -> int:
    """Go the whole way in `run_dir`, skipping what is done; returns the exit code. `kept` keeps it elsewhere, too."""
    from search.lock import only_driver

    trust.refuse_foreign(run_dir)
    config = prepare.settled_config(config, run_dir, accept_change=accept_change)
    made, kept = prepare.make_folder(run_dir), kept or Unstored()
    with only_driver(run_dir, say):
        try:
            with kept.held(say):
                config = prepare.settled_config(config, run_dir, accept_change=accept_change)  # now that all is here
                prepare.remove_half_written(run_dir)
                dataset = prepare.prepare_data(config, run_dir)
                config = prepare.resolve(config, dataset)
                return _go(config, dataset, run_dir, signals, kept, accept_change=accept_change)
        except BadInput:
            if made:  # and nobody else works in it: the lock is ours
                prepare.remove_unstarted(run_dir)
            raise


def _go(
    config: Config, dataset: Dataset, run_dir: Path, signals: Signals, kept: Unstored, *, accept_change: bool
) -> int:
    """Plan, search, choose, predict, measure, compare; each step is a file the next one reads."""
    from search import changes, predict
    from search.ledger import Ledger
    from search.tracking import send_report

    plan, notes = prepare.make_plan(config, dataset, run_dir)
    ledger = Ledger.of_run(run_dir)
    try:
        accepted = changes.settle(ledger, changes.Made.of(config, dataset), accept=accept_change)
        notes = [*notes, *ledger.notes, *(f"accepted change: {change}" for change in accepted)]
        files.write_text(run_dir / CONFIG_OF_A_RUN, dump(config))
        files.write_json(run_dir / predict.RUN_FACTS, prepare.run_facts(config, dataset, run_dir))
        kept.put_needed(dataset)
        plan = extended(config, plan, ledger)
        with tracked(config, plan, run_dir, signals, kept) as tracker:
            plan = train(config, plan, dataset, run_dir, ledger, notes, signals, kept, tracker)
            facts, failed = hand_on(config, plan, dataset, run_dir, ledger, notes, signals, kept)
            report = compare(run_dir) if facts else None
            if report is not None:
                send_report(tracker, config.tracking, run_dir, dataset, report)
    finally:
        ledger.close()
    if not facts:
        kept.put_results()
        return errors.NO_TRIAL
    shutil.rmtree(run_dir / "cache", ignore_errors=True)
    kept.put_results()
    console.closing(facts, run_dir, report)
    if kept.place:
        say(f"all of it is kept in {kept.place}")
    if report is None:
        return errors.REPORT_FAILED
    return errors.PARTIAL if failed else errors.DONE


def train(
    config: Config,
    plan: Plan,
    dataset: Dataset,
    run_dir: Path,
    ledger: Ledger,
    notes: list[str],
    signals: Signals,
    kept: Unstored,
    tracker: Tracker,
) -> Plan:
    """Search: every trial that is not settled, on Ray, watched by the display and W&B; then the runs of the winner.

    Returns the plan with the trials that came up on the way.
    """
    from search.tuning import needs_training

    if kept.store is None:
        _open_again(config, plan, dataset, run_dir, ledger)
    console.announce(config, dataset, plan, notes, run_dir)
    if ledger.epochs:
        say(console.resumed(plan, ledger))
    if not needs_training(config, plan, ledger):
        say("search: finished before, nothing to train")
        return plan
    from cluster.start import start_ray, stop_ray

    console.announce_cost(config, dataset, plan)
    banks = prepare.decode_frames(config, dataset, run_dir, place=kept.dataset_of(dataset))
    kept.put_needed(dataset)  # with the memory that the frames were given
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        for notice in start_ray().notices:
            say(f"note: {notice}")
    except ConnectionError as fault:
        raise BadInput(str(fault)) from fault
    signals.install()
    try:
        return _train(config, plan, banks, run_dir, ledger, dataset.channels, signals, kept, tracker)
    finally:
        stop_ray()


def _open_again(config: Config, plan: Plan, dataset: Dataset, run_dir: Path, ledger: Ledger) -> None:
    """Have completed trials whose best checkpoint was lost trained again, unless the choice has been made."""
    from search.reopened import reopen, without_best
    from search.tuning import has_ended

    if has_ended(ledger, config):
        return
    if (run_dir / "best").is_dir():
        from search import select

        chosen = select.eligible(plan.trials, ledger.trials(), lambda trial: run_dir / "trials" / trial)
        if select.made_before(config, chosen, dataset, run_dir, lambda line: None):
            return
    lost = without_best(plan.trials, ledger, run_dir)
    for trial, best in lost.items():
        say(f"note: {trial}: the checkpoint of its best epoch, {best}, is damaged or missing; it is trained again")
    reopen(lost, ledger, run_dir)


def _train(
    config: Config,
    plan: Plan,
    banks: Banks,
    run_dir: Path,
    ledger: Ledger,
    channels: int,
    signals: Signals,
    kept: Unstored,
    tracker: Tracker,
) -> Plan:
    """Search in one go: the plan and what Optuna proposes, then the references of the winner."""
    from cluster.start import belongs_to_job
    from cluster.watch import watched
    from search.progress import Display
    from search.proposed import Proposed
    from search.shares import measured
    from search.tuning import needs_training, search

    def interrupted() -> bool:
        return signals.received is not None or kept.lost is not None

    grows = belongs_to_job(os.environ)
    shares = measured(config, plan.possible(), channels, ledger, say)
    advised = Proposed(config, plan, ledger, run_dir / OPTUNA)
    settled = {name: state.status for name, state in ledger.trials().items() if state.status}
    with (
        watched(partial(ray_is_lost, kept.place or run_dir)),
        signals.patiently(),
        Display(plan.trials, settled, config.budget.minutes) as display,
    ):
        watchers: list[Watcher] = [display, Tracking(tracker), advised]
        search(
            config,
            plan,
            banks,
            run_dir,
            ledger,
            watchers,
            shares,
            advised,
            interrupted,
            store=kept.store,
            grows=grows,
        )
        plan = extended(config, plan, ledger)
        if not interrupted() and needs_training(config, replace(plan, rows=()), ledger):
            search(
                config,
                plan,
                banks,
                run_dir,
                ledger,
                watchers,
                shares,
                None,
                interrupted,
                store=kept.store,
                grows=grows,
            )
    if again := console.came_again(ledger):
        say(again)
    if kept.lost is not None:
        raise Halted(kept.lost)
    nodes.clean(nodes.name_of(run_dir))
    return plan


def extended(config: Config, plan: Plan, ledger: Ledger) -> Plan:
    """Return the plan with what came up during the search: proposals, and the runs of the winner."""
    from search.proposed import with_proposed
    from search.winner import with_runs_of_winner

    return with_runs_of_winner(config, with_proposed(plan, ledger), ledger)


@contextmanager
def tracked(config: Config, plan: Plan, run_dir: Path, signals: Signals, kept: Unstored) -> Iterator[Tracker]:
    """Track a search from its first trial to its report; closed in a hurry where it was asked to end."""
    from search.sweep import description
    from search.tracking import make_tracker

    name = run_dir.resolve().name
    shown = description(name, plan.possible(), continuous=config.space.continuous)
    tracker = make_tracker(config.tracking, run_dir, name, shown)
    try:
        yield tracker
    finally:
        tracker.close(hurry=signals.received is not None or kept.lost is not None)


def _train_again(
    config: Config,
    run_dir: Path,
    ledger: Ledger,
    dataset: Dataset,
    signals: Signals,
    kept: Unstored,
    plan: Plan,
    banks: Banks,
) -> None:
    """Train the runs that confirm the choice, to their end, whatever the budget of the search was."""
    from cluster.start import belongs_to_job, start_ray, stop_ray
    from cluster.watch import watched
    from search.config import BudgetConfig
    from search.progress import Display
    from search.shares import measured
    from search.tuning import search

    def interrupted() -> bool:
        return signals.received is not None or kept.lost is not None

    grows = belongs_to_job(os.environ)
    config = config.model_copy(update={"budget": BudgetConfig()})
    if banks.source is not None:
        banks = replace(banks, source=replace(banks.source, dataset=kept.dataset_of(dataset)))
    start_ray()
    signals.install()
    try:
        shares = measured(config, plan.trials, dataset.channels, ledger, say)
        with (
            watched(partial(ray_is_lost, kept.place or run_dir)),
            signals.patiently(),
            Display(plan.trials, {}, None) as display,
        ):
            search(
                config,
                plan,
                banks,
                run_dir,
                ledger,
                [display],
                shares,
                None,
                interrupted,
                store=kept.store,
                grows=grows,
            )
        if kept.lost is not None:
            raise Halted(kept.lost)
        nodes.clean(nodes.name_of(run_dir))
        kept.bring_trials(trial.id for trial in plan.trials)
    finally:
        stop_ray()


def ray_is_lost(run: Path | str, which: str) -> None:
    """End this process: without Ray's own it would wait for ever; what was done is on disk."""
    from cluster.watch import end_session

    how = f"python -m search.run --resume {run}"
    print(f"error: Ray on this machine has died ({which}); go on with: {how}", file=sys.stderr, flush=True)
    end_session()
    os._exit(errors.PREEMPTED)


class Tracking:
    """The watcher that passes the search on to the tracker."""

    def __init__(self, tracker: Any) -> None:
        self.tracker = tracker

    def started(self, trial: TrialConfig) -> None:
        """See `search.scheduler.Watcher`."""
        self.tracker.start_trial(trial.id, trial.model_dump(mode="json"))

    def epoch(self, trial: TrialConfig, row: Row) -> None:
        """See `search.scheduler.Watcher`."""
        self.tracker.epoch(trial.id, row)

    def ended(self, trial: TrialConfig, status: str, reason: str) -> None:
        """See `search.scheduler.Watcher`."""
        self.tracker.finish_trial(trial.id, {"status": status, "reason": reason})


def hand_on(
    config: Config,
    plan: Plan,
    dataset: Dataset,
    run_dir: Path,
    ledger: Ledger,
    notes: list[str],
    signals: Signals,
    kept: Unstored,
) -> tuple[dict[str, Any], bool]:
    """Choose the models, confirm them, predict, find and measure the cells, write the tables.

    Returns summary.json (empty when no trial is usable, which is said) and whether frames failed.
    """
    from postprocess.export import read_labels
    from postprocess.run import print_progress
    from postprocess.run import run as postprocess
    from search import predict, results, select
    from search.confirm import confirm

    states = ledger.trials()
    candidates = [
        trial.id for trial in plan.trials if trial.id in states and states[trial.id].status in select.ELIGIBLE
    ]
    kept.bring_trials(candidates, curves_of=states.keys() - set(candidates))
    chosen = select.eligible(plan.trials, states, lambda trial: run_dir / "trials" / trial)
    if not chosen:
        console.say_why_none(plan, ledger)
        return {}, False
    say("choosing: validation frames, decode parameters, one model per target")
    selection = select.choose(config, chosen, dataset, run_dir, say)
    if not selection.models:
        say("no trial is usable: none of the checkpoints could be applied to the validation frames")
        return {}, False
    notes = [*notes, *(f"{trial} was left out of the choice: {why}" for trial, why in selection.left_out.items())]
    kept.put_needed(dataset)
    train_again = partial(_train_again, config, run_dir, ledger, dataset, signals, kept)
    confirmed = confirm(config, plan.trials, selection, dataset, run_dir, ledger, train_again, say)
    trials = results.trials_table(plan, ledger, prepare.count_parameters(plan, dataset), selection)
    results.write_trials(run_dir, trials)
    predict.predict(run_dir, run_dir, dataset, predict.held_out(dataset), rule_of_model=False, say=say)
    say("instances and morphology")
    done = postprocess(run_dir, progress=print_progress)
    read = partial(read_labels, run_dir)
    facts = results.summary(config, plan, ledger, dataset, selection, confirmed, read, trials, notes)
    sealed.write(run_dir / "summary.json", facts)
    return facts, bool(done.failed)


def compare(run_dir: Path) -> Path | None:
    """Write the comparison and the report; None where that failed: the numbers stand, and the reason is kept."""
    from analysis.compare import compare_run

    say("comparison and report")
    failed = run_dir / "report_error.txt"
    try:
        report = compare_run(run_dir)
    except Exception as fault:
        if errors.is_disk_full(fault):
            raise
        files.write_text(failed, veiled(traceback.format_exc()))
        told = f"report failed: {fault}; numbers are saved, details in {failed}"
        print(errors.printable(veiled(told)), file=sys.stderr)
        return None
    failed.unlink(missing_ok=True)
    return report


if __name__ == "__main__":
    sys.exit(errors.entry_point(main))
