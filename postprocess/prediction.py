"""What a network says about one frame, as it is stored: 8-bit probabilities and half-precision distances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data_io.errors import BadInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

FULL = 255
"""The stored value of probability 1."""


@dataclass(frozen=True)
class Prediction:
    """One frame as a network sees it; decoding, fitting and scoring all start from these stored, quantised arrays.

    Attributes
    ----------
    probability
        ``(K, Y', X')`` uint8, probability times 255. K is 1 for two_class (foreground) and star (object probability),
        3 for three_class (background, core, boundary).
    distance
        ``(R, Y', X')`` float16, distance in pixels to the outline along R rays (star), else None.
    grid
        Sample ``(i, j)`` is pixel ``(grid * i, grid * j)``, so ``Y' = ceil(Y / grid)``.
    shape
        ``(Y, X)`` of the frame.
    """

    probability: NDArray[np.uint8]
    distance: NDArray[np.float16] | None
    grid: int
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        """Refuse arrays that do not describe one frame."""
        sampled = tuple(-(-side // self.grid) for side in self.shape)
        stored = {"probability": (self.probability, "uint8"), "distance": (self.distance, "float16")}
        for name, (array, dtype) in stored.items():
            if array is None:
                continue
            if array.dtype != dtype:
                raise BadInput(f"prediction: {name} is {array.dtype}, not {dtype}; quantise it before storing")
            if array.ndim != 3 or array.shape[1:] != sampled:
                raise BadInput(
                    f"prediction: {name} has shape {array.shape}, but a frame {self.shape} at grid {self.grid} "
                    f"needs (channels, {sampled[0]}, {sampled[1]}); crop away the padding before storing"
                )


def quantise(probability: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return probabilities 0..1 (any shape, float) as uint8 0..255, rounded to the nearest step; NaN becomes 0."""
    clean = np.nan_to_num(probability, nan=0.0, posinf=1.0, neginf=0.0)
    stored: NDArray[np.uint8] = np.rint(np.clip(clean, 0.0, 1.0) * FULL).astype(np.uint8)
    return stored


def fraction(probability: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return stored probabilities as float32 0..1, same shape."""
    return probability.astype(np.float32) / np.float32(FULL)
