"""How made-up cells look in brightfield: contrast as a function of the distance to the outline, optics, camera.

Contrasts are fractions of the background; distances are px, positive inside a cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from data_io.population import ANGLES

if TYPE_CHECKING:
    from numpy.typing import NDArray

PSF = 0.806
"""Gaussian sigma of the optics in px."""
FULL_WELL, BACKGROUND, READ_NOISE, BITS = 33_000.0, 0.42, 7.0, 12
"""Electrons at saturation, background as a fraction of them, read noise in electrons, bits of the camera."""
FLICKER = 0.003
GRADIENT, VIGNETTE = 0.05, 0.03
FAR = 8.0
"""Beyond this distance from every outline there is nothing of a cell."""
GRAIN = 96
"""Width of a cell's own texture in px."""


@dataclass(frozen=True)
class Scene:
    """Cells drawn into a frame: `(Y, X)` each; `owner` is the row of the cell a pixel belongs to, -1 for none."""

    distance: NDArray[np.float32]
    owner: NDArray[np.int32]
    texture: NDArray[np.float32]

    @property
    def labels(self) -> NDArray[np.int32]:
        """Return `(Y, X)` int32: 0 background, i + 1 for the cell of row i."""
        return np.where(self.distance > 0, self.owner + 1, 0).astype(np.int32)


def profile(distance: NDArray[np.floating], radius: NDArray[np.floating] | float) -> NDArray[np.floating]:
    """Return the contrast in focus at a distance from the outline of a cell of this radius, both in px.

    Dark rim -.085 at 1.7 px, bright ring +.060 at .42 R, centre -.050 beyond .5 R, faint halo +.018 at -2.6 px.
    """
    s, r = distance, radius
    rim = -0.085 * np.exp(-0.5 * ((s - 1.7) / 1.7) ** 2)
    ring = 0.060 * np.exp(-0.5 * ((s - 0.42 * r) / (0.14 * r)) ** 2)
    centre = -0.050 / (1 + np.exp(np.clip(-(s - 0.5 * r) / (0.04 * r), -30, 30)))
    halo = 0.018 * np.exp(-0.5 * ((s + 2.6) / 1.2) ** 2)
    return np.asarray(rim + ring + centre + halo)


def draw(
    outlines: NDArray[np.float64], centres: NDArray[np.float64], grain: NDArray[np.float32], size: tuple[int, int]
) -> Scene:
    """Draw cells so that a pixel belongs to the one with the largest distance inside its outline.

    Parameters
    ----------
    outlines
        `(N, 361)` px from centre to outline at `ANGLES`.
    centres
        `(N, 2)` y and x in px.
    grain
        `(N, GRAIN, GRAIN)` texture that each cell carries along.
    size
        (Y, X) of the frame.
    """
    scene = Scene(np.full(size, -FAR, np.float32), np.full(size, -1, np.int32), np.zeros(size, np.float32))
    steep = np.gradient(outlines, ANGLES, axis=1) / outlines
    slope = 1 / np.sqrt(1 + steep**2)
    for i, ((cy, cx), outline) in enumerate(zip(centres, outlines, strict=True)):
        reach = outline.max() + FAR
        y0, x0 = max(0, int(cy - reach)), max(0, int(cx - reach))
        y1, x1 = min(size[0], int(cy + reach) + 2), min(size[1], int(cx + reach) + 2)
        if y0 >= y1 or x0 >= x1:
            continue
        dy, dx = np.arange(y0, y1)[:, None] - cy, np.arange(x0, x1)[None] - cx
        angle = (np.arctan2(dy, dx) + np.pi) * (360 / (2 * np.pi))
        at = angle.astype(int) % 360
        part = angle - at
        edge = outline[at] + (outline[at + 1] - outline[at]) * part
        inside = ((edge - np.hypot(dy, dx)) * slope[i][at]).astype(np.float32)
        window = np.s_[y0:y1, x0:x1]
        mine = inside > scene.distance[window]
        scene.distance[window][mine] = inside[mine]
        scene.owner[window][mine] = i
        iy, ix = np.rint(dy).astype(int) % GRAIN, np.rint(dx).astype(int) % GRAIN
        scene.texture[window][mine] = grain[i][iy, ix][mine]
    return scene


def contrast(
    scene: Scene, radius: NDArray[np.float64], focus: NDArray[np.float64], texture: float
) -> NDArray[np.float32]:
    """Return `(Y, X)` contrast against the background; `focus` of a cell is 1 in focus, negative when inverted."""
    near = scene.owner >= 0
    s, owner = scene.distance[near], scene.owner[near]
    grain = texture * scene.texture[near] * np.clip(s / 3, 0, 1)
    picture = np.zeros(scene.owner.shape, np.float32)
    picture[near] = (profile(s, radius[owner]) + grain) * focus[owner]
    return picture


def grains(rng: np.random.Generator, n: int) -> NDArray[np.float32]:
    """Return `(n, GRAIN, GRAIN)` smooth noise of mean 0 and SD 1."""
    noise = ndimage.gaussian_filter(rng.standard_normal((n, GRAIN, GRAIN), np.float32), (0, 1.3, 1.3), mode="wrap")
    return np.asarray(noise / noise.std(), np.float32)


def illumination(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float32]:
    """Return `(Y, X)` lamp brightness around 1: a gradient of +-5 % in some direction and darker corners."""
    y, x = np.linspace(-1, 1, size[0])[:, None], np.linspace(-1, 1, size[1])[None]
    angle = rng.uniform(-np.pi, np.pi)
    gradient = GRADIENT * (np.sin(angle) * y + np.cos(angle) * x) / (abs(np.sin(angle)) + abs(np.cos(angle)))
    return np.asarray(1 + gradient - VIGNETTE * (y**2 + x**2) / 2, np.float32)


def dust(rng: np.random.Generator, size: tuple[int, int], n: int) -> NDArray[np.float32]:
    """Return `(Y, X)` contrast of n grains of dust on the camera window: faint rings that never move."""
    picture = np.zeros(size, np.float32)
    y, x = np.ogrid[: size[0], : size[1]]
    for _ in range(n):
        cy, cx, radius = rng.uniform(0, size[0]), rng.uniform(0, size[1]), rng.uniform(7, 20)
        out = np.hypot(y - cy, x - cx) - radius
        picture += (rng.uniform(0.008, 0.018) * np.cos(out / 1.6) * np.exp(-0.5 * (out / 3) ** 2)).astype(np.float32)
    return picture


def specks(
    positions: NDArray[np.float64], widths: NDArray[np.float64], depths: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Return `(Y, X)` contrast of floating debris: small spots with a rim of the opposite sign."""
    picture = np.zeros(size, np.float32)
    for (cy, cx), width, depth in zip(positions, widths, depths, strict=True):
        y0, x0 = max(0, int(cy - 6 * width)), max(0, int(cx - 6 * width))
        y = np.arange(y0, max(y0, min(size[0], int(cy + 6 * width) + 1)))[:, None]
        x = np.arange(x0, max(x0, min(size[1], int(cx + 6 * width) + 1)))[None]
        q = ((y - cy) ** 2 + (x - cx) ** 2) / (2 * width**2)
        picture[y0 : y0 + len(y), x0 : x0 + x.shape[1]] += (depth * (1 - 0.6 * q) * np.exp(-q)).astype(np.float32)
    return picture


def photograph(
    rng: np.random.Generator, picture: NDArray[np.float32], lamp: NDArray[np.float32], blur: float
) -> NDArray[np.uint16]:
    """Return `(Y, X)` uint16: 12-bit values shifted into 16 bits, after optics, flicker, shot and read noise.

    Parameters
    ----------
    rng
        Draws the noise.
    picture
        Contrast against the background.
    lamp
        Brightness around 1.
    blur
        Gaussian sigma in px.
    """
    seen = ndimage.gaussian_filter(1 + picture, blur)
    light = FULL_WELL * BACKGROUND * lamp * seen * (1 + FLICKER * rng.standard_normal())
    electrons = rng.poisson(np.maximum(light, 0)) + READ_NOISE * rng.standard_normal(light.shape)
    top = 2**BITS - 1
    counts = np.clip(np.rint(electrons / FULL_WELL * top), 0, top)
    return np.asarray(np.left_shift(counts.astype(np.uint16), 16 - BITS))
