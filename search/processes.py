"""One trial trained by several processes (DDP), each in its own bundle of the trial's Ray placement group.

The trial's own process is the first one: it records and reports. The others train their share of every batch. Weights,
statistics of batch normalisation and the decision to write a checkpoint are common to all.
"""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

from search.trial import run_trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from search.frames import Banks
    from search.metrics import Row
    from search.space import TrialConfig

LAST_WORDS = 20
"""Seconds that the other processes get to tell why they ended, once the first one has failed."""


def train_together(
    trial: TrialConfig, banks: Banks, folder: Path, report: Callable[[Row], None], encoders: Path | None
) -> Row:
    """Train a trial on all its processes; to be called inside its Ray actor. Parameters as those of `run_trial`."""
    import ray
    from ray.util import get_current_placement_group, get_node_ip_address
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    address = get_node_ip_address()
    meeting = (address, _free_port(address))
    bundles = get_current_placement_group()
    if bundles is None:
        raise RuntimeError(f"{trial.id}: several processes need the placement group of a Ray trial")
    others = []
    for rank in range(1, trial.processes):
        place = PlacementGroupSchedulingStrategy(bundles, placement_group_bundle_index=rank)
        member = ray.remote(_member).options(
            num_cpus=trial.cpus, num_gpus=trial.gpus, scheduling_strategy=place, max_retries=0
        )
        others.append(member.remote(trial, banks, folder, encoders, rank, meeting))
    try:
        with _member_of_group(rank=0, meeting=meeting):
            best = run_trial(trial, banks, folder, report, encoders)
    except RuntimeError:
        ended, _ = ray.wait(others, num_returns=len(others), timeout=LAST_WORDS)
        ray.get(ended)  # where a member failed, that is the cause; the first one only lost its connection
        raise
    ray.get(others)
    return best


def _member(
    trial: TrialConfig, banks: Banks, folder: Path, encoders: Path | None, rank: int, meeting: tuple[str, int]
) -> None:
    """Train the parts of process `rank`."""
    import torch

    torch.set_num_threads(max(1, int(trial.cpus)))
    with _member_of_group(rank, meeting):
        run_trial(trial, banks, folder, lambda row: None, encoders, rank)


@contextmanager
def _member_of_group(rank: int, meeting: tuple[str, int]) -> Iterator[None]:
    """Tell Lightning by its environment variables which process this is and where the first one listens."""
    import torch.distributed

    ours = {"MASTER_ADDR": meeting[0], "MASTER_PORT": str(meeting[1]), "NODE_RANK": str(rank), "LOCAL_RANK": "0"}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _free_port(address: str) -> int:
    with socket.socket() as found:
        found.bind((address, 0))
        return int(found.getsockname()[1])
