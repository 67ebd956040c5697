"""What measures faster is used, and once found out it is remembered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from search import precision

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Machine:
    """A clock that training steps move on by the seconds their arithmetic and layout take."""

    def __init__(self, seconds: dict[tuple[str, bool], float], monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.steps: list[tuple[str, bool]] = []

        def training_step(name: str, device: str, *, channels_last: bool = True) -> Callable[[], None]:
            def step() -> None:
                self.steps.append((name, channels_last))
                self.now += seconds[name, channels_last]

            return step

        monkeypatch.setattr(precision, "training_step", training_step)

    def clock(self) -> float:
        return self.now


@pytest.mark.parametrize(("bf16", "taken"), [(0.05, "bf16"), (0.085, "bf16"), (0.095, "fp32"), (0.3, "fp32")])
def test_bfloat16_is_taken_where_it_takes_clearly_less_time(
    bf16: float, taken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine({("bf16", True): bf16, ("fp32", True): 0.1}, monkeypatch)
    assert precision.faster("cpu", clock=machine.clock, cache=tmp_path / "speed.json") == taken


def test_a_gpu_without_bfloat16_is_measured_with_float16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "an old GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    machine = Machine({("fp16", True): 0.05, ("fp32", True): 0.1}, monkeypatch)
    assert precision.faster("cuda", clock=machine.clock, cache=tmp_path / "speed.json") == "fp16"


@pytest.mark.parametrize("beside", [0.09, 0.11])
def test_the_layout_that_takes_less_time_is_taken(
    beside: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine({("bf16", True): beside, ("bf16", False): 0.1}, monkeypatch)
    taken = precision.channels_last_is_faster("bf16", "cpu", clock=machine.clock, cache=tmp_path / "speed.json")
    assert taken == (beside < 0.1)


def test_a_device_that_was_measured_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine({(p, c): 0.1 for p in ("bf16", "fp32") for c in (True, False)}, monkeypatch)
    cache = tmp_path / "speed.json"

    def answers() -> tuple[str, bool]:
        layout = precision.channels_last_is_faster("fp32", "cpu", clock=machine.clock, cache=cache)
        return precision.faster("cpu", clock=machine.clock, cache=cache), layout

    first, measured = answers(), len(machine.steps)
    assert measured > 0
    assert answers() == first
    assert len(machine.steps) == measured


def test_steps_alternate_and_few_are_taken_where_they_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine({("bf16", True): 0.01, ("fp32", True): 0.02}, monkeypatch)
    steps = [precision.training_step(name, "cpu") for name in ("bf16", "fp32")]
    assert precision.time_ratio(*steps, machine.clock) == pytest.approx(0.5)
    assert machine.steps == [("bf16", True), ("fp32", True)] * (1 + precision.FEWEST)


def test_one_slow_step_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine({("fp32", True): 0.02}, monkeypatch)
    taken = iter([0.01, 0.01, 0.5, *[0.01] * precision.MOST])

    def new() -> None:
        machine.now += next(taken)

    assert precision.time_ratio(new, precision.training_step("fp32", "cpu"), machine.clock) == pytest.approx(0.5)


def test_this_machine_is_measured_with_real_training_steps(tmp_path: Path) -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    taken = precision.faster(cache=tmp_path / "speed.json")
    assert taken in ("bf16", "fp16", "fp32")
    assert precision.channels_last_is_faster(taken, cache=tmp_path / "speed.json") in (True, False)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_timed_step_trains_in_its_arithmetic_and_layout(channels_last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[torch.dtype, bool]] = []
    run = torch.nn.functional.conv2d

    def watched(images: torch.Tensor, *given: object, **named: object) -> torch.Tensor:
        scores = run(images, *given, **named)  # type: ignore[arg-type]
        seen.append((scores.dtype, scores.is_contiguous(memory_format=torch.channels_last)))
        return scores

    monkeypatch.setattr(torch.nn.functional, "conv2d", watched)
    precision.training_step("bf16", "cpu", channels_last=channels_last)()
    assert {dtype for dtype, _ in seen} == {torch.bfloat16}
    assert seen[1][1] == channels_last
