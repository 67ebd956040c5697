"""Losses of the search, all ``(scores, target) -> scalar``, finite on empty targets.

Shapes: two_class scores ``(N, 1, Y, X)`` logits, target ``(N, Y, X)`` in {0, 1}; three_class scores ``(N, 3, Y, X)``
logits, target ``(N, Y, X)`` in {0 background, 1 core, 2 boundary}; star scores ``(N, 1 + R, Y', X')``, target ``(N, 1
+ R, Y', X')``: object probability (Euclidean distance, 0 to 1) and ray lengths in pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from data_io.errors import BadInput

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

SMOOTH = 1.0
"""Pixels added to numerator and denominator: an empty target with an empty prediction costs 0, a false positive
something.
"""
BOUNDARY_WEIGHT = 2.0
"""Weight of the boundary class in the cross entropy; about 15 % of the foreground is boundary."""


def _probabilities(scores: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Class probabilities and one-hot target, both ``(K, pixels)`` float32; one row for a single logit."""
    scores = scores.float()
    if scores.shape[1] == 1:
        return scores.sigmoid().flatten()[None], target.float().flatten()[None]
    classes = scores.shape[1]
    one_hot = F.one_hot(target.long(), classes).movedim(-1, 0).flatten(1).float()
    return scores.softmax(dim=1).movedim(1, 0).flatten(1), one_hot


def _overlap(scores: torch.Tensor, target: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    """Return 1 - Tversky index, false positives weighted `alpha`, false negatives `beta`, over the batch, mean over
    classes.
    """
    p, t = _probabilities(scores, target)
    hit = (p * t).sum(dim=1)
    false_positive, false_negative = p.sum(dim=1) - hit, t.sum(dim=1) - hit
    index = (hit + SMOOTH / 2) / (hit + alpha * false_positive + beta * false_negative + SMOOTH / 2)
    return 1 - index.mean()


def dice(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Soft Dice loss ``1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1)`` over the batch, the study's loss."""
    return _overlap(scores, target, 0.5, 0.5)


def tversky(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Tversky loss with false positives at .3 and false negatives at .7 (Salehi et al. 2017)."""
    return _overlap(scores, target, 0.3, 0.7)


def cross_entropy(
    scores: torch.Tensor, target: torch.Tensor, boundary: float | torch.Tensor = BOUNDARY_WEIGHT
) -> torch.Tensor:
    """Binary or three-class cross entropy, the boundary class weighted `boundary`."""
    scores = scores.float()
    if scores.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(scores[:, 0], target.float())
    weight = torch.ones(scores.shape[1], device=scores.device)
    weight[2] = boundary
    weights = weight[target.long()]
    one_hot = F.one_hot(target.long(), scores.shape[1]).movedim(-1, 1)
    surprise = -(scores.log_softmax(dim=1) * one_hot).sum(dim=1)  # torch's own has no deterministic kernel on a GPU
    return (weights * surprise).sum() / weights.sum()


def ce_dice(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Sum of cross entropy and Dice."""
    return cross_entropy(scores, target) + dice(scores, target)


def focal_dice(scores: torch.Tensor, target: torch.Tensor, gamma: float = 2.0) -> torch.Tensor:
    """Sum of the focal loss (Lin et al. 2017, gamma 2) and Dice."""
    p, t = _probabilities(scores, target)
    log_p, log_not = p.clamp_min(1e-7).log(), (1 - p).clamp_min(1e-7).log()
    if scores.shape[1] == 1:
        focal = -(t * (1 - p) ** gamma * log_p + (1 - t) * p**gamma * log_not).mean()
    else:
        focal = -(t * (1 - p) ** gamma * log_p).sum(dim=0).mean()
    return focal + dice(scores, target)


def lovasz(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Lovász hinge or softmax (Berman et al. 2018), as in segmentation-models-pytorch."""
    from segmentation_models_pytorch.losses import LovaszLoss

    mode = "binary" if scores.shape[1] == 1 else "multiclass"
    value: torch.Tensor = LovaszLoss(mode=mode, from_logits=True)(scores.float(), target.long())
    return value


def boundary_ce_dice(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Dice plus a cross entropy whose boundary weight is the inverse share of boundary pixels in the batch, 1 to 10."""
    share = (target == 2).float().mean()
    return cross_entropy(scores, target, boundary=(1 / (3 * share + 1e-6)).clamp(1.0, 10.0)) + dice(scores, target)


def stardist(scores: torch.Tensor, target: torch.Tensor, rays: float = 0.2, background: float = 1e-4) -> torch.Tensor:
    """BCE of the object probability + 0.2 x MAE of the rays weighted by it, as in StarDist (Schmidt et al. 2018).

    Rays on background samples are kept small by a regularisation of 1e-4, StarDist's default.
    """
    scores = scores.float()
    probability, length = target[:, :1], target[:, 1:]
    error = (scores[:, 1:] - length).abs()
    masked = (probability * error).mean() / probability.mean().clamp_min(1e-6)
    idle = ((probability == 0) * scores[:, 1:].abs()).mean()
    return F.binary_cross_entropy_with_logits(scores[:, :1], probability) + rays * (masked + background * idle)


LOSSES: dict[str, Loss] = {
    "dice": dice,
    "bce_dice": ce_dice,
    "ce_dice": ce_dice,
    "focal_dice": focal_dice,
    "lovasz": lovasz,
    "tversky": tversky,
    "boundary_ce_dice": boundary_ce_dice,
    "stardist": stardist,
}
"""Names of the losses; which target takes which stands in `search.config.LOSSES`."""


def loss_for(name: str) -> Loss:
    """Loss function of this name; BadInput lists the choices for an unknown one."""
    if name not in LOSSES:
        raise BadInput(f"loss {name!r}: unknown; choose one of {', '.join(LOSSES)}")
    return LOSSES[name]
