from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from cluster import start
from cluster.joined import within_reach
from cluster.start import ADDRESS, answers, belongs_to_job, foreign_clusters, start_ray
from cluster.token import is_private, token_file
from data_io.job_folder import IN_A_JOB

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def listening() -> Iterator[str]:
    """Return the address of a server that accepts connections and is no Ray cluster."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def unused() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({ADDRESS: "10.0.0.1:6379"}, False),
        ({IN_A_JOB: "{}"}, False),
        ({ADDRESS: "", IN_A_JOB: "{}"}, False),
        ({ADDRESS: "10.0.0.1:6379", IN_A_JOB: "{}"}, True),
    ],
)
def test_only_a_submitted_command_belongs_to_a_cluster(environment: dict[str, str], expected: bool) -> None:
    assert belongs_to_job(environment) is expected


def test_the_job_variable_is_the_one_ray_sets() -> None:
    from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

    assert RAY_JOB_CONFIG_JSON_ENV_VAR == IN_A_JOB


def test_the_address_file_is_the_one_ray_writes() -> None:
    from ray._private.utils import get_ray_address_file

    assert str(start.address_file()) == get_ray_address_file(None)


def test_rays_ports_are_bound_to_the_loopback_address_by_the_variable_that_we_name() -> None:
    from ray._private.ray_constants import ENABLE_RAY_CLUSTERS_ENV_VAR

    assert start.NETWORKED == ENABLE_RAY_CLUSTERS_ENV_VAR
    assert f"{start.NETWORKED}=0" in within_reach("10.0.0.1:6379", "", {})[0]


def test_an_address_in_the_environment_is_named(tmp_path: Path) -> None:
    (notice,) = foreign_clusters({ADDRESS: "10.0.0.1:6379"}, tmp_path / "none")
    assert notice.startswith("RAY_ADDRESS names the Ray cluster 10.0.0.1:6379; it is not joined")
    assert "ray job submit" in notice


def test_the_address_file_is_named_with_its_state(tmp_path: Path, listening: str, unused: str) -> None:
    file = tmp_path / "ray_current_cluster"
    for address, state in ((listening, "runs"), (unused, "does not answer (stale)"), ("nonsense", "(stale)")):
        file.write_text(f"{address}\n")
        (notice,) = foreign_clusters({}, file)
        assert f"{file} names the Ray cluster {address}, which" in notice
        assert state in notice


def test_nothing_lying_about_gives_no_notice(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    assert foreign_clusters({}, tmp_path / "none") == foreign_clusters({ADDRESS: ""}, tmp_path / "empty") == ()


@pytest.mark.parametrize("address", ["", "nonsense", "host:port", "127.0.0.1:99999999"])
def test_what_is_no_address_does_not_answer(address: str) -> None:
    assert not answers(address)


def test_a_job_whose_cluster_is_gone_is_refused(monkeypatch: pytest.MonkeyPatch, unused: str) -> None:
    monkeypatch.setenv(ADDRESS, unused)
    monkeypatch.setenv(IN_A_JOB, "{}")
    with pytest.raises(ConnectionError, match=f"the Ray cluster {unused} of this job does not answer"):
        start_ray(1, 0)


def test_a_token_that_cannot_be_written_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where the folder should be")
    monkeypatch.delenv(IN_A_JOB, raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "home" / ".ray" / "auth_token"))
    with pytest.raises(ConnectionError, match=r"auth_token: Ray's token cannot be written there \(.*; set RAY_AUTH_"):
        start_ray(1, 0)


def test_the_folder_of_a_session_is_closed_to_others(tmp_path: Path) -> None:
    session = tmp_path / "ray/session_1"
    session.mkdir(parents=True)
    for folder in (session, session.parent):
        folder.chmod(0o777)  # as Ray makes them
    start.close_to_others(session)
    assert (session.stat().st_mode & 0o7777, session.parent.stat().st_mode & 0o7777) == (0o700, 0o1777)


def listening_addresses() -> set[tuple[str, int]]:
    """Return the addresses and ports on which the processes below this one wait for connections."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        for connection in process.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN:
                found.add((connection.laddr.ip, connection.laddr.port))
    return found


def test_a_local_session_listens_here_alone_and_ignores_foreign_addresses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listening: str, unused: str
) -> None:
    import ray

    monkeypatch.delenv(IN_A_JOB, raising=False)
    monkeypatch.setenv(ADDRESS, unused)
    file = tmp_path / "ray_current_cluster"
    file.write_text(listening)
    monkeypatch.setattr(start, "address_file", lambda: file)
    info = start_ray(1, 2)  # Ray counts the GPUs it is told, also on a machine without
    try:
        session = Path(ray._private.worker._global_node.get_session_dir_path())
        assert (session.stat().st_mode & 0o777, session.parent.stat().st_mode & 0o1000) == (0o700, 0o1000)
        assert (info.cpus, info.gpus, info.nodes, info.joined) == (1, 2, 1, False)
        listeners = listening_addresses()
        assert len(listeners) > 3
        assert {address.removeprefix("::ffff:") for address, _ in listeners} == {"127.0.0.1"}
        assert is_private(token_file(os.environ))
        assert info.address not in (listening, unused)
        assert [notice for notice in info.notices if listening in notice and "runs" in notice]
        assert [notice for notice in info.notices if unused in notice]
        with pytest.raises(RuntimeError, match=r"call ray\.shutdown\(\)"):
            start_ray(1, 0)
    finally:
        ray.shutdown()
