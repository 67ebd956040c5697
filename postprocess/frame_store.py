"""Arrays of frames on disk, each frame in checksummed chunks of its own, present only once its mark is written.

A missing Zarr chunk reads as zeros without a word. So each group of arrays has a ``mark`` per frame, the CRC-32 of what
was written, set after everything else: no mark, no frame; a mark that does not fit what is read is an error.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from data_io.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import zarr
    from numpy.typing import NDArray

MARK = "mark"


def checksum(*arrays: NDArray[Any]) -> int:
    """Return a CRC-32 of the values, never 0."""
    value = 0
    for array in arrays:
        value = zlib.crc32(np.ascontiguousarray(array).data, value)
    return value or 1


class FrameStore:
    """The arrays of one field under one folder, read and written a frame at a time; threads may share it."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        from data_io.zarr_io import open_checked

        self.path = path
        self._arrays = {name: open_checked(path / name, "r+") for name in names}
        self._marks = open_checked(path / MARK, "r+")

    @classmethod
    def create(cls, path: Path, arrays: Mapping[str, tuple[tuple[int, ...], str, str]]) -> FrameStore:
        """Create the arrays ``name -> (shape, dtype, axes)`` and their marks, then open them."""
        from data_io.zarr_io import create_array

        for name, (shape, dtype, axes) in arrays.items():
            create_array(path, name, shape, dtype, axes, overwrite=True)
        n_frames = next(iter(arrays.values()))[0][0]
        create_array(path, MARK, (n_frames,), "uint32", "t", overwrite=True)
        return cls(path, list(arrays))

    def write(self, frame: int, **values: NDArray[Any]) -> None:
        """Write one frame of every array, whole chunks of it, then its mark."""
        from data_io.zarr_io import write_region

        if self.mark(frame):
            self._marks[frame] = 0
        for name, array in self._arrays.items():
            if values[name].shape != array.shape[1:]:
                raise BadInput(f"{self.path / name}: frame {frame} is {values[name].shape}, not {array.shape[1:]}")
            write_region(array, (frame,), values[name])
        self._marks[frame] = checksum(*(values[name] for name in self._arrays))

    def forget(self, frame: int) -> None:
        """Make a frame one that was not written; whoever looks past the mark sees zeros."""
        self._marks[frame] = 0
        for array in self._arrays.values():
            array[frame] = 0

    def mark(self, frame: int) -> int:
        """Return the checksum of a frame, 0 if it was not written whole."""
        return int(np.asarray(_read(self._marks, self.path / MARK, frame)))

    def marks(self) -> list[int]:
        """Return the mark of every frame."""
        return [self.mark(frame) for frame in range(self._marks.shape[0])]

    def read(self, frame: int) -> dict[str, NDArray[Any]]:
        """Return one frame of every array.

        Raises
        ------
        BadInput
            The frame was not written, or what is read is not what was written.
        """
        expected = self._expected(frame)
        values = {name: np.asarray(_read(array, self.path / name, frame)) for name, array in self._arrays.items()}
        if checksum(*values.values()) != expected:
            told = "has a missing or changed chunk; delete the store and write it again"
            raise BadInput(f"{self.path}: frame {frame} {told}")
        return values

    def read_region(self, frame: int, region: tuple[slice, ...]) -> dict[str, NDArray[Any]]:
        """Return a region of one frame of every array; only the chunks' own checksums are looked at.

        Raises
        ------
        BadInput
            The frame was not written, or a chunk is damaged.
        """
        self._expected(frame)
        return {name: np.asarray(_read(array, self.path / name, frame, region)) for name, array in self._arrays.items()}

    def _expected(self, frame: int) -> int:
        expected = self.mark(frame)
        if not expected:
            raise BadInput(f"{self.path}: frame {frame} is missing; run the stage that writes it again")
        return expected


def _read(array: zarr.Array[Any], path: Path, frame: int, region: tuple[slice, ...] = ()) -> Any:
    try:
        place: Any = (frame, *region)
        return array[place] if region else array[frame]
    except (RuntimeError, ValueError, OSError, MemoryError) as fault:
        raise BadInput(f"{path}: frame {frame} is damaged ({fault}); delete the store and write it again") from fault
