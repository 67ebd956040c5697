"""TIFF and PNG files as pages that are decoded one at a time, with what the file calls its axes."""

from __future__ import annotations

import math
import warnings
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from data_io.damage import refusing
from data_io.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import tifffile
    from numpy.typing import NDArray

PNG = (".png",)
_JPEG = (6, 7, 34892)
_PALETTE = 3
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples per pixel of the colour types of PNG; a palette counts as one."""


@dataclass(frozen=True)
class Paged:
    """A file whose pages are not decoded yet.

    Axes have one letter each: Y, X, S (colour samples), C (channels), Z (depth), T (time), others unnamed.
    """

    lead: str
    """Axes that run over pages."""
    rest: str
    """Axes within a page."""
    sizes: dict[str, int]
    dtype: np.dtype[Any]
    page: Callable[[int], NDArray[Any]]
    """Decode the page of a number, counted over `lead` with the last axis fastest."""
    kind: str = "png"
    """Who says what the axes mean: "ome", "imagej", "shaped" (tifffile), "png" or others."""
    lossy: bool = False
    palette: bool = False
    """Pixels are places in a table of colours; ImageJ's tables are for display only and do not count."""
    channel_names: tuple[str, ...] = ()

    def swap(self, one: str, other: str) -> Paged:
        """Return the same file with the names of two axes exchanged."""
        names = str.maketrans(one + other, other + one)
        sizes = {axis.translate(names): size for axis, size in self.sizes.items()}
        return replace(self, lead=self.lead.translate(names), rest=self.rest.translate(names), sizes=sizes)

    def take(self, picked: Mapping[str, list[int]]) -> NDArray[Any]:
        """Return `(C, Z, Y, X, S)` pixels in the file's own dtype: the picked indices of each axis, all of the others.

        Any axis but these five must have one index, or be picked down to one.
        """
        lead = [self.sizes[axis] for axis in self.lead]
        numbers = np.arange(math.prod(lead)).reshape(lead)
        for at, axis in enumerate(self.lead):
            numbers = numbers.take(picked.get(axis, range(self.sizes[axis])), axis=at)
        pages = np.stack([self.page(int(number)) for number in numbers.ravel()])
        stack = pages.reshape(numbers.shape + pages.shape[1:])
        axes = self.lead + self.rest
        for axis in set(self.rest) & set(picked):
            stack = stack.take(picked[axis], axis=axes.index(axis))
        ordered = [axis for axis in axes if axis not in "CZYXS"] + [axis for axis in "CZYXS" if axis in axes]
        moved = stack.transpose([axes.index(axis) for axis in ordered])
        size: dict[str, int] = dict(zip(ordered, moved.shape, strict=True))
        return moved.reshape([size.get(axis, 1) for axis in "CZYXS"])


@contextmanager
def opened(path: Path) -> Iterator[Paged]:
    """Open a TIFF or PNG.

    Raises
    ------
    BadInput
        Not a TIFF or PNG, named like the other one, cut or damaged as far as its headers show.
    """
    with ExitStack() as stack:
        with refusing(path):
            paged, close = _png(path) if _is_png(path) else _tiff(path)
            stack.callback(close)
        yield paged


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


def _png(path: Path) -> tuple[Paged, Callable[[], None]]:
    start = _start(path)
    if len(start) < 26:
        raise EOFError("cut within its header")
    width, height = (int.from_bytes(start[at : at + 4], "big") for at in (16, 20))
    sizes = {"Y": height, "X": width, "S": _SAMPLES.get(start[25], 1)}
    dtype = np.dtype("uint16" if start[24] == 16 else "uint8")
    file = Paged("", "YXS", sizes, dtype, lambda _: _decode_png(path), palette=start[25] == 3)
    return file, lambda: None


def _decode_png(path: Path) -> NDArray[Any]:
    depth, colour = _start(path)[24:26]
    if depth == 16 and colour != 0:  # Pillow would keep 8 of the 16 bits
        import imagecodecs

        pixels = imagecodecs.png_decode(path.read_bytes())
    else:
        from PIL import Image

        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # ours is stricter
            pixels = np.asarray(image)
            pixels = pixels.astype(np.uint16) if depth == 16 else pixels
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _tiff(path: Path) -> tuple[Paged, Callable[[], None]]:
    import tifffile

    tiff = tifffile.TiffFile(path, _multifile=False)  # a file names no other files to read
    try:
        return _paged(path, tiff), tiff.close
    except BaseException:
        tiff.close()
        raise


def _paged(path: Path, tiff: tifffile.TiffFile) -> Paged:
    series = tiff.series
    if not series:
        raise ValueError("it holds no page")
    if len({(one.shape, one.dtype) for one in series}) != 1:
        raise ValueError("its pages have different sizes")
    first = series[0]
    if tiff.is_ome and first.kind != "ome" and len(tiff.pages) > 1:
        raise ValueError("it is one of several files of an OME-TIFF; export one file that holds all")
    if first.dtype is None or first.dtype.kind not in "buif":
        raise ValueError(f"pixels of type {first.dtype}")
    axes, shape = "N" + first.axes, (len(series), *first.shape)
    sizes = dict(zip(axes, shape, strict=True))
    lead, rest, page = _pages(path, series, axes, shape)
    return Paged(
        lead,
        rest,
        sizes,
        first.dtype,
        page,
        kind=str(first.kind),
        lossy=tiff.pages.first.compression in _JPEG,
        palette=tiff.pages.first.photometric == _PALETTE and first.kind != "imagej",
        channel_names=_channel_names(tiff, sizes.get("C", 1)),
    )


def _pages(
    path: Path, series: list[tifffile.TiffPageSeries], axes: str, shape: tuple[int, ...]
) -> tuple[str, str, Callable[[int], NDArray[Any]]]:
    """Return which axes run over pages and within them, and how to decode a page; plain pixels are mapped, not read."""
    first = series[0]
    if len(series) == 1 and first.dataoffset is not None and first.dtype is not None:
        stored = first.dtype.newbyteorder(first.parent.byteorder if first.parent is not None else "=")
        pixels = np.memmap(path, stored, "r", first.dataoffset, shape)
        cut = min(at for at, axis in enumerate(axes) if axis in "YXS")
        flat = pixels.reshape(-1, *shape[cut:])
        return axes[:cut], axes[cut:], lambda number: np.asarray(flat[number])
    every = [page for one in series for page in one.pages]
    pages = [page for page in every if page is not None]
    if len(pages) < len(every) or not pages:
        raise ValueError("some of its planes are missing")
    cut = len(axes) - len(pages[0].shape)
    if len(pages) != math.prod(shape[:cut]) or pages[0].shape != shape[cut:]:
        whole = np.stack([one.asarray() for one in series])
        return "", axes, lambda _: whole
    return axes[:cut], axes[cut:], lambda number: np.asarray(pages[number].asarray())


def _channel_names(tiff: tifffile.TiffFile, channels: int) -> tuple[str, ...]:
    """Return the names OME or ImageJ metadata give all channels, else nothing."""
    import tifffile

    named: list[Any] = []
    if tiff.is_ome and tiff.ome_metadata:
        images = tifffile.xml2dict(tiff.ome_metadata).get("OME", {}).get("Image", [])
        image = images[0] if isinstance(images, list) and images else images
        told = image.get("Pixels", {}).get("Channel", []) if isinstance(image, dict) else []
        named = [one.get("Name") for one in (told if isinstance(told, list) else [told]) if isinstance(one, dict)]
    elif tiff.is_imagej and tiff.imagej_metadata:
        labels = tiff.imagej_metadata.get("Labels", [])
        named = list(labels) if isinstance(labels, list | tuple) and channels > 1 else []
    names = tuple(" ".join(str(name).split())[:60] for name in named if name)
    return names if len(names) == channels == len(set(names)) else ()
