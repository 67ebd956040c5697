"""The commands of cluster/README.md against a head that was just started."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from search.storage import Storage
from tests.cluster.heads import SMALLEST, ray_head
from tests.faults import planted
from tests.s3_stand_in import S3

if TYPE_CHECKING:
    from tests.cluster.heads import Head


def in_job(arguments: tuple[str, ...]) -> tuple[str, ...]:
    return ("--working-dir", ".", "--", "python", "-m", "search.run", *arguments)


def search_lines(output: str) -> list[str]:
    """Return what the search itself printed."""
    lines = output.splitlines()
    start = next(i for i, line in enumerate(lines) if "Tailing logs" in line or line.startswith("run folder"))
    return [line for line in lines[start:] if line.startswith(("run folder", "error", "report", "making"))]


def test_a_search_is_submitted_followed_and_finished(with_token: Head, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = with_token.submit(*in_job(("--out", str(run), *SMALLEST)))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = search_lines(done.stdout)
    assert lines[0] == f"run folder: {run} (as asked for)"
    assert f"report: {run / 'report.html'}" in done.stdout
    assert json.loads((run / "summary.json").read_text())["winner"]["target"] == "two_class"
    assert (run / "cells.parquet").is_file()
    uploads = list(
        Path(with_token.environment["RAY_TMPDIR"]).glob("ray/session_*/runtime_resources/working_dir_files/*")
    )
    names = {path.name for folder in uploads if folder.is_dir() for path in folder.iterdir()}
    assert {"search", "data_io", "analysis", "postprocess", "cluster", "pyproject.toml"} <= names
    assert not names & {"tests", ".git", ".ci", ".venv", "runs", "wandb", "cellsearch.egg-info"}

    jobs = with_token.ray("job", "list")
    assert str(run) in jobs.stdout, "the list tells of the job"
    told = done.stdout + done.stderr + jobs.stdout + jobs.stderr
    assert not [name for name, secret in planted.SECRETS.items() if secret in told]
    (logs,) = Path(with_token.environment["RAY_TMPDIR"]).glob("ray/session_2*/logs")
    assert list(logs.glob("job-driver-*.log"))
    assert planted.found_in(run, logs) == []


def test_a_relative_folder_is_refused_inside_a_job(with_token: Head) -> None:
    done = with_token.submit(*in_job(("--out", "results", *SMALLEST)))
    assert done.returncode != 0
    assert "error: --out results: a Ray job works in a temporary copy of your folder" in done.stdout
    assert "exit code 2" in done.stdout


def test_a_command_without_the_token_is_turned_away(with_token: Head) -> None:
    done = with_token.ray("job", "list", RAY_AUTH_MODE="disabled")
    assert done.returncode != 0
    assert "token" in (done.stdout + done.stderr).lower()
    token = with_token.home / ".ray" / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600


@pytest.mark.slow
def test_without_a_token_strangers_must_be_out_of_reach_and_the_default_is_under_the_home_directory() -> None:
    every = [address for addresses in psutil.net_if_addrs().values() for address in addresses]
    own = [one.address for one in every if one.family == socket.AF_INET and not one.address.startswith("127.")]
    if not own:
        pytest.skip("this machine has no address but the loopback one")
    bare = ("--", "python", "-m", "search.run", *SMALLEST)
    with ray_head("disabled", dashboard=own[0]) as head:
        refused = head.submit(*bare)
        assert refused.returncode != 0
        assert "runs the code of anyone who reaches it" in refused.stdout
        assert "--allow-insecure-cluster" in refused.stdout
        done = head.submit(*bare, "--allow-insecure-cluster")
        assert done.returncode == 0, done.stdout + done.stderr
        run = head.home / "cellsearch-runs" / "0001"
        assert search_lines(done.stdout)[0].startswith(f"run folder: {run} (the default on a cluster of one node")
        assert (run / "report.html").is_file()


@pytest.mark.slow
def test_a_run_goes_to_the_object_store_that_the_variable_names(monkeypatch: pytest.MonkeyPatch) -> None:
    store = S3()
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    store.make_bucket("cells")
    try:
        with ray_head(SEARCH_STORAGE="s3://cells/runs", **store.environment) as head:
            done = head.submit(*in_job(SMALLEST))
            assert done.returncode == 0, done.stdout + done.stderr
            line = search_lines(done.stdout)[0]
            assert line.startswith("run folder: s3://cells/runs/2"), line
            names = set(Storage.at(line.split()[2]).objects())
            assert {"report.html", "cells.parquet", "summary.json", "ledger.jsonl"} <= names
    finally:
        store.unplug()


@pytest.mark.slow
def test_storage_that_one_node_has_for_itself_is_refused(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a folder for one process alone")
    own, shared = tmp_path / "own", tmp_path / "shared"
    own.mkdir()
    shared.mkdir()
    with ray_head() as head:
        mount = f"mount -t tmpfs none {own} && exec ray start --address=127.0.0.1:{head.port} --num-cpus=1"
        options = f"--temp-dir={head.home.parent / 'worker'} --dashboard-agent-listen-port=0 --block"
        head.others.append(
            subprocess.Popen(
                ["unshare", "--mount", "bash", "-c", f"{mount} {options}"],
                env=head.environment,
                stdout=subprocess.DEVNULL,
            )
        )
        health = ("python", "-m", "cluster.health", "--nodes", "2", "--wait", "60", "--storage")
        fit = head.submit("--", *health, str(shared))
        assert fit.returncode == 0, fit.stdout + fit.stderr
        assert f"{shared}: seen and written to by all 2 nodes" in fit.stdout
        unfit = head.submit("--", *health, str(own))
        assert unfit.returncode != 0
        assert f"not fit: {own}: " in unfit.stdout
        refused = head.submit(*in_job(("--out", str(own / "run"), *SMALLEST)))
        assert refused.returncode != 0
        assert f"error: {own / 'run'}: 1 of 2 nodes do not see this folder, or may not write to it" in refused.stdout
        nowhere = head.submit(*in_job(SMALLEST))
        assert "error: no place for the run: this cluster has 2 nodes" in nowhere.stdout
    assert not list(own.iterdir())
