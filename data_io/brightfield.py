"""How made-up cells look in brightfield: contrast as a function of the distance to the outline, optics, camera.

Contrasts are fractions of the background; distances are px, positive inside a cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from scipy import ndimage

from data_io.population import ANGLES

if TYPE_CHECKING:
    from numpy.typing import NDArray

PSF = 0.806
"""Gaussian sigma of the optics in px."""
RIM, RING, CENTRE, HALO = -0.085, 0.060, -0.050, 0.018
"""Contrast of a cell in focus as the camera sees it, each at its place."""
RIM_AT, RIM_SD = 1.7, 1.7
HALO_AT, HALO_SD = -2.6, 1.2
"""px from the outline."""
RING_AT, RING_SD, CENTRE_FROM, CENTRE_STEP = 0.42, 0.14, 0.5, 0.04
"""In units of the radius; the centre sets in as a logistic step."""
FULL_WELL, BACKGROUND, READ_NOISE, BITS = 33_000.0, 0.42, 7.0, 12
"""Electrons at saturation, background as a fraction of them, read noise in electrons, bits of the camera."""
FLICKER = 0.003
GRADIENT, VIGNETTE = 0.05, 0.03
FAR = 7.0
"""Beyond this distance from every outline there is nothing of a cell."""
SEAM = 1.2
"""Gaussian sigma in px over which the focus of one cell passes into that of a cell it touches."""
UNIT = np.stack([np.sin(ANGLES), np.cos(ANGLES)], axis=1)
"""(y, x) of length 1 in each direction of an outline."""
GRAIN, GRAIN_SIGMA = 96, 1.3
"""Width of a cell's own texture and sigma of its smoothness, px."""
GRAIN_KEPT = 0.81
"""The part of the texture's SD that is left behind interpolation and optics."""


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


def profile(
    distance: NDArray[np.floating], radius: NDArray[np.floating] | float, blur: float = PSF
) -> NDArray[np.floating]:
    """Return the contrast in focus at a distance from the outline of a cell of this radius, both in px.

    As the camera sees it: dark rim -.085 at 1.7 px, bright ring +.060 at .42 R, centre -.050 beyond .5 R, faint halo
    +.018 at -2.6 px. Rim, ring and halo overlap and the optics flatten them, so each is drawn as much stronger as it
    takes. `blur` is the sigma of the optics along the distance; 0 gives the light before them.
    """
    s, r = np.asarray(distance), np.asarray(radius)
    return np.asarray((_parts(s, r, blur) * strengths(r)).sum(axis=-1))


def strengths(radius: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return `(..., 4)`: how strongly rim, ring, centre and halo are drawn, so that the camera sees the contrasts."""
    at = np.stack([np.full_like(radius, RIM_AT), RING_AT * radius, radius, np.full_like(radius, HALO_AT)], axis=-1)
    seen = np.array([[RIM], [RING], [CENTRE], [HALO]])
    return np.asarray(np.linalg.solve(_parts(at, radius[..., None], PSF), seen)[..., 0])


def _parts(s: NDArray[np.floating], r: NDArray[np.floating], blur: float) -> NDArray[np.floating]:
    """Return `(..., 4)`: rim, ring, centre and halo of strength 1 at the distance s, behind a blur in px."""
    step = np.sqrt((CENTRE_STEP * r) ** 2 + 3 * (blur / np.pi) ** 2)  # a logistic has the SD pi / sqrt(3)
    return np.stack(
        [
            _bell(s - RIM_AT, RIM_SD, blur),
            _bell(s - RING_AT * r, RING_SD * r, blur),
            1 / (1 + np.exp(np.clip((CENTRE_FROM * r - s) / step, -30, 30))),
            _bell(s - HALO_AT, HALO_SD, blur),
        ],
        axis=-1,
    )


def _bell(x: NDArray[np.floating], sd: NDArray[np.floating] | float, blur: float) -> NDArray[np.floating]:
    """Return a Gaussian of height 1 after a blur."""
    wide = np.sqrt(np.square(sd) + blur**2)
    return np.asarray(sd / wide * np.exp(-0.5 * (x / wide) ** 2))


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
    _draw(outlines, centres, grain, scene.distance, scene.owner, scene.texture)
    return scene


@njit(cache=True, nogil=True)
def _draw(
    outlines: NDArray[np.float64],
    centres: NDArray[np.float64],
    grain: NDArray[np.float32],
    distance: NDArray[np.float32],
    owner: NDArray[np.int32],
    texture: NDArray[np.float32],
) -> None:
    """Fill the three images of a scene."""
    height, width = distance.shape
    ys, xs = np.empty(1080), np.empty(1080)
    for i in range(len(centres)):
        cy, cx = centres[i]
        reach = outlines[i].max() + FAR
        for k in range(1080):
            ys[k], xs[k] = outlines[i, k % 360] * UNIT[k % 360, 0], outlines[i, k % 360] * UNIT[k % 360, 1]
        for y in range(max(0, int(cy - reach)), min(height, int(cy + reach) + 2)):
            for x in range(max(0, int(cx - reach)), min(width, int(cx + reach) + 2)):
                dy, dx = y - cy, x - cx
                out = np.sqrt(dy * dy + dx * dx)
                if out >= reach:
                    continue
                turn = (np.arctan2(dy, dx) + np.pi) * (180 / np.pi)
                at = int(turn) % 360
                edge = outlines[i, at] + (outlines[i, at + 1] - outlines[i, at]) * (turn - int(turn))
                if edge - out <= distance[y, x] and edge >= out:
                    continue  # the outline is no farther than along the radius
                look = 90 if out > 0.4 * edge else 180
                s = np.sqrt(_squared_distance(ys, xs, dy, dx, at + 360, look))
                if edge < out:
                    s = -s
                if s > distance[y, x]:
                    distance[y, x], owner[y, x] = s, i
                    texture[y, x] = _between(grain[i], dy, dx)


@njit(cache=True, nogil=True)
def _squared_distance(
    ys: NDArray[np.float64], xs: NDArray[np.float64], y: float, x: float, at: int, look: int
) -> float:
    """Return the squared distance of a point to a closed outline of 360 points, gone round three times.

    The nearest point is looked for within `look` points of the point `at` of the second turn.
    """
    nearest, least = at, np.inf
    for k in range(at - look, at + look, 9):
        q = (ys[k] - y) ** 2 + (xs[k] - x) ** 2
        if q < least:
            nearest, least = k, q
    for k in range(nearest - 8, nearest + 9):
        q = (ys[k] - y) ** 2 + (xs[k] - x) ** 2
        if q < least:
            nearest, least = k, q
    for k in (nearest, nearest - 1):
        ey, ex = ys[k + 1] - ys[k], xs[k + 1] - xs[k]
        py, px = y - ys[k], x - xs[k]
        along = min(1.0, max(0.0, (py * ey + px * ex) / (ey * ey + ex * ex)))
        least = min(least, (py - along * ey) ** 2 + (px - along * ex) ** 2)
    return least


@njit(cache=True, nogil=True)
def _between(grain: NDArray[np.float32], dy: float, dx: float) -> float:
    """Return the texture at a place between its pixels."""
    y, x = int(np.floor(dy)), int(np.floor(dx))
    v, u = dy - y, dx - x
    above = grain[y % GRAIN, x % GRAIN] * (1 - u) + grain[y % GRAIN, (x + 1) % GRAIN] * u
    below = grain[(y + 1) % GRAIN, x % GRAIN] * (1 - u) + grain[(y + 1) % GRAIN, (x + 1) % GRAIN] * u
    return float(above * (1 - v) + below * v)


def contrast(
    scene: Scene, radius: NDArray[np.float64], focus: NDArray[np.float64], texture: float
) -> NDArray[np.float32]:
    """Return `(Y, X)` contrast against the background, before the optics.

    Parameters
    ----------
    scene
        What was drawn.
    radius
        `(N,)` px of each cell.
    focus
        `(N,)`: 1 in focus, 0 no contrast, negative inverted.
    texture
        SD of the contrast within a cell as the camera sees it.
    """
    near = scene.owner >= 0
    s, owner = scene.distance[near], scene.owner[near]
    of_cell = np.concatenate([strengths(radius), radius[:, None]], axis=1).astype(np.float32)
    rim, ring, centre, halo, r = of_cell[owner].T
    light = rim * np.exp(-0.5 * ((s - RIM_AT) / RIM_SD) ** 2)
    light += ring * np.exp(-0.5 * ((s / r - RING_AT) / RING_SD) ** 2)
    light += centre / (1 + np.exp(np.clip((CENTRE_FROM - s / r) / CENTRE_STEP, -30, 30)))
    light += halo * np.exp(-0.5 * ((s - HALO_AT) / HALO_SD) ** 2)
    light += texture / GRAIN_KEPT * scene.texture[near] * np.clip(s / 3, 0, 1)
    sharp = np.ones(scene.owner.shape, np.float32)
    sharp[near] = focus.astype(np.float32)[owner]
    picture = np.zeros(scene.owner.shape, np.float32)
    picture[near] = light * ndimage.gaussian_filter(sharp, SEAM, truncate=3)[near]
    return picture


def grains(rng: np.random.Generator, n: int) -> NDArray[np.float32]:
    """Return `(n, GRAIN, GRAIN)` smooth noise of mean 0 and SD 1."""
    smooth = (0, GRAIN_SIGMA, GRAIN_SIGMA)
    noise = ndimage.gaussian_filter(rng.standard_normal((n, GRAIN, GRAIN), np.float32), smooth, mode="wrap")
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
    for _ in range(n):
        cy, cx, radius = rng.uniform(0, size[0]), rng.uniform(0, size[1]), rng.uniform(7, 20)
        strength, reach = rng.uniform(0.008, 0.018), radius + 12
        window = tuple(slice(max(0, int(c - reach)), int(c + reach)) for c in (cy, cx))
        y, x = np.ogrid[: size[0], : size[1]]
        out = np.hypot(y[window[0]] - cy, x[:, window[1]] - cx) - radius
        picture[window] += (strength * np.cos(out / 1.6) * np.exp(-0.5 * (out / 3) ** 2)).astype(np.float32)
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

    Shot noise is drawn from the normal distribution, which at 10,000 electrons is Poisson's.

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
    light = np.maximum(np.float32(FULL_WELL * BACKGROUND * (1 + FLICKER * rng.standard_normal())) * lamp * seen, 0)
    electrons = light + np.sqrt(light + np.float32(READ_NOISE**2)) * rng.standard_normal(light.shape, np.float32)
    top = 2**BITS - 1
    counts = np.clip(np.rint(electrons * np.float32(top / FULL_WELL)), 0, top)
    return np.asarray(np.left_shift(counts.astype(np.uint16), 16 - BITS))
