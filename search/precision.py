"""Arithmetic and memory layout of training: what measures faster on this device, found out once and remembered."""

from __future__ import annotations

import json
import os
import platform
import time
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from data_io import files
from search import models

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Clock: TypeAlias = Callable[[], float]

Value = TypeVar("Value", bool, int, str)

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
GAIN = 0.9
"""Part of the time that a change must at most take to be made."""
FEWEST, MOST = 3, 9
"""Pairs of steps that are timed; the most where the fewest do not agree."""
SECONDS = 0.6
"""Time after which no further pair is timed."""


def faster(device: str | None = None, *, clock: Clock = time.perf_counter, cache: Path | None = None) -> str:
    """Return ``bf16``, on a GPU without it ``fp16``, where a training step takes less time in it, else ``fp32``."""
    device = device or models.device()
    mixed = "bf16"
    if device.startswith("cuda") and not torch.cuda.is_bf16_supported(including_emulation=False):
        mixed = "fp16"

    def measure() -> str:
        ratio = time_ratio(training_step(mixed, device), training_step("fp32", device), clock)
        return mixed if ratio < GAIN else "fp32"

    return remembered(cache or cache_folder() / "speed.json", f"{_circumstances(device)} precision", measure)


def channels_last_is_faster(
    precision: str,
    device: str | None = None,
    *,
    clock: Clock = time.perf_counter,
    cache: Path | None = None,
) -> bool:
    """Whether a training step takes less time with the channels of a pixel side by side in memory."""
    device = device or models.device()

    def measure() -> bool:
        beside = training_step(precision, device)
        return time_ratio(beside, training_step(precision, device, channels_last=False), clock) < 1

    key = f"{_circumstances(device)} channels_last {precision}"
    return remembered(cache or cache_folder() / "speed.json", key, measure)


def training_step(precision: str, device: str, *, channels_last: bool = True) -> Callable[[], None]:
    """Return a training step of a small encoder and decoder that waits until the device has done it."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    on_gpu = device.startswith("cuda")
    size, crops = (224, 16) if on_gpu else (96, 4)
    down, up = (1, 16, 32, 64), (64, 32, 16, 16)
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        for inputs, outputs in pairwise(down):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        for inputs, outputs in pairwise(up):
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)]
        network = nn.Sequential(*layers, nn.Conv2d(16, 1, 1)).to(device=device, memory_format=layout)  # type: ignore[call-overload]
        images = torch.rand(crops, 1, size, size).to(device=device, memory_format=layout)
    optimiser = torch.optim.AdamW(network.parameters())
    dtype = DTYPES.get(precision)

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast(torch.device(device).type, dtype, enabled=dtype is not None):
            loss = network(images).float().square().mean()
        loss.backward()
        optimiser.step()
        if on_gpu:
            torch.cuda.synchronize(device)

    return step


def time_ratio(new: Callable[[], None], old: Callable[[], None], clock: Clock = time.perf_counter) -> float:
    """Time of `new` over that of `old` on one thread: the median of pairs, so that a machine's changes meet both.

    It ends when the first pairs agree on which is faster, and in any case after `MOST` pairs or `SECONDS`.
    """

    def seconds(step: Callable[[], None]) -> float:
        began = clock()
        step()
        return clock() - began

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as most trials have; several that wait for a busy machine would measure the waiting
    try:
        new()
        old()  # the first steps choose kernels
        began, ratios = clock(), list[float]()
        while len(ratios) < MOST:
            ratios.append(seconds(new) / max(seconds(old), 1e-9))
            agree = max(ratios) < GAIN or min(ratios) > 1 / GAIN
            if len(ratios) >= FEWEST and (agree or clock() - began > SECONDS):
                break
    finally:
        torch.set_num_threads(threads)
    return median(ratios)


def _circumstances(device: str) -> str:
    return f"{libraries()} {device_name(device)}"


def libraries() -> str:
    """Versions of the libraries that decide memory and speed of a network."""
    return f"torch {version('torch')} smp {version('segmentation-models-pytorch')} timm {version('timm')}"


def device_name(device: str) -> str:
    """Name of a GPU's model, or of this machine for its CPU."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else f"cpu of {platform.node()}"


def cache_folder() -> Path:
    """Folder of what this package found out about the machine and the libraries."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "cellsearch"


def remembered(file: Path, key: str, find: Callable[[], Value]) -> Value:
    """Value of `key` in a JSON file, found out and written there where it is missing."""
    known = _read(file)
    if key in known:
        value: Value = known[key]
        return value
    value = find()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(file, dict(sorted((_read(file) | {key: value}).items())))
    except OSError:
        pass  # a cache that cannot be written only costs time
    return value


def _read(file: Path) -> dict[str, Any]:
    try:
        known = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
