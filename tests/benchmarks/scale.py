"""How a search grows: many trials that train nothing, on many nodes that are none, through the real driver.

    python tests/benchmarks/scale.py                        500 trials, 16 nodes
    python tests/benchmarks/scale.py --trials 2000          the same for 2,000
    python tests/benchmarks/scale.py --trials 32 --epochs 100 --whole     reports of trials that last
    python tests/benchmarks/scale.py requests               what an epoch asks of an object store (that of the tests)
    python tests/benchmarks/scale.py ledger                 reading and replaying ledgers of 10^4, 10^5 and 10^6 epochs
    python tests/benchmarks/scale.py advice                 filling Optuna's studies from 10^4 and 10^5 epochs

Nodes are raylets on this machine with one core each that Ray is merely told of; a trial reports its epochs and ends. So
reports per second are what the driver and Ray manage, with nothing in between; the driver does all that it does in a
search: ledger, early stopping, display, Optuna's file, TensorBoard's. cluster/scale.md says what follows.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import signal
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

HOME = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(HOME))
os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:
    from collections.abc import Callable

    from search.config import Config
    from search.ledger import Ledger
    from search.space import TrialConfig

STATE = 20_000
"""Bytes of the checkpoint of a trial that is kept in the object store."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="trials", choices=("trials", "requests", "ledger", "advice"))
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=4, help="of each trial, unless early stopping ends it")
    parser.add_argument("--whole", action="store_true", help="no early stopping: long trials, few changes of trial")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        parts = {"trials": time_trials, "requests": count_requests, "ledger": time_ledger, "advice": time_advice}
        parts[given.what](Path(folder), given)
    return 0


def toy(trial: TrialConfig, banks: Any, folder: Path, report: Callable[[Any], None], encoders: Path) -> None:
    """Report the epochs of a trial that trains nothing."""
    from search.metrics import COLUMNS

    for epoch in range(1, trial.epochs + 1):
        report(dict.fromkeys(COLUMNS, 0.5) | {"epoch": epoch, "rung_metric": trial.learning_rate * epoch})


def kept_toy(trial: TrialConfig, banks: Any, folder: Path, report: Callable[[Any], None], encoders: Path) -> None:
    """Report epochs with what a trial leaves in each: metrics, and a checkpoint as every epoch improves."""
    from search import checkpoints
    from search.metrics import COLUMNS, write_metrics

    rows = []
    folder.mkdir(parents=True, exist_ok=True)
    for epoch in range(1, trial.epochs + 1):
        rows.append(dict.fromkeys(COLUMNS, 0.5) | {"epoch": epoch, "rung_metric": trial.learning_rate * epoch})
        write_metrics(folder / "metrics.csv", rows)
        if epoch % trial.train.checkpoint_every == 0 or epoch == trial.epochs:
            new = checkpoints.begin(folder / "checkpoints", epoch)
            (new / checkpoints.STATE).write_bytes(bytes(STATE))
            write_metrics(new / checkpoints.METRICS, rows)
            checkpoints.seal(new, epoch, rows[-1]["rung_metric"])
            checkpoints.prune(folder / "checkpoints", {epoch})
        report(rows[-1])


def trials_of(config: Config, count: int, epochs: int) -> list[TrialConfig]:
    """Return trials that differ in their learning rate."""
    from search.space import TrialConfig

    facts: dict[str, Any] = {
        "target": "two_class", "architecture": "unet", "encoder": "resnet18", "loss": "dice", "weight_decay": 1e-4,
        "augmentation": 0.5, "seed": 1, "crop": 64, "output_stride": None, "encoder_weights": None,
        "reference": False, "epochs": epochs, "cpus": 1.0, "train": config.train,
    }  # fmt: skip
    return [
        TrialConfig(id=f"trial-{number:05d}", learning_rate=((number * 7919) % count + 1) / count, **facts)
        for number in range(count)
    ]


class Cluster:
    """A head and nodes of one core each; a context manager."""

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes

    def __enter__(self) -> Cluster:
        import ray
        from ray.cluster_utils import Cluster as Raylets

        paths = os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")])
        os.environ |= {"PYTHONPATH": paths, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        began = time.perf_counter()
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80 << 20}
        self.raylets = Raylets(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
        for _ in range(self.nodes):
            self.raylets.add_node(num_cpus=1, object_store_memory=80 << 20, wait=False)
        self.raylets.wait_for_nodes()
        ray.init(address=self.raylets.address, log_to_driver=False, logging_level=logging.ERROR)
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # so that the raylets end, too
        print(f"{self.nodes} nodes started in {time.perf_counter() - began:.0f} s", flush=True)
        return self

    def __exit__(self, *fault: object) -> None:
        from cluster.start import address_file, stop_ray

        address = str(self.raylets.address)
        stop_ray()
        self.raylets.shutdown()
        if address_file().exists() and address_file().read_text().strip() == address:
            address_file().unlink()


SETTINGS = (
    "budget.minutes=null",
    "schedule.grace_epochs=1",
    "resources.hang_minutes=null",
    "tracking.wandb=disabled",
    "space.mode=random",
    "space.trials=1",
    "space.continuous=true",
    "space.learning_rate=[1e-6, 1]",
)


def searched(
    folder: Path,
    trials: list[TrialConfig],
    train: Any,
    store: Any = None,
    *,
    whole: bool = False,
    to_next_epoch: bool = False,
) -> tuple[Ledger, float]:
    """Run a search of toys, or go on with one `to_next_epoch`; return its ledger and the seconds it took.

    Without early stopping they run to their `whole` end.
    """
    from search.config import load
    from search.frames import Banks
    from search.ledger import LEDGER, Ledger
    from search.progress import Display
    from search.proposed import Proposed
    from search.run import OPTUNA, Tracking
    from search.shares import Shares
    from search.space import Plan
    from search.tracking import make_tracker
    from search.tuning import search

    config = load("demo", None, [*SETTINGS, f"schedule.asha={'false' if whole else 'true'}"])
    plan = Plan(tuple(trials), ())
    folder.mkdir(exist_ok=True)
    began = time.perf_counter()
    ledger = Ledger(folder / LEDGER)
    before = ledger.epochs
    tracker = make_tracker(config.tracking, folder, folder.name)
    advised = Proposed(config, plan, ledger, folder / OPTUNA)
    with Path(os.devnull).open("w") as nowhere, Display(plan.trials, {}, None, nowhere) as display:
        search(
            config,
            plan,
            Banks(folder, folder),
            folder,
            ledger,
            [display, Tracking(tracker), advised],
            Shares(config, {}, 1.0, 0.0, ledger),
            advised,
            lambda: to_next_epoch and ledger.epochs > before,
            train=train,
            store=store,
        )
    seconds = time.perf_counter() - began
    tracker.close()
    return ledger, seconds


def go_on(folder: Path, ledger: Path, trials: list[TrialConfig]) -> float:
    """Return the seconds from a ledger that ends in the middle to the first new epoch; the libraries are loaded."""
    from search.ledger import LEDGER

    folder.mkdir()
    lines = ledger.read_bytes().splitlines(keepends=True)
    (folder / LEDGER).write_bytes(b"".join(lines[: len(lines) // 2]))
    again, seconds = searched(folder, trials, toy, to_next_epoch=True)
    again.close()
    return seconds


def time_trials(folder: Path, given: argparse.Namespace) -> None:
    """Time a search and say what the driver needed for it."""
    from search.config import load

    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    with Cluster(given.nodes):
        trials = trials_of(load("demo", None, []), given.trials, given.epochs)
        _, seconds = searched(folder / "first", trials[: given.nodes], toy)
        print(f"each has a process after another {seconds:.0f} s", flush=True)
        before, cpu = resident(), time.process_time()
        with Peak() as peak:
            ledger, seconds = searched(folder / "run", trials, toy, whole=given.whole)
        cpu = time.process_time() - cpu
        size = ledger.path.stat().st_size
        states = [state.status for state in ledger.trials().values()]
        assert set(states) <= {"completed", "stopped"}, set(states)
        print(f"{given.trials} trials on {given.nodes} nodes of one core: {ledger.epochs} epochs in {seconds:.1f} s")
        print(
            f"  reports per second     {ledger.epochs / seconds:8.1f}    trials per second {given.trials / seconds:.1f}"
        )
        print(f"  driver, processor      {1e3 * cpu / ledger.epochs:8.1f} ms per epoch, {cpu / seconds:.0%} of a core")
        print(f"  driver, memory         {before / 1e6:8.0f} MB before, {peak.most / 1e6:.0f} MB at most")
        print(f"  ledger                 {size / 1e3:8.0f} kB, {size / len(ledger.events):.0f} bytes per line")
        print(f"  early stopping         {states.count('stopped'):8d} of {given.trials} trials")
        print(f"  Ray's own processes    {of_ray() / 1e6:8.0f} MB for {given.nodes + 1} nodes and the control store")
        ledger.close()
        seconds = go_on(folder / "resumed", ledger.path, trials)
        print(f"  going on from half     {seconds:8.1f} s to the first new epoch, libraries loaded and Ray started")


def count_requests(folder: Path, given: argparse.Namespace) -> None:
    """Count what trials and driver ask of an object store."""
    from search.config import load
    from search.storage import Storage
    from search.stored_run import StoredRun
    from tests.s3_stand_in import S3

    logging.disable(logging.WARNING)
    s3 = S3()
    os.environ |= s3.environment
    s3.make_bucket("scale")
    few = min(given.trials, 32)
    for every in (1, given.epochs):
        with Cluster(2):
            config = load("demo", None, [f"train.checkpoint_every={every}"])
            run = StoredRun(Storage.at(f"s3://scale/every{every}"), folder)
            run.folder.mkdir(parents=True)
            s3.asked.clear()
            with run.held(print):
                ledger, seconds = searched(run.folder, trials_of(config, few, given.epochs), kept_toy, run.store)
            asked = dict(s3.asked)
            ledger.close()
        print(f"{few} trials, {ledger.epochs} epochs, a checkpoint every {every}; {seconds:.0f} s")
        for (method, part), count in sorted(asked.items(), key=lambda item: -item[1]):
            print(f"  {method:6s} {part or 'list':12s} {count:6d}   {count / ledger.epochs:.2f} per epoch")
    s3.unplug()


def time_ledger(folder: Path, given: argparse.Namespace) -> None:
    """Time, by the processor, reading and replaying a ledger, and say what it takes in memory."""
    from search.asha import Bracket
    from search.config import load
    from search.ledger import Ledger
    from search.metrics import COLUMNS
    from search.scheduler import Judge

    config = load("demo", None, ["schedule.grace_epochs=1"])
    for count in (10**4, 10**5, 10**6):
        trials = trials_of(config, max(1, count // 100), 100)
        path = folder / f"{count}.jsonl"
        if (writer := os.fork()) == 0:  # what a process has used before is no measure of what it needs
            os.fsync = lambda fd: None  # nor is the disk what is measured
            ledger = Ledger(path)
            for number in range(count):
                row = dict.fromkeys(COLUMNS, 0.123456) | {"epoch": number % 100 + 1}
                ledger.epoch(trials[number // 100].id, row)
            os._exit(0)
        os.waitpid(writer, 0)
        before, began = resident(), time.process_time()
        ledger = Ledger(path)
        read = time.process_time() - began
        judge = Judge(tuple(trials), config.schedule)
        began = time.process_time()
        judge.replay(ledger)
        replayed = time.process_time() - began
        memory = resident() - before
        times = f"read in {read:5.2f} s, replayed in {replayed:5.2f} s"
        per_epoch = f"{memory / 1e6:6.0f} MB of memory ({memory / count:.0f} bytes an epoch)"
        print(f"{count:8d} epochs: {path.stat().st_size / 1e6:6.1f} MB, {times}, {per_epoch}")
        assert isinstance(judge.brackets["two_class"], Bracket)
        ledger.close()
        path.unlink()


def time_advice(folder: Path, given: argparse.Namespace) -> None:
    """Time, by the processor, what Optuna is told when a search goes on: 100 epochs of each trial that has ended."""
    from search.config import load
    from search.ledger import LEDGER, Ledger
    from search.metrics import COLUMNS
    from search.proposed import Proposed
    from search.space import Plan

    warnings.filterwarnings("ignore")
    config = load("demo", None, list(SETTINGS))
    for count in (10**4, 10**5):
        trials = trials_of(config, count // 100, 100)
        path = folder / f"{count}.{LEDGER}"
        with path.open("w") as file:
            for trial in trials:
                file.write(json.dumps({"event": "start", "trial": trial.id, "time": 0}) + "\n")
                for epoch in range(1, 101):
                    row = dict.fromkeys(COLUMNS, 0.123456) | {"epoch": epoch}
                    file.write(json.dumps({"event": "epoch", "trial": trial.id, "time": 0, **row}) + "\n")
                file.write(json.dumps({"event": "complete", "trial": trial.id, "time": 0}) + "\n")
        ledger = Ledger(path)
        before, began = resident(), time.process_time()
        advised = Proposed(config, Plan(tuple(trials), ()), ledger, folder / f"{count}.db")
        seconds, memory = time.process_time() - began, resident() - before
        began = time.process_time()
        advised.started(more := trials[0].model_copy(update={"id": "one-more"}))
        begun = time.process_time() - began
        began = time.process_time()
        advised.epoch(more, {"epoch": 1, "rung_metric": 0.5})
        told = time.process_time() - began
        began = time.process_time()
        advised.ended(more, "completed", "")
        ended = time.process_time() - began
        size = (folder / f"{count}.db").stat().st_size
        print(
            f"{count:8d} epochs of {len(trials)} trials: {seconds:5.1f} s, {1e3 * seconds / len(trials):.0f} ms each, "
            f"{memory / 1e6:.0f} MB of memory, {size / 1e6:.1f} MB on disk; "
            f"then {1e3 * begun:.0f} ms a trial, {1e3 * told:.1f} ms an epoch, {1e3 * ended:.0f} ms an end"
        )
        ledger.close()


class Peak:
    """The most memory that this process had while entered, looked at ten times a second."""

    def __enter__(self) -> Peak:
        self.most, self._over = resident(), threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._over.wait(0.1):
            self.most = max(self.most, resident())

    def __exit__(self, *fault: object) -> None:
        self._over.set()
        self._thread.join()


def resident(process: str = "self") -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize()


def of_ray() -> int:
    """Bytes of memory of the raylets, agents and the control store below this process."""
    children: dict[str, list[str]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = stat.read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        children.setdefault(parent, []).append(stat.parent.name)
    total, waiting = 0, list(children.get(str(os.getpid()), []))
    while waiting:
        process = waiting.pop()
        waiting += children.get(process, [])
        try:
            if b"ray::" not in Path(f"/proc/{process}/cmdline").read_bytes():
                total += resident(process)
        except OSError:
            continue
    return total


if __name__ == "__main__":
    sys.exit(main())
