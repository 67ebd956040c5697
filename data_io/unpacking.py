"""Chunks that unpack to no more than a chunk holds.

A file of a few kilobytes can claim to be terabytes (a decompression bomb), and Zarr finds out only when the memory is
full. So the compressors of Zarr are given a limit: what a format states beforehand is compared with it, what it does
not state is unpacked no further. What comes out is what Zarr's own give.
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec
from zarr.registry import register_codec

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer

LARGEST = 2**31
"""Bytes of the largest chunk that is read; most formats state no more."""
SLACK = 2**16
"""Bytes that a chunk may have beside its values: checksums, the index of a shard."""
COMPRESSORS = ("zstd", "gzip", "zlib", "blosc", "lz4")
ZSTD = b"\x28\xb5\x2f\xfd"


def allowed(shape: tuple[int, ...], itemsize: int) -> int:
    """Return how many bytes a chunk of this shape may unpack to."""
    return min(2 * math.prod(shape) * itemsize + SLACK, LARGEST)


def unpack(codec: str, data: memoryview, limit: int) -> bytes | None:
    """Return what a chunk unpacks to, or None where its header says that the library may unpack it.

    Parameters
    ----------
    codec
        One of `COMPRESSORS`.
    data
        A packed chunk.
    limit
        Bytes it may unpack to.

    Raises
    ------
    ValueError
        It unpacks to more, or is cut.
    """
    if codec in ("gzip", "zlib"):
        return _inflated(bytes(data), limit, 31 if codec == "gzip" else 15)
    stated = {"zstd": _size_in_zstd, "blosc": _size_in_blosc, "lz4": _size_in_lz4}[codec](data)
    if stated is None:
        import imagecodecs

        return bytes(imagecodecs.zstd_decode(bytes(data), out=limit))
    _refuse(stated, limit)
    return None


def _refuse(size: int, limit: int) -> None:
    if size > limit:
        raise ValueError(f"unpacks to {size} bytes or more, a chunk has {limit} at most")


def _inflated(data: bytes, limit: int, window: int) -> bytes:
    parts: list[bytes] = []
    found = 0
    while data.strip(b"\0") or not parts:  # a file may be several, one after another
        inflater = zlib.decompressobj(window)
        parts.append(inflater.decompress(data, limit - found + 1))
        found += len(parts[-1])
        _refuse(found, limit)
        if not inflater.eof:
            raise ValueError("is cut")
        data = inflater.unused_data if window == 31 else b""
    return b"".join(parts)


def _size_in_zstd(data: memoryview) -> int | None:
    """Return the size stated in a zstd frame (RFC 8878, section 3.1.1.1), None where there is none."""
    if data[:4] != ZSTD or len(data) < 5:
        return None
    descriptor = data[4]
    single, kind = descriptor >> 5 & 1, descriptor >> 6
    length = (single, 2, 4, 8)[kind]
    if not length:
        return None
    at = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    return int.from_bytes(data[at : at + length], "little") + 256 * (length == 2)


def _size_in_blosc(data: memoryview) -> int:
    return int.from_bytes(data[4:8], "little")


def _size_in_lz4(data: memoryview) -> int:
    return int.from_bytes(data[:4], "little")


# Zarr v3


def _bounded(packed: Buffer, spec: ArraySpec, codec: str) -> Buffer | None:
    """Return a chunk unpacked, None where Zarr may do so."""
    limit = allowed(spec.shape, spec.dtype.to_native_dtype().itemsize)
    unpacked = unpack(codec, packed.as_numpy_array().data, limit)
    return None if unpacked is None else spec.prototype.buffer.from_bytes(unpacked)


class BoundedZstd(ZstdCodec):
    """Zarr's zstd, within the size of a chunk."""

    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        found = _bounded(chunk_bytes, chunk_spec, "zstd")
        return super()._decode_sync(chunk_bytes, chunk_spec) if found is None else found


class BoundedGzip(GzipCodec):
    """Zarr's gzip, within the size of a chunk."""

    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        found = _bounded(chunk_bytes, chunk_spec, "gzip")
        return super()._decode_sync(chunk_bytes, chunk_spec) if found is None else found


class BoundedBlosc(BloscCodec):
    """Zarr's blosc, within the size of a chunk."""

    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        found = _bounded(chunk_bytes, chunk_spec, "blosc")
        return super()._decode_sync(chunk_bytes, chunk_spec) if found is None else found


# Zarr v2, whose compressors do not know of which array they are


class Limited:
    """A compressor of Zarr v2 with a limit: `codec` does the work, a chunk unpacks to `limit` bytes at most."""

    def __init__(self, codec: Any, limit: int) -> None:
        self.codec = codec
        self.codec_id: str = codec.codec_id
        self.limit = limit

    def encode(self, buf: Any) -> Any:
        """Pack a chunk."""
        return self.codec.encode(buf)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Unpack a chunk."""
        packed = np.frombuffer(buf, np.uint8).data
        unpacked = unpack(self.codec_id, packed, self.limit)
        return self.codec.decode(buf, out) if unpacked is None else np.frombuffer(unpacked, np.uint8)


def limit(array: zarr.Array[Any]) -> None:
    """Tell the compressors of an array how large its chunks are; those of Zarr v3 know it."""
    if array.metadata.zarr_format == 3:
        return
    codec: Any = array.async_array.codec_pipeline.array_bytes_codec  # type: ignore[attr-defined]
    most = allowed(array.chunks, np.dtype(array.dtype).itemsize)

    def limited(one: Any) -> Any:
        return Limited(one, most) if one is not None and one.codec_id in COMPRESSORS else one

    object.__setattr__(codec, "compressor", limited(codec.compressor))
    object.__setattr__(codec, "filters", tuple(map(limited, codec.filters or ())) or None)


def install() -> None:
    """Have Zarr use these compressors for v3 in this process; an array of v2 is told by `limit`."""
    for name, v3 in (("zstd", BoundedZstd), ("gzip", BoundedGzip), ("blosc", BoundedBlosc)):
        register_codec(name, v3)
        zarr.config.set({f"codecs.{name}": f"{v3.__module__}.{v3.__qualname__}"})
