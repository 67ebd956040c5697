"""Crops as another camera, lamp and orientation would have given them, batch by batch.

Turning, tone and noise cost little and are on; any angle, elastic bending and defocus cost more (the table of
`tests/benchmarks/crops.py` says how much) and change as large a part of the crops as an `Augmentation` asks for.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from data_io.errors import BadInput
from data_io.normalise import CLIP

if TYPE_CHECKING:
    from numpy.typing import NDArray

GAIN, OFFSET, BEND, NOISE = 0.25, 0.15, 0.3, 0.08
"""At strength 1: SD of log gain, offset and bend of the tone curve; largest noise SD. In normalised grey values."""
DEFOCUS = 2.0
"""At strength 1: largest SD of the blur in px."""
_NOISE_FIELD = 2**18


@dataclass(frozen=True)
class Augmentation:
    """What is done to crops; refused with BadInput where a number is not within 0 ... 1."""

    strength: float = 0.5
    """0 changes nothing; changes of intensity, bending and blur grow with it, turning is all or nothing."""
    turn: bool = True
    """Flips and right angles."""
    rotation: float = 0.0
    """Part of the crops that is turned by any angle; corners are mirrored."""
    elastic: float = 0.0
    """Part of the crops that is bent."""
    defocus: float = 0.0
    """Part of the crops that is blurred."""
    tone: bool = True
    """Gain, offset and gamma."""
    noise: bool = True
    """Camera noise."""

    def __post_init__(self) -> None:
        for name in ("strength", "rotation", "elastic", "defocus"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadInput(f"augmentation {name} {getattr(self, name)}: not a part; give a number from 0 to 1")

    def record(self) -> dict[str, Any]:
        """Return every transformation that can happen and its parameters, ready for JSON."""
        from data_io import warp

        s = self.strength
        everything: dict[str, tuple[bool | float, dict[str, float]]] = {
            "turn": (self.turn, {"orientations": 8}),
            "rotation": (self.rotation, {"share": self.rotation, "largest_deg": 180.0}),
            "elastic": (
                self.elastic,
                {"share": self.elastic, "spacing_px": warp.SPACING, "largest_px": s * warp.FOLD * warp.SPACING},
            ),
            "defocus": (self.defocus, {"share": self.defocus, "largest_sd_px": s * DEFOCUS}),
            "tone": (self.tone, {"log_gain_sd": s * GAIN, "offset_sd": s * OFFSET, "bend_sd": s * BEND}),
            "noise": (self.noise, {"largest_sd": s * NOISE}),
        }
        done = {name: parameters for name, (on, parameters) in everything.items() if on and s > 0}
        return {"settings": asdict(self), "transformations": done}


def augment(
    images: NDArray[np.float32], labels: NDArray[np.int32], rng: np.random.Generator, how: float | Augmentation
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return changed crops and their labels; strength 0 changes nothing and returns what it was given.

    Parameters
    ----------
    images, labels
        `(N, C, S, S)` normalised float32 and `(N, S, S)` int32.
    rng
        Draws everything; the same generator state gives the same crops.
    how
        An `Augmentation`, or its strength alone: 0 (none) to 1.
    """
    how = how if isinstance(how, Augmentation) else Augmentation(how)
    if how.strength == 0:
        return images, labels
    if how.turn:
        images, labels = turn(images, labels, rng.integers(0, 8, len(images)))
    if how.rotation or how.elastic:
        images, labels = bend(images, labels, rng, how)
    if how.defocus:
        images = blur(images, rng, how)
    if how.tone or how.noise:
        images = shade(images, rng, how.tone * how.strength, how.noise * how.strength)
    return images, labels


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


def bend(
    images: NDArray[np.float32], labels: NDArray[np.int32], rng: np.random.Generator, how: Augmentation
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return the crops with some of them turned by any angle, some bent; one interpolation does both."""
    from data_io import warp

    n, size = len(images), labels.shape[-1]
    knots = (n, 2, warp.n_knots(size), warp.n_knots(size))
    angles = np.where(rng.random(n) < how.rotation, rng.uniform(-np.pi, np.pi, n), 0)
    bent = rng.random(n) < how.elastic
    moves = how.strength * warp.FOLD * warp.SPACING * rng.uniform(-1, 1, knots)
    images, labels = images.copy(), labels.copy()
    for i in np.flatnonzero(bent | (angles != 0)):
        taken = warp.positions(size, angles[i], moves[i] if bent[i] else None)
        images[i], labels[i] = warp.warp(images[i], labels[i], taken)
    return images, labels


def blur(images: NDArray[np.float32], rng: np.random.Generator, how: Augmentation) -> NDArray[np.float32]:
    """Return the crops with some of them out of focus: a Gaussian blur."""
    from scipy import ndimage as ndi

    n = len(images)
    blurred, sd = images.copy(), how.strength * DEFOCUS * rng.random(n)
    for i in np.flatnonzero(rng.random(n) < how.defocus):
        ndi.gaussian_filter(images[i], (0, sd[i], sd[i]), output=blurred[i], truncate=3)
    return blurred


def shade(images: NDArray[np.float32], rng: np.random.Generator, tone: float, noise: float) -> NDArray[np.float32]:
    """Return the crops under another tone curve, gain, offset and noise, clipped to the normalised range.

    The tone curve u + bend u (1 - u) over the clip range does what a gamma does at a tenth of its cost; noise is cut
    from a fixed field at a random place. `tone` and `noise` are strengths from 0 to 1.
    """
    n, (low, high) = len(images), CLIP
    bend = np.clip(tone * BEND * rng.standard_normal(n, np.float32), -0.9, 0.9)
    gain = np.exp(tone * GAIN * rng.standard_normal(n, np.float32))
    offset = tone * OFFSET * rng.standard_normal(n, np.float32)
    spread = noise * NOISE * rng.random(n, np.float32)
    start = rng.integers(0, _NOISE_FIELD, n)
    shaded = np.empty_like(images)
    for i, image in enumerate(images):
        u = (image - np.float32(low)) * np.float32(1 / (high - low))
        u *= 1 + bend[i] - bend[i] * u
        u *= np.float32(high - low) * gain[i]
        u += np.float32(low) * gain[i] + offset[i]
        u += spread[i] * _noise(image.size)[start[i] : start[i] + image.size].reshape(image.shape)
        np.clip(u, low, high, out=shaded[i])
    return shaded


@lru_cache(maxsize=2)
def _noise(size: int) -> NDArray[np.float32]:
    """Return a fixed field of standard normal noise from which `size` values can be cut at any of its starts."""
    return np.random.default_rng(0).standard_normal(_NOISE_FIELD + size, np.float32)
