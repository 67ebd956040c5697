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
    for fill in FILLS[target]:
        for size in (-20.0, 0.0, 20.0):
            scores = torch.full((2, channels, 4, 4), size, requires_grad=True)
            shape = (2, 33, 4, 4) if target == "star" else (2, 4, 4)
            truth = torch.full(shape, fill, dtype=torch.float32 if target == "star" else torch.uint8)
            value = losses.loss_for(name)(scores, truth)
            value.backward()
            assert torch.isfinite(value)
            assert scores.grad is not None
            assert torch.isfinite(scores.grad).all()


MIXED = torch.tensor([[[[math.log(3), 0.0, -math.log(3), 0.0]]]])
"""Foreground probability .75, .5, .25, .5; with TARGET the first two pixels are cell."""


def test_two_class_losses_on_probabilities_that_differ_by_hand() -> None:
    # p.t = 1.25, sum p = 2, sum t = 2, false positives .75, false negatives .75
    dice = 1 - (2 * 1.25 + 1) / (2 + 2 + 1)
    assert losses.dice(MIXED, TARGET).item() == pytest.approx(dice)
    assert losses.tversky(MIXED, TARGET).item() == pytest.approx(1 - 1.75 / (1.25 + 0.3 * 0.75 + 0.7 * 0.75 + 0.5))
    ln_3_4, ln_1_2 = math.log(4 / 3), math.log(2)
    assert losses.ce_dice(MIXED, TARGET).item() == pytest.approx((2 * ln_3_4 + 2 * ln_1_2) / 4 + dice)
    focal = (2 * 0.25**2 * ln_3_4 + 2 * 0.5**2 * ln_1_2) / 4
    assert losses.focal_dice(MIXED, TARGET).item() == pytest.approx(focal + dice)


def test_tversky_tells_false_negatives_from_false_positives() -> None:
    # one cell pixel of four: all foreground costs 3 false positives, all background 1 false negative
    target = torch.tensor([[[1, 0, 0, 0]]])
    full, empty = torch.full((1, 1, 1, 4), 50.0), torch.full((1, 1, 1, 4), -50.0)
    assert losses.tversky(full, target).item() == pytest.approx(1 - 1.5 / (1 + 0.3 * 3 + 0.5))
    assert losses.tversky(empty, target).item() == pytest.approx(1 - 0.5 / (0.7 + 0.5))


def test_lovasz_hinge_of_two_errors_by_hand() -> None:
    # errors 1 - s * sign: pixel 1 cell, logit -1: 2; pixel 2 background, logit 0: 1; pixel 3 cell, logit 3: 0 (hinge)
    # sorted 2, 1, -2; Jaccard loss after each: 1 - 1/2, 1 - 1/3, 1; its steps .5, 1/6, 1/3
    scores, target = torch.tensor([[[[-1.0, 0.0, 3.0]]]]), torch.tensor([[[1, 0, 1]]])
    assert losses.lovasz(scores, target).item() == pytest.approx(0.5 * 2 + 1 / 6 * 1)


THREE = torch.tensor([[1.0, 1.0, 2.0], [2.0, 1.0, 1.0], [1.0, 2.0, 1.0]]).log().T.reshape(1, 3, 1, 3)
"""Class probabilities of three pixels: (.25, .25, .5), (.5, .25, .25), (.25, .5, .25)."""
THREE_TARGET = torch.tensor([[[2, 0, 0]]])


def test_three_class_dice_tversky_and_focal_by_hand() -> None:
    # background: hit .5 + .25, sum p 1, sum t 2; core: hit 0, sum p 1, sum t 0; boundary: hit .5, sum p 1, sum t 1
    dice = 1 - ((2 * 0.75 + 1) / (1 + 2 + 1) + (0 + 1) / (1 + 0 + 1) + (2 * 0.5 + 1) / (1 + 1 + 1)) / 3
    assert losses.dice(THREE, THREE_TARGET).item() == pytest.approx(dice)
    background = (0.75 + 0.5) / (0.75 + 0.3 * 0.25 + 0.7 * 1.25 + 0.5)
    core, boundary = 0.5 / (0.3 * 1 + 0.5), (0.5 + 0.5) / (0.5 + 0.3 * 0.5 + 0.7 * 0.5 + 0.5)
    assert losses.tversky(THREE, THREE_TARGET).item() == pytest.approx(1 - (background + core + boundary) / 3)
    # true classes at .5, .5, .25
    focal = (2 * 0.5**2 * math.log(2) + 0.75**2 * math.log(4)) / 3
    assert losses.focal_dice(THREE, THREE_TARGET).item() == pytest.approx(focal + dice)
    # one boundary pixel of weight 2, two of weight 1
    entropy = (2 * math.log(2) + math.log(2) + math.log(4)) / 4
    assert losses.ce_dice(THREE, THREE_TARGET).item() == pytest.approx(entropy + dice)
    # a third of the pixels is boundary: its weight is 1 / (3 * 1/3) = 1
    entropy = (math.log(2) + math.log(2) + math.log(4)) / 3
    assert losses.boundary_ce_dice(THREE, THREE_TARGET).item() == pytest.approx(entropy + dice, rel=1e-5)


def test_three_class_lovasz_by_hand() -> None:
    # background, errors .75 (a cell's), .5, .25 -> true ones .5, .75, other .25: sorted .75 .5 .25 with truth 1 1 0;
    # Jaccard loss 1/2, 1, 1: .5 * .75 + .5 * .5 = .625; boundary, errors .5 (true), .5, .25: the tie may go either way,
    # 1 * .5 + 0 = .5 or 1/2 * .5 + 1/2 * .5 = .5; core has no pixel and is left out
    assert losses.lovasz(THREE, THREE_TARGET).item() == pytest.approx((0.625 + 0.5) / 2)


@pytest.mark.parametrize(("share", "weight"), [(1, 10.0), (10, 1 / 0.3), (60, 1.0)])
def test_the_boundary_weight_by_the_share_of_boundary(share: int, weight: float) -> None:
    target = torch.zeros(1, 1, 100, dtype=torch.long)
    target[..., :share] = 2
    scores = torch.zeros(1, 3, 1, 100)
    scores[0, 0] = math.log(2)  # probabilities .5, .25, .25
    expected = ((100 - share) * math.log(2) + share * weight * math.log(4)) / (100 - share + share * weight)
    found = losses.boundary_ce_dice(scores, target) - losses.dice(scores, target)
    assert found.item() == pytest.approx(expected, rel=1e-4)


FILLS = {"two_class": (0, 1), "three_class": (0, 1, 2), "star": (0, 1)}
"""Values a target can have everywhere."""


@pytest.mark.parametrize(
    ("target", "name", "fill"), [(t, n, f) for t, names in LOSSES_OF_A_TARGET.items() for n in names for f in FILLS[t]]
)
def test_every_loss_has_finite_value_and_gradient_in_bfloat16(target: str, name: str, fill: int) -> None:
    channels = {"two_class": 1, "three_class": 3, "star": 33}[target]
    features = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    head = torch.nn.Conv2d(8, channels, 1)
    shape = (2, 33, 4, 4) if target == "star" else (2, 4, 4)
    truth = torch.full(shape, fill, dtype=torch.float32 if target == "star" else torch.uint8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = head(features)
        value = losses.loss_for(name)(scores, truth)
    assert scores.dtype == torch.bfloat16
    assert value.dtype == torch.float32
    value.backward()
    assert torch.isfinite(value)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())
    exact = losses.loss_for(name)(scores.detach().float(), truth)
    assert value.item() == pytest.approx(exact.item(), rel=1e-6)


def test_a_false_positive_on_an_empty_target_costs_something() -> None:
    empty = torch.zeros(1, 4, 4, dtype=torch.uint8)
    assert losses.dice(torch.full((1, 1, 4, 4), 9.0), empty).item() > 0.9
    assert losses.dice(torch.full((1, 1, 4, 4), -9.0), empty).item() < 0.01


def test_an_unknown_loss_lists_the_choices() -> None:
    with pytest.raises(BadInput, match="choose one of dice"):
        losses.loss_for("jaccard")
