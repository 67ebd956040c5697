"""What a search will cost: every trial that can run has an estimate."""

from __future__ import annotations

from search.config import load
from search.cost import flops_of
from search.space import plan


def test_every_trial_of_a_plan_has_a_cost_those_of_another_stride_and_crop_too() -> None:
    cells = ["space.architectures=[pan]", "space.encoders=[vgg19, resnet18]", "space.targets=[two_class]"]
    made = plan(load("demo", None, [*cells, "train.crop=224", "train.encoder_depth=5", "schedule.references=[]"]))
    costs = {(trial.encoder, trial.output_stride, trial.crop): flops_of(trial, 1) for trial in made.trials}
    assert costs.keys() == {("vgg19", 32, 256), ("resnet18", 16, 224)}
    assert costs["vgg19", 32, 256] > costs["resnet18", 16, 224] > 1e8
