"""One TIFF or PNG file to one `(T, C, Y, X)` array; a file that cannot be trusted is refused in a line."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from data_io import calibration
from data_io.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

TIFF = (".tif", ".tiff")
PNG = (".png",)
MAX_PIXELS = 2**28
"""A larger plane is taken for a decompression bomb."""
MAX_CHANNELS = 4
"""More planes than this on a channel axis are time points: ImageJ calls any unnamed stack axis a channel."""
GREY = "colour turned to grey (mean of red, green and blue)"
_STORED = {"b": "uint8", "u1": "uint8", "i1": "uint8", "u2": "uint16", "i2": "uint16", "f": "float32"}
_DAMAGE = ("corrupted", "invalid page offset", "failed to reshape")


@dataclass(frozen=True)
class Plane:
    """What a file says of itself before it is decoded."""

    frames: int
    channels: int
    shape: tuple[int, int]
    dtype: str
    """The dtype its grey values are stored in: uint8, uint16, uint32 or float32."""
    pixel_size_um: float | None = None
    """Micrometres per pixel, where ImageJ or OME metadata say it, with a unit and the same in Y and X."""
    frame_interval_s: float | None = None
    """Seconds per frame, likewise."""


@dataclass(frozen=True)
class Raw:
    """A decoded file: its pixels in the file's own dtype and what each axis means.

    `axes` has one letter per axis: Y, X, S (colour samples), C (channels), and others for time or depth.
    """

    pixels: NDArray[Any]
    axes: str
    lossy: bool = False


def header(path: Path) -> Plane:
    """Return frames, channels, size and stored dtype of a file without decoding it."""
    with _refusing(path):
        png = _is_png(path)
        shape, axes, dtype = _png_header(path) if png else _tiff_header(path)
        scale = (None, None) if png else calibration.of_tiff(path)
    frames, channels = _counts(path, dict(zip(axes, shape, strict=True)))
    size = dict(zip(axes, shape, strict=True))
    return Plane(frames, channels, (size["Y"], size["X"]), _stored(dtype), *scale)


def read(path: Path) -> tuple[NDArray[Any], str | None]:
    """Return an image file as `(T, C, Y, X)` in its stored dtype, and a note if its colour was turned to grey.

    Raises
    ------
    BadInput
        Unreadable, cut or mislabelled file; NaN, infinite or negative integer values; a see-through image; a z-stack
        over time; a plane of more than 2**28 pixels.
    """
    raw = decode(path)
    pixels, note = _grey(path, raw)
    stack = as_stack(path, Raw(pixels, raw.axes.replace("S", "")))
    return _checked(path, stack).astype(_stored(stack.dtype), copy=False), note


def decode(path: Path, *, indexed: bool = False) -> Raw:
    """Return a file's own pixels; a PNG palette gives its colours, or its indices when `indexed`."""
    header(path)
    with _refusing(path):
        return _decode_png(path, indexed) if _is_png(path) else _decode_tiff(path)


def as_stack(path: Path, raw: Raw) -> NDArray[Any]:
    """Return `(T, C, Y, X)` pixels: a lone stack axis is time."""
    sizes = dict(zip(raw.axes, raw.pixels.shape, strict=True))
    frames, channels = _counts(path, sizes)
    order = [axis for axis in raw.axes if axis not in "CYX"] + [axis for axis in "CYX" if axis in raw.axes]
    moved = raw.pixels.transpose([raw.axes.index(axis) for axis in order])
    return moved.reshape(frames, channels, sizes["Y"], sizes["X"])


def _counts(path: Path, sizes: dict[str, int]) -> tuple[int, int]:
    """Return the number of frames and channels; the lone stack axis of a file is time, whatever it is called."""
    stack = {axis: n for axis, n in sizes.items() if axis not in "YXSC" and n > 1}
    channels = sizes.get("C", 1)
    if len(stack) > 1:
        named = " x ".join(f"{n} {axis}" for axis, n in stack.items())
        raise BadInput(f"{path}: a stack of {named} planes; choose or project one depth first, one file per movie")
    if "Y" not in sizes or "X" not in sizes or sizes["Y"] * sizes["X"] == 0:
        raise BadInput(f"{path}: holds no image plane; export it again as TIFF or PNG")
    if sizes["Y"] * sizes["X"] > MAX_PIXELS:
        raise BadInput(f"{path}: {sizes['Y']} x {sizes['X']} pixels in one plane; cut it into tiles first")
    if not stack and channels > MAX_CHANNELS:
        return channels, 1
    return next(iter(stack.values()), 1), channels


def _checked(path: Path, pixels: NDArray[Any]) -> NDArray[Any]:
    if pixels.dtype.kind == "f" and not (np.abs(pixels) <= np.finfo(np.float32).max).all():
        raise BadInput(f"{path}: has NaN or infinite values, or beyond float32; export the raw grey values again")
    if pixels.dtype.kind == "i" and pixels.min() < 0:
        raise BadInput(f"{path}: has negative integer values (down to {pixels.min()}); export as unsigned 16-bit")
    if pixels.dtype.kind in "iu" and pixels.max() >= 2**32:
        raise BadInput(f"{path}: grey values up to {pixels.max()}; export as 16-bit")
    return pixels


def _grey(path: Path, raw: Raw) -> tuple[NDArray[Any], str | None]:
    """Drop the colour axis: an opaque alpha is dropped, equal colours give one of them, others their mean."""
    if "S" not in raw.axes:
        return raw.pixels, None
    samples = np.moveaxis(raw.pixels, raw.axes.index("S"), 0)
    if len(samples) in (2, 4):
        if (samples[-1] != samples[-1].flat[0]).any():
            raise BadInput(f"{path}: partly see-through (alpha channel); export without transparency")
        samples = samples[:-1]
    if all(np.array_equal(samples[0], other) for other in samples[1:]):
        return samples[0], None
    mean = samples.mean(axis=0)
    return (mean if raw.pixels.dtype.kind == "f" else np.rint(mean)).astype(raw.pixels.dtype), GREY


def _stored(dtype: np.dtype[Any]) -> str:
    return _STORED.get(f"{dtype.kind}{dtype.itemsize}") or _STORED.get(dtype.kind) or "uint32"


def _is_png(path: Path) -> bool:
    """Say whether the file is a PNG: its first bytes decide, and must agree with its name."""
    start = _start(path)[:8]
    if not start:
        raise BadInput(f"{path}: empty file (0 bytes); copy or export it again")
    png = start == b"\x89PNG\r\n\x1a\n"
    if not png and start[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        raise BadInput(f"{path}: neither TIFF nor PNG inside, whatever its name says; export it again as TIFF or PNG")
    if png != (path.suffix.lower() in PNG):
        raise BadInput(f"{path}: is a {'PNG' if png else 'TIFF'} inside; rename it")
    return png


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(26)


def _png_header(path: Path) -> tuple[tuple[int, ...], str, np.dtype[Any]]:
    start = _start(path)
    if len(start) < 26:
        raise EOFError("cut within its header")
    width, height = (int.from_bytes(start[at : at + 4], "big") for at in (16, 20))
    return (height, width), "YX", np.dtype("uint16" if start[24] == 16 else "uint8")


def _decode_png(path: Path, indexed: bool) -> Raw:
    depth, colour = _start(path)[24:26]
    if depth == 16 and colour != 0:  # Pillow would keep 8 of the 16 bits
        import imagecodecs

        pixels = imagecodecs.png_decode(path.read_bytes())
    else:
        from PIL import Image

        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGBA") if image.mode == "P" and not indexed else image)
            pixels = pixels.astype(np.uint16) if depth == 16 else pixels
    return Raw(pixels, "YX" if pixels.ndim == 2 else "YXS")


def _tiff_header(path: Path) -> tuple[tuple[int, ...], str, np.dtype[Any]]:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        series = tiff.series
        if len({(one.shape, one.dtype) for one in series}) != 1:
            raise ValueError("its pages have different sizes")
        first = series[0]
        if first.dtype is None or first.dtype.kind not in "buif":
            raise ValueError(f"pixels of type {first.dtype}")
        return (len(series), *first.shape), "N" + first.axes, first.dtype


def _decode_tiff(path: Path) -> Raw:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        pixels = np.stack([series.asarray() for series in tiff.series])
        return Raw(pixels, "N" + tiff.series[0].axes, lossy=tiff.pages.first.compression in (6, 7, 34892))


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turn whatever the decoders raise, and the damage tifffile only logs, into one line."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file, or a link to nothing; restore it or remove the link")
    damage = _Damage()
    logger = logging.getLogger("tifffile")
    logger.addHandler(damage)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield
    except BadInput:
        raise
    except Exception as fault:  # decoders raise anything from struct.error to zlib's own
        raise BadInput(f"{path}: unreadable ({_one_line(fault)}); copy or export it again") from fault
    finally:
        logger.removeHandler(damage)
        logger.propagate = propagate
    if damage.text:
        raise BadInput(f"{path}: damaged or cut ({damage.text}); copy or export it again")


class _Damage(logging.Handler):
    """Remembers the first sign of damage in tifffile's log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if not self.text and any(sign in message for sign in _DAMAGE):
            self.text = _one_line(message)


def _one_line(fault: object) -> str:
    return " ".join(str(fault).split())[:120] or type(fault).__name__
