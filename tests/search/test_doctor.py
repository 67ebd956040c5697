"""The doctor tells what stops or slows a search, in real and in made-up states, never hangs and never shows a key."""

from __future__ import annotations

import json
import logging
import os
import resource
import subprocess
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from data_io.errors import BadInput
from search import doctor
from search.doctor import GIB, Gpu

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
Usage = namedtuple("Usage", "total used free")


def state(finding: doctor.Finding, state: str, *words: str) -> None:
    """Check a finding: its state, and words of its line; what is not ok has a remedy."""
    assert finding.state == state, finding
    assert all(word in str(finding) for word in words), finding
    assert bool(finding.remedy) or state == "ok"
    assert "\n" not in str(finding)


# --- the command on this machine ------------------------------------------------------------------------------------


def test_the_command_answers_in_ten_seconds_and_ten_lines_without_a_network(tmp_path: Path) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "search.doctor", "--out", str(tmp_path / "run"), "--data", str(tmp_path)],
        cwd=tmp_path,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "WANDB_API_KEY": "planted-key-0123", "HF_ENDPOINT": "http://10.255.255.1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert time.monotonic() - began < 30  # ten on a machine that is not shared
    *lines, last = done.stdout.splitlines()
    assert 9 <= len(lines) <= 12
    assert all(line.split()[0] in ("ok", "slow", "stops") for line in lines)
    assert last.startswith("a search can run here")
    assert "planted-key" not in done.stdout + done.stderr
    assert done.stderr == ""
    assert not list(tmp_path.iterdir())


def test_as_json_with_exit_2_where_something_stops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "ask_hub", lambda: None)
    assert doctor.main(["--json", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path)]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["usable"] is False
    (data,) = (one for one in told["findings"] if one["what"] == "data")
    assert data["state"] == "stops"
    assert data["told"].endswith("nowhere: no such file or folder")
    assert data["remedy"]


def test_a_hub_that_hangs_is_waited_for_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ANSWER_SECONDS", 0.2)
    began = time.monotonic()
    state(
        doctor.hub(threading.Event().wait, offline=False), "slow", "does not answer (TimeoutError)", "encoder_weights"
    )
    assert time.monotonic() - began < 5
    state(doctor.hub(lambda: None, offline=False), "ok")
    state(doctor.hub(lambda: None, offline=True), "slow", "HF_HUB_OFFLINE")


# --- made-up states -------------------------------------------------------------------------------------------------


def test_versions_within_outside_and_missing() -> None:
    state(doctor.versions(["numpy>=2,<100", "zarr<100,>=3"], {}), "ok", "within the tested range")
    state(doctor.versions(["numpy>=99,<100"], {}), "slow", "numpy", "tested: 99 to below 100")
    state(doctor.versions(["no-such-library>=1,<2", "numpy>=2,<100"], {}), "stops", "not installed: no-such-library")
    state(doctor.versions([], {}), "slow", "not compared")
    state(doctor.versions(None, {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}), "stops", "unset TORCH_FORCE")
    assert len(doctor._required()) > 20
    assert all(doctor._bounds(line) for line in doctor._required())


@pytest.mark.parametrize(
    ("free", "expected"), [([70.0], "ok"), ([3.0, 70.0], "ok"), ([3.0], "slow"), ([0.4, 0.2], "stops")]
)
def test_gpus_by_their_free_memory(free: list[float], expected: str) -> None:
    found = [Gpu("H100", int(one * GIB), 80 * GIB, bf16=True) for one in free]
    state(doctor.gpus(found, driver=True), expected, f"H100 {free[0]:.1f} of 80.0 GiB free")


def test_no_gpu_an_unused_driver_an_old_gpu_and_a_broken_one() -> None:
    state(doctor.gpus([], driver=False), "slow", "none")
    state(doctor.gpus([], driver=True), "slow", "PyTorch sees no GPU", "CUDA version")
    state(doctor.gpus([Gpu("V100", 15 * GIB, 16 * GIB, bf16=False)], driver=True), "ok", "no bf16")
    state(doctor.gpus("CUDA error: unknown error", driver=True), "stops", "CUDA error")


def test_cores_memory_shared_memory_and_open_files() -> None:
    state(doctor.cores(8, "flags: fma avx512_bf16"), "ok", "8 cores, with bf16")
    state(doctor.cores(0.5, "flags: sse"), "slow", "0.5 cores, without bf16")
    state(doctor.memory(int(1.5 * GIB)), "stops", "1.5 GiB free")
    state(doctor.memory(4 * GIB), "slow")
    state(doctor.memory(20 * GIB), "ok")
    state(doctor.shared_memory(64 * 2**20), "slow", "64 MiB", "--shm-size=1g")
    state(doctor.shared_memory(None), "slow")
    state(doctor.shared_memory(GIB), "ok")
    state(doctor.open_files(100), "stops", "ulimit -n")
    state(doctor.open_files(512), "slow", "ulimit -n")
    state(doctor.open_files(1024), "ok")
    state(doctor.open_files(resource.RLIM_INFINITY), "ok", "unlimited")
    assert doctor.usable_cores() > 0


def test_the_disk_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, expected in ((0.5, "stops"), (5, "slow"), (50, "ok")):
        usage = Usage(100 * GIB, 100 * GIB - int(free * GIB), int(free * GIB))
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _, usage=usage: usage)
        state(doctor.output(tmp_path / "not/yet/there"), expected, f"{free:.1f} GiB free at {tmp_path}")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_or_is_open_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("")
    run.chmod(0o777)
    state(doctor.output(run), "stops", "everyone may write to it", f"chmod -R go-w {run}")
    monkeypatch.setattr(doctor, "_try_to_write", denied)
    state(doctor.output(tmp_path), "stops", "cannot be written or locked (Permission denied)", "--out")


def test_the_disk_of_rays_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state(doctor.scratch(tmp_path / "ray"), "ok", "for Ray's session")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage(100 * GIB, 97 * GIB, 3 * GIB))
    state(doctor.scratch(tmp_path / "ray"), "slow", "more than 95% in use", "RAY_TMPDIR")


def test_rays_token_and_foreign_clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-that-nobody-may-see")
    known = {"RAY_AUTH_TOKEN_PATH": str(token)}
    nowhere = tmp_path / "ray_current_cluster"
    token.chmod(0o600)
    state(doctor.ray(known, nowhere), "ok", "private", "no other cluster lies about")
    token.chmod(0o644)
    state(doctor.ray(known, nowhere), "ok", f"{token} is readable by others, which the next start ends")
    absent = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "absent" / "token")}
    state(doctor.ray(absent, nowhere), "ok", "no token yet")
    state(doctor.ray({"RAY_AUTH_MODE": "disabled"}, nowhere), "ok", "not used here")
    nobodys = {"RAY_AUTH_TOKEN_PATH": str(token / "token")}
    state(doctor.ray(nobodys, nowhere), "stops", "cannot be written there", "RAY_AUTH_TOKEN_PATH")
    nowhere.write_text("127.0.0.1:1")
    state(doctor.ray(known, nowhere), "ok", "127.0.0.1:1", "stale", "it is not joined")
    job = {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}", "RAY_ADDRESS": "10.0.0.1:6379", **known}
    state(doctor.ray(job, nowhere), "slow", "asks for no token", "RAY_AUTH_MODE=token")
    state(doctor.ray(job | {"RAY_AUTH_MODE": "token"}, nowhere), "ok", "asks for a token")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage(GIB, GIB, 0))
    state(doctor.ray(absent, nowhere), "stops", "cannot be written there", "make room")


def test_the_login_of_wandb_is_told_and_the_key_is_not(tmp_path: Path) -> None:
    key = "k" * 40
    state(doctor.wandb({}, tmp_path), "ok", "not logged in", "wandb login")
    told = doctor.wandb({"WANDB_API_KEY": key, "WANDB_BASE_URL": "https://wandb.lab.org/"}, tmp_path)
    state(told, "ok", "a key for wandb.lab.org is set in the environment")
    assert key not in str(told)
    (tmp_path / ".netrc").write_text(f"machine api.wandb.ai\n  login user\n  password {key}\n")
    (tmp_path / ".netrc").chmod(0o600)
    told = doctor.wandb({}, tmp_path)
    state(told, "ok", "logged in to api.wandb.ai")
    assert key not in str(told)
    (tmp_path / ".netrc").write_text("machine\n")
    state(doctor.wandb({}, tmp_path), "ok", "not logged in")


# --- object stores --------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return an empty bucket of a stand-in for S3 on this machine."""
    moto = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    for name, value in {
        "AWS_ENDPOINT_URL": "http://{}:{}".format(*server.get_host_and_port()),
        "AWS_ACCESS_KEY_ID": "testing-key-id",
        "AWS_SECRET_ACCESS_KEY": "testing-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    from data_io.location import located

    located("s3://runs/any").fs.call_s3("create_bucket", Bucket="runs")  # type: ignore[attr-defined]
    yield "s3://runs"
    server.stop()


def test_a_bucket_that_answers_and_one_that_is_not_there(bucket: str) -> None:
    from data_io.location import located

    stored = located(f"{bucket}/any").fs  # type: ignore[attr-defined]
    before = stored.find("runs")
    state(doctor.data(f"{bucket}/d.zarr"), "ok", "answers")
    state(doctor.stored_output(f"{bucket}/run"), "ok", "can be written")
    stored.invalidate_cache()
    assert stored.find("runs") == before, "nothing is left there"
    state(doctor.data("s3://nothing/d.zarr"), "stops", "no such bucket")
    state(doctor.stored_output("s3://nothing/run"), "stops", "no such bucket")


def test_a_store_that_hangs_or_is_told_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(doctor.location, "check_bucket", lambda _: threading.Event().wait())
    state(doctor.data("s3://slow/d.zarr"), "stops", "no answer within", "AWS_ENDPOINT_URL")
    told = doctor.data("s3://me:planted-secret@b/d.zarr")
    state(told, "stops", "s3://(hidden)@b/d.zarr", "an address with keys in it")
    assert "planted" not in str(told)


def test_what_goes_wrong_beside_is_raised() -> None:
    def fails() -> doctor.Finding:
        raise BadInput("x: y; z")

    with pytest.raises(BadInput, match="x: y; z"):
        doctor._beside(fails)()
