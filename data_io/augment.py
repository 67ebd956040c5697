"""Flips, right angles, intensity and noise, in plain NumPy on whole batches of crops."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from data_io.normalise import CLIP

if TYPE_CHECKING:
    from numpy.typing import NDArray

GAIN, OFFSET, BEND, NOISE = 0.25, 0.15, 0.3, 0.08
"""At strength 1: SD of log gain, offset and bend of the tone curve; largest noise SD. In normalised grey values."""
_NOISE_FIELD = 2**18


def augment(
    images: NDArray[np.float32], labels: NDArray[np.int32], rng: np.random.Generator, strength: float
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return new crops as another camera, lamp and orientation would have given them; 0 changes nothing.

    Parameters
    ----------
    images, labels
        `(N, C, S, S)` normalised float32 and `(N, S, S)` int32.
    rng
        Draws everything; the same generator state gives the same crops.
    strength
        0 (none) to 1; turning is all or nothing, intensity changes grow with it.
    """
    if strength <= 0:
        return images, labels
    turned, turned_labels = turn(images, labels, rng.integers(0, 8, len(images)))
    return shade(turned, rng, strength), turned_labels


def turn(
    images: NDArray[np.float32], labels: NDArray[np.int32], ways: NDArray[np.integer]
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return each square crop in one of its 8 orientations: `ways` & 1, 2, 4 flip y, flip x, swap y and x."""
    turned, turned_labels = np.empty_like(images), np.empty_like(labels)
    for i, way in enumerate(ways):
        flip = (..., slice(None, None, -1 if way & 1 else 1), slice(None, None, -1 if way & 2 else 1))
        image, label = images[i][flip], labels[i][flip]
        turned[i] = image.swapaxes(-1, -2) if way & 4 else image
        turned_labels[i] = label.T if way & 4 else label
    return turned, turned_labels


def shade(images: NDArray[np.float32], rng: np.random.Generator, strength: float) -> NDArray[np.float32]:
    """Return the crops under another tone curve, gain, offset and noise, clipped to the normalised range.

    The tone curve u + bend u (1 - u) over the clip range does what a gamma does at a tenth of its cost; noise is cut
    from a fixed field at a random place.
    """
    n, (low, high) = len(images), CLIP
    bend = np.clip(strength * BEND * rng.standard_normal(n, np.float32), -0.9, 0.9)
    gain = np.exp(strength * GAIN * rng.standard_normal(n, np.float32))
    offset = strength * OFFSET * rng.standard_normal(n, np.float32)
    noise = strength * NOISE * rng.random(n, np.float32)
    start = rng.integers(0, _NOISE_FIELD, n)
    shaded = np.empty_like(images)
    for i, image in enumerate(images):
        u = (image - np.float32(low)) * np.float32(1 / (high - low))
        u *= 1 + bend[i] - bend[i] * u
        u *= np.float32(high - low) * gain[i]
        u += np.float32(low) * gain[i] + offset[i]
        u += noise[i] * _noise(image.size)[start[i] : start[i] + image.size].reshape(image.shape)
        np.clip(u, low, high, out=shaded[i])
    return shaded


@lru_cache(maxsize=2)
def _noise(size: int) -> NDArray[np.float32]:
    """Return a fixed field of standard normal noise from which `size` values can be cut at any of its starts."""
    return np.random.default_rng(0).standard_normal(_NOISE_FIELD + size, np.float32)
