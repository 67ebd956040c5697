"""What a search will cost: every trial that can run has an estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from search.config import load
from search.cost import flops_of, measured_speed
from search.space import plan

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


def test_every_trial_of_a_plan_has_a_cost_those_of_another_stride_and_crop_too() -> None:
    cells = ["space.architectures=[pan]", "space.encoders=[vgg19, resnet18]", "space.targets=[two_class]"]
    made = plan(load("demo", None, [*cells, "train.crop=224", "train.encoder_depth=5", "schedule.references=[]"]))
    costs = {(trial.encoder, trial.output_stride, trial.crop): flops_of(trial, 1) for trial in made.trials}
    assert costs.keys() == {("vgg19", 32, 256), ("resnet18", 16, 224)}
    assert costs["vgg19", 32, 256] > costs["resnet18", 16, 224] > 1e8


def test_the_speed_is_measured_on_crops_that_fit_any_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = ["space.architectures=[unet]", "space.encoders=[tu-mobilenetv3_small_075]", "space.targets=[two_class]"]
    made = plan(load("demo", None, [*cells, "train.crop=4096", "schedule.references=[]"]))  # two such take 20 GB
    seen = []

    def network(images: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(images.shape))
        return images.requires_grad_()

    monkeypatch.setattr("search.cost.make_network", lambda trial, channels: _Made(network))
    assert measured_speed(made.trials[0], 1) > 0
    assert set(seen) == {(2, 1, 512, 512)}


class _Made(torch.nn.Module):
    """A network that is a function."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.forward = function
