"""A node's own disk: frames decoded once for all who wait, trials brought and taken away; a run that is not seen."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from data_io import synthetic
from data_io.convert import convert
from data_io.errors import BadInput
from search import nodes, prepare
from search.config import load
from search.nodes import SCRATCH, Home, NotShared
from search.storage import Storage, StorageLost
from tests.faults import toy
from tests.s3_stand_in import S3
from tests.search.trials import a_trial

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from search.frames import Banks
    from search.space import TrialConfig

CONFIG = load("demo", None, ["train.checkpoint_every=1"])


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Banks]:
    """Return the folder of a run and the frames that its driver decoded."""
    folder = tmp_path_factory.mktemp("driver")
    synthetic.write(folder / "raw", fields=3, frames=2, size=(128, 128), preset="easy", seed=1)
    dataset = convert(folder / "raw", folder / "run" / "dataset.zarr")
    return folder / "run", prepare.decode_frames(CONFIG, dataset, folder / "run")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv(SCRATCH, str(tmp_path / "disk"))
    return tmp_path / "disk"


def test_the_frames_of_the_driver_are_used_where_they_are_seen(driver: tuple[Path, Banks]) -> None:
    _, banks = driver
    here = banks.here()
    assert (here.train, here.val) == (banks.train, banks.val)


def test_a_node_with_its_own_disk_decodes_once_for_all_who_wait(driver: tuple[Path, Banks], disk: Path) -> None:
    _, banks = driver
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: banks.here(), range(8)))
    [mine] = set(found)
    assert disk in mine.train.parents
    [told] = disk.glob("*/*/*/decodes.jsonl")
    assert len(told.read_text().splitlines()) == 1
    for own, theirs in ((mine.train, banks.train), (mine.val, banks.val)):
        for name in ("pixels.npy", "drawn.npy", "cells.npy"):
            assert np.array_equal(np.load(own / name), np.load(theirs / name))
    assert [folder.stat().st_mode & 0o77 for folder in disk.iterdir()] == [0], "nobody else may look"


def test_other_data_at_the_same_place_are_refused(driver: tuple[Path, Banks], disk: Path) -> None:
    _, banks = driver
    assert banks.source is not None
    other = replace(banks, source=replace(banks.source, content="0" * 64))
    with pytest.raises(BadInput, match="not the data set that this run was begun with"):
        other.here()


def test_a_run_without_storage_is_trained_where_it_is_seen_and_refused_elsewhere(
    driver: tuple[Path, Banks], tmp_path: Path, disk: Path
) -> None:
    run_dir, _ = driver
    home = Home(run_dir, nodes.mark(run_dir), "run")
    with home.trial("t", print) as (folder, report):
        assert folder == run_dir / "trials" / "t"
        assert report is print
    nodes.mark(run_dir)  # as if another folder of that name were there
    with pytest.raises(NotShared, match=r"run: not seen from .*; give a folder that all nodes share"):
        home.folder()


def test_a_folder_of_someone_else_is_not_used(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes.scratch("run")
    monkeypatch.setattr(nodes.os, "getuid", lambda: 12345)
    (disk / "cellsearch-12345").mkdir()
    with pytest.raises(NotShared, match=r"cellsearch-12345: belongs to someone else; set SEARCH_SCRATCH"):
        nodes.scratch("run")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    pytest.importorskip("moto.server")
    server = S3()
    for name, value in (server.environment | {"AWS_MAX_ATTEMPTS": "1"}).items():
        monkeypatch.setenv(name, value)
    server.make_bucket("runs")
    yield server
    server.unplug()


class Stopped(SystemExit):
    """Ray ends a trial."""


def test_a_trial_on_its_own_disk_is_stored_before_it_is_reported_and_leaves_nothing(
    s3: S3, driver: tuple[Path, Banks], disk: Path
) -> None:
    run_dir, banks = driver
    store = Storage.at("s3://runs/one", 1)
    store.write("encoders/encoders.json", b"{}")
    home = Home(run_dir, nodes.mark(run_dir), "run", store)
    assert (home.encoders(needed=True) / "encoders.json").read_bytes() == b"{}"
    reported: list[Any] = []

    def until(last: int, known: int) -> None:
        def report(row: Any) -> None:
            name = f"trials/t/checkpoints/epoch_{row['epoch']:06d}/manifest.json"
            if row["epoch"] > known:
                assert json.loads(store.read(name) or b"")["epoch"] == row["epoch"], "it is stored by now"
            reported.append(row)
            if row["epoch"] == last:
                raise Stopped

        with home.trial("t", report) as (folder, tell):
            assert disk in folder.parents
            toy.train(trial, banks, folder, tell, folder)  # type: ignore[arg-type]

    trial = trial_of(5)
    with pytest.raises(Stopped):
        until(3, known=0)
    assert not list(disk.rglob("trials/t")), "nothing is left"
    wanted = toy.expected("t", 5)
    assert reported == wanted[:3]
    s3.unplug()
    with pytest.raises(StorageLost):
        until(5, known=3)
    s3.plug_in()
    del reported[:]
    with pytest.raises(Stopped):
        until(5, known=3)
    assert [row["epoch"] for row in reported] == [1, 2, 3, 4, 5], "what a driver may have missed is told again"
    assert reported[2:] == wanted[2:]


def test_a_store_that_does_not_answer_a_node_is_lost_and_no_fault_of_its_trial(
    s3: S3, driver: tuple[Path, Banks], disk: Path
) -> None:
    from botocore.exceptions import EndpointConnectionError

    from search.frames import Banks
    from search.worker import ERROR, UNREACHED, what_failed

    run_dir, banks = driver
    assert banks.source is not None
    place = "s3://runs/one/dataset.zarr"
    there = Banks(banks.train, banks.val, replace(banks.source, dataset=place, patience=1))
    with pytest.raises(BadInput, match=r"one/dataset\.zarr") as none:  # the store answers: there is no data set
        there.here()
    assert list(what_failed(none.value)) == [ERROR]
    for file in (run_dir / "dataset.zarr").rglob("*"):
        if file.is_file():
            Storage.at("s3://runs/one").put(file, str(file.relative_to(run_dir)))
    s3.unplug()
    with pytest.raises(StorageLost, match=r"s3://runs/one/dataset\.zarr: no answer for 1 s") as lost:
        there.here()
    assert list(what_failed(lost.value)) == [UNREACHED]
    refused = BadInput("a frame that is streamed")
    refused.__cause__ = EndpointConnectionError(endpoint_url="http://nowhere")
    assert list(what_failed(refused)) == [UNREACHED]
    s3.plug_in()
    assert there.here().train.is_dir()


def test_what_a_node_lacks_is_no_fault_of_its_trials_and_is_told_with_its_name(
    driver: tuple[Path, Banks], disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from search import worker

    run_dir, banks = driver
    assert banks.source is not None
    told: list[Any] = []
    monkeypatch.setattr("ray.tune.report", told.append)
    monkeypatch.setattr(nodes.socket, "gethostname", lambda: "node7")
    home = Home(run_dir, nodes.mark(run_dir), "run", packages=nodes.packages())
    nobodys = replace(banks, source=replace(banks.source, dataset="s3://bucket/movie.zarr"))
    with monkeypatch.context() as patch:
        patch.setattr("data_io.location.find_spec", lambda name: None)
        worker.work({"trial": trial_of(1).model_dump()}, train=toy.train, banks=nobodys, home=home)  # type: ignore[arg-type]
    other = replace(home, packages=home.packages | {"torch": "1.0", "numpy": "1.0"})
    worker.work({"trial": trial_of(1).model_dump()}, train=toy.train, banks=banks, home=other)  # type: ignore[arg-type]
    lacks, differs = (result[worker.UNREACHED] for result in told)
    assert lacks.startswith("node7: s3://bucket/movie.zarr: s3:// needs more packages; `pip install")
    assert differs.startswith(f"node7: numpy {np.__version__}, but 1.0 where the run began; torch ")
    assert differs.endswith("install the same there")


def trial_of(epochs: int) -> TrialConfig:
    return a_trial(CONFIG.train, encoder="resnet18", epochs=epochs)


def test_a_broken_connection_is_put_down_to_a_node_that_is_found_lost_soon_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray

    living = {"head": True, "old": False, "a": True, "b": True}
    asked: list[float] = []

    def as_ray_tells() -> list[dict[str, Any]]:
        return [{"NodeID": name, "Alive": alive} for name, alive in living.items()]

    def a_while(seconds: float) -> None:
        asked.append(seconds)
        living["b"] = len(asked) < 3  # Ray finds out

    monkeypatch.setattr(ray, "nodes", as_ray_tells)
    monkeypatch.setattr(nodes.time, "sleep", a_while)
    lost = nodes.Losses()
    assert lost.lately()
    assert len(asked) == 3
    assert lost.lately()
    assert len(asked) == 3, "the next trial of that node does not wait"
    monkeypatch.setattr(nodes, "LATELY", 0.0)
    monkeypatch.setattr(nodes, "NOTICED_SECONDS", 0.0)
    assert not lost.lately(), "it was lost long ago"
    living.update(dict.fromkeys(living, False), head=True)
    monkeypatch.setattr(nodes, "NOTICED_SECONDS", 20.0)
    assert not nodes.Losses().lately(), "one node alone is not waited for"


def test_the_loss_of_a_node_is_told_from_the_death_of_a_process(tmp_path: Path) -> None:
    from search.scheduler import TRIES, cause_of_death

    died = "ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.\n"
    lost = "The actor died because its node has died. Node Id: fd3f\n the actor's node was terminated unexpectedly"
    assert cause_of_death(died + lost, tmp_path) == "node"
    assert cause_of_death(died + "The actor is dead because its worker process has died.", tmp_path) == "death"
    assert TRIES["node"] > 100 * TRIES["death"]
