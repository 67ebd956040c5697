"""An OME-Zarr (0.4 or 0.5) of any program: an image, a collection of images, or a plate of wells and fields.

Paths, axes and scales are read from the metadata. The annotation is a label image in the image's `labels` group.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from data_io import depth, images, masks
from data_io.calibration import MICROMETRES, SECONDS, is_possible
from data_io.errors import BadInput
from data_io.images import Plane
from data_io.readers.raw import DRAWN, Drawing, RawField, RawFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from data_io.readers.raw import Drawn, Options, Picture

ANNOTATIONS = ("truth", "masks", "labels", "annotation", "ground_truth", "gt")
"""Names of label images that are taken for the annotation when there are several."""
MAX_CHUNKS = 10**6
"""Each is looked for; an image of more, kept without shards, takes minutes to open in any program."""
_METADATA = ("zarr.json", ".zattrs", ".zgroup")


@dataclass(frozen=True)
class Image:
    """One multiscale image at its full resolution."""

    path: Path
    array: Any
    axes: str
    scale: dict[str, float]
    """Per axis, in micrometres or seconds; only where the unit is stated."""
    channels: tuple[str, ...]


def is_ome_zarr(source: Path) -> bool:
    """Say whether the source is a Zarr group."""
    return source.is_dir() and any((source / name).is_file() for name in _METADATA)


def read(source: Path, options: Options, warnings: list[str]) -> list[RawField]:
    """Read every image as a field.

    Raises
    ------
    BadInput
        Not OME-Zarr, no time or space axes that are known, a chunk of an image that is missing or empty, depth that is
        not chosen, or several label images of which none is known for the annotation.
    """
    fields = []
    try:
        for name, path, groups in _images(source):
            image = _image(path)
            fields.append(_field(name, image, groups, options, warnings))
    except (
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        ZeroDivisionError,
    ) as fault:  # whatever a program of no name left out
        raise BadInput(f"{source}: bad OME metadata ({_line(fault)}); write the store again") from fault
    return fields


def _images(source: Path) -> list[tuple[str, Path, dict[str, str]]]:
    """Return name, folder and groups of each image of an image, a collection or a plate."""
    ome = _ome(source)
    if "plate" in ome:
        return _of_plate(source, ome["plate"])
    if "well" in ome:
        return [(str(f["path"]), source / _inside(source, f["path"]), {}) for f in ome["well"]["images"]]
    if "multiscales" in ome:
        return [(source.name.removesuffix(".zarr").removesuffix(".ome"), source, {})]
    if "bioformats2raw.layout" in ome:
        series = _ome(source / "OME").get("series") or sorted(p.name for p in source.iterdir() if p.name.isdecimal())
        return [(str(one), source / _inside(source, one), {}) for one in series]
    raise BadInput(f"{source}: a Zarr group without OME metadata; give an OME-Zarr image, collection or plate")


def _of_plate(source: Path, plate: dict[str, Any]) -> list[tuple[str, Path, dict[str, str]]]:
    found = []
    for well in plate["wells"]:
        folder = source / _inside(source, well["path"])
        name = str(well["path"]).replace("/", "")
        groups = {"plate": str(plate.get("name") or source.name.removesuffix(".zarr")), "well": name}
        fields = [field["path"] for field in _ome(folder)["well"]["images"]]
        found += [(f"{name}_{field}", folder / _inside(folder, field), groups) for field in fields]
    return found


def _inside(source: Path, path: Any) -> str:
    told = str(path)
    if ".." in told.split("/") or not (source / told).resolve().is_relative_to(source.resolve()):
        raise BadInput(f"{source}: names a path outside itself ({path}); do not use a store you do not trust")
    return told


def _ome(folder: Path) -> dict[str, Any]:
    """Return the OME metadata of a group: under `ome` since 0.5, at the top before."""
    import zarr

    try:
        attributes = dict(zarr.open_group(folder, mode="r").attrs)
    except zarr.errors.ContainsArrayError:
        raise BadInput(f"{folder}: one array of an OME-Zarr, not the image; give the folder that it is in") from None
    except Exception as fault:  # zarr raises anything from KeyError to its own
        raise BadInput(f"{folder}: bad Zarr metadata ({_line(fault)}); write the store again") from fault
    ome = attributes.get("ome", attributes)
    if not isinstance(ome, dict):
        raise BadInput(f"{folder}: bad OME metadata; write the store again")
    return ome


def _image(path: Path) -> Image:
    from data_io import zarr_io

    ome = _ome(path)
    try:
        scales = ome["multiscales"][0]
        axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in scales["axes"]]
        level = scales["datasets"][0]
        array = zarr_io.open_checked(path / _inside(path, level["path"]), "r")
        steps = _steps(len(axes), level, scales)
        names = "".join(str(axis["name"]) for axis in axes)
    except BadInput:
        raise
    except Exception as fault:
        raise BadInput(f"{path}: bad OME-Zarr metadata ({_line(fault)}); write the store again") from fault
    if len(names) != array.ndim or not {"y", "x"} <= set(names) or not set(names) <= set("tczyx"):
        raise BadInput(f"{path}: axes {names or 'unknown'}; only t, c, z, y and x can be read, y and x are needed")
    if array.dtype.kind not in "buif":
        raise BadInput(f"{path}: values of type {array.dtype}; store the image as unsigned 8 or 16 bit")
    _check_stored(path, level["path"])
    images.refuse_size(path, array.shape[names.index("y")], array.shape[names.index("x")])
    units = {"y": MICROMETRES, "x": MICROMETRES, "z": MICROMETRES, "t": SECONDS}
    known = {
        axis["name"]: step * units[axis["name"]][unit]
        for axis, step in zip(axes, steps, strict=True)
        if axis["name"] in units
        and (unit := str(axis.get("unit", "")).lower()) in units[axis["name"]]
        and is_possible(step * units[axis["name"]][unit])
    }
    told = [str(c.get("label", i)) for i, c in enumerate((ome.get("omero") or {}).get("channels", []))]
    count = array.shape[names.index("c")] if "c" in names else 1
    channels = tuple(told) if len(told) == count else tuple(f"channel_{i + 1}" for i in range(count))
    return Image(path / level["path"], array, names, known, channels)


def _steps(n: int, level: dict[str, Any], scales: dict[str, Any]) -> list[float]:
    """Return the scale per axis: that of the level times that of the image."""
    steps = [1.0] * n
    for step in (*level.get("coordinateTransformations", []), *scales.get("coordinateTransformations", [])):
        if step.get("type") == "scale":
            steps = [a * float(b) for a, b in zip(steps, step["scale"], strict=True)]
    return steps


def _check_stored(path: Path, level: str) -> None:
    """Refuse empty files, which Zarr would read as fill values without a word."""
    for file in (path / level).rglob("*"):
        if file.is_symlink() and not file.resolve().is_relative_to(path.resolve()):
            raise BadInput(f"{file}: a link out of the store; copy the file itself")
        if file.is_file() and not file.is_symlink() and file.stat().st_size == 0:
            raise BadInput(f"{file}: chunk of 0 bytes; write the store again")


def _field(name: str, image: Image, groups: dict[str, str], options: Options, warnings: list[str]) -> RawField:
    sizes = dict(zip(image.axes, image.array.shape, strict=True))
    depth.check(image.path, sizes.get("z", 1), options.z)
    if missing := _missing(image):
        raise BadInput(f"{image.path / missing[0]}: missing chunk ({len(missing)} such); write the store again")
    kept = depth.choose(image.path, image.channels, options.channels)
    dtype = images.stored_dtype(image.array.dtype)
    pixel = image.scale.get("y") if image.scale.get("y") == image.scale.get("x") else None
    plane = Plane(sizes.get("t", 1), len(kept), (sizes["y"], sizes["x"]), dtype, pixel, image.scale.get("t"))
    root = image.path.parent
    drawing = _drawing(root, plane, options, warnings)
    file = RawFile(root.name, plane, tuple(_files(root)), partial(_pictures, image, kept, options.z), drawing)
    channels = tuple(image.channels[place] for place in kept)
    return RawField(name, (file,), groups, channels, pixel, image.scale.get("t"))


def _missing(image: Image) -> list[str]:
    """Return the chunks or shards that are not there: Zarr would read them as its fill value without a word."""
    from data_io import zarr_io

    if (chunks := zarr_io.count_chunks(image.array)) > MAX_CHUNKS:
        raise BadInput(f"{image.path}: {chunks} chunks; write it with larger ones, or in shards")
    keys = (key.removeprefix(image.array.path).lstrip("/") for key in zarr_io.chunk_keys(image.array))
    return [key for key in keys if not (image.path / key).is_file()]


def _files(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*") if p.is_file())


def _plane(image: Image, t: int) -> NDArray[Any]:
    """Return frame t as `(C, Z, Y, X)`, whatever axes there are."""
    try:
        frame = np.asarray(image.array[tuple(t if axis == "t" else slice(None) for axis in image.axes)])
    except Exception as fault:
        raise BadInput(f"{image.path}: frame {t} is damaged ({_line(fault)}); write the store again") from fault
    axes = image.axes.replace("t", "")
    order = [axes.index(axis) for axis in "czyx" if axis in axes]
    index = tuple(slice(None) if axis in axes else None for axis in "czyx")
    return frame.transpose(order)[index]


def _pictures(image: Image, kept: list[int], z: str | None) -> Iterator[Picture]:
    frames = image.array.shape[image.axes.index("t")] if "t" in image.axes else 1
    for t in range(frames):
        yield images.stored(image.path, depth.flatten(_plane(image, t)[kept], z)), None


def _drawing(root: Path, plane: Plane, options: Options, warnings: list[str]) -> Drawing | None:
    """Return the label image that is the annotation, if there is one."""
    folder = root / _inside(root, "labels")
    names = _ome(folder).get("labels", []) if is_ome_zarr(folder) else []
    if not names:
        return None
    wanted = [options.labels] if options.labels else [name for name in ANNOTATIONS if name in names]
    if options.labels and options.labels not in names:
        raise BadInput(f"{folder}: no label image {options.labels!r}; it has {', '.join(names)}")
    if not wanted and len(names) > 1:
        raise BadInput(f"{folder}: several label images ({', '.join(names)}); say which one with --labels NAME")
    name = (wanted or names)[0]
    if len(names) > 1 and not options.labels:
        warnings.append(f"{folder}: label image {name!r} taken of {', '.join(names)}; see --labels")
    labels = _image(folder / _inside(folder, name))
    if empty := _missing(labels):
        chunks = f"{len(empty)} chunks are not stored, {empty[0]} the first"
        warnings.append(f"{labels.path}: {chunks}: taken as background, as programs leave out empty ones")
    return Drawing(labels.path, partial(_labels, labels, plane, options.z), DRAWN)


def _labels(labels: Image, plane: Plane, z: str | None) -> tuple[Drawn, tuple[str, ...]]:
    sizes = dict(zip(labels.axes, labels.array.shape, strict=True))
    if (sizes["y"], sizes["x"]) != plane.shape or sizes.get("t", 1) != plane.frames:
        told = f"{sizes} does not fit its image of {plane.frames} frames {plane.shape}"
        raise BadInput(f"{labels.path}: {told}; give the label image of this image")
    if sizes.get("z", 1) > 1 and z != "max" and not (z or "").isdecimal():
        raise BadInput(f"{labels.path}: labels in depth can only be projected by --z max or chosen by --z N")
    drawn = []
    for t in range(plane.frames):
        frame = depth.flatten(_plane(labels, t)[:1], z)
        drawn.append(masks._checked(labels.path, frame).astype(np.int32)[0])
    return drawn, ()


def _line(fault: Exception) -> str:
    return " ".join(str(fault).split())[:120] or type(fault).__name__
