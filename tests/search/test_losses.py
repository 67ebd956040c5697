"""Losses against values worked out by hand, and finite where a target is empty."""

from __future__ import annotations

import math

import pytest
import torch

from data_io.errors import BadInput
from search import losses
from search.config import LOSSES as LOSSES_OF_A_TARGET

HALF = torch.zeros(1, 1, 1, 4)
"""Logits 0: probability .5 everywhere."""
TARGET = torch.tensor([[[1, 1, 0, 0]]], dtype=torch.uint8)


def test_dice_by_hand() -> None:
    # p.t = 1, sum p = 2, sum t = 2: 1 - (2 + 1) / (4 + 1)
    assert losses.dice(HALF, TARGET).item() == pytest.approx(1 - 3 / 5)


def test_tversky_by_hand() -> None:
    # hit 1, false positives 1, false negatives 1: 1 - 1.5 / (1 + .3 + .7 + .5)
    assert losses.tversky(HALF, TARGET).item() == pytest.approx(1 - 1.5 / 2.5)


def test_bce_dice_by_hand() -> None:
    assert losses.ce_dice(HALF, TARGET).item() == pytest.approx(math.log(2) + 0.4)


def test_focal_dice_by_hand() -> None:
    # every pixel costs (1 - .5)^2 ln 2
    assert losses.focal_dice(HALF, TARGET).item() == pytest.approx(0.25 * math.log(2) + 0.4)


def test_lovasz_hinge_by_hand() -> None:
    # two pixels, one of them cell, logits +1 on the cell and -1 beside it: both errors are 0
    scores, target = torch.tensor([[[[1.0, -1.0]]]]), torch.tensor([[[1, 0]]])
    assert losses.lovasz(scores, target).item() == pytest.approx(0.0)
    # logit -1 on the cell: error 2, Jaccard gradient 1 for the worst pixel
    assert losses.lovasz(torch.tensor([[[[-1.0, -1.0]]]]), target).item() == pytest.approx(2.0)


def test_three_class_cross_entropy_weighs_the_boundary() -> None:
    scores = torch.zeros(1, 3, 1, 2)
    scores[0, 0, 0, 0] = 1.0
    target = torch.tensor([[[0, 2]]])
    right, wrong = math.log(math.e + 2) - 1, math.log(3)
    assert losses.cross_entropy(scores, target).item() == pytest.approx((right + 2 * wrong) / 3)


def test_boundary_weight_is_the_inverse_share_within_limits() -> None:
    scores = torch.zeros(1, 3, 1, 30)
    scores[0, 0] = 2.0
    target = torch.zeros(1, 1, 30, dtype=torch.long)
    target[..., :3] = 2
    log_z = math.log(math.exp(2) + 2)
    weight = 1 / (3 * 0.1 + 1e-6)
    expected = (27 * (log_z - 2) + weight * 3 * log_z) / (27 + 3 * weight)
    assert (losses.boundary_ce_dice(scores, target) - losses.dice(scores, target)).item() == pytest.approx(
        expected, rel=1e-5
    )


def test_stardist_loss_by_hand() -> None:
    scores = torch.zeros(1, 3, 1, 2)
    scores[0, 1:] = 4.0
    target = torch.zeros(1, 3, 1, 2)
    target[0, :, 0, 0] = torch.tensor([0.5, 5.0, 7.0])
    # BCE: both samples at probability .5 cost ln 2; rays: errors 1 and 3 on the one cell sample, background rays 4
    assert losses.stardist(scores, target).item() == pytest.approx(math.log(2) + 0.2 * (2.0 + 1e-4 * 2.0))


@pytest.mark.parametrize(("target", "name"), [(t, n) for t, names in LOSSES_OF_A_TARGET.items() for n in names])
def test_every_loss_is_finite_on_empty_and_on_full_targets(target: str, name: str) -> None:
    channels = {"two_class": 1, "three_class": 3, "star": 33}[target]
    for fill in (0, 1):
        for size in (-20.0, 0.0, 20.0):
            scores = torch.full((2, channels, 4, 4), size, requires_grad=True)
            shape = (2, 33, 4, 4) if target == "star" else (2, 4, 4)
            truth = torch.full(shape, fill, dtype=torch.float32 if target == "star" else torch.uint8)
            value = losses.loss_for(name)(scores, truth)
            value.backward()
            assert torch.isfinite(value)
            assert scores.grad is not None
            assert torch.isfinite(scores.grad).all()


def test_a_false_positive_on_an_empty_target_costs_something() -> None:
    empty = torch.zeros(1, 4, 4, dtype=torch.uint8)
    assert losses.dice(torch.full((1, 1, 4, 4), 9.0), empty).item() > 0.9
    assert losses.dice(torch.full((1, 1, 4, 4), -9.0), empty).item() < 0.01


def test_an_unknown_loss_lists_the_choices() -> None:
    with pytest.raises(BadInput, match="choose one of dice"):
        losses.loss_for("jaccard")
