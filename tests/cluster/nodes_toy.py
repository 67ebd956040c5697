"""What the trials of `test_nodes` do: the toy of the fault tests, telling where it was."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_io import files
from tests.faults import toy

if TYPE_CHECKING:
    from collections.abc import Callable

    from search.space import TrialConfig

TOLD = "NODES_TOY_TOLD"
"""Variable that names the folder in which each trial tells of itself."""
GATE = "closed"
"""A file in it: while it is there, trials that are no references do not end their epoch."""


def train(trial: TrialConfig, banks: Any, folder: Path, report: Callable[[Any], None], encoders: Path) -> None:
    """Train the toy and write after each epoch which node, GPU and frames it had, and since when."""
    import ray
    from ray.util import get_current_placement_group, placement_group_table

    group = placement_group_table(get_current_placement_group())  # type: ignore[no-untyped-call]
    facts = {
        "trial": trial.id,
        "node": Path(os.environ["SEARCH_SCRATCH"]).name,
        "gpus": list(map(str, ray.get_gpu_ids())),  # type: ignore[no-untyped-call]
        "frames": str(banks.train),
        "folder": str(folder),
        "nodes_of_bundles": sorted(set(group["bundles_to_node_id"].values())),
        "began": time.time(),
    }
    mine = Path(os.environ[TOLD]) / f"{trial.id}.{os.getpid()}.{facts['began']}.json"

    def tell_and_wait(row: Any) -> None:
        files.write_text(mine, json.dumps(facts | {"last": time.time()}))
        while (mine.parent / GATE).exists() and not trial.reference:
            time.sleep(0.1)
            files.write_text(mine, json.dumps(facts | {"last": time.time()}))  # its node may be lost meanwhile
        files.write_text(mine, json.dumps(facts | {"last": time.time()}))
        report(row)

    toy.train(trial, banks, folder, tell_and_wait, encoders)
