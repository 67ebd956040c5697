"""Is this Ray cluster fit for a search: nodes, GPUs, versions, token, shared storage, one line each.

python -m cluster.health                                      on a machine of the cluster
python -m cluster.health --storage /shared/runs               and whether every node sees that folder (or s3://bucket/run)
ray job submit -- python -m cluster.health                    from anywhere the cluster takes jobs from

Exit codes: 0 fit, 2 not fit or no cluster, each reason on a line.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cluster.joined import Node, ask, blind_nodes, is_open, living_nodes, within_reach, without_reach
from cluster.start import ADDRESS, address_file, answers
from cluster.token import is_asked_for, is_private, token_file
from data_io.job_folder import is_object

if TYPE_CHECKING:
    from collections.abc import Iterable

PACKAGES = ("cellsearch", "ray", "torch", "numpy")
"""Distributions that must be the same everywhere: trials travel from one node to another."""
SOUND, UNSOUND = 0, 2


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns 0 for a cluster that is fit, 2 for one that is not."""
    given = _parser().parse_args(arguments)
    try:
        faults = look(given.address, given.nodes, given.wait, given.storage)
    except ConnectionError as fault:
        print(f"error: {fault}", file=sys.stderr)
        return UNSOUND
    for sentence in faults:
        print(f"not fit: {sentence}", file=sys.stderr)
    print("fit for a search" if not faults else f"{len(faults)} faults")
    return UNSOUND if faults else SOUND


def look(address: str | None, wanted: int, wait: float, storage: str | None) -> list[str]:
    """Print what the cluster is and return what is wrong with it, a sentence each.

    Raises
    ------
    ConnectionError
        No cluster answers.
    """
    import ray

    dashboard = _connect(address, time.monotonic() + wait)
    try:
        nodes = _wait_for(wanted, time.monotonic() + wait)
        answers = ask(nodes, of_this_node)
        print("\n".join(lines(nodes, answers)))
        faults = [*different(nodes, answers), *_missing(nodes, answers)]
        if len(nodes) < wanted:
            faults.append(f"{len(nodes)} of {wanted} nodes are there")
        here = ray.util.get_node_ip_address()
        if is_open(nodes, here, dashboard, os.environ):
            faults.append("no token is asked for: whoever reaches this cluster can run code on it; RAY_AUTH_MODE=token")
        else:
            for told in within_reach(ray.get_runtime_context().gcs_address, dashboard, os.environ):
                print(f"note: {told}")
        if is_asked_for(os.environ) and not is_private(file := token_file(os.environ)):
            faults.append(f"{file}: others can read the token; chmod 600 {file}")
        if storage is not None:
            faults += _store_faults(storage, nodes) if is_object(storage) else _storage_faults(Path(storage), nodes)
    finally:
        ray.shutdown()
    return faults


def of_this_node() -> dict[str, str]:
    """Return the versions of Python and of the packages on the node where this runs."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "missing"
    return versions


def lines(nodes: Iterable[Node], answers: dict[str, dict[str, str]]) -> list[str]:
    """Return a line per node: host, address, processors, GPUs, memory, versions."""
    shown = []
    for node in nodes:
        has = node.resources
        size = f"{has.get('CPU', 0):g} CPUs, {has.get('GPU', 0):g} GPUs, {has.get('memory', 0) / 1e9:.0f} GB"
        versions = ", ".join(f"{name} {version}" for name, version in answers.get(node.id, {}).items())
        shown.append(f"{node.host} {node.address}: {size}; {versions or 'no answer'}")
    return shown


def different(nodes: list[Node], answers: dict[str, dict[str, str]]) -> list[str]:
    """Return a sentence for each package whose version is not the head's on some node."""
    head = answers.get(nodes[0].id, {}) if nodes else {}
    faults = []
    for name, version in head.items():
        others = {f"{node.host} has {answers[node.id][name]}" for node in nodes[1:] if node.id in answers}
        others -= {f"{node.host} has {version}" for node in nodes}
        if others:
            faults.append(f"{name} is {version} on {nodes[0].host}, but {', '.join(sorted(others))}; install the same")
    return faults


def _missing(nodes: list[Node], answers: dict[str, dict[str, str]]) -> list[str]:
    return [
        f"{node.host} {node.address} does not answer, or cannot run our code"
        for node in nodes
        if node.id not in answers
    ]


def _store_faults(place: str, nodes: list[Node]) -> list[str]:
    faults = without_reach(place, nodes)
    if not faults:
        print(f"{place}: its bucket can be used by all {len(nodes)} nodes")
    return faults


def _storage_faults(storage: Path, nodes: list[Node]) -> list[str]:
    if not storage.is_dir():
        return [f"{storage}: no such folder on this machine"]
    try:
        blind = blind_nodes(storage, nodes)
    except OSError as fault:
        return [f"{storage}: cannot be written to ({fault.strerror})"]
    if not blind:
        print(f"{storage}: seen and written to by all {len(nodes)} nodes")
    return [f"{storage}: {node.host} {node.address} does not see it, or may not write to it" for node in blind]


def _connect(address: str | None, until: float) -> str:
    """Join the cluster, trying until a moment of the monotonic clock; return the address of its dashboard."""
    import ray

    found = address or os.environ.get(ADDRESS) or _started_here()
    while True:
        try:
            if found != "auto" and not answers(found.rpartition("//")[2]):  # Ray itself would ask for ever
                raise ConnectionError("it does not answer")
            session: Any = ray.init(address=found, log_to_driver=False, logging_level=logging.ERROR)
            return str(session.dashboard_url or "")
        except (ConnectionError, RuntimeError, ValueError) as fault:
            if time.monotonic() > until:
                told = " ".join(str(fault).split()).split(". ")[0].rstrip(".")
                raise ConnectionError(
                    f"no Ray cluster at {found} ({told}); start one on this machine (cluster/README.md), "
                    "or give --address HOST:PORT"
                ) from fault
            time.sleep(2)


def _started_here() -> str:
    try:
        return address_file().read_text(encoding="utf-8").strip() or "auto"
    except OSError:
        return "auto"


def _wait_for(wanted: int, until: float) -> list[Node]:
    while len(nodes := living_nodes()) < wanted and time.monotonic() < until:
        time.sleep(1)
    return nodes


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {self.prog}: {message}; see --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m cluster.health",
        description="Say whether a Ray cluster is fit for a search.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="of the cluster (default: the one this machine belongs to)"
    )
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="how many nodes there should be")
    parser.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="how long to wait for both")
    parser.add_argument("--storage", metavar="FOLDER", help="a folder or s3:// place that every node should see")
    return parser


if __name__ == "__main__":
    sys.exit(main())
