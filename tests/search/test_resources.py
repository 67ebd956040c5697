"""Memory of a trial and its share of a GPU: estimates hold against measured steps, shares pack, a retry gets more."""

from __future__ import annotations

import json
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from search import resources
from search.config import load
from search.trial import make_network
from tests.search.trials import a_trial

if TYPE_CHECKING:
    from pathlib import Path

    from search.space import TrialConfig

GIB = 1 << 30


def trial_of(
    architecture: str = "stardist_unet", encoder: str = "", target: str = "star", loss: str = "stardist", **train: Any
) -> TrialConfig:
    settings = {"crop": 64, "batch_size": 4, "precision": "fp32", "encoder_depth": 3, "crops_per_epoch": 8192} | train
    config = load("demo", None, [f"train.{name}={value}" for name, value in settings.items()])
    facts = {"target": target, "architecture": architecture, "encoder": encoder, "loss": loss, "crop": settings["crop"]}
    return a_trial(config.train, **facts)


def allocated(trial: TrialConfig, micro: int, folder: Path) -> int:
    """Most bytes that PyTorch's CPU allocator gave out at once while the steps were really trained."""
    with warnings.catch_warnings(action="ignore"):
        network = make_network(trial, 1)
    own = sum(value.nbytes for value in network.state_dict().values())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        list(resources.steps(trial, network, 1, micro, "cpu"))
    profiler.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    totals = [(e["args"]["Total Allocated"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]"]
    before = totals[0][0] - totals[0][1]
    return own - before + max(total for total, _ in totals)


@pytest.mark.parametrize(
    ("trial", "micro"),
    [
        (trial_of(), 4),
        (trial_of("unet", "tu-regnety_002", "three_class", "lovasz"), 4),
        (trial_of("linknet", "timm-mobilenetv3_small_075", "two_class", "bce_dice", precision="bf16"), 2),
    ],
    ids=["StarDist's network", "a loss that cannot be traced", "two micro-batches in bfloat16"],
)
def test_the_estimate_is_the_memory_that_real_steps_allocate_within_a_fifth(
    trial: TrialConfig, micro: int, tmp_path: Path
) -> None:
    estimate = resources.peak_memory(trial, 1, device="cpu", micro=micro, cache=tmp_path / "memory.json")
    measured = allocated(trial, micro, tmp_path)
    assert measured / 1.2 < estimate < measured * 1.2


def test_an_estimate_takes_no_memory_itself(tmp_path: Path) -> None:
    trial = trial_of(crop=1024, batch_size=4096)
    assert resources.peak_memory(trial, 1, device="cpu", cache=tmp_path / "memory.json") > 1000 * GIB


def test_what_is_known_is_not_measured_again_and_what_differs_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[TrialConfig] = []
    monkeypatch.setattr(resources, "_estimate", lambda trial, *_: measured.append(trial) or 7 * GIB)
    first, cache = trial_of(), tmp_path / "new" / "memory.json"
    others = [trial_of(crop=96), trial_of(batch_size=8), trial_of(precision="bf16"), trial_of("unet", "resnet18")]
    for trial in [first, *others, first, *others, first.model_copy(update={"learning_rate": 0.1, "seed": 3})]:
        assert resources.peak_memory(trial, 1, device="cpu", cache=cache) == 7 * GIB
    assert measured == [first, *others]
    resources.peak_memory(first, 2, device="cpu", cache=cache)
    assert len(measured) == 6
    cache.write_text('{"torn')
    resources.peak_memory(first, 1, device="cpu", cache=cache)
    assert len(measured) == 7


def test_a_probe_that_runs_out_of_memory_needs_more_than_the_gpu_and_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpu(monkeypatch)

    def probe(*_: object) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(resources, "_probe", probe)
    peak = resources.peak_memory(trial_of(), 1, device="cuda", cache=tmp_path / "memory.json")
    assert peak > 80 * GIB
    assert resources.gpu_share(peak, 80 * GIB) > 1
    assert not (tmp_path / "memory.json").exists()


def test_shares_fill_a_gpu_and_each_holds_its_peak() -> None:
    for peak in range(GIB // 2, 60 * GIB, GIB // 7):
        share = resources.gpu_share(peak, 80 * GIB)
        trials = round(1 / share)
        assert trials * round(share * 10_000) <= 10_000  # Ray counts in ten-thousandths
        assert peak + resources.CONTEXT_BYTES <= share * 80 * GIB
        one_more = (trials + 1) * (peak * (1 + resources.HEADROOM) + resources.CONTEXT_BYTES)
        assert one_more > 80 * GIB


@pytest.mark.parametrize(
    ("gpu", "share", "micro"),
    [(80, 0.2, None), (20, 1.0, None), (10, 1.0, 6), (5, 1.0, 3), (1, 1.0, 2)],
)
def test_the_largest_micro_batch_that_a_gpu_holds_is_taken(
    gpu: int, share: float, micro: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "peak_memory", lambda *_, micro, **__: micro * GIB)
    fitted = resources.fit(trial_of(batch_size=12), 1, gpu * GIB)
    assert fitted[:2] == (share, micro)
    assert (f"in parts of {micro}" in fitted[2]) == (micro is not None)
    assert ("times the memory" in fitted[2]) == (gpu == 1)


@pytest.mark.parametrize("batch", [2, 3, 4, 12, 16, 30])
@pytest.mark.parametrize("share", [0.0, 0.0625, 0.1666, 0.25, 0.3333, 0.5, 1.0])
def test_each_return_has_more_room_until_nothing_larger_is_left(share: float, batch: int) -> None:
    micro: int | None = None
    while (larger := resources.after_out_of_memory(share, micro, batch)) is not None:
        size, before = larger[1] or batch, micro or batch
        assert batch % size == 0
        assert size >= 2
        assert (larger[0] >= 1.4 * share and size == before) or (larger[0] == share and size <= before / 2)
        assert larger[0] <= 1
        share, micro = larger
    assert share in (0.0, 1.0)
    assert not any(batch % smaller == 0 for smaller in range(2, (micro or batch) // 2 + 1))


def test_a_process_is_capped_so_that_capped_processes_and_their_contexts_fit_the_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    capped = fake_gpu(monkeypatch)
    for share in (0.25, 0.5, 0.01, 1.0, 2.0):
        resources.cap(share)
    taken = [fraction * 80 * GIB + resources.CONTEXT_BYTES for fraction, _ in capped]
    assert [taken[0], taken[1]] == pytest.approx([20 * GIB, 40 * GIB])
    assert capped[2][0] > 0
    assert [fraction for fraction, _ in capped[3:]] == [1.0, 1.0]
    assert {device for _, device in capped} == {0}


def test_without_a_gpu_nothing_is_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    capped = fake_gpu(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    resources.cap(0.5)
    assert capped == []


def test_no_more_trials_run_on_the_cores_than_fit_the_memory() -> None:
    for cores in (1, 2, 3, 7, 16, 64):
        for peak in (GIB // 10, GIB, 3 * GIB, 20 * GIB, 200 * GIB):
            each = resources.cpu_slots(peak, 64 * GIB, cores)
            trials = cores // each
            assert 1 <= each <= cores
            assert trials == 1 or trials * (peak + resources.PROCESS_BYTES) <= 64 * GIB
    assert resources.cpu_slots(GIB // 10, 64 * GIB, 16) == 1


def test_running_out_of_memory_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as cpu:
        torch.empty(1 << 60, dtype=torch.uint8)
    wrapped = ValueError("the trial failed")
    wrapped.__cause__ = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    for error in (cpu.value, wrapped, MemoryError(), RuntimeError("CUDA error: out of memory")):
        assert resources.is_out_of_memory(error)
    for other in (RuntimeError("shapes differ"), ValueError("out of memory"), KeyboardInterrupt(), None):
        assert not resources.is_out_of_memory(other)


def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int]]:
    """A GPU of 80 GiB; returns the list that memory fractions are written to."""
    capped: list[tuple[float, int]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=80 * GIB))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *given: capped.append(given))
    return capped
