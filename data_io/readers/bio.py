"""Microscope files (nd2, czi, lif ...) through bioio, which is installed only where it is wanted.

    pip install bioio bioio-nd2        # bioio-czi, bioio-lif ... one plugin for each format

Each scene of a file is a field. The annotation is a label image, ROI set or GeoJSON file beside it, named like it.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from data_io import depth, images
from data_io.calibration import is_possible
from data_io.errors import BadInput
from data_io.images import Plane
from data_io.readers import drawings
from data_io.readers.folder import MASK_FOLDERS, _files, bare, is_mask
from data_io.readers.raw import RawField, RawFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from data_io.readers.raw import Options, Picture

PLUGINS = {
    ".nd2": "bioio-nd2", ".czi": "bioio-czi", ".lif": "bioio-lif", ".dv": "bioio-dv", ".sld": "bioio-sldy",
    ".oib": "bioio-bioformats", ".oif": "bioio-bioformats", ".vsi": "bioio-bioformats", ".ims": "bioio-bioformats",
}  # fmt: skip
"""The bioio plugin that reads each suffix."""


def is_bio(source: Path) -> bool:
    """Say whether the source is a microscope file, or a folder that holds some and no TIFF or PNG."""
    if source.is_file():
        return source.suffix.lower() in PLUGINS
    return bool(_sources(source)) and not any(not is_mask(path) for path in _files(source))


def read(source: Path, options: Options, warnings: list[str]) -> list[RawField]:
    """Read every scene of every file as a field.

    Raises
    ------
    BadInput
        bioio or the plugin is not installed, the file cannot be read, or depth is not chosen.
    """
    files = [source] if source.is_file() else _sources(source)
    home = source.parent if source.is_file() else source
    folder = next((p for p in sorted(home.iterdir()) if p.is_dir() and p.name.lower() in MASK_FOLDERS), None)
    drawn = {bare(path): path for path in [*_files(home), *(_files(folder, masks=True) if folder else [])]}
    drawn |= {path.stem: path for path in (_files(folder, masks=True) if folder else [])}
    return [field for path in files for field in _fields(path, drawn.get(path.stem), options)]


def _sources(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in PLUGINS and p.name[0] != ".")


def _open(path: Path) -> Any:
    plugin = PLUGINS.get(path.suffix.lower(), "a bioio plugin")
    if find_spec("bioio") is None:
        raise BadInput(f"{path}: needs bioio; pip install bioio {plugin}")
    try:
        return _bio_image(path)
    except Exception as fault:  # plugins raise anything
        raise BadInput(f"{path}: unreadable ({_line(fault)}); pip install {plugin}, or export it as TIFF") from fault


def _bio_image(path: Path) -> Any:
    from bioio import BioImage

    return BioImage(path)


def _fields(path: Path, drawn: Path | None, options: Options) -> list[RawField]:
    opened = _open(path)
    scenes = list(opened.scenes)
    if drawn is not None and len(scenes) > 1:
        raise BadInput(f"{drawn}: {path.name} has {len(scenes)} scenes; export each scene to a file of its own")
    fields = []
    for scene in scenes:
        opened.set_scene(scene)
        sizes = opened.dims
        depth.check(path, int(sizes.Z), options.z)
        images.refuse_size(path, int(sizes.Y), int(sizes.X))
        names = [str(name) for name in (opened.channel_names or [])] or [f"channel_{i + 1}" for i in range(sizes.C)]
        kept = depth.choose(path, names, options.channels)
        pixel, interval = _pixel(opened), _interval(opened)
        plane = Plane(
            int(sizes.T), len(kept), (int(sizes.Y), int(sizes.X)), images.stored_dtype(opened.dtype), pixel, interval
        )
        drawing = None if drawn is None else drawings.drawing(drawn, plane, path.name)
        file = RawFile(path.name, plane, (path,), partial(_pictures, path, scene, kept, options.z), drawing)
        name = path.stem if len(scenes) == 1 else f"{path.stem}_{scene}"
        fields.append(RawField(name, (file,), {}, tuple(names[k] for k in kept), pixel, interval))
    return fields


def _pictures(path: Path, scene: str, kept: list[int], z: str | None) -> Iterator[Picture]:
    opened = _open(path)
    opened.set_scene(scene)
    for t in range(int(opened.dims.T)):
        try:
            stack = np.asarray(opened.get_image_dask_data("CZYX", T=t).compute())
        except Exception as fault:
            raise BadInput(f"{path}: frame {t} is unreadable ({_line(fault)}); copy or export it again") from fault
        yield images.stored(path, depth.flatten(stack[kept], z)), None


def _pixel(opened: Any) -> float | None:
    """Return micrometres per pixel where Y and X agree; bioio gives them in micrometres."""
    size = opened.physical_pixel_sizes
    same = size.Y and size.X and abs(size.Y - size.X) <= 1e-3 * size.Y
    return float(size.Y) if same and is_possible(size.Y) else None


def _interval(opened: Any) -> float | None:
    told = getattr(opened, "time_interval", None)
    seconds = told.total_seconds() if isinstance(told, timedelta) else told
    return float(seconds) if isinstance(seconds, int | float) and is_possible(seconds) else None


def _line(fault: Exception) -> str:
    return " ".join(str(fault).split())[:100] or type(fault).__name__
