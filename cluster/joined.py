"""The cluster of the Ray job this process belongs to: its nodes, what they see, and whether strangers may use it."""

from __future__ import annotations

import ipaddress
import os
import secrets
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.token import is_asked_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ALLOW = "SEARCH_ALLOW_INSECURE_CLUSTER"
"""Variable with which a user says that a cluster without a token is known to be out of strangers' reach."""
NODE_SECONDS = 60.0
"""How long a node may take to say what it sees."""
SEEN_SECONDS = 5.0
"""How long a file written on one node may take to appear on another, which network file systems do not do at once."""


@dataclass(frozen=True)
class Node:
    """A living node.

    Attributes
    ----------
    id
        Ray's name of it.
    address, host
        Its address and its host name.
    resources
        What Ray counts on it: ``CPU``, ``GPU``, ``memory`` in bytes ...
    """

    id: str
    address: str
    host: str
    resources: dict[str, float]


def living_nodes() -> list[Node]:
    """Return the living nodes of the cluster that Ray is connected to, the head first."""
    import ray

    found = [
        Node(node["NodeID"], node["NodeManagerAddress"], node["NodeManagerHostname"], dict(node["Resources"]))
        for node in ray.nodes()
        if node["Alive"]
    ]
    return sorted(found, key=lambda node: ("node:__internal_head__" not in node.resources, node.address, node.id))


def ask(nodes: list[Node], question: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Return what a function answers on each node, by the node's id; a node that does not answer is left out."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(num_cpus=0, max_retries=0)(question)
    asked = {
        remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(*arguments): node
        for node in nodes
    }
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=NODE_SECONDS)
    answers = {}
    for answer in answered:
        try:
            answers[asked[answer].id] = ray.get(answer)
        except ray.exceptions.RayError:  # the node has gone, or cannot run our code
            continue
    return answers


def blind_nodes(folder: Path, nodes: list[Node], asked: Callable[..., dict[str, Any]] = ask) -> list[Node]:
    """Return the nodes on which `folder` is not the folder that this process sees, or cannot be written to.

    A file is left in the folder, every node reads it and leaves one of its own, and each of those must appear here.
    `folder` must exist.
    """
    probe = folder / f".probe-{secrets.token_hex(8)}"
    word = secrets.token_hex(16)
    probe.write_text(word)
    try:
        answers = asked(nodes, _leave_word, str(probe), word)
        return [node for node in nodes if not answers.get(node.id) or not _appears(Path(answers[node.id]), word)]
    finally:
        for file in folder.glob(f"{probe.name}*"):
            file.unlink(missing_ok=True)


def _leave_word(probe: str, word: str) -> str:
    """Read the driver's file and leave one beside it; the answer is its path, empty where the file is another's."""
    answer = f"{probe}-{secrets.token_hex(8)}"
    if not _appears(Path(probe), word):
        return ""
    try:
        Path(answer).write_text(word)
    except OSError:
        return ""
    return answer


def _appears(file: Path, word: str) -> bool:
    until = time.monotonic() + SEEN_SECONDS
    while True:
        try:
            return file.read_text() == word
        except OSError:
            if time.monotonic() > until:
                return False
            time.sleep(0.1)


def without_reach(place: str, nodes: list[Node], asked: Callable[..., dict[str, Any]] = ask) -> list[str]:
    """Return a sentence for each node that cannot use a place in an object store: packages, keys, network, bucket."""
    answers = asked(nodes, _fault_of_reach, place)
    found = [(node, answers.get(node.id, f"{place}: no answer from this node")) for node in nodes]
    return [f"{node.host} {node.address}: {fault}" for node, fault in found if fault]


def _fault_of_reach(place: str) -> str:
    from data_io.errors import BadInput
    from data_io.location import check_bucket, located

    try:
        check_bucket(located(place))
    except BadInput as fault:
        return str(fault)
    return ""


def is_open(nodes: list[Node], here: str, dashboard: str, environment: Mapping[str, str]) -> bool:
    """Tell whether strangers could run code on the cluster: it reaches beyond this machine and asks for no token.

    `here` is the address of this machine's node, `dashboard` that of the dashboard (``host:port``, empty for none).
    """
    on_this_machine = all(node.address == here for node in nodes) and (not dashboard or is_loopback(dashboard))
    return not on_this_machine and not asks_for_token(dashboard, environment)


def asks_for_token(dashboard: str, environment: Mapping[str, str]) -> bool:
    """Tell whether the cluster asks for a token: our own processes were told to, and the dashboard turns us away."""
    if not is_asked_for(environment):
        return False
    try:
        straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        straight.open(f"http://{dashboard}/api/jobs/", timeout=5).close()
    except urllib.error.HTTPError as answer:
        answer.close()
        return answer.code in (401, 403)
    except (OSError, ValueError):
        return True  # not to be reached from here; what the processes were told counts
    return False


def is_loopback(address: str) -> bool:
    """Tell whether ``host:port`` can be reached from this machine alone."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def within_reach(address: str, dashboard: str, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return a sentence where other machines reach the cluster's control store, ``host:port``, which asks for no token.

    Ray binds the dashboard to the loopback address, its other ports to every address of the machine.
    """
    if is_loopback(address) or asks_for_token(dashboard, environment):
        return ()
    return (
        f"the Ray cluster {address} asks for no token, and whoever reaches its ports can run code on it; start it with "
        "RAY_AUTH_MODE=token or, for this machine alone, with RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 (cluster/README.md)",
    )


def refuse_open(address: str, nodes: list[Node], here: str, dashboard: str) -> None:
    """Raise ConnectionError where strangers could run code on the cluster and nobody said that this is known."""
    if os.environ.get(ALLOW) == "1" or not is_open(nodes, here, dashboard, os.environ):
        return
    raise ConnectionError(
        f"the Ray cluster {address} ({len(nodes)} nodes) runs the code of anyone who reaches it, for it asks for no "
        f"token; start it with RAY_AUTH_MODE=token (see cluster/README.md) or, on a network that you trust, give "
        f"--allow-insecure-cluster or set {ALLOW}=1"
    )
