"""Made-up CLL cells: their outlines, where they lie and how they move.

An outline is a polar radius: an ellipse of the cell's area, a uropod at the rear of motile cells, and harmonics that
change slowly with time. Figures are those of the study's cells, in px and frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

RADIUS, RADIUS_SIGMA = 11.5, 0.13
"""Mean radius in px and lognormal sigma."""
MOTILE = 0.22
CLOSEST = 0.93
"""Smallest distance of two cells in units of the sum of their radii: below 1 they touch."""
SNUG = 0.96
"""Distance of two cells that stay together, in units of the sum of their outlines towards each other."""
GAP = 5.0
"""Smallest gap in px that a cell put down alone leaves to every other."""
MEET = 0.02
"""Share of cells that come into contact by chance as they move, over 47 frames."""
HARMONICS = np.arange(2, 7)
AMPLITUDES = 0.035 * (0.006 / 0.035) ** (np.arange(5) / 4)
"""Amplitude of each harmonic as a fraction of the radius: 3.5 % falling to 0.6 %."""
MEMORY = 15.0
"""Frames over which an outline forgets its shape."""
ANGLES = np.linspace(-np.pi, np.pi, 361)
ALL = slice(None)
MARGIN = 2 * RADIUS
"""Cells also live this far outside the frame, so that some are cut by its edge."""


@dataclass
class Population:
    """N cells; one row per cell, positions as (y, x) in px, angles in rad."""

    radius: NDArray[np.float64]
    """`(N,)` px, of the disc of the same area."""
    aspect: NDArray[np.float64]
    uropod: NDArray[np.float64]
    """Height of the bump at the rear as a fraction of the radius; 0 for resting cells."""
    speed: NDArray[np.float64]
    heading: NDArray[np.float64]
    position: NDArray[np.float64]
    ripple: NDArray[np.complex128]
    """`(N, 5)` strength and phase of each harmonic, in units of its amplitude."""
    bonds: NDArray[np.int64]
    """`(K, 2)` rows of cells that stay in contact."""
    size: tuple[int, int]

    def move(self, rng: np.random.Generator) -> None:
        """Advance by one frame: motile cells crawl, resting ones tremble, all change shape, none sink into another."""
        n = len(self.radius)
        keep = np.exp(-1 / MEMORY)
        self.ripple = keep * self.ripple + np.sqrt(1 - keep**2) * _complex_normal(rng, (n, 5))
        self.heading = self.heading + np.where(self.speed > 0, rng.normal(0, 0.2, n), 0)
        self.position = self.position + self.speed[:, None] * _unit(self.heading) + rng.normal(0, 0.2, (n, 2))
        self._turn_back()
        self._hold_together()
        self._part()

    def outlines(
        self, angles: NDArray[np.float64] = ANGLES, rows: slice | NDArray[np.integer] = ALL
    ) -> NDArray[np.float64]:
        """Return `(N, M)` px: the distance from centre to outline at `angles`, evenly spaced from -pi to pi."""
        theta = angles[None] - self.heading[rows, None]
        a = np.sqrt(self.aspect[rows, None])
        ellipse = 1 / np.sqrt((np.cos(theta) / a) ** 2 + (np.sin(theta) * a) ** 2)
        rear = np.mod(theta, 2 * np.pi) - np.pi
        bump = self.uropod[rows, None] * np.exp(-0.5 * (rear / 0.4) ** 2)
        waves = np.exp(1j * HARMONICS[:, None] * angles)
        shape = ellipse * (1 + bump + np.real((self.ripple[rows] * AMPLITUDES) @ waves))
        area = np.mean(shape[:, :-1] ** 2, axis=1, keepdims=True)
        return np.asarray(self.radius[rows, None] * shape / np.sqrt(area))

    def _turn_back(self) -> None:
        low, high = -MARGIN, np.array(self.size) + MARGIN
        outside = ((self.position < low) | (self.position > high)).any(axis=1)
        self.heading = np.where(outside, self.heading + np.pi, self.heading)
        self.position = np.clip(self.position, low, high)

    def _hold_together(self) -> None:
        """Bring bonded cells back into contact, each pair by half the way, a few times over."""
        one, other = self.bonds.T
        outlines = self.outlines()
        for _ in range(5):
            apart = self.position[one] - self.position[other]
            distance = np.hypot(*apart.T)
            away = np.arctan2(*apart.T)
            touching = _towards(outlines[one], away + np.pi) + _towards(outlines[other], away)
            snug = np.maximum(SNUG * touching, CLOSEST * (self.radius[one] + self.radius[other]))
            self._shift(one, other, apart * ((snug - distance) / distance / 2)[:, None])

    def _part(self) -> None:
        """Push apart cells that came closer than they can, until none is."""
        one, other = cKDTree(self.position).query_pairs(3 * self.radius.max(), output_type="ndarray").T
        reach = CLOSEST * (self.radius[one] + self.radius[other])
        for _ in range(200):
            apart = self.position[one] - self.position[other]
            distance = np.hypot(*apart.T)
            if (distance >= reach).all():
                return
            push = np.maximum(1.001 * reach - distance, 0) / np.maximum(distance, 1e-6) / 2
            self._shift(one, other, apart * push[:, None])

    def _shift(self, one: NDArray[np.int64], other: NDArray[np.int64], by: NDArray[np.float64]) -> None:
        np.add.at(self.position, one, by)
        np.subtract.at(self.position, other, by)


def populate(rng: np.random.Generator, size: tuple[int, int], density: float, clustering: float) -> Population:
    """Return cells that cover a frame of `size` (Y, X) px and a margin around it.

    Parameters
    ----------
    rng
        Draws everything.
    size
        (Y, X) of the frame in px.
    density
        Cells per px; cells cover less than a fifth of the frame.
    clustering
        Probability that a cell touches another.
    """
    n = round(density * (size[0] + 2 * MARGIN) * (size[1] + 2 * MARGIN))
    motile = rng.random(n) < MOTILE
    cells = Population(
        radius=RADIUS * rng.lognormal(-(RADIUS_SIGMA**2) / 2, RADIUS_SIGMA, n),
        aspect=np.where(motile, rng.uniform(1.2, 1.6, n), rng.uniform(1.0, 1.1, n)),
        uropod=np.where(motile, rng.uniform(0.10, 0.35, n), 0),
        speed=np.where(motile, rng.lognormal(0, 0.4, n), 0),
        heading=rng.uniform(-np.pi, np.pi, n),
        position=np.empty((0, 2)),
        ripple=_complex_normal(rng, (n, 5)),
        bonds=np.empty((0, 2), np.int64),
        size=size,
    )
    cells.position, cells.bonds = _scatter(rng, cells, clustering)
    cells.speed[cells.bonds.ravel()] = 0  # a cell that holds on to another does not crawl
    return cells


def _scatter(
    rng: np.random.Generator, cells: Population, clustering: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Place cells one by one: beside another while fewer than `clustering` of them touch, else alone."""
    low, high = np.full(2, -MARGIN), np.array(cells.size) + MARGIN
    radius, outlines = cells.radius, cells.outlines()
    placed, touches, bonds = np.empty((len(radius), 2)), np.zeros(len(radius), bool), []
    for i, r in enumerate(radius):
        joins = i > 0 and touches[:i].mean() < clustering - MEET
        while True:  # cells cover too little of the frame for no place to be left
            spot, partner = rng.uniform(low, high), -1
            if joins:
                partner, away = int(rng.integers(i)), rng.uniform(-np.pi, np.pi)
                contact = float(_towards(outlines[[partner]], away)[0] + _towards(outlines[[i]], away + np.pi)[0])
                distance = rng.uniform(CLOSEST, 1.0) * contact
                spot = placed[partner] + distance * _unit(np.array(away))
            apart = spot - placed[:i]
            away = np.arctan2(*apart.T)
            gap = np.hypot(*apart.T) - _towards(outlines[:i], away) - _towards(outlines[[i] * i], away + np.pi)
            room = np.hypot(*apart.T) >= CLOSEST * (r + radius[:i])
            if (spot >= low).all() and (spot <= high).all() and room.all() and (joins or (gap > GAP).all()):
                break
        placed[i] = spot
        touches[:i] |= gap < 1
        touches[i] = (gap < 1).any()
        if joins:
            bonds.append((partner, i))
    return placed, np.array(bonds, np.int64).reshape(-1, 2)


def _towards(outlines: NDArray[np.float64], angle: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Return how far each outline reaches in a direction, px."""
    at = np.rint((angle + np.pi) * (180 / np.pi)).astype(int) % 360
    return np.asarray(outlines[np.arange(len(outlines)), at])


def _unit(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (y, x) of length 1 in the last axis."""
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1)


def _complex_normal(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.complex128]:
    return np.asarray((rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2))
