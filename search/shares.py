"""Which part of the machine each trial gets: cores, a share of a GPU, and how many crops at once fit into it.

With ``resources.gpus_per_trial=auto`` a share follows from the measured peak of the trial's memory, so that as many
trials as fit train on a GPU at the same time; with ``cpus_per_trial=auto`` the cores follow from the memory of the
node. The peaks are measured by Ray tasks, where the trials will run, once per model, target, batch, crop and precision.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from data_io.errors import BadInput
from search import resources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from search.config import Config
    from search.ledger import Ledger
    from search.space import TrialConfig

Kind = tuple[Any, ...]
"""What decides a trial's memory."""


class Shares:
    """Parts of the machine for the trials of a search.

    Parameters
    ----------
    config
        ``resources`` says what is fixed and what is measured.
    fits
        Share of a GPU and crops at once, per kind of trial; those of `measured`.
    cores
        Cores of each trial.
    gpus
        GPUs of a trial that no measurement covers.
    """

    def __init__(
        self, config: Config, fits: dict[Kind, tuple[float, int | None]], cores: float, gpus: float, ledger: Ledger
    ) -> None:
        self.config = config
        self.fits = fits
        self.cores = cores
        self.gpus = gpus
        self.ledger = ledger
        self._read = 0
        self._more: dict[str, tuple[float, int | None]] = {}
        """What trials were put back with, by the first `_read` events."""

    def place(self, trial: TrialConfig) -> TrialConfig:
        """Return the trial with its cores, its share of the GPU and its crops at once.

        A trial that ran out of memory has what it was put back with.
        """
        for event in self.ledger.events[self._read :]:
            if event["event"] == "oom":
                self._more[event["trial"]] = (event["next_share"], event["next_micro"])
        self._read = len(self.ledger.events)
        share, micro = self.fits.get(kind_of(trial), (self.gpus, None))
        if trial.id in self._more:
            share, micro = self._more[trial.id]
        elif trial.processes > 1:
            share, micro = float(bool(self.gpus)), None
        return trial.model_copy(update={"cpus": self.cores, "gpus": share, "micro": micro})


def measured(
    config: Config, trials: Iterable[TrialConfig], channels: int, ledger: Ledger, say: Callable[[str], None]
) -> Shares:
    """Measure what the trials need; Ray must have been started.

    Raises
    ------
    BadInput
        When no node of the cluster has what a trial is to get.
    """
    import ray

    wanted, trials = config.resources, list(trials)
    cluster, nodes = ray.cluster_resources(), [node["Resources"] for node in ray.nodes() if node["Alive"]]
    kinds = {kind_of(trial): trial for trial in trials}
    fits: dict[Kind, tuple[float, int | None]] = {}
    gpus = 0.0 if isinstance(wanted.gpus_per_trial, str) else wanted.gpus_per_trial
    if isinstance(wanted.gpus_per_trial, str) and cluster.get("GPU", 0) > 0:
        gpus = 1.0
        memory = _gpu_memory(config)
        if memory is None:
            say("note: the memory of the GPUs is unknown, each trial gets a whole one; set resources.gpu_memory_gb")
        else:
            fits, notes = _fits(kinds, channels, memory)
            for note in notes:
                say(f"note: {note}")
            trials_at_once = sorted({round(1 / share) for share, _ in fits.values()})
            say(f"GPU memory of the trials measured: {' or '.join(map(str, trials_at_once))} of them on a GPU")
    cores = wanted.cpus_per_trial
    if isinstance(cores, str):
        cores = 1.0 if gpus else _cores(list(kinds.values()), channels, nodes)
    most_cores, most_gpus = (max((node.get(name, 0.0) for node in nodes), default=0.0) for name in ("CPU", "GPU"))
    if cores > most_cores or gpus > most_gpus:
        raise BadInput(
            f"a trial is to get {cores:g} cores and {gpus:g} GPUs, but no node has more than {most_cores:g} and "
            f"{most_gpus:g}; lower resources.cpus_per_trial or resources.gpus_per_trial"
        )
    return Shares(config, fits, cores, gpus, ledger)


def kind_of(trial: TrialConfig) -> Kind:
    """Return what decides a trial's memory."""
    train = trial.train
    model = (trial.architecture, trial.encoder, train.encoder_depth, train.decoder_width, trial.output_stride)
    return (*model, trial.target, trial.crop, train.batch, train.precision, train.channels_last)


def _gpu_memory(config: Config) -> int | None:
    """Bytes of the smallest GPU: as configured, else asked of a worker on each node; None where one has no answer."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if config.resources.gpu_memory_gb is not None:
        return int(config.resources.gpu_memory_gb * 1e9)
    ask = ray.remote(num_gpus=1)(_memory_of_gpu)
    with_gpu = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU", 0) >= 1]
    there = [NodeAffinitySchedulingStrategy(node, soft=True) for node in with_gpu]
    asked: list[int | None] = ray.get([ask.options(scheduling_strategy=place).remote() for place in there])
    found = [memory for memory in asked if memory is not None]
    return min(found) if found and len(found) == len(asked) else None


def _memory_of_gpu() -> int | None:
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else None


def _fits(
    kinds: dict[Kind, TrialConfig], channels: int, memory: int
) -> tuple[dict[Kind, tuple[float, int | None]], list[str]]:
    """Share and crops at once per kind, measured one after another on every GPU."""
    import ray

    fit = ray.remote(num_gpus=1)(resources.fit)
    found = ray.get([fit.remote(trial, channels, memory) for trial in kinds.values()])
    shares = {kind: (share, micro) for kind, (share, micro, _) in zip(kinds, found, strict=True)}
    return shares, sorted({note for _, _, note in found if note})


def _cores(trials: list[TrialConfig], channels: int, nodes: list[dict[str, float]]) -> float:
    """Cores of each trial, so that as many as run at once on the smallest node fit into its memory."""
    import ray

    peak = ray.remote(num_cpus=1)(resources.peak_memory)
    largest = max(ray.get([peak.remote(trial, channels) for trial in trials]), default=0)
    cores = min((node.get("CPU", 1.0) for node in nodes), default=float(os.cpu_count() or 1))
    memory = min((node.get("memory", 0.0) for node in nodes), default=0.0)
    return resources.cpu_slots(largest, int(memory), cores)
