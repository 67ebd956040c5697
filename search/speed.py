"""How fast a network predicts frames."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from search import inference

if TYPE_CHECKING:
    from search.models import Network

FRAMES = 3
"""Frames of which the fastest counts, after one to warm up."""


def megapixels_per_second(network: Network, shape: tuple[int, int, int]) -> float:
    """Megapixels of a frame ``(C, Y, X)`` that a network predicts in a second, as `inference.predict` does it.

    Quantised scores on the host are the end of it, so what a GPU still computes is waited for.
    """
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    inference.predict(network, image)
    fastest = min(_seconds(network, image) for _ in range(FRAMES))
    return shape[1] * shape[2] / 1e6 / fastest


def _seconds(network: Network, image: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    began = time.perf_counter()
    inference.predict(network, image)
    return time.perf_counter() - began
