"""Where frames are treated does not matter: the same results everywhere, also when workers die."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import dask
import pandas as pd
import pytest

from data_io.errors import PARTIAL, BadInput
from postprocess import schedulers
from postprocess.run import main, open_stage, plan, run

HOME = str(Path(__file__).resolve().parents[2])
PATCH = """
import os
from pathlib import Path

def patch():
    from postprocess import run

    find = run.find_cells

    def fatal(stage, job):
        once = stage.run / "killed_once"
        poison = (stage.run / "poison").exists()
        if job.method == "star" and job.ref.frame == {frame} and (poison or not once.exists()):
            once.touch()
            os._exit(1)
        return find(stage, job)

    run.find_cells = fatal

def dask_setup(worker):
    patch()
"""


def results(run_dir: Path) -> tuple[pd.DataFrame, dict]:
    stage = open_stage(run_dir)
    marks = {(job.method, job.ref): stage.labels.mark(job.method, job.ref) for job in plan(stage)}
    return pd.read_parquet(run_dir / "cells.parquet"), marks


@pytest.fixture
def dask_cluster(monkeypatch):
    """Return ``start(**options) -> address`` of a Dask cluster of two worker processes."""
    from distributed import LocalCluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([HOME, os.environ.get("PYTHONPATH", "")]))
    clusters = []

    def start(**options):
        cluster = LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1", **options
        )
        clusters.append(cluster)
        return cluster.scheduler_address

    # workers that come back slowly after they died are not given up, and few deaths are enough: each costs a start
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "1h", "distributed.scheduler.allowed-failures": 1}):
        yield start
        for cluster in clusters:
            cluster.close(timeout=20)


@pytest.fixture
def local_ray(monkeypatch):
    """Return ``start(hook)``: a local Ray whose workers call a function when they start."""
    import ray

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([HOME, os.environ.get("PYTHONPATH", "")]))

    def start(hook=None):
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            runtime_env={"worker_process_setup_hook": hook} if hook else None,
            object_store_memory=100 * 1024 * 1024,
        )

    yield start
    ray.shutdown()


def equal(one, other) -> None:
    pd.testing.assert_frame_equal(one[0], other[0])
    assert one[1] == other[1]


def renewed(run_dir: Path) -> Path:
    """Forget what was computed."""
    import shutil

    for name in ("cells", "labels", "labels.zarr"):
        shutil.rmtree(run_dir / name, ignore_errors=True)
    return run_dir


@pytest.mark.filterwarnings("ignore")
def test_every_scheduler_gives_the_same_cells(make_run):  # a Dask cluster, though its worker dies, in the next test
    run_dir = make_run(0.5)
    run(run_dir, "sync")
    alone = results(run_dir)
    assert len(alone[0]) > 50
    for name in ("threads", "ray"):
        found = run(renewed(run_dir), name)
        assert not found.failed, name
        assert found.computed == found.frames
        equal(results(run_dir), alone)


@pytest.mark.filterwarnings("ignore")
def test_a_dead_dask_worker_changes_nothing_and_a_frame_that_kills_workers_is_listed(
    make_run, dask_cluster, tmp_path, capsys
):
    run_dir = make_run()
    run(run_dir, "sync")
    alone = results(run_dir)
    frame = next(job.ref.frame for job in plan(open_stage(run_dir)) if job.method == "star")
    preload = tmp_path / "preload.py"
    preload.write_text(PATCH.format(frame=frame))
    address = dask_cluster(preload=[str(preload)])
    assert not run(renewed(run_dir), address).failed
    assert (run_dir / "killed_once").exists(), "a worker did die"
    equal(results(run_dir), alone)

    (run_dir / "poison").touch()
    assert main([str(renewed(run_dir)), "--scheduler", address]) == PARTIAL
    assert f"frame {frame}: its worker died" in capsys.readouterr().err
    table, _ = results(run_dir)
    lost = (alone[0]["method"] == "star") & (alone[0]["frame"] == frame)
    assert len(table) == len(alone[0]) - lost.sum()
    (run_dir / "poison").unlink()
    again = run(run_dir, "sync")
    assert (again.computed, again.failed) == (1, ())
    equal(results(run_dir), alone)


def test_what_died_with_others_is_tried_again_alone_under_a_new_name():
    names = []

    def run_graph(graph):
        names.extend(task.key for task in graph)
        results = [task.compute(scheduler="sync") for task in graph]
        if len(graph) > 1 or results == ["fatal"]:
            raise OSError("killed")
        return results

    alone = schedulers.Scheduler("x", run_graph, 1, lambda: None)
    tasks = [lambda result=result: result for result in ("a", "fatal", "b")]
    assert alone.compute(tasks, lambda place, fault: (place, str(fault))) == ["a", (1, "killed"), "b"]
    assert len(set(names)) == len(names) == 6


@pytest.mark.slow  # Ray starts worker after worker; the same promise is kept quickly on Dask above
@pytest.mark.filterwarnings("ignore")
def test_a_frame_that_kills_ray_workers_is_listed_and_the_rest_is_done(make_run, local_ray):
    run_dir = make_run()
    run(run_dir, "sync")
    alone = results(run_dir)
    frame = next(job.ref.frame for job in plan(open_stage(run_dir)) if job.method == "star")
    text = PATCH.format(frame=frame)

    def hook() -> None:
        names: dict = {}
        exec(text, names)  # noqa: S102 - the code above
        names["patch"]()

    local_ray(hook)
    assert not run(renewed(run_dir), "ray").failed
    assert (run_dir / "killed_once").exists()
    equal(results(run_dir), alone)
    (run_dir / "poison").touch()
    [fault] = run(renewed(run_dir), "ray").failed
    assert (fault.method, fault.frame) == ("star", frame)
    assert "its worker died" in fault.reason


def test_nobody_at_an_address_and_unknown_names_are_refused(make_run, monkeypatch):
    monkeypatch.setattr(schedulers, "ANSWER_SECONDS", 1)
    run_dir = make_run()
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    with pytest.raises(BadInput, match="no answer"):
        run(run_dir, f"tcp://127.0.0.1:{port}")
    kept = sorted(run_dir.rglob("*"))
    for name in ("slurm", "tcp://", "tcp://10.0.0.1"):
        with pytest.raises(BadInput, match="unknown; choose auto, sync, threads, ray or tcp://"):
            run(run_dir, name)
    assert sorted(run_dir.rglob("*")) == kept, "refused before anything is written"


@pytest.mark.filterwarnings("ignore")
def test_a_dask_scheduler_that_is_killed_is_told_and_a_rerun_does_the_rest(make_run, monkeypatch):
    monkeypatch.setattr(schedulers, "WORKER_SECONDS", 3)
    monkeypatch.setattr(schedulers, "ANSWER_SECONDS", 5)
    run_dir = make_run()
    frames = run(run_dir, "sync").frames
    alone = results(run_dir)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([HOME, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port]
    address = f"tcp://127.0.0.1:{port}"
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
    quiet = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = [subprocess.Popen([*command, "--no-dashboard"], **quiet), subprocess.Popen(worker, **quiet)]
    compute, called = schedulers.Scheduler.compute, []

    def killed(self, tasks, lost):
        if len(called) == 4:
            started[0].kill()
        called.append(len(tasks))
        return compute(self, tasks, lost)

    monkeypatch.setattr(schedulers.Scheduler, "compute", killed)
    try:
        with pytest.raises(BadInput, match="the same command does the rest"):
            run(renewed(run_dir), address)
    finally:
        for process in started:
            process.kill()
            process.wait()
    monkeypatch.undo()
    again = run(run_dir, "sync")
    assert 0 < again.computed < frames
    equal(results(run_dir), alone)


@pytest.mark.filterwarnings("ignore")
def test_a_dask_cluster_that_loses_its_workers_for_good_is_not_waited_for(make_run, monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setattr(schedulers, "WORKER_SECONDS", 2)
    run_dir = make_run()
    options = {"processes": False, "protocol": "tcp://", "host": "127.0.0.1", "dashboard_address": None}
    with LocalCluster(n_workers=1, threads_per_worker=1, **options) as cluster:
        compute = schedulers.Scheduler.compute

        def lonely(self, tasks, lost):
            cluster.scale(0)
            cluster.sync(cluster.scheduler.remove_worker, next(iter(cluster.scheduler.workers)), stimulus_id="test")
            return compute(self, tasks, lost)

        monkeypatch.setattr(schedulers.Scheduler, "compute", lonely)
        with pytest.raises(BadInput, match="no worker"):
            run(run_dir, cluster.scheduler_address)
