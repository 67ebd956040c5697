"""One trial in its Ray actor: trained with its part of the machine, every epoch reported to the driver.

What trains is a parameter of the search (`Train`); networks and their libraries are imported only where they are used.
"""

from __future__ import annotations

import gc
import sys
import traceback
from socket import gethostname
from typing import TYPE_CHECKING, Any, Protocol

from data_io.errors import BadInput, disk_full, is_disk_full
from data_io.secrecy import veiled
from search.nodes import NotShared, of_this_node
from search.space import TrialConfig
from search.storage import StorageLost, is_out_of_reach
from search.trust import write_for_owner_only
from search.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from search.frames import Banks
    from search.metrics import Row
    from search.nodes import Home

OUT_OF_MEMORY = "out_of_memory"
"""Key of a result that is no epoch: the trial could not get the memory it asked for, in the words of the value."""
DISK_FULL = "disk_full"
"""Key of a result that is no epoch: a disk has no room for what the trial writes; path and bytes are the value."""
UNREACHED = "unreached"
"""Key of a result that is no epoch: this node cannot reach the run, or its storage, for the reason in the value."""
ERROR = "error"
"""Key of a result that is no epoch: the trial failed with the traceback that is the value; its last line is shown."""


class Train(Protocol):
    """What trains a trial; `search.trial.run_trial` says what it is handed."""

    def __call__(
        self, trial: TrialConfig, banks: Banks, folder: Path, report: Callable[[Row], None], encoders: Path, /
    ) -> object:
        """Train a trial to its last epoch, or until `report` raises; what it returns is not used."""


def train_network(
    trial: TrialConfig, banks: Banks, folder: Path, report: Callable[[Row], None], encoders: Path
) -> None:
    """Train the network of a trial on its cores and its share of the GPU."""
    import torch

    from search.processes import train_together
    from search.resources import cap
    from search.trial import run_trial

    torch.set_num_threads(max(1, int(trial.cpus)))
    cap(trial.gpus)
    train = run_trial if trial.processes == 1 else train_together
    train(trial, banks, folder, report, encoders)


def work(config: dict[str, Any], *, train: Train, banks: Banks, home: Home, hang_seconds: float | None = None) -> None:
    """Run one trial inside a Ray actor; what fails is reported, a process that completes no epoch for long ends."""
    from ray import tune

    write_for_owner_only()  # a node of a cluster may have been started to let the group write
    trial = TrialConfig.model_validate(config["trial"])
    try:
        home.refuse_other_packages()
        with home.trial(trial.id, tune.report) as (folder, tell):
            with of_this_node():
                own = banks.of_fold(trial.fold).here()
                encoders = home.encoders(needed=trial.encoder_weights is not None)
            with Watchdog(hang_seconds, folder) as watchdog:

                def report(row: Row) -> None:
                    watchdog.rest()
                    tell(row)
                    watchdog.wake()

                train(trial, own, folder, report, encoders)
        return
    except Exception as error:
        failure = what_failed(error)
    _give_back_memory()
    tune.report(failure)


def what_failed(error: Exception) -> dict[str, str]:
    """Return the result that tells the driver of an error, without the secrets of this process's environment."""
    return {kind: veiled(told) for kind, told in _what_failed(error).items()}


def _what_failed(error: Exception) -> dict[str, str]:
    from search.resources import is_out_of_memory

    if isinstance(error, StorageLost | NotShared):
        return {UNREACHED: str(error)}
    if is_out_of_reach(error):  # of frames that are streamed from there
        return {UNREACHED: f"an object store does not answer {gethostname()} ({' '.join(str(error).split())})"}
    if is_disk_full(error):
        return {DISK_FULL: str(disk_full(error))}
    if is_out_of_memory(error):
        return {OUT_OF_MEMORY: f"{type(error).__name__}: {error}".splitlines()[0]}
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, BadInput):  # other nodes may not share the fault: a package, a file, a mount
        trace += f"on node {gethostname()}: {' '.join(str(error).split())}\n"
    return {ERROR: trace}


def _give_back_memory() -> None:
    gc.collect()
    if "torch" in sys.modules:
        import torch

        torch.cuda.empty_cache()
