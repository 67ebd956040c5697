"""Zarr arrays as this project writes and reads them: every chunk checksummed, none shared, none silently missing.

Zarr reads a missing chunk as zeros, lets most flipped bits of plain zstd through, and loses rows when two writers share
a chunk; so arrays are made, written and read through this file.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import operator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import zarr
from zarr.codecs import ZstdCodec
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from data_io import unpacking
from data_io.errors import BadInput
from data_io.integrity import METADATA
from data_io.location import is_remote, read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from zarr.abc.store import ByteRequest, Store
    from zarr.core.buffer import Buffer, BufferPrototype

    Array = zarr.Array[Any]

CHUNK = 2048
"""Longest side of a chunk, in px."""
MANY = 8
"""Of more channels a chunk is smaller, so that a window of a large frame costs no more than it shows."""
CODECS = frozenset(
    {"bytes", "transpose", "zstd", "gzip", "zlib", "blosc", "lz4", "crc32", "crc32c", "sharding_indexed"}
)
"""What a store may be encoded with: nothing here runs code or unpickles."""
OVERHANG, SMALL = 16, 2**26
"""A chunk has at most so many times the bytes of its array, unless it is small: all of it is unpacked."""
V2_NUMBERS = "biuf"
V3_NUMBERS = frozenset(
    {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"}
)


unpacking.install()


class MissingChunk(OSError):
    """A chunk that zarr would read as zeros; the message is its key."""


class Whole(WrapperStore["Store"]):
    """A store in which every chunk asked for has to be there."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return what is stored; a missing chunk is an error, a missing metadata file is none."""
        value = await super().get(key, prototype, byte_range)
        if value is None and key.rsplit("/", 1)[-1] not in METADATA:
            raise MissingChunk(key)
        return value


class Recorded(WrapperStore["Store"]):
    """A store that remembers the size and SHA-256 of what was written under each key."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.written: dict[str, tuple[int, str]] = {}

    def _with_store(self, store: Store) -> Recorded:
        twin = type(self)(store)
        twin.written = self.written
        return twin

    async def set(self, key: str, value: Buffer) -> None:
        """Write and remember."""
        await super().set(key, value)
        self.record(key, value.to_bytes())

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write unless something is there; what it is is then read at the end."""
        await super().set_if_not_exists(key, value)
        self.written.pop(key, None)

    def record(self, key: str, data: bytes) -> None:
        """Remember what was written by other means."""
        self.written[key] = (len(data), hashlib.sha256(data).hexdigest())


def store_at(place: Path, *, read_only: bool = False) -> Store:
    """Return the zarr store of a folder or an s3:// place."""
    if not is_remote(place):
        return LocalStore(place, read_only=read_only)
    options: dict[str, Any] = dict(place.storage_options)  # type: ignore[attr-defined]  # a UPath
    return FsspecStore.from_url(str(place), storage_options=options, read_only=read_only)


def create_array(
    store: Store | Path,
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    axes: Sequence[str],
    *,
    zarr_format: int = 3,
    overwrite: bool = False,
) -> Array:
    """Create an array whose first axis is the frame, in checksummed chunks; one of zeros is written too.

    A chunk is one frame up to 2048 px along y and x; larger frames are cut into a grid of chunks of that size.
    """
    v3 = zarr_format == 3
    zstd: Any = [ZstdCodec(level=1, checksum=True)] if v3 else {"id": "zstd", "level": 1, "checksum": True}
    return zarr.create_array(
        store,
        name=name,
        shape=shape,
        chunks=chunks_of(shape, axes),
        dtype=dtype,
        compressors=zstd,
        dimension_names=list(axes) if v3 else None,
        chunk_key_encoding={"name": "default" if v3 else "v2", "separator": "/"},
        zarr_format=zarr_format,  # type: ignore[arg-type]  # a Literal there
        config={"write_empty_chunks": True},
        overwrite=overwrite,
    )


def chunks_of(shape: tuple[int, ...], axes: Sequence[str]) -> tuple[int, ...]:
    """Return the shape of a chunk: one frame, all its channels, at most 2048 px along y and x, 512 of many channels.

    >>> chunks_of((47, 2, 904, 5000), "tcyx"), chunks_of((47, 32, 904, 5000), "tcyx")
    ((1, 2, 904, 2048), (1, 32, 512, 512))
    """
    channels = dict(zip(axes, shape, strict=True)).get("c", 1)
    side = CHUNK if channels <= MANY else CHUNK // 4
    longest = {"t": 1, "y": side, "x": side}
    return tuple(min(n, longest.get(axis, n)) for n, axis in zip(shape, axes, strict=True))


def set_attributes(store: Store | Path, name: str, attributes: dict[str, Any], *, zarr_format: int = 3) -> None:
    """Give a group these attributes, made if it is not there; its others stay, and what is equal is not written."""
    group = zarr.open_group(store, path=name, mode="a", zarr_format=zarr_format)  # type: ignore[arg-type]
    if any(group.attrs.get(key) != value for key, value in attributes.items()):
        group.attrs.update(attributes)


def attributes(store: Store | Path, name: str) -> dict[str, Any]:
    """Return the attributes of a group."""
    return dict(zarr.open_group(store, path=name, mode="r").attrs)


def write_region(array: Array, region: tuple[int | slice, ...], values: NDArray[Any]) -> None:
    """Write whole chunks (whole shards of a sharded array), so that two writers can never share one.

    Parameters
    ----------
    array
        An array open for writing.
    region
        Per axis a number or a slice without step; axes left out are meant whole.
    values
        What is written, of the region's shape.

    Raises
    ------
    ValueError
        The region begins or ends inside a chunk, or the values have another shape. Nothing was written.
    """
    region = tuple(part if isinstance(part, slice) else operator.index(part) for part in region)
    unit = array.shards or array.chunks
    spans = _spans(region, array.shape)
    for axis, ((start, stop), step, length) in enumerate(zip(spans, unit, array.shape, strict=True)):
        if start % step or (stop % step and stop != length):
            raise ValueError(
                f"{array.path or array.store_path}: [{start}, {stop}) along axis {axis} cuts chunks of {step}; "
                f"begin and end at multiples of {step}"
            )
    shape = tuple(b - a for (a, b), part in itertools.zip_longest(spans, region) if not isinstance(part, int))
    if np.shape(values) != shape:
        raise ValueError(f"{array.path or array.store_path}: values of {np.shape(values)} for a region of {shape}")
    array[region] = values


def _spans(region: tuple[int | slice, ...], shape: tuple[int, ...]) -> list[tuple[int, int]]:
    if len(region) > len(shape):
        raise ValueError(f"a region of {len(region)} axes in an array of {len(shape)}")
    spans = []
    for part, length in itertools.zip_longest(region, shape, fillvalue=slice(None)):
        assert isinstance(length, int)  # noqa: S101 - for the type checker
        if isinstance(part, int) and not 0 <= part < length:
            raise ValueError(f"{part} is not between 0 and {length - 1}")
        part = slice(part, part + 1) if isinstance(part, int) else part
        start, stop, step = part.indices(length)
        if step != 1 or stop <= start or not 0 <= (part.stop or stop) <= length:
            raise ValueError(f"{part} is not a region of {length}")
        spans.append((start, stop))
    return spans


def open_array(store: Store, name: str) -> Array:
    """Open an array for reading in which no chunk may be missing.

    Raises
    ------
    BadInput
        Its metadata are not those of an array.
    """
    return _opened(f"{store.root}/{name}" if isinstance(store, LocalStore) else name, Whole(store), name, "r")


def _opened(file: Path | str, store: Store, name: str, mode: Literal["r", "r+"]) -> Array:
    try:
        array = zarr.open_array(store, path=name, mode=mode)
        count_chunks(array)
    except (ValueError, TypeError, KeyError, ArithmeticError) as fault:
        said = " ".join(str(fault).split())
        raise BadInput(f"{file}: bad metadata of an array ({said}); write the store again") from fault
    size = math.prod(array.chunks) * array.dtype.itemsize
    if size > unpacking.LARGEST or size > max(OVERHANG * array.nbytes, SMALL):
        raise BadInput(f"{file}: chunks of {size} bytes in an array of {array.nbytes}; write it with smaller ones")
    unpacking.limit(array)
    return array


def open_checked(folder: Path, mode: Literal["r", "r+"] = "r") -> Array:
    """Open an array whose metadata no manifest vouches for; a chunk that is missing reads as the fill value.

    Raises
    ------
    BadInput
        No array, one that `check_array` refuses, or metadata that cannot be read.
    """
    file = next((folder / name for name in ("zarr.json", ".zarray") if (folder / name).is_file()), None)
    if file is None:
        raise BadInput(f"{folder}: no Zarr array there; write the store again")
    try:
        described = json.loads(read_bytes(file))
    except (ValueError, RecursionError) as fault:
        raise BadInput(f"{file}: not JSON ({fault}); write the store again") from fault
    check_array(file, described if isinstance(described, dict) else {})
    return _opened(file, store_at(folder, read_only=mode == "r"), "", mode)


def read_frame(array: Array, frame: int, place: Path) -> NDArray[Any]:
    """Return a frame of an array that `open_array` opened.

    Raises
    ------
    BadInput
        A chunk is missing or damaged; array, index and path are named. `place` is the root of the store.
    """
    try:
        return np.asarray(array[frame])
    except MissingChunk as fault:
        raise BadInput(chunk_fault(place, array, str(fault), "missing chunk")) from fault
    except (RuntimeError, ValueError, OSError, MemoryError) as fault:
        key, said = _damaged(array, frame) or (f"{array.path} frame {frame}", fault)
        raise BadInput(chunk_fault(place, array, key, f"damaged chunk, {' '.join(str(said).split())}")) from fault


def chunk_fault(place: Path, array: Array, key: str, what: str) -> str:
    """Return the line that names a faulty chunk."""
    index = key.removeprefix(f"{array.path}/").removeprefix("c/").replace("/", ", ")
    return f"{place / key}: {what} (array {array.path}, chunk {index}); convert the source again into a new store"


def chunk_keys(array: Array) -> Iterator[str]:
    """Yield the key of every chunk (or shard) of an array."""
    for index in itertools.product(*(range(-(-n // step)) for n, step in _grid(array))):
        yield f"{array.path}/{array.metadata.encode_chunk_key(index)}"


def count_chunks(array: Array) -> int:
    """Return the number of chunks (or shards) of an array."""
    return math.prod(-(-n // step) for n, step in _grid(array))


def _grid(array: Array) -> list[tuple[int, int]]:
    return list(zip(array.shape, array.shards or array.chunks, strict=True))


def _damaged(array: Array, frame: int) -> tuple[str, Exception] | None:
    """Return the key of the first chunk of a frame that cannot be read, and why."""
    grid = _grid(array)[1:]
    for index in itertools.product(*(range(-(-n // step)) for n, step in grid)):
        region: Any = (frame, *(slice(i * step, (i + 1) * step) for i, (_, step) in zip(index, grid, strict=True)))
        try:
            array[region]
        except (RuntimeError, ValueError, OSError, MemoryError) as fault:
            return f"{array.path}/{array.metadata.encode_chunk_key((frame, *index))}", fault
    return None


def check_array(file: Path, described: dict[str, Any]) -> None:
    """Refuse an array that is not plain numbers in known codecs.

    Parameters
    ----------
    file
        The metadata file, named in the error.
    described
        What it says, zarr v2 or v3.

    Raises
    ------
    BadInput
        An object or other dtype that is not a number, or a codec that is not in `CODECS`.
    """
    try:
        dtype, codecs = _v3(described) if described.get("zarr_format") == 3 else _v2(described)
    except (KeyError, TypeError, AttributeError) as fault:
        raise BadInput(f"{file}: not the metadata of an array ({fault!r}); write the store again") from fault
    if dtype is None:
        raise BadInput(f"{file}: values are not plain numbers; only integers, floats and booleans are read")
    for codec in codecs:
        if codec not in CODECS:
            raise BadInput(f"{file}: codec {codec!r} is not read; write it with one of {', '.join(sorted(CODECS))}")


def _v3(described: dict[str, Any]) -> tuple[str | None, list[str]]:
    dtype = described["data_type"]
    return dtype if isinstance(dtype, str) and dtype in V3_NUMBERS else None, list(_codec_names(described["codecs"]))


def _codec_names(codecs: list[dict[str, Any]]) -> Iterator[str]:
    for codec in codecs:
        yield str(codec["name"])
        for key in ("codecs", "index_codecs"):
            yield from _codec_names((codec.get("configuration") or {}).get(key, []))


def _v2(described: dict[str, Any]) -> tuple[str | None, list[str]]:
    dtype = described["dtype"]
    codecs = [described.get("compressor"), *(described.get("filters") or [])]
    is_number = isinstance(dtype, str) and len(dtype) > 2 and dtype[1] in V2_NUMBERS
    return dtype if is_number else None, [str(codec["id"]) for codec in codecs if codec]
