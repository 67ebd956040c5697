"""A network applied to whole frames: padded to a multiple of 32, in overlapping tiles where they are large.

Tiles start at multiples of 32, where the network's own grid lies in the whole frame too, see `margin` pixels beyond
themselves and fade into each other. Where a network sees no further than half its margin, tiles give what the whole
frame gives; what pools over everything it sees (PAN, DeepLab, squeeze-and-excitation) differs a little, smoothly, never
at a seam. Scores are turned into stored values band by band, so a large frame is never held in floating point.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch

from postprocess.prediction import Prediction
from search import models, targets

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    Image = NDArray[np.float32]

TILE = 1024
"""Side of the part of a frame that is predicted at once, in pixels."""
MARGIN = 128
"""Pixels around a tile that the network sees; neighbours fade into each other over as many."""
BATCH_PIXELS = 1 << 21
"""Pixels of the images that go through the network together."""


def predict(
    network: models.Network, image: Image, tile: int = TILE, margin: int = MARGIN, *, tta: bool = False
) -> Prediction:
    """Quantised prediction of one frame.

    Parameters
    ----------
    network
        In evaluation mode.
    image
        ``(C, Y, X)`` float32, normalised.
    tile, margin
        Pixels, multiples of 32; frames up to one tile plus two margins go through whole.
    tta
        Whether the prediction is the mean over the eight rotations and reflections of the frame (test-time
        augmentation); takes eight times as long.
    """
    [prediction] = predict_frames(network, [image], tile, margin, tta=tta)
    return prediction


def predict_frames(
    network: models.Network, images: Iterable[Image], tile: int = TILE, margin: int = MARGIN, *, tta: bool = False
) -> Iterator[Prediction]:
    """Yield the prediction of each frame in order; small frames of one size go through the network together."""
    if tile % models.DIVISOR or margin % models.DIVISOR:
        raise ValueError(f"tile {tile} and margin {margin} have to be multiples of {models.DIVISOR}")
    for (_, height, width), group in itertools.groupby(images, key=lambda image: image.shape):
        if max(height, width) > tile + 2 * margin:
            for image in group:
                yield _tiled(network, image, tile, margin, tta=tta)
            continue
        for batch in _batched(group, max(1, BATCH_PIXELS // (height * width))):
            yield from targets.to_predictions(network.target, _whole(network, batch, tta=tta), (height, width))


@torch.inference_mode()
def _whole(network: models.Network, images: Iterable[Image], *, tta: bool) -> torch.Tensor:
    """Raw scores ``(N, K, Y', X')`` of images of one size."""
    stack = np.stack(list(images))
    device = next(network.parameters()).device
    batch = torch.from_numpy(pad(stack, *(_missing(side, network.smallest) for side in stack.shape[2:]))).to(device)
    grid = models.GRID[network.target]
    scores = _mean_over_symmetries(network, batch) if tta else _scores(network, batch)
    return scores[..., : -(-stack.shape[2] // grid), : -(-stack.shape[3] // grid)].cpu()


def _missing(side: int, smallest: int) -> int:
    """Return how many pixels to add to a side: to a multiple of 32 that is at least the smallest a network takes."""
    return max(side + -side % models.DIVISOR, smallest) - side


def _scores(network: models.Network, batch: torch.Tensor) -> torch.Tensor:
    scores: torch.Tensor = network(batch.contiguous(memory_format=torch.channels_last)).float()
    return scores


def _tiled(network: models.Network, image: Image, tile: int, margin: int, *, tta: bool) -> Prediction:
    """Predict a large frame band by band."""
    bands = [targets.to_predictions(network.target, *band)[0] for band in _bands(network, image, tile, margin, tta=tta)]
    distances = [band.distance for band in bands if band.distance is not None]
    return Prediction(
        np.concatenate([band.probability for band in bands], axis=1),
        np.concatenate(distances, axis=1) if distances else None,
        bands[0].grid,
        (image.shape[1], image.shape[2]),
    )


def _bands(
    network: models.Network, image: Image, tile: int, margin: int, *, tta: bool
) -> Iterator[tuple[torch.Tensor, tuple[int, int]]]:
    """Yield the raw scores ``(1, K, Y', X)`` of a frame from top to bottom, with the pixels ``(Y, X)`` they cover."""
    _, height, width = image.shape
    grid, fade = models.GRID[network.target], min(margin, tile) // 2
    open_rows: torch.Tensor | None = None
    for top in range(0, height, tile):
        first, last = max(0, top - fade), min(height, top + tile + fade)
        rows = _span(top, height, tile, fade, grid)
        band = torch.zeros(1, models.OUTPUTS[network.target], len(rows), -(-width // grid))
        parts = []
        for left in range(0, width, tile):
            x0 = max(0, left - margin)
            parts.append(image[:, max(0, top - margin) : top + tile + margin, x0 : left + tile + margin])
        found = itertools.chain.from_iterable(
            _whole(network, batch, tta=tta)
            for _, same in itertools.groupby(parts, key=lambda part: part.shape)
            for batch in _batched(same, max(1, BATCH_PIXELS // (tile + 2 * margin) ** 2))
        )
        for left, scores in zip(range(0, width, tile), found, strict=True):
            columns = _span(left, width, tile, fade, grid)
            at = max(0, left - fade) // grid
            y, x = (first - max(0, top - margin)) // grid, (max(0, left - fade) - max(0, left - margin)) // grid
            inner = scores[:, y : y + len(rows), x : x + len(columns)]
            band[0, :, :, at : at + len(columns)] += inner * rows[:, None] * columns
        if open_rows is not None:
            band[:, :, : open_rows.shape[2]] += open_rows
        done = height if last == height and top + tile >= height else top + tile - fade
        ready = -(-(done - first) // grid)
        yield band[:, :, :ready], (done - first, width)
        open_rows = band[:, :, ready:]
        if done == height:
            return


def _span(start: int, length: int, tile: int, fade: int, grid: int) -> torch.Tensor:
    """Weights of a tile's samples along one axis: 1 inside, fading to 0 over the borders with its neighbours.

    At every sample the weights of all tiles add up to 1.
    """
    position = torch.arange(max(0, start - fade), min(length, start + tile + fade), dtype=torch.float32)
    position = position[::grid]
    weight = torch.ones_like(position)
    if fade and start > 0:
        weight = torch.minimum(weight, (position - (start - fade)) / (2 * fade))
    if fade and start + tile < length:
        weight = torch.minimum(weight, 1 - (position - (start + tile - fade)) / (2 * fade))
    if not fade:
        return weight
    return weight.clamp(0, 1)


def _mean_over_symmetries(network: models.Network, batch: torch.Tensor) -> torch.Tensor:
    """Mean of the scores over the eight symmetries of the square, each brought back to the frame as it is.

    Probabilities are averaged and turned back into scores; ray lengths are averaged as they are.
    """
    symmetries = itertools.product((False, True), repeat=3)
    seen = (_activated(network.target, _seen_as(network, batch, *symmetry)) for symmetry in symmetries)
    total = next(seen)
    for found in seen:
        total += found
    return _scores_from(network.target, total / 8)


def _seen_as(network: models.Network, batch: torch.Tensor, swap: bool, up_down: bool, left_right: bool) -> torch.Tensor:
    """Raw scores of a batch that the network sees with its axes swapped, then flipped."""
    grid = models.GRID[network.target]
    seen = batch.transpose(2, 3) if swap else batch
    rows, columns = seen.shape[2] // grid, seen.shape[3] // grid
    axes = [axis for axis, flipped in ((2, up_down), (3, left_right)) if flipped]
    if axes and grid > 1:  # the samples of the flipped frame have to fall on those of the frame
        more = [grid - 1 if axis in axes else 0 for axis in (2, 3)]
        seen = torch.nn.functional.pad(seen, (0, more[1], 0, more[0]), mode="replicate")
    seen = seen.flip(axes)
    below, right = (-side % models.DIVISOR for side in seen.shape[2:])
    if below or right:
        seen = torch.nn.functional.pad(seen, (0, right, 0, below), mode="replicate")
    scores = _scores(network, seen)
    shift = grid - 1
    y, x = (shift if axis in axes else 0 for axis in (2, 3))
    scores = scores[:, :, y : y + rows, x : x + columns].flip(axes)
    scores = scores.transpose(2, 3) if swap else scores
    return scores if network.target != "star" else scores[:, [0, *(1 + _ray(swap, up_down, left_right))]]


def _ray(swap: bool, up_down: bool, left_right: bool) -> NDArray[np.intp]:
    """Return which ray of the frame as it was seen is each ray of the frame; rays turn from x towards y."""
    ray = np.arange(models.N_RAYS)
    if swap:
        ray = models.N_RAYS // 4 - ray
    if left_right:
        ray = models.N_RAYS // 2 - ray
    if up_down:
        ray = -ray
    return ray % models.N_RAYS


def _activated(target: str, scores: torch.Tensor) -> torch.Tensor:
    if target == "three_class":
        return scores.softmax(dim=1)
    if target == "two_class":
        return scores.sigmoid()
    return torch.cat([scores[:, :1].sigmoid(), scores[:, 1:].clamp(min=0)], dim=1)


def _scores_from(target: str, activated: torch.Tensor) -> torch.Tensor:
    """Return scores of which `_activated` gives this back."""
    tiny = 1e-6
    if target == "three_class":
        return activated.clamp(min=tiny).log()
    return torch.cat([activated[:, :1].logit(tiny), activated[:, 1:]], dim=1)


def _batched(images: Iterable[Image], size: int) -> Iterator[list[Image]]:
    """Yield the images in lists of `size`, the last one shorter."""
    left = iter(images)
    while batch := list(itertools.islice(left, size)):
        yield batch


def pad(images: Image, below: int, right: int) -> Image:
    """Mirror ``(..., Y, X)`` at its lower and right edge; an image smaller than the padding is repeated as it ends."""
    mode = "reflect" if below < images.shape[-2] and right < images.shape[-1] else "symmetric"
    around = [(0, 0)] * (images.ndim - 2)
    return np.pad(images, (*around, (0, below), (0, right)), mode=mode)  # type: ignore[call-overload,no-any-return]
