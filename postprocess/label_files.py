"""Label images of any program, and the grey values that belong to them, as frames decoded one at a time.

TIFF (ImageJ, OME or plain) and PNG, NumPy files without pickle, OME-Zarr, and folders of such files in natural order.
What cannot be labels is refused in a line.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from data_io import calibration, images, masks
from data_io.damage import refusing
from data_io.errors import BadInput
from data_io.paged import PNG, opened
from data_io.readers.folder import is_mask, natural
from postprocess.morphology import MAX_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from data_io.images import Plane
    from data_io.readers.raw import Picture

Look = TypeVar("Look")

NUMPY = (".npy",)
KINDS = (*images.TIFF, *PNG, *NUMPY)
_AS_LABELS = "save it as a label image of one channel (0 background, 1, 2, ... cells) with 16 or 32 bit"
_ONE_PLANE = "save the plane that was segmented"
_ONE_AXIS = "give frames (Y, X) or a movie (T, Y, X) of one channel and one plane"


@dataclass(frozen=True)
class Source:
    """A file of frames of one size, decoded one at a time."""

    path: Path
    frames: int
    shape: tuple[int, int]
    """Height and width in px."""
    read: Callable[[], Iterator[NDArray[Any]]]
    """Yield each frame: labels ``(Y, X)`` as stored, or grey values ``(C, Y, X)``."""
    channels: int = 1
    pixel_size_um: float | None = None
    frame_interval_s: float | None = None


def label_sources(labels: Path) -> tuple[list[Source], list[str]]:
    """Return the files of a label image in order, none of them decoded, and notes for the user.

    Raises
    ------
    BadInput
        Nothing there, a kind that is not read, colours, fractions, depth or several channels.
    """
    notes: list[str] = []
    if _is_zarr(labels):
        return [_zarr_labels(labels)], notes
    paths = _files(labels, "label images", masked=True, notes=notes)
    return [_array_labels(path) if path.suffix.lower() in NUMPY else _picture_labels(path) for path in paths], notes


def image_sources(image: Path, labels: Path, sources: Sequence[Source]) -> list[Source]:
    """Return the files of the grey values that belong to the label images, none of them decoded.

    Raises
    ------
    BadInput
        Not readable, or not of the frames and sizes of the label images.
    """
    if image.exists() and not image.is_dir() and image.samefile(labels):
        raise BadInput(f"{image}: is the label image itself; give the image that was segmented")
    if _is_zarr(image):
        found = [_zarr(image)]
    else:
        paths = _files(image, "images", masked=False, notes=[])
        found = [_array_image(path) if path.suffix.lower() in NUMPY else _picture_image(path) for path in paths]
    _refuse_mismatch(image, found, sources)
    return found


def stated(what: str, sources: Sequence[Source]) -> float | None:
    """Return "pixel_size_um" or "frame_interval_s" where all files state the same."""
    values = {getattr(source, what) for source in sources}
    return values.pop() if len(values) == 1 else None


def _files(path: Path, what: str, *, masked: bool, notes: list[str]) -> list[Path]:
    """Return the file, or those of a folder in natural order; of files whose names say mask only these, or none."""
    if not path.is_dir():
        if not path.exists():
            raise BadInput(f"{path}: no such file or folder; give {what} as TIFF, PNG, .npy or a folder of them")
        if path.suffix.lower() not in KINDS:
            if masked:
                masks.refuse_suffix(path)
            raise BadInput(
                f"{path}: {path.suffix or 'a file without suffix'} is not read; save it as TIFF, PNG or .npy"
            )
        return [path]
    try:
        inside = sorted(path.iterdir(), key=natural)
    except OSError as fault:
        raise BadInput(f"{path}: you may not read this folder; change its permissions") from fault
    found = [one for one in inside if one.suffix.lower() in KINDS and not one.name.startswith(".")]
    found = [one for one in found if not one.name.endswith("_seg.npy")]  # pickles of Cellpose
    chosen = [one for one in found if is_mask(one.with_suffix(".tif")) == masked]
    if chosen and len(chosen) < len(found) and masked:
        notes.append(f"{len(found) - len(chosen)} files of {path} are not called masks or labels and are left out")
    chosen = chosen or found
    if not chosen:
        raise BadInput(f"{path}: holds no {what} (TIFF, PNG or .npy); give the folder that they lie in")
    seen: dict[str, Path] = {}
    for one in chosen:
        if seen.setdefault(one.stem.lower(), one) is not one:
            raise BadInput(f"{one}: same name as {seen[one.stem.lower()].name}; keep one of them or rename it")
    return chosen


def _picture_labels(path: Path) -> Source:
    """Look at a TIFF or PNG of labels."""
    with opened(path) as paged:
        axes, sizes = paged.lead + paged.rest, paged.sizes
        stack = {axis: n for axis, n in sizes.items() if axis not in "YX" and n > 1}
        if paged.lossy:
            raise BadInput(f"{path}: a JPEG-compressed label image has changed labels; {_AS_LABELS}")
        if "S" in stack and not (axes.find("S") < axes.find("Y") and paged.dtype.itemsize > 1 and len(stack) == 1):
            raise BadInput(f"{path}: {stack['S']} colours per pixel; {_AS_LABELS}")
        if len(stack) > 1 or len(axes) != len(sizes):
            told = " x ".join(f"{n} {axis}" for axis, n in stack.items())
            raise BadInput(f"{path}: more axes than one beside Y and X ({told}); {_ONE_AXIS}")
        if paged.kind != "imagej" and {"Z", "C"} & stack.keys():
            told = f"{stack['Z']} planes in depth" if "Z" in stack else f"{stack['C']} channels"
            raise BadInput(f"{path}: {told}; {_ONE_AXIS}")
        _refuse_type(path, paged.dtype)
    with refusing(path):
        pixel, interval = (None, None) if path.suffix.lower() in PNG else calibration.of_tiff(path)
    shape, frames = (sizes.get("Y", 0), sizes.get("X", 0)), math.prod(stack.values())
    return Source(path, frames, shape, partial(_pages, path), 1, pixel, interval)


def _pages(path: Path) -> Iterator[NDArray[Any]]:
    for pixels in images.raw(path):  # (C, Z, Y, X, S), one of C and S more than 1 at most
        yield from np.moveaxis(pixels, -1, 0).reshape(-1, *pixels.shape[2:4])


def _picture_image(path: Path) -> Source:
    """Look at a TIFF or PNG of grey values."""
    plane = _without_depth(path, partial(images.header, path))
    return _source(path, plane, partial(images.frames, path))


def _source(path: Path, plane: Plane, read: Callable[[], Iterator[Picture]]) -> Source:
    known = (plane.channels, plane.pixel_size_um, plane.frame_interval_s)
    return Source(path, plane.frames, plane.shape, partial(_pictures, read), *known)


def _pictures(read: Callable[[], Iterator[Picture]]) -> Iterator[NDArray[Any]]:
    for frame, _ in read():
        yield frame


def _array_labels(path: Path) -> Source:
    """Look at a NumPy file of labels."""
    array = _array(path)
    if array.ndim not in (2, 3) or array.size == 0:
        raise BadInput(f"{path}: an array of shape {array.shape}; {_ONE_AXIS}")
    if array.ndim == 3 and array.shape[2] in (3, 4) and array.shape[0] > 4:
        raise BadInput(f"{path}: an array of shape {array.shape}, as of a picture in colour; {_AS_LABELS}")
    _refuse_type(path, array.dtype)
    frames = array if array.ndim == 3 else array[None]
    return Source(path, len(frames), (array.shape[-2], array.shape[-1]), lambda: iter(frames))


def _array_image(path: Path) -> Source:
    """Look at a NumPy file of grey values."""
    array = _array(path)
    if array.ndim not in (2, 3, 4) or array.size == 0 or array.dtype.kind not in "buif":
        told = f"an array of {array.dtype} of shape {array.shape}"
        raise BadInput(f"{path}: {told}; give grey values (Y, X), (T, Y, X) or (T, C, Y, X)")
    frames = array[None, None] if array.ndim == 2 else array[:, None] if array.ndim == 3 else array
    read = partial(map, partial(images.stored, path), frames)
    return Source(path, len(frames), (array.shape[-2], array.shape[-1]), read, frames.shape[1])


def _array(path: Path) -> NDArray[Any]:
    """Map a NumPy file into memory; objects, which are pickled, are refused before anything of them is read."""
    with refusing(path):
        with path.open("rb") as file:
            pickled = file.read(1) == b"\x80"
        if pickled:
            raise BadInput(f"{path}: a pickle, which may run code; save the labels as TIFF or PNG instead")
        try:
            return np.lib.format.open_memmap(path, mode="r")
        except ValueError as fault:
            if "Python objects" in str(fault):
                told = "holds pickled objects, which may run code"
                raise BadInput(f"{path}: {told}; save the labels as TIFF or PNG (Cellpose: _cp_masks)") from fault
            raise


def _is_zarr(path: Path) -> bool:
    from data_io.readers import ome_zarr

    return ome_zarr.is_ome_zarr(path)


def _zarr_labels(path: Path) -> Source:
    """Look at an OME-Zarr label image."""
    from data_io import zarr_io

    source = _zarr(path)
    attributes = zarr_io.attributes(path, "")
    if "image-label" not in attributes.get("ome", attributes):
        raise BadInput(f"{path}: an image, no label image; give one of those in its folder labels")
    if source.channels > 1:
        raise BadInput(f"{path}: {source.channels} channels; {_ONE_AXIS}")
    return replace(source, read=lambda: (frame[0] for frame in source.read()))


def _zarr(path: Path) -> Source:
    """Look at an OME-Zarr image."""
    from data_io.readers import ome_zarr
    from data_io.readers.raw import Options

    fields = _without_depth(path, lambda: ome_zarr.read(path, Options(), []))
    if len(fields) != 1 or len(fields[0].files) != 1:
        raise BadInput(f"{path}: a collection of {len(fields)} images; give one of them")
    file = fields[0].files[0]
    return _source(path, file.plane, file.read)


def _without_depth(path: Path, look: Callable[[], Look]) -> Look:
    """Look at a file; the refusal of several planes in depth says what to do here."""
    try:
        return look()
    except BadInput as fault:
        if "planes in depth" in str(fault):
            raise BadInput(f"{path}: several planes in depth; {_ONE_PLANE}") from fault
        raise


def _refuse_type(path: Path, dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "bui":
        raise BadInput(f"{path}: labels of type {dtype}, not whole numbers; {_AS_LABELS}")


def checked(path: Path, labels: NDArray[Any]) -> NDArray[np.integer]:
    """Return a frame as whole numbers in the machine's byte order, in the dtype it has or int64."""
    _refuse_type(path, labels.dtype)
    if labels.size and labels.min() < 0:
        raise BadInput(f"{path}: negative labels (down to {labels.min()}); {_AS_LABELS}")
    if labels.size and labels.max() > MAX_ID:
        raise BadInput(f"{path}: label {labels.max()} is 2**63 or more; renumber the cells")
    wide = np.dtype(np.uint8) if labels.dtype.kind == "b" else labels.dtype.newbyteorder("=")
    cells = np.ascontiguousarray(labels, np.int64 if wide.itemsize == 8 else wide)
    if masks.is_full(cells):
        raise BadInput(f"{path}: no background, one or two labels fill a frame; {_AS_LABELS}")
    if cells.all() and masks.is_scattered(cells):
        told = "no background, and most of its values lie all over the frame"
        raise BadInput(f"{path}: an image, no labels ({told}); {_AS_LABELS}")
    if cells.dtype == np.uint8 and masks._squeezed(cells):
        raise BadInput(f"{path}: more than 255 cells in 8 bits share labels; save the label image with 16 bits")
    return cells


def _refuse_mismatch(image: Path, greys: Sequence[Source], labels: Sequence[Source]) -> None:
    """Refuse an image of other frames, of another size or of changing channels."""
    counts = [sum(source.frames for source in sources) for sources in (greys, labels)]
    if counts[0] != counts[1]:
        raise BadInput(f"{image}: {counts[0]} frames, but the labels have {counts[1]}; give the frames segmented")
    pairs = zip(*([one for one in sources for _ in range(one.frames)] for sources in (greys, labels)), strict=True)
    offsets = set()
    for grey, label in pairs:
        if grey.shape != label.shape:
            told = f"{grey.shape[0]} x {grey.shape[1]} pixels"
            fit = f"{label.path.name} has {label.shape[0]} x {label.shape[1]}"
            raise BadInput(f"{grey.path}: {told}, but {fit}; give the image that was segmented, at its size")
        if grey.channels != greys[0].channels:
            told = f"{grey.channels} channels, but {greys[0].path.name} has {greys[0].channels}"
            raise BadInput(f"{grey.path}: {told}; give images of equal channels")
        numbers = [[int(digits) for digits in re.findall(r"\d+", one.path.stem)] for one in (grey, label)]
        if grey.frames == label.frames and len(numbers[0]) == len(numbers[1]):
            offsets.add(tuple(b - a for a, b in zip(*numbers, strict=True)))
        if len(offsets) > 1:
            told = f"its turn is with {label.path.name}, and other files pair with another number"
            raise BadInput(f"{grey.path}: {told}; leave out the images without labels")
