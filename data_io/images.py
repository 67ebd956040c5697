"""One TIFF or PNG file to frames `(C, Y, X)`; a file that cannot be trusted is refused in a line.

What a stack means: an axis that OME or tifffile calls Z is depth, and so are the slices of an ImageJ hyperstack that
also has time; depth is projected or chosen as `Options.z` says, and refused without it. Any other lone stack axis is
time: the pages of a TIFF, the slices of an ImageJ stack, more than four unnamed channels (ImageJ calls any unnamed
axis a channel). When `Options.z` is given, a lone axis that is not called time is depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from data_io import calibration, depth
from data_io.damage import refusing
from data_io.errors import BadInput
from data_io.paged import PNG, Paged, opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

TIFF = (".tif", ".tiff")
MAX_PIXELS = 2**30
"""A larger plane is taken for a decompression bomb."""
BOMB_BYTES, BOMB_RATIO = 2**27, 200
"""So is a plane of this size in a file that is so many times smaller."""
MAX_CHANNELS = 4
"""More planes than this on an axis of unnamed channels are time points."""
GREY = "colour turned to grey (mean of red, green and blue)"
_STORED = {"b": "uint8", "u1": "uint8", "i1": "uint8", "u2": "uint16", "i2": "uint16", "f": "float32"}


@dataclass(frozen=True)
class Options:
    """What to make of the depth and channels of a file."""

    z: str | None = None
    """max, mean, focus (the plane in best focus) or the number of the plane, from 0; None: there is no depth."""
    channels: tuple[str, ...] = ()
    """Names or numbers (from 0) of the channels to keep, in this order; all when empty."""


@dataclass(frozen=True)
class Plane:
    """What a file says of itself before it is decoded, as it will be read."""

    frames: int
    channels: int
    shape: tuple[int, int]
    dtype: str
    """The dtype its grey values are stored in: uint8, uint16, uint32 or float32."""
    pixel_size_um: float | None = None
    """Micrometres per pixel, where ImageJ or OME metadata say it, with a unit and the same in Y and X."""
    frame_interval_s: float | None = None
    """Seconds per frame, likewise."""
    channel_names: tuple[str, ...] = ()
    """As OME or ImageJ metadata name all of them, else empty."""
    depth: int = 1
    """Planes in depth from which each frame is made."""
    notes: tuple[str, ...] = ()
    """What was taken for granted, for the warnings of the data set."""


NO_CHOICE = Options()


def header(path: Path, options: Options = NO_CHOICE) -> Plane:
    """Return frames, channels, size and stored dtype of a file without decoding it.

    Raises
    ------
    BadInput
        Not an image as far as its header shows, or one whose depth or channels need a choice.
    """
    with opened(path) as paged:
        named, note = _named(path, paged, options)
    _refuse_colours(path, paged)
    sizes = named.sizes
    depth.check(path, sizes.get("Z", 1), options.z)
    channels = _channels(path, named, options)
    with refusing(path):
        scale = (None, None) if path.suffix.lower() in PNG else calibration.of_tiff(path)
    return Plane(
        sizes.get("T", 1),
        len(channels),
        (sizes["Y"], sizes["X"]),
        stored_dtype(paged.dtype),
        *scale,
        channel_names=tuple(named.channel_names[at] for at in channels) if named.channel_names else (),
        depth=sizes.get("Z", 1),
        notes=(f"{path}: {note}",) if note else (),
    )


def frames(path: Path, options: Options = NO_CHOICE) -> Iterator[tuple[NDArray[Any], str | None]]:
    """Yield each frame of a file as `(C, Y, X)` in its stored dtype, and a note if its colour was turned to grey.

    One frame is in memory at a time.

    Raises
    ------
    BadInput
        Unreadable, cut or mislabelled file; NaN, infinite or negative integer values; transparency or a table of
        colours; several planes in depth and no choice made; a plane of more than 2**30 pixels.
    """
    header(path, options)
    chosen = "0" if options.z is not None and options.z.isdecimal() else options.z
    for pixels in raw(path, options):
        grey, note = _grey(pixels)
        checked = _checked(path, grey)
        yield depth.flatten(checked.astype(stored_dtype(checked.dtype), copy=False), chosen), note


def read(path: Path, options: Options = NO_CHOICE) -> tuple[NDArray[Any], str | None]:
    """Return all frames of a file as `(T, C, Y, X)`, and the note of `frames`, whose errors it raises."""
    found = list(frames(path, options))
    notes = [note for _, note in found if note]
    return np.stack([frame for frame, _ in found]), notes[0] if notes else None


def raw(path: Path, options: Options = NO_CHOICE) -> Iterator[NDArray[Any]]:
    """Yield the pixels of each frame as they are, `(C, Z, Y, X, S)` with S colour samples.

    Channels are those asked for; depth is not projected, but `Options.z` may choose one plane. Of a palette the places
    in its table are read, not the colours.
    """
    with opened(path) as paged:
        named, _ = _named(path, paged, options)
        picked = {"C": _channels(path, named, options)}
        if "Z" in named.sizes and options.z is not None and options.z.isdecimal():
            picked["Z"] = [int(options.z)]
        for frame in range(named.sizes.get("T", 1)):
            with refusing(path):
                pixels = named.take(picked | {"T": [frame]})
            yield pixels


def _named(path: Path, paged: Paged, options: Options) -> tuple[Paged, str]:
    """Return the file with its stack axes called T and Z, and what was taken for granted in doing so."""
    sizes = paged.sizes
    if sizes.get("Y", 0) * sizes.get("X", 0) == 0:
        raise BadInput(f"{path}: holds no image plane; export it again as TIFF or PNG")
    _refuse_bombs(path, paged)
    stack = {axis: n for axis, n in sizes.items() if axis not in "YXSC" and n > 1}
    if (
        not stack
        and sizes.get("C", 1) > MAX_CHANNELS
        and not ((paged.kind == "ome" and options.z is None) or paged.channel_names or options.channels)
    ):
        stack = {"C": sizes["C"]}
    others = {axis: n for axis, n in stack.items() if axis not in "TZ"}
    if len(others) > 1 or (others and {"T", "Z"} <= stack.keys()):
        told = " x ".join(f"{n} {axis}" for axis, n in stack.items())
        raise BadInput(f"{path}: a stack of {told} planes; export one movie per file, with its axes named T, Z and C")
    for axis, n in others.items():
        if "T" in stack or (options.z is not None and "Z" not in stack):
            return paged.swap(axis, "Z"), ""
        return paged.swap(axis, "T"), f"its {n} pages are read as time; if they are depth, say so with --z"
    if stack.keys() == {"Z"} and paged.kind == "imagej" and options.z is None:
        return paged.swap("Z", "T"), f"its {stack['Z']} slices are read as time; if they are depth, say so with --z"
    return paged, ""


def refuse_size(path: Path, height: int, width: int) -> None:
    """Refuse a plane of more than 2**30 pixels.

    Raises
    ------
    BadInput
        It is larger.
    """
    if height * width > MAX_PIXELS:
        raise BadInput(f"{path}: {height} x {width} pixels in one plane; cut it into tiles first")


def _refuse_bombs(path: Path, paged: Paged) -> None:
    sizes, bytes_of_file = paged.sizes, path.stat().st_size
    refuse_size(path, sizes["Y"], sizes["X"])
    plane = sizes["Y"] * sizes["X"] * sizes.get("S", 1) * paged.dtype.itemsize
    if plane >= BOMB_BYTES and plane > BOMB_RATIO * bytes_of_file:
        told = f"a plane of {plane >> 20} MiB in a file of {bytes_of_file >> 10} KiB"
        raise BadInput(f"{path}: {told}, as in a decompression bomb; save it without compression if it is real")


def _channels(path: Path, named: Paged, options: Options) -> list[int]:
    """Return the places of the channels to keep."""
    names = named.channel_names or tuple(f"channel_{at + 1}" for at in range(named.sizes.get("C", 1)))
    return depth.choose(path, names, options.channels)


def _checked(path: Path, pixels: NDArray[Any]) -> NDArray[Any]:
    if pixels.dtype.kind == "f" and not (np.abs(pixels) <= np.finfo(np.float32).max).all():
        raise BadInput(f"{path}: has NaN or infinite values, or beyond float32; export the raw grey values again")
    if pixels.dtype.kind == "i" and pixels.min() < 0:
        raise BadInput(f"{path}: has negative integer values (down to {pixels.min()}); export as unsigned 16-bit")
    if pixels.dtype.kind in "iu" and pixels.max() >= 2**32:
        raise BadInput(f"{path}: grey values up to {pixels.max()}; export as 16-bit")
    return pixels


def _refuse_colours(path: Path, paged: Paged) -> None:
    if paged.palette:
        raise BadInput(f"{path}: pixels from a table of colours (palette), not grey values; export the raw grey values")
    if paged.sizes.get("S", 1) not in (1, 3):
        count = paged.sizes["S"]
        raise BadInput(f"{path}: {count} values per pixel, as with transparency (RGBA); export the raw grey values")


def _grey(pixels: NDArray[Any]) -> tuple[NDArray[Any], str | None]:
    """Drop the last axis, of colours: equal ones give one of them, others their mean."""
    samples = np.moveaxis(pixels, -1, 0)
    if all(np.array_equal(samples[0], other) for other in samples[1:]):
        return samples[0], None
    mean = samples.mean(axis=0)
    return (mean if pixels.dtype.kind == "f" else np.rint(mean)).astype(pixels.dtype), GREY


def stored(path: Path, pixels: NDArray[Any]) -> NDArray[Any]:
    """Return grey values in the dtype they are stored in.

    Raises
    ------
    BadInput
        NaN, infinite or negative integer values, or beyond 32 bit.
    """
    return _checked(path, pixels).astype(stored_dtype(pixels.dtype), copy=False)


def stored_dtype(dtype: np.dtype[Any]) -> str:
    """Return the name of the dtype that grey values of `dtype` are stored in."""
    return _STORED.get(f"{dtype.kind}{dtype.itemsize}") or _STORED.get(dtype.kind) or "uint32"
