"""How much memory a trial needs, which share of a GPU that is, and what follows when it was not enough.

    share, micro, note = fit(trial, channels, gpu_bytes, device="cuda")

A share is 1/k of a GPU, so that k trials fill it, and cut to Ray's four decimals, so that Ray places all k. Nothing
here needs Ray.
"""

from __future__ import annotations

import contextlib
import math
import warnings
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from search import models
from search.losses import loss_for
from search.precision import DTYPES, cache_folder, device_name, libraries, remembered

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from search.space import TrialConfig

CONTEXT_BYTES = 700 << 20
"""GPU memory of a process beside its tensors: the CUDA context and the kernels it has loaded."""
PROCESS_BYTES = 1000 << 20
"""Main memory of a training process beside its tensors: PyTorch, Lightning and their libraries."""
HEADROOM = 0.2
"""Part of the measured peak that is set aside on top of it, for fragments and what validation needs."""
STEP = 1.5
"""A trial that ran out of memory comes back once, so with at least so many times its share."""
SMALLEST_MICRO = 2
"""Crops of a micro-batch that batch normalisation needs."""
UNTRACEABLE = {"lovasz": "focal_dice"}
"""A loss that branches on the values of its tensors, and one with as many intermediates that stands for it."""


def peak_memory(
    trial: TrialConfig, channels: int, *, device: str | None = None, micro: int | None = None, cache: Path | None = None
) -> int:
    """Peak memory of training a trial on one device: weights, gradients, state of AdamW, activations; in bytes.

    Parameters
    ----------
    trial
        The trial, its batch and precision settled.
    channels
        Channels of the images.
    device
        ``cuda`` measures two optimiser steps on the GPU, workspaces and unused blocks of the allocator included, where
        there is one; call it in a process that ends, because its CUDA context stays. Else the storages that live
        during those steps are added up with fake tensors, which need neither memory nor a GPU. None is the GPU if
        there is one.
    micro
        Crops that go through the network at once; None is the micro-batch of the trial, or its whole batch.
    cache
        JSON file of what was found before; None is one in the user's cache folder.

    Returns
    -------
    int
        One byte more than the GPU has, not cached, where the steps do not fit it.
    """
    device = device or models.device()
    micro = micro or trial.micro or trial.train.batch // trial.processes
    probed = device.startswith("cuda") and torch.cuda.is_available()
    model = f"{trial.architecture} {trial.encoder} {trial.train.encoder_depth} {trial.train.decoder_width}"
    task = f"{trial.output_stride} {trial.target} {trial.loss} {micro} {micro < trial.train.batch // trial.processes}"
    given = f"{trial.crop} {channels} {trial.train.precision} {trial.train.channels_last}"
    where = device_name(device) if probed else f"estimate for {device.partition(':')[0]}"
    with contextlib.suppress(torch.OutOfMemoryError), warnings.catch_warnings(action="ignore"):
        return remembered(
            cache or cache_folder() / "memory.json",
            f"{libraries()} {where} {model} {task} {given}",
            lambda: _probe(trial, channels, micro, device) if probed else _estimate(trial, channels, micro, device),
        )
    torch.cuda.empty_cache()
    return gpu_memory(device) + 1


def gpu_memory(device: str | int = 0) -> int:
    """Bytes of memory of a GPU of this machine."""
    return int(torch.cuda.get_device_properties(device).total_memory)


def _probe(trial: TrialConfig, channels: int, micro: int, device: str) -> int:
    """Bytes that the allocator of a GPU took from it for two optimiser steps."""
    from search.trial import make_network

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_reserved(device)
    for _ in steps(trial, make_network(trial, channels).to(device), channels, micro, device):
        torch.cuda.synchronize(device)
    peak = int(torch.cuda.max_memory_reserved(device)) - before
    torch.cuda.empty_cache()
    return peak


def _estimate(trial: TrialConfig, channels: int, micro: int, device: str) -> int:
    """Bytes of the storages that live at once in two optimiser steps of fake tensors."""
    from search.trial import make_network

    with torch.device("meta"):
        network = make_network(trial, channels)
    foreach = device.startswith("cuda")  # AdamW's default on a GPU holds temporaries as large as the weights
    traced = trial.model_copy(update={"loss": UNTRACEABLE.get(trial.loss, trial.loss)})
    with FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as live:
        for _ in steps(traced, network.to_empty(device="cpu"), channels, micro, "cpu", foreach=foreach):
            pass
    return int(live.peak)


def steps(
    trial: TrialConfig, network: nn.Module, channels: int, micro: int, device: str, *, foreach: bool | None = None
) -> Iterator[int]:
    """Two optimiser steps as Lightning takes them, old gradients alive in the forward pass; yields after each."""
    loss = loss_for(trial.loss)
    optimiser = torch.optim.AdamW(network.train().parameters(), foreach=foreach)
    shape = (micro, trial.crop, trial.crop)
    layout = torch.contiguous_format if trial.train.channels_last is False else torch.channels_last
    images = torch.rand(micro, channels, *shape[1:], device=device).contiguous(memory_format=layout)
    target = torch.zeros(shape, dtype=torch.long, device=device)
    if trial.target == "star":
        side = trial.crop // models.GRID["star"]
        target = torch.zeros(micro, models.OUTPUTS["star"], side, side, device=device)
    kind, dtype = torch.device(device).type, DTYPES.get(trial.train.precision)
    for step in range(2):
        for part in range(2 if micro < trial.train.batch // trial.processes else 1):
            with torch.autocast(kind, dtype, enabled=dtype is not None):
                value = loss(network(images), target)
            if part == 0:
                optimiser.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        yield step


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of all storages that operations make while it is entered; `peak` is the most at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._hold(tensor.untyped_storage())
        return out

    def _hold(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._release, storage._cdata, storage.nbytes())

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def gpu_share(peak: int, gpu_bytes: int) -> float:
    """Share of a GPU for a peak in bytes, 1/k cut to four decimals; above 1 where a whole GPU is too small.

    >>> gpu_share(5 << 30, 80 << 30), gpu_share(30 << 30, 80 << 30), gpu_share(90 << 30, 80 << 30) > 1
    (0.0909, 0.5, True)
    """
    needed = (peak * (1 + HEADROOM) + CONTEXT_BYTES) / gpu_bytes
    return needed if needed > 1 else _share_of(int(1 / needed))


def _share_of(trials: int) -> float:
    return math.floor(1e4 / trials) / 1e4


def fit(
    trial: TrialConfig, channels: int, gpu_bytes: int, *, device: str | None = None, cache: Path | None = None
) -> tuple[float, int | None, str]:
    """Share of a GPU, micro-batch and a note: the largest micro-batch, a divisor of the batch, with which a GPU does.

    The micro-batch is None and the note empty where the whole batch goes through at once. Where even the smallest
    micro-batch needs more than the GPU has, that one is tried on a whole GPU, and the note says so.
    """
    batch = trial.train.batch // trial.processes
    for micro in _micro_batches(batch, batch):
        share = gpu_share(peak_memory(trial, channels, device=device, micro=micro, cache=cache), gpu_bytes)
        if share <= 1:
            break
    note = f"{trial.id}: batches of {batch} crops in parts of {micro}, because of the {gpu_bytes / 2**30:.1f} GiB GPU"
    if share > 1:
        note += f", of which it needs {share:.1f} times the memory"
    return min(share, 1.0), None if micro == batch else micro, note if micro < batch or share > 1 else ""


def _micro_batches(batch: int, most: int) -> list[int]:
    """Return the divisors of a batch from `most` down to the smallest, the batch itself where there is none."""
    return [n for n in range(most, SMALLEST_MICRO - 1, -1) if batch % n == 0] or ([batch] if most == batch else [])


def after_out_of_memory(share: float, micro: int | None, batch: int) -> tuple[float, int | None] | None:
    """Share and micro-batch for the one more run of a trial that ran out of memory; None where nothing more can be had.

    A trial with a part of a GPU gets at least `STEP` times that part; one with a whole GPU, or without any (share 0),
    puts at most half as many crops through at once. The batch of an optimiser step stays the same.

    >>> after_out_of_memory(0.3333, None, 16), after_out_of_memory(1.0, None, 16), after_out_of_memory(1.0, 2, 16)
    ((0.5, None), (1.0, 8), None)
    """
    if 0 < share < 1:
        return _share_of(max(1, int(round(1 / share) / STEP))), micro
    smaller = _micro_batches(batch, (micro or batch) // 2)
    return (share, smaller[0]) if smaller else None


def cap(share: float, device: int = 0) -> None:
    """Let this process take no more of a GPU than its share, the CUDA context counted; all of it from share 1 on."""
    if torch.cuda.is_available() and share > 0:
        context = CONTEXT_BYTES / gpu_memory(device)
        torch.cuda.set_per_process_memory_fraction(max(share - context, share / 2) if share < 1 else 1.0, device)


def cpu_slots(peak: int, memory_bytes: int, cores: float) -> float:
    """Cores of a trial, whole ones, so that no more trials run on the cores than fit the memory.

    >>> cpu_slots(1 << 30, 64 << 30, 8), cpu_slots(20 << 30, 64 << 30, 8)
    (1.0, 4.0)
    """
    trials = max(1, min(int(cores), int(memory_bytes / (peak * (1 + HEADROOM) + PROCESS_BYTES))))
    return float(math.ceil(cores / trials))


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or the one behind it, says that a GPU or the process could not get memory."""
    words = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        if isinstance(error, RuntimeError) and any(word in str(error) for word in words):
            return True
        error = error.__cause__
    return False
