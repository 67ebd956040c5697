"""Make synthetic CLL brightfield movies with exact labels and track ids, for want of a public set.

    python -m data_io.synthetic movies --fields 3 --frames 8 --size 384x384 --preset paper --seed 0
    python -m data_io.synthetic --preset paper --frames 47 --size 904x1224 --seed 1

Everything made here is marked synthetic, and says so wherever it appears. A folder of movies holds

- `field_1/frames/t000.tif` ... 16-bit grey values, `field_1/masks/t000.tif` ... a label per cell, its track over time;
- `traits.csv`: area, perimeter, circularity, solidity, radius and shape index of the continuous outline of every cell
  that touches no other and no edge of the frame; field, frame and label say which;
- `synthetic.json`: how they were made.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_io.brightfield import PSF, contrast, draw, dust, grains, illumination, photograph, specks
from data_io.command_line import Parser
from data_io.errors import DONE, BadInput, entry_point
from data_io.files import building, write_json, write_text
from data_io.job_folder import refuse_lost
from data_io.population import Population, populate
from data_io.readers import MARKER
from data_io.traits import ANGLES, isolated, traits

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

DRIFT, WALK = 0.06, 0.12
"""Stage drift in px per frame, and the SD of its random walk."""
FOCUS_MEMORY = 10.0
"""Frames over which the focus wanders back."""
AFLOAT, AFLOAT_SD = -1.75, 0.2
"""Mean and SD of the focus of cells afloat, beyond the plane where contrast vanishes: theirs is inverted."""
MOST_CONTRAST = 1.5
TRAITS = "traits.csv"
MOST_PIXELS = 4 * 10**9
"""Of a movie, which is held in memory with 6 bytes per pixel."""


@dataclass(frozen=True)
class Preset:
    """What makes a movie easy or hard."""

    density: float
    """Cells per px."""
    clustering: float
    """Probability that a cell touches another: the share of those in contact, over the movie."""
    focus: float
    """SD of the frame's focus, 1 being the way from in focus to no contrast."""
    cell_focus: float
    """SD of a cell's own focus around it."""
    afloat: float
    """Probability that a cell lies so far out of the plane that its contrast is inverted."""
    texture: float
    """SD of the contrast inside a cell."""
    debris: float
    """Floating specks per px."""
    dust: float
    """Grains on the camera per px."""


PRESETS = {
    "easy": Preset(1.4e-4, 0.20, 0.04, 0.03, 0.00, 0.015, 5e-6, 2e-6),
    "paper": Preset(2.35e-4, 0.45, 0.08, 0.27, 0.02, 0.020, 3e-5, 8e-6),
    "hard": Preset(3.4e-4, 0.65, 0.30, 0.35, 0.08, 0.025, 5e-5, 1e-5),
}
"""Share of cells in contact (labels that meet at an edge or a corner), mean over 47 frames of 904x1224 px and 8 seeds:
easy .205, paper .455, hard .645. The focus SDs of `paper` are set so that local-SD Otsu, fill, erode reaches a dataset
IoU of about .8."""


@dataclass(frozen=True)
class Movie:
    """One field over time."""

    images: NDArray[np.uint16]
    """`(T, Y, X)` grey values."""
    labels: NDArray[np.int32]
    """`(T, Y, X)`, 0 background; a cell keeps its positive value over time."""
    traits: pd.DataFrame
    """Exact traits of cells that touch no other and no edge: frame, label and the columns of `data_io.traits`."""
    preset: str
    seed: int | Sequence[int]


def movie(seed: int | Sequence[int], frames: int, size: tuple[int, int], preset: str = "paper") -> Movie:
    """Return a movie of `frames` frames of `size` (Y, X) px; a pure function of its arguments.

    Raises
    ------
    BadInput
        Unknown preset, no frames, or a frame too small to hold cells.
    """
    import pandas as pd

    _check(frames, size, preset)
    rng = np.random.default_rng(seed)
    look = PRESETS[preset]
    area = size[0] * size[1]
    cells = populate(rng, size, look.density, look.clustering)
    n = len(cells.radius)
    grain = grains(rng, n)
    afloat, own_focus = rng.random(n) < look.afloat, rng.normal(0, look.cell_focus, n)
    own_focus[afloat] = rng.normal(AFLOAT, AFLOAT_SD, afloat.sum())
    own_focus -= own_focus.mean()  # the microscope is focused on the cells
    lamp, still = illumination(rng, size), dust(rng, size, rng.poisson(look.dust * area))
    floating = rng.uniform(0, size, (rng.poisson(look.debris * area), 2))
    widths, depths = rng.uniform(0.8, 1.8, len(floating)), rng.choice([-1, 1], len(floating)) * 0.06
    drift = rng.uniform(-np.pi, np.pi)
    stage, focus, keep = np.zeros(2), rng.normal(0, look.focus), np.exp(-1 / FOCUS_MEMORY)
    images, labels = np.empty((frames, *size), np.uint16), np.empty((frames, *size), np.int32)
    tables = []
    for t in range(frames):
        scene = draw(cells.outlines(), cells.position + stage, grain, size)
        in_focus = np.clip(1 + focus + own_focus, -MOST_CONTRAST, MOST_CONTRAST)
        picture = contrast(scene, cells.radius, in_focus, look.texture) + still
        picture += specks(floating + stage, widths, depths, size)
        images[t] = photograph(rng, picture, lamp, float(np.hypot(PSF, 0.9 * focus)))
        labels[t] = scene.labels
        tables.append(_exact(cells, t, labels[t]))
        cells.move(rng)
        floating = (floating + rng.normal(0, 1.0, floating.shape)) % size
        stage = stage + DRIFT * np.array([np.sin(drift), np.cos(drift)]) + rng.normal(0, WALK, 2)
        focus = keep * focus + float(np.sqrt(1 - keep**2)) * rng.normal(0, look.focus)
    return Movie(images, labels, pd.concat(tables, ignore_index=True), preset, seed)


def _exact(cells: Population, frame: int, labels: NDArray[np.int32]) -> pd.DataFrame:
    """Return one row of exact traits per cell of a frame that stands alone."""
    import pandas as pd

    alone = isolated(labels)
    return pd.DataFrame({"frame": frame, "label": alone} | traits(cells.outlines(ANGLES, alone - 1)))


def write(
    out: Path | str,
    *,
    fields: int = 3,
    frames: int = 8,
    size: tuple[int, int] = (384, 384),
    preset: str = "paper",
    seed: int = 0,
) -> Path:
    """Write movies as `out`/field_1/frames/t000.tif and masks/t000.tif, and the exact traits beside them.

    The folder appears when it is complete.

    Raises
    ------
    BadInput
        Bad arguments, or `out` holds something else than just these movies.
    """
    import pandas as pd

    out = Path(out)
    _check(frames, size, preset)
    if seed < 0:
        raise BadInput(f"--seed {seed}: negative; give 0 or more")
    if fields < 1:
        raise BadInput(f"--fields {fields}: no movie; give 1 or more (3 or more are split by field)")
    facts = {"synthetic": True, "tracked": True, "fields": fields, "frames": frames, "size": list(size)}
    facts |= {"preset": preset, "seed": seed}
    if out.exists():
        _check_same(out, facts)
        return out
    with building(out) as partial:
        tables = []
        for k in range(fields):
            made = movie([seed, k], frames, size, preset)
            field = f"field_{k + 1}"
            _write_stack(partial / field / "frames", made.images)
            few = made.labels.max() < 2**16
            _write_stack(partial / field / "masks", made.labels.astype(np.uint16 if few else np.uint32))
            tables.append(made.traits.assign(field=field)[["field", *made.traits.columns]])
        write_text(partial / TRAITS, pd.concat(tables).to_csv(index=False, float_format="%.8g"))
        write_json(partial / MARKER, facts)
    return out


def _write_stack(folder: Path, stack: NDArray[np.unsignedinteger[Any]]) -> None:
    import tifffile

    folder.mkdir(parents=True)
    for t, frame in enumerate(stack):
        tifffile.imwrite(folder / f"t{t:03d}.tif", frame, compression="zlib", compressionargs={"level": 1})


def _check(frames: int, size: tuple[int, int], preset: str) -> None:
    if preset not in PRESETS:
        raise BadInput(f"--preset {preset}: unknown; choose from {', '.join(PRESETS)}")
    if frames < 1 or min(size) < 64:
        raise BadInput(f"--frames {frames} --size {size[0]}x{size[1]}: too small; at least 1 frame of 64x64 px")
    if frames * size[0] * size[1] > MOST_PIXELS:
        told = f"{frames * size[0] * size[1] / 1e9:.3g} billion pixels, which are made in memory"
        raise BadInput(
            f"--frames {frames} --size {size[0]}x{size[1]}: {told}; make {MOST_PIXELS / 1e9:g} billion or less"
        )


def _check_same(out: Path, facts: dict[str, Any]) -> None:
    try:
        made = json.loads((out / MARKER).read_text())
    except (OSError, ValueError):
        made = None
    if made != facts:
        raise BadInput(f"{out}: exists and is not these movies; choose another name or remove it")


def _size(text: str) -> tuple[int, int]:
    """Read 904x1224 as (Y, X)."""
    y, _, x = text.lower().partition("x")
    if not (y.isdecimal() and x.isdecimal()):
        raise BadInput(f"--size {text}: not a size; give YxX in px, such as 904x1224")
    return int(y), int(x)


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    text = "Make synthetic CLL brightfield movies (labelled synthetic everywhere) with exact masks and track ids."
    example = "example: python -m data_io.synthetic movies --fields 3 --frames 8 --size 384x384 --preset paper --seed 0"
    parser = Parser("python -m data_io.synthetic", description=text, epilog=example)
    parser.add_argument("out", type=Path, nargs="?", help="folder to make (default: synthetic_PRESET_SEED here)")
    parser.add_argument("--fields", type=int, default=1, help="independent movies (default: 1)")
    parser.add_argument("--frames", type=int, default=8, help="frames per movie (default: 8)")
    parser.add_argument("--size", default="384x384", metavar="YxX", help="px (default: 384x384)")
    parser.add_argument("--preset", default="paper", help=f"{', '.join(PRESETS)} (default: paper)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same movies (default: 0)")
    given = parser.parse_args(argv)
    out = given.out or Path(f"synthetic_{given.preset}_{given.seed}")
    refuse_lost(out)
    finished = out.exists()
    size = _size(given.size)
    write(out, fields=given.fields, frames=given.frames, size=size, preset=given.preset, seed=given.seed)
    done = "already there, nothing to do" if finished else "made (synthetic)"
    movies = "1 movie" if given.fields == 1 else f"{given.fields} movies"
    print(f"{out}: {movies} of {given.frames} frames {done}; exact traits of isolated cells in {out / TRAITS}")
    return DONE


if __name__ == "__main__":
    entry_point(main)
