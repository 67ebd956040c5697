"""Made-up CLL cells: their outlines, where they lie and how they move.

An outline is a polar radius: an ellipse of the cell's area, a uropod at the rear of motile cells, and harmonics that
change slowly with time. Figures are those of the study's cells, in px and frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

RADIUS, RADIUS_SIGMA = 11.5, 0.13
"""Mean radius in px and lognormal sigma."""
MOTILE = 0.22
CLOSEST = 0.93
"""Smallest distance of two cells in units of the sum of their radii: below 1 they touch."""
HARMONICS = np.arange(2, 7)
AMPLITUDES = 0.035 * (0.006 / 0.035) ** (np.arange(5) / 4)
"""Amplitude of each harmonic as a fraction of the radius: 3.5 % falling to 0.6 %."""
MEMORY = 15.0
"""Frames over which an outline forgets its shape."""
ANGLES = np.linspace(-np.pi, np.pi, 361)
MARGIN = 2 * RADIUS
"""Cells also live this far outside the frame, so that some are cut by its edge."""


@dataclass
class Population:
    """N cells; one row per cell, positions as (y, x) in px, angles in rad."""

    radius: NDArray[np.float64]
    aspect: NDArray[np.float64]
    uropod: NDArray[np.float64]
    """Height of the bump at the rear as a fraction of the radius; 0 for resting cells."""
    speed: NDArray[np.float64]
    heading: NDArray[np.float64]
    position: NDArray[np.float64]
    ripple: NDArray[np.complex128]
    """`(N, 5)` strength and phase of each harmonic, in units of its amplitude."""
    size: tuple[int, int]

    def move(self, rng: np.random.Generator) -> None:
        """Advance by one frame: motile cells crawl, resting ones tremble, all change shape, none sink into another."""
        n = len(self.radius)
        keep = np.exp(-1 / MEMORY)
        self.ripple = keep * self.ripple + np.sqrt(1 - keep**2) * _complex_normal(rng, (n, 5))
        self.heading = self.heading + np.where(self.speed > 0, rng.normal(0, 0.2, n), 0)
        forward = np.stack([np.sin(self.heading), np.cos(self.heading)], axis=1)
        self.position = self.position + self.speed[:, None] * forward + rng.normal(0, 0.2, (n, 2))
        self._part()
        self._turn_back()

    def outlines(self) -> NDArray[np.float64]:
        """Return `(N, 361)` px: the distance from centre to outline at each of `ANGLES`."""
        theta = ANGLES[None] - self.heading[:, None]
        a = np.sqrt(self.aspect)[:, None]
        ellipse = 1 / np.sqrt((np.cos(theta) / a) ** 2 + (np.sin(theta) * a) ** 2)
        rear = np.angle(np.exp(1j * (theta - np.pi)))
        bump = self.uropod[:, None] * np.exp(-0.5 * (rear / 0.4) ** 2)
        waves = np.exp(1j * HARMONICS[:, None] * ANGLES)
        shape = ellipse * (1 + bump + np.real((self.ripple * AMPLITUDES) @ waves))
        area = np.mean(shape[:, :-1] ** 2, axis=1, keepdims=True)
        return np.asarray(self.radius[:, None] * shape / np.sqrt(area))

    def _part(self) -> None:
        """Push apart cells that came closer than they can."""
        reach = CLOSEST * (self.radius[:, None] + self.radius)
        for _ in range(4):
            apart = self.position[:, None] - self.position
            distance = np.hypot(*np.moveaxis(apart, -1, 0))
            np.fill_diagonal(distance, np.inf)
            push = np.maximum(reach - distance, 0) / np.maximum(distance, 1e-6) / 2
            self.position = self.position + (push[..., None] * apart).sum(axis=1)

    def _turn_back(self) -> None:
        low, high = -MARGIN, np.array(self.size) + MARGIN
        outside = ((self.position < low) | (self.position > high)).any(axis=1)
        self.heading = np.where(outside, self.heading + np.pi, self.heading)
        self.position = np.clip(self.position, low, high)


def populate(rng: np.random.Generator, size: tuple[int, int], density: float, clustering: float) -> Population:
    """Return cells that cover a frame of `size` (Y, X) px and a margin around it.

    Parameters
    ----------
    rng
        Draws everything.
    size
        (Y, X) of the frame in px.
    density
        Cells per px.
    clustering
        Probability that a cell is put in contact with one that is already there.
    """
    n = round(density * (size[0] + 2 * MARGIN) * (size[1] + 2 * MARGIN))
    radius = RADIUS * rng.lognormal(-(RADIUS_SIGMA**2) / 2, RADIUS_SIGMA, n)
    position = _scatter(rng, radius, size, clustering)
    n = len(position)
    motile = rng.random(n) < MOTILE
    return Population(
        radius=radius[:n],
        aspect=np.where(motile, rng.uniform(1.2, 1.6, n), rng.uniform(1.0, 1.1, n)),
        uropod=np.where(motile, rng.uniform(0.10, 0.35, n), 0),
        speed=np.where(motile, rng.lognormal(0, 0.4, n), 0),
        heading=rng.uniform(-np.pi, np.pi, n),
        position=position,
        ripple=_complex_normal(rng, (n, 5)),
        size=size,
    )


def _scatter(
    rng: np.random.Generator, radius: NDArray[np.float64], size: tuple[int, int], clustering: float
) -> NDArray[np.float64]:
    """Place cells one by one, none closer to another than it can be; stop when no place is left."""
    low, high = np.full(2, -MARGIN), np.array(size) + MARGIN
    placed = np.empty((0, 2))
    for r in radius:
        for attempt in range(200):
            spot = rng.uniform(low, high)
            if len(placed) and attempt < 100 and rng.random() < clustering:
                neighbour = rng.integers(len(placed))
                angle = rng.uniform(-np.pi, np.pi)
                distance = rng.uniform(CLOSEST, 1.0) * (r + radius[neighbour])
                spot = placed[neighbour] + distance * np.array([np.sin(angle), np.cos(angle)])
            free = np.hypot(*(placed - spot).T) >= CLOSEST * (r + radius[: len(placed)])
            if free.all() and (spot >= low).all() and (spot <= high).all():
                placed = np.vstack([placed, spot])
                break
        else:
            return placed
    return placed


def _complex_normal(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.complex128]:
    return np.asarray((rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2))
