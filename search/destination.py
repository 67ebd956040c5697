"""Where a run goes: the folder asked for, or a new one; inside a Ray job one that is still there when the job ends.

A job works in a temporary copy of the submitter's folder, on one node of several. So a relative folder is refused
there, and so is one that not every node sees: a file is written into it, and a task on each node has to read it and
leave one of its own.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_io.errors import BadInput
from data_io.job_folder import is_object, refuse_relative
from search.prepare import RUNS, make_folder, numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

STORAGE = "SEARCH_STORAGE"
"""Variable that names the place of runs inside a job."""
AGENTS_SWEEP, AGENTS_RUN = "WANDB_SWEEP_ID", "WANDB_RUN_ID"
"""Variables that ``wandb agent`` sets for what it starts."""
HOME_RUNS = "cellsearch-runs"
"""Folder under the home directory for the runs of a one-node cluster."""
REMEDY = "a folder that every node sees, such as /shared/run1, or s3://bucket/run1"


def outside_a_job(asked: Path | None, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of a run on this machine: the one asked for, else a new one; absolute, as trials run elsewhere.

    A new one has the next free number or, for what ``wandb agent`` started, the name that W&B gave the run: agents that
    begin in the same second, perhaps in a folder that their machines share, would take the same number.
    """
    run = environment.get(AGENTS_RUN, "") if environment.get(AGENTS_SWEEP) else ""
    named = Path(RUNS) / run if re.fullmatch(r"\w[\w-]*", run) else None
    return (asked or named or numbered(Path(RUNS))).absolute()


def in_a_job(asked: Path | str | None, environment: Mapping[str, str], nodes: int) -> tuple[Path | str, str]:
    """Return the place of a run inside a job, and why it is that one.

    `asked` first, then a new numbered folder in ``$SEARCH_STORAGE``, then one under the home directory where the
    cluster has one node.

    Raises
    ------
    BadInput
        The place is relative, or nothing names one on a cluster of several nodes.
    """
    if asked is not None:
        refuse_relative(asked, "--out", stores=True)
        return asked, "as asked for"
    if named := environment.get(STORAGE):
        refuse_relative(named, STORAGE, stores=True)
        return _new_in(named), f"{STORAGE} is {named}"
    if nodes > 1:
        raise BadInput(f"no place for the run: this cluster has {nodes} nodes; give --out or set {STORAGE} to {REMEDY}")
    return _new_in(Path.home() / HOME_RUNS), f"the default on a cluster of one node; --out or {STORAGE} name another"


def check_seen(place: Path | str, nodes: list[Any], blind: Callable[[Path, list[Any]], list[Any]]) -> None:
    """Raise BadInput where a node of the cluster does not see the folder of a run, or cannot write to it.

    `blind` tells which ones, see `cluster.joined.blind_nodes`. The folder is made for it, and taken away again.
    """
    if is_object(place) or len(nodes) < 2:
        return
    run_dir = Path(place)
    made = make_folder(run_dir)
    try:
        without = blind(run_dir, nodes)
    except OSError as fault:
        raise BadInput(f"{run_dir}: cannot be written to ({fault.strerror}); give another with --out") from fault
    finally:
        if made:
            run_dir.rmdir()
    if without:
        raise BadInput(
            f"{run_dir}: {len(without)} of {len(nodes)} nodes do not see this folder, or may not write to it "
            f"({', '.join(f'{node.host} {node.address}' for node in without[:3])}); give {REMEDY}"
        )


def check_reached(places: list[Any], nodes: list[Any], without: Callable[[str, list[Any]], list[str]]) -> None:
    """Raise BadInput where a node of the cluster cannot use one of the places that are in an object store.

    `without` tells why, see `cluster.joined.without_reach`; this process itself is told by whoever opens the place.
    """
    for place in places if len(nodes) > 1 else []:
        if place is not None and is_object(place) and (faults := without(str(place), nodes)):
            more = f"; and {len(faults) - 1} more of {len(nodes)} nodes" if len(faults) > 1 else ""
            raise BadInput(f"{faults[0]}{more}")


def check_data(data: str | None) -> None:
    """Raise BadInput for a relative folder of images that did not come along with a job's code."""
    if data is not None and not is_object(data) and not Path(data).is_absolute() and not Path(data).exists():
        raise BadInput(
            f"{data}: not here; a Ray job works in a copy of your folder without the data (.rayignore): give "
            "an absolute path that the nodes see, or s3://bucket/name.zarr"
        )


def _new_in(place: Path | str) -> Path | str:
    """Return the first free number below a folder; in an object store, which costs a request to list, the time."""
    if is_object(place):
        return f"{str(place).rstrip('/')}/{datetime.now(UTC):%Y%m%d-%H%M%S}"
    parent = Path(place)
    try:
        return numbered(parent)
    except OSError as fault:
        raise BadInput(f"{parent}: cannot be read ({fault.strerror}); give a folder with --out") from fault
