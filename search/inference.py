"""A network applied to whole frames: padded to a multiple of 32, in overlapping tiles where they are large."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from search import models, targets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from postprocess.prediction import Prediction

TILE = 1024
"""Side of the part of a frame that is predicted at once, in pixels."""
MARGIN = 128
"""Pixels around a tile that the network sees and that are cut away again."""


def predict(network: models.Network, image: NDArray[np.float32], tile: int = TILE, margin: int = MARGIN) -> Prediction:
    """Quantised prediction of one frame.

    Parameters
    ----------
    network
        In evaluation mode.
    image
        ``(C, Y, X)`` float32, normalised.
    tile, margin
        Pixels, multiples of 32; frames up to one tile plus two margins go through whole.
    """
    _, height, width = image.shape
    scores = _whole(network, image) if max(height, width) <= tile + 2 * margin else _tiled(network, image, tile, margin)
    return targets.to_predictions(network.target, scores, (height, width))[0]


@torch.inference_mode()
def _whole(network: models.Network, image: NDArray[np.float32]) -> torch.Tensor:
    """Raw scores ``(1, K, Y', X')`` of one padded image."""
    _, height, width = image.shape
    device = next(network.parameters()).device
    padded = pad(image, -height % models.DIVISOR, -width % models.DIVISOR)
    batch = torch.from_numpy(padded)[None].to(device).contiguous(memory_format=torch.channels_last)
    grid = models.GRID[network.target]
    scores: torch.Tensor = network(batch).float().cpu()
    return scores[..., : -(-height // grid), : -(-width // grid)]


def _tiled(network: models.Network, image: NDArray[np.float32], tile: int, margin: int) -> torch.Tensor:
    """Raw scores of a large image, tile by tile; each tile sees `margin` pixels more on every side."""
    _, height, width = image.shape
    grid = models.GRID[network.target]
    rows, columns = -(-height // grid), -(-width // grid)
    scores = torch.empty(1, models.OUTPUTS[network.target], rows, columns)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            y0, x0 = max(0, top - margin), max(0, left - margin)
            part = _whole(network, image[:, y0 : top + tile + margin, x0 : left + tile + margin])
            bottom, right = min(height, top + tile), min(width, left + tile)
            inner = part[
                ..., (top - y0) // grid : -(-(bottom - y0) // grid), (left - x0) // grid : -(-(right - x0) // grid)
            ]
            scores[..., top // grid : -(-bottom // grid), left // grid : -(-right // grid)] = inner
    return scores


def pad(image: NDArray[np.float32], below: int, right: int) -> NDArray[np.float32]:
    """Mirror ``(C, Y, X)`` at its lower and right edge; an image smaller than the padding is repeated as it ends."""
    mode = "reflect" if below < image.shape[1] and right < image.shape[2] else "symmetric"
    return np.pad(image, ((0, 0), (0, below), (0, right)), mode=mode)  # type: ignore[call-overload,no-any-return]
