"""A frame's chunk straight from its file, in half the time that zarr takes.

Zarr decodes a chunk on another thread and copies it twice. A store of ours keeps a frame of up to 2048 px in one chunk,
a single checksummed zstd stream, so that reading and decompressing it is all there is to do. Any other layout, an
object store and every fault are left to zarr, which names what is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import imagecodecs

from data_io import zarr_io
from data_io.location import is_remote
from data_io.ngff import LEVEL
from data_io.store import TRUTH

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from data_io.store import Dataset, FrameRef
    from data_io.zarr_io import Array


class Reader:
    """Reads the frames of a data set into arrays."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._arrays: dict[str, Array | None] = {}

    def image(self, ref: FrameRef, out: NDArray[Any]) -> None:
        """Fill `out` `(C, Y, X)` with a frame as `Dataset.image` returns it."""
        if not self._fill(out, f"{self.dataset.fields[ref.field].slug}/{LEVEL}", ref.frame):
            out[...] = self.dataset.image(ref)

    def labels(self, ref: FrameRef, out: NDArray[np.int32]) -> None:
        """Fill `out` `(Y, X)` with the annotation of an annotated frame as `Dataset.labels` returns it."""
        if not self._fill(out, f"{self.dataset.fields[ref.field].slug}/{TRUTH}/{LEVEL}", ref.frame):
            out[...] = self.dataset.labels(ref)

    def _fill(self, out: NDArray[Any], name: str, frame: int) -> bool:
        """Fill `out` with a frame of an array; False if zarr has to read it."""
        if name not in self._arrays:
            self._arrays[name] = self._open(name)
        array = self._arrays[name]
        if array is None or array.dtype != out.dtype or array.shape[1:] != out.shape:
            return False
        key = array.metadata.encode_chunk_key((frame, *(0 for _ in array.shape[1:])))
        try:
            data = (self.dataset.path / name / key).read_bytes()
            found = imagecodecs.zstd_decode(data, out=out.data.cast("B"))
        except (OSError, RuntimeError, ValueError):
            return False
        return len(found) == out.nbytes

    def _open(self, name: str) -> Array | None:
        """Return an array if a frame of it is one zstd stream in a file."""
        if is_remote(self.dataset.path):
            return None
        array = zarr_io.open_array(zarr_io.store_at(self.dataset.path, read_only=True), name)
        return array if _is_plain(array) else None


def _is_plain(array: Array) -> bool:
    """Say whether each frame is one chunk of little-endian numbers in zstd and nothing else."""
    described: dict[str, Any] = array.metadata.to_dict()
    if array.chunks != (1, *array.shape[1:]) or array.dtype != array.dtype.newbyteorder("<"):
        return False
    if array.metadata.zarr_format == 2:
        return (described["compressor"] or {}).get("id") == "zstd" and not array.filters and array.order == "C"
    endian = described["codecs"][0].get("configuration", {}).get("endian", "little")
    return [codec["name"] for codec in described["codecs"]] == ["bytes", "zstd"] and endian == "little"
