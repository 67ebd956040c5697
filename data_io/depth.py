"""Depth and channels: projected or chosen as the user says, never guessed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from data_io.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

WAYS = ("max", "mean", "focus")
"""Ways to project a stack: brightest value, mean, or the plane in best focus (largest Brenner gradient)."""


def check(name: object, planes: int, z: str | None) -> None:
    """Refuse a stack of several planes when the user did not say what to make of it, or said what cannot be.

    Raises
    ------
    BadInput
        `z` is None although there are several planes, is unknown, or no plane has that number.
    """
    if z is not None and z not in WAYS and not z.isdecimal():
        raise BadInput(f"--z {z}: unknown; choose from {', '.join(WAYS)} or the number of a plane, from 0")
    if planes > 1 and z is None:
        raise BadInput(f"{name}: {planes} planes in depth; say --z {'|'.join(WAYS)} or --z N, the number of the plane")
    if z is not None and z.isdecimal() and int(z) >= planes:
        raise BadInput(f"{name}: --z {z}, but its planes are 0 to {planes - 1}; choose another plane")


def flatten(stack: NDArray[Any], z: str | None) -> NDArray[Any]:
    """Return `(C, Y, X)` in the dtype of a `(C, Z, Y, X)` stack; mean is rounded for integers."""
    if stack.shape[1] == 1:
        return np.asarray(stack[:, 0])
    if z == "max":
        return np.asarray(stack.max(axis=1))
    if z == "mean":
        mean = stack.mean(axis=1)
        return np.asarray(np.rint(mean) if stack.dtype.kind in "iu" else mean, stack.dtype)
    if z == "focus":
        return np.stack([channel[int(np.argmax([_brenner(plane) for plane in channel]))] for channel in stack])
    return np.asarray(stack[:, int(z or 0)])


def choose(name: object, channels: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Return the places of the channels asked for by name or number, in that order; all when none is asked for.

    Raises
    ------
    BadInput
        No channel of that name or number, or one asked for twice.
    """
    if not wanted:
        return list(range(len(channels)))
    names = [channel.lower() for channel in channels]
    places = []
    for one in wanted:
        if one.lower() in names:
            places.append(names.index(one.lower()))
        elif one.isdecimal() and int(one) < len(channels):
            places.append(int(one))
        else:
            raise BadInput(f"{name}: no channel {one!r}; it has {', '.join(channels)} (or 0 to {len(channels) - 1})")
    if len(set(places)) < len(places):
        raise BadInput(f"{name}: --channels names one channel twice; name each once")
    return places


def _brenner(plane: NDArray[Any]) -> float:
    """Return the mean squared difference of pixels two apart (Brenner et al. 1976): large where an image is sharp."""
    grey = plane.astype(np.float32)
    return float(np.mean((grey[:, 2:] - grey[:, :-2]) ** 2) + np.mean((grey[2:] - grey[:-2]) ** 2))
