"""Ray for a search: a session of its own on this machine, or the cluster of the Ray job it was submitted to.

A session of its own listens on the loopback address alone and asks for a token that only its user can read. A job's
cluster that strangers could use is refused (`cluster.joined.refuse_open`). No other cluster is ever joined: an address
in the environment or one that ``ray start`` left on the machine may be stale or belong to someone else. Each is named
in `RayInfo.notices`, which the command prints.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.joined import Node, living_nodes, refuse_open, within_reach
from cluster.token import TOKEN_FILE, make_private, token_file
from data_io.job_folder import IN_A_JOB

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, MutableMapping

# Trials share their data by memory maps; Ray's store carries only metrics, so it stays small and fits any /dev/shm.
OBJECT_STORE_BYTES = 200 * 2**20
ANSWER_SECONDS = 5.0

ADDRESS = "RAY_ADDRESS"
# Ray's switch for systems on which it listens on the loopback address alone; 0 has that everywhere.
NETWORKED = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@dataclass(frozen=True)
class RayInfo:
    """What a search has to work with.

    Attributes
    ----------
    address
        ``host:port`` of the session's control store.
    cpus, gpus
        Processors and GPUs of all its nodes together, as Ray counts them.
    nodes
        Living nodes.
    joined
        Whether it is the cluster of a Ray job, not a session of our own.
    notices
        Sentences for the user, such as which cluster was not joined, or that strangers may reach the one that was.
    """

    address: str
    cpus: float
    gpus: float
    nodes: int
    joined: bool
    notices: tuple[str, ...]


def start_ray(cpus: int | None = None, gpus: int | None = None) -> RayInfo:
    """Start Ray on this machine with `cpus` and `gpus` (None: all there are), or join the Ray job's own cluster.

    A cluster that is joined has what it has; `cpus` and `gpus` are not used then. The caller ends it with
    ``ray.shutdown()``. Raises ConnectionError when the job's cluster does not answer or takes commands from strangers,
    or the token of a session of our own cannot be written, and RuntimeError when this process uses Ray already.
    """
    import ray

    if ray.is_initialized():
        raise RuntimeError("this process uses Ray already; call ray.shutdown() before another session")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    joined = belongs_to_job(os.environ)
    if joined:
        address, notices = _join(os.environ[ADDRESS])
    else:
        notices = foreign_clusters(os.environ, address_file())
        _let_workers_import_us(os.environ)
        os.environ.pop(ADDRESS, None)  # neither we nor our workers may find it later
        address = _start(cpus, gpus)
    resources = ray.cluster_resources()
    nodes = sum(bool(node["Alive"]) for node in ray.nodes())
    return RayInfo(address, resources.get("CPU", 0.0), resources.get("GPU", 0.0), nodes, joined, notices)


def stop_ray() -> None:
    """Leave the cluster of a job, or end the session that `start_ray` began; nothing happens without one."""
    import ray

    ray.shutdown()


@contextmanager
def cluster_of_job() -> Iterator[list[Node]]:
    """Join the cluster of the job for a look at its living nodes, and leave it; raises like `start_ray`."""
    start_ray()
    try:
        yield living_nodes()
    finally:
        stop_ray()


def belongs_to_job(environment: Mapping[str, str]) -> bool:
    """Tell whether the command was submitted to a Ray cluster, which then is its own."""
    return bool(environment.get(IN_A_JOB)) and bool(environment.get(ADDRESS))


def foreign_clusters(environment: Mapping[str, str], file: Path) -> tuple[str, ...]:
    """Return a sentence for each address lying about: the environment's and the one in ``ray start``'s file."""
    sentences = []
    if address := environment.get(ADDRESS):
        sentences.append(
            f"{ADDRESS} names the Ray cluster {address}; it is not joined, because this is no Ray job: "
            "submit the command with `ray job submit` to use that cluster"
        )
    if address := _text(file):
        state = "runs" if answers(address) else "does not answer (stale)"
        sentences.append(f"{file} names the Ray cluster {address}, which {state}; it is not joined")
    return tuple(sentences)


def address_file() -> Path:
    """Return the file in which ``ray start`` leaves the address of its cluster."""
    return Path(os.environ.get("RAY_TMPDIR") or "/tmp") / "ray" / "ray_current_cluster"  # noqa: S108 - Ray's own place


def answers(address: str) -> bool:
    """Tell whether something accepts a connection at ``host:port`` within seconds."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS):
            return True
    except (OSError, ValueError, OverflowError):
        return False


def _let_workers_import_us(environment: MutableMapping[str, str]) -> None:
    """Put the folder of our packages on the path of the workers, wherever the command was called from."""
    home = str(Path(__file__).resolve().parent.parent)
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, [home, *paths])))


def _start(cpus: int | None, gpus: int | None) -> str:
    import ray
    from ray._private import ray_constants

    try:
        make_private(os.environ)
    except OSError as fault:
        raise ConnectionError(
            f"{token_file(os.environ)}: Ray's token cannot be written there ({fault.strerror}); "
            f"set {TOKEN_FILE} to a file in a folder of your own"
        ) from fault
    os.environ[NETWORKED] = "0"  # for the processes that Ray starts
    ray_constants.ENABLE_RAY_CLUSTER = False  # for this one, which read it when Ray was imported
    session: Any = ray.init(
        address="local",
        num_cpus=cpus,
        num_gpus=gpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=OBJECT_STORE_BYTES,
    )
    close_to_others(Path(session.address_info["session_dir"]))
    return str(ray.get_runtime_context().gcs_address)


def close_to_others(session: Path) -> None:
    """Let nobody else into the folder of a session, nor put another in its place: Ray leaves both to everyone.

    In the folder are the sockets of its processes, their logs, and what they import. The folder of all sessions may be
    another user's, who then has to be trusted.
    """
    with suppress(OSError):
        session.chmod(stat.S_IRWXU)
        session.parent.chmod(stat.S_IMODE(session.parent.stat().st_mode) | stat.S_ISVTX)


def _join(address: str) -> tuple[str, tuple[str, ...]]:
    import ray

    if address != "auto" and not answers(address):
        raise ConnectionError(
            f"the Ray cluster {address} of this job does not answer; check `ray status`, then submit it again"
        )
    session = ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    joined, dashboard = str(ray.get_runtime_context().gcs_address), str(session.dashboard_url or "")
    try:
        refuse_open(joined, living_nodes(), ray.util.get_node_ip_address(), dashboard)
    except ConnectionError:
        ray.shutdown()
        raise
    return joined, within_reach(joined, dashboard, os.environ)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
