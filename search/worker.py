"""One trial in its Ray actor: trained with its part of the machine, every epoch reported to the driver.

What trains is a parameter of the search (`Train`); networks and their libraries are imported only where they are used.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any, Protocol

from search.space import TrialConfig
from search.weights import FOLDER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from search.batches import Banks
    from search.recorder import Row

OUT_OF_MEMORY = "out_of_memory"
"""Key of a result that is no epoch: the trial could not get the memory it asked for, in the words of the value."""


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


def work(config: dict[str, Any], *, train: Train, banks: Banks, run_dir: Path) -> None:
    """Run one trial inside a Ray actor; a lack of memory is reported, everything else that fails is raised."""
    from ray import tune

    trial = TrialConfig.model_validate(config["trial"])
    try:
        train(trial, banks.of_fold(trial.fold), run_dir / "trials" / trial.id, tune.report, run_dir / FOLDER)
        return
    except Exception as error:
        from search.resources import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        lack = f"{type(error).__name__}: {error}".splitlines()[0]
    _give_back_memory()
    tune.report({OUT_OF_MEMORY: lack})


def _give_back_memory() -> None:
    import torch

    gc.collect()
    torch.cuda.empty_cache()
