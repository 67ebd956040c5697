"""Several nodes, played by raylets on this machine, each with a disk of its own and GPUs that Ray is merely told of.

Slow: a raylet needs seconds to start, and so does the finding that one is gone. What is decided about a lost node, a
store out of reach and frames is tested without nodes in `test_nodes_home` and `tests/search/test_scheduler.py`.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from cluster.start import address_file, stop_ray
from data_io import synthetic
from data_io.convert import convert
from search import prepare, stored_run
from search.config import Config, load
from search.ledger import LEDGER, Ledger
from search.nodes import clean, name_of
from search.shares import Shares
from search.signals import Halted
from search.space import Plan
from search.storage import Storage
from search.stored_run import StoredRun
from search.tuning import search
from tests.cluster import nodes_toy
from tests.faults import toy
from tests.s3_stand_in import S3
from tests.search.trials import a_trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from data_io.store import Dataset
    from search.space import TrialConfig

pytestmark = pytest.mark.slow

HOME = str(Path(__file__).resolve().parents[2])
SETTINGS = ["train.crop=64", "train.batch_size=4", "train.checkpoint_every=2", "schedule.asha=false"]
CONFIG: Config = load("demo", None, [*SETTINGS, "budget.minutes=null", "resources.hang_minutes=null"])
QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
"""How soon Ray finds out that a node is lost; by default it takes some 15 seconds."""


class Nodes:
    """A cluster whose head trains nothing; `add` a node, `kill` its raylet."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        from ray.cluster_utils import Cluster

        self.folder = folder
        self.environment = environment
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": QUICK, "env_vars": environment}
        self.cluster = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
        self.nodes: dict[str, Any] = {}

    def add(self, name: str, gpus: int) -> None:
        """Start a node with GPUs, cores enough, and its own disk."""
        disk = {"SEARCH_SCRATCH": str(self.disk(name))}
        self.nodes[name] = self.cluster.add_node(num_cpus=8, num_gpus=gpus, env_vars=self.environment | disk)

    def kill(self, name: str) -> None:
        """Kill the node with all its processes."""
        self.cluster.remove_node(self.nodes.pop(name), allow_graceful=False)

    def disk(self, name: str) -> Path:
        """Return the disk of a node."""
        return self.folder / "disks" / name

    def decodes(self, name: str, run: str) -> int:
        """Return how often the frames of a run were decoded on a node."""
        files = list(self.disk(name).glob(f"*/{run}/*/decodes.jsonl"))
        return sum(len(file.read_text().splitlines()) for file in files)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    pytest.importorskip("moto.server")
    server = S3()
    yield server
    server.unplug()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("told")


@pytest.fixture(scope="module")
def nodes(s3: S3, told: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    import ray

    with pytest.MonkeyPatch.context() as patch:
        ours = {"PYTHONPATH": HOME, nodes_toy.TOLD: str(told), "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        for name, value in (s3.environment | ours).items():
            patch.setenv(name, value)
        cluster = Nodes(tmp_path_factory.mktemp("nodes"), ours)
        cluster.add("a", 1)
        cluster.add("b", 2)
        address = cluster.cluster.address
        ray.init(address=address, log_to_driver=False)
        yield cluster
        stop_ray()
        cluster.cluster.shutdown()
        if address_file().exists() and address_file().read_text().strip() == address:
            address_file().unlink()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("movie")
    synthetic.write(folder / "raw", fields=3, frames=2, size=(128, 128), preset="easy", seed=1)
    return convert(folder / "raw", folder / "dataset.zarr")


def trial_of(name: str, **changes: Any) -> TrialConfig:
    return a_trial(CONFIG.train, **({"id": name, "epochs": 4, "cpus": 0.5} | changes))


class Given(Shares):
    """Shares that are what the trials ask for."""

    def place(self, trial: TrialConfig) -> TrialConfig:
        return trial


def train(trials: list[TrialConfig], banks: Any, run_dir: Path, **options: Any) -> Ledger:
    ledger = Ledger(run_dir / LEDGER)
    plan, shares = Plan(tuple(trials), ()), Given(CONFIG, {}, 0.5, 0.5, ledger)
    search(CONFIG, plan, banks, run_dir, ledger, [], shares, train=nodes_toy.train, **options)
    return ledger


def stories(told: Path, trials: list[TrialConfig]) -> list[dict[str, Any]]:
    ids = {trial.id for trial in trials}
    return [one for file in sorted(told.glob("*.json")) if (one := json.loads(file.read_text()))["trial"] in ids]


def numbers(ledger: Ledger, trial: TrialConfig) -> list[tuple[float, float]]:
    """Rung metric and, as the toy has it, the trace of every epoch, in order."""
    rows = ledger.trials()[trial.id].rows
    return [(rows[epoch]["rung_metric"], rows[epoch]["val_loss"]) for epoch in sorted(rows)]


def undisturbed(trial: TrialConfig) -> list[tuple[float, float]]:
    return [(row["rung_metric"], row["val_loss"]) for row in toy.expected(trial.id, trial.epochs)]


def until(holds: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.1)


def test_gpus_are_packed_a_reference_has_a_node_a_lost_node_costs_nothing_and_a_new_one_is_used(
    nodes: Nodes, told: Path, dataset: Dataset, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    banks = prepare.decode_frames(CONFIG, dataset, run_dir)
    whole = trial_of("whole-node", processes=2, gpus=1.0, cpus=1.0, reference=True)
    halves = [trial_of(f"half-{number}", gpus=0.5) for number in range(8)]
    happened: list[BaseException] = []

    def disturb() -> None:
        try:
            until(lambda: sum(story["node"] == "b" for story in stories(told, halves)) >= 4)
            nodes.kill("b")
            nodes.add("c", 2)
            until(lambda: any(story["node"] == "c" for story in stories(told, halves)))
        except BaseException as fault:
            happened.append(fault)
        finally:
            gate.unlink()

    gate = told / nodes_toy.GATE
    gate.touch()
    thread = threading.Thread(target=disturb)
    thread.start()
    ledger = train([whole, *halves], banks, run_dir, grows=True)
    thread.join()
    assert not happened, happened
    states = ledger.trials()
    assert {trial.id: states[trial.id].status for trial in [whole, *halves]} == dict.fromkeys(
        [trial.id for trial in [whole, *halves]], "completed"
    )
    causes = [event["cause"] for event in ledger.events if event["event"] == "retry"]
    assert len(causes) == 4
    assert set(causes) <= {"node", "death"}, "Ray may notice the broken connection before the loss of the node"
    assert not [event for event in ledger.events if event["event"] == "fail"]
    for trial in [whole, *halves]:
        assert numbers(ledger, trial) == undisturbed(trial), trial.id
    whole_stories = stories(told, [whole])
    assert [(s["node"], len(s["nodes_of_bundles"])) for s in whole_stories] == [("b", 1)]
    own = stories(told, halves)
    for node, gpu in {(s["node"], *s["gpus"]) for s in own}:
        spans = [(s["began"], s["last"]) for s in own if (s["node"], *s["gpus"]) == (node, gpu)]
        most = max(sum(a <= moment < b for a, b in spans) for moment, _ in spans)
        assert most == 2 or (node == "c" and most == 1), f"{most} trials at a time on GPU {gpu} of {node}"
    assert {(s["node"], *s["gpus"]) for s in own} >= {("a", "0"), ("b", "0"), ("b", "1")}
    moved = {s["trial"] for s in own if s["node"] == "b"} & {s["trial"] for s in own if s["node"] in ("a", "c")}
    assert len(moved) >= 4
    assert any(s["node"] == "c" for s in own), "the node that came later is used"
    run = name_of(run_dir)
    assert {name: nodes.decodes(name, run) for name in "abc"} == {"a": 1, "b": 1, "c": 1}
    assert all(str(nodes.disk(s["node"])) in s["frames"] for s in own), "each node reads its own frames"
    clean(run)
    assert not list(nodes.disk("a").glob(f"*/{run}")), "nothing is left on a node"


def test_a_run_in_an_object_store_goes_on_in_another_folder_and_keeps_what_the_rules_say(
    nodes: Nodes, s3: S3, told: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_run, "PAUSE", 0.1)
    s3.make_bucket("runs")
    store = Storage.at("s3://runs/one", 30)
    trials = [trial_of(f"stored-{number}", gpus=0.5) for number in range(3)]
    said: list[str] = []
    for folder, enough in (("here", 5), ("elsewhere", 10**9)):
        run = StoredRun(store, tmp_path / folder)
        prepare.make_folder(run.folder)
        with run.held(said.append):
            run.put_needed(dataset)
            place = run.dataset_of(dataset)
            assert place == "s3://runs/one/dataset.zarr"
            banks = prepare.decode_frames(CONFIG, dataset, run.folder, place=place)

            def interrupted(run: StoredRun = run, enough: int = enough) -> bool:
                return (run.folder / LEDGER).read_text().count('"epoch"') >= enough

            ledger = train(trials, banks, run.folder, store=store, interrupted=interrupted)
            run.bring_trials(trial.id for trial in trials)
            ledger.close()
            clean(name_of(run.folder))
    assert any("bringing" in line for line in said)
    for trial in trials:
        assert ledger.trials()[trial.id].status == "completed"
        assert numbers(ledger, trial) == undisturbed(trial)
    own = stories(told, trials)
    assert all(str(nodes.disk(s["node"])) in s["folder"] for s in own), "a node trains on its own disk"
    left = [path for name in nodes.nodes for path in nodes.disk(name).glob(f"*/{name_of(run.folder)}/trials/*")]
    assert not left, "and keeps nothing"
    kept = {name.split("/")[3] for name in store.objects("trials/stored-1") if "/checkpoints/" in name}
    assert kept == {"epoch_000004"}, "the newest is the best"
    assert (run.folder / "trials" / "stored-1" / "checkpoints" / "epoch_000004" / "manifest.json").is_file()
    late = [trial_of("late", gpus=0.5)]
    s3.unplug()
    with pytest.raises(Halted, match="s3://runs/one: no answer for 2 s"):
        train(late, banks, run.folder, store=Storage(store.place, 2))
    s3.plug_in()
    again = train(late, banks, run.folder, store=store)
    assert numbers(again, late[0]) == undisturbed(late[0])


def test_dask_on_the_nodes_finds_the_cells_that_one_process_finds(
    nodes: Nodes, dataset: Dataset, tmp_path: Path
) -> None:
    from postprocess import methods
    from postprocess.predictions import PredictionStore
    from postprocess.run import run

    tables = []
    for scheduler in ("sync", "ray"):
        folder = tmp_path / scheduler
        shutil.copytree(dataset.path, folder / "dataset.zarr")
        (folder / "run.json").write_text(json.dumps({"dataset": "dataset.zarr", "kind": "search", "synthetic": True}))
        store, target = PredictionStore.open_or_create(folder / "predictions.zarr"), methods.TARGETS["two_class"]
        attrs = {"decode": asdict(target.Params()), "model_sha256": "m"}
        shape = (target.STRIDE, len(target.CHANNELS), target.RAYS)
        store.add_method("two_class", "two_class", *shape, dataset.fields.values(), attrs)
        for ref in dataset.frames("val") + dataset.frames("test"):
            store.write("two_class", ref, target.perfect(dataset.labels(ref)))
        assert not run(folder, scheduler).failed
        tables.append(pd.read_parquet(folder / "cells.parquet"))
    assert len(tables[0]) > 10
    pd.testing.assert_frame_equal(*tables)
