"""Large arrays whose memory is used again: the system hands out and clears fresh memory slower than a crop is cut."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

UNUSED = 2
"""References to memory that only the list of all memory and `getrefcount` know."""


class Buffers:
    """Hands out arrays of undefined content; the memory of one is used again when nothing refers to it any more.

    An array, a view of it and a tensor made from it all keep the memory: whoever holds a batch keeps it unchanged.
    Unused memory of other sizes is given back before more is taken.
    """

    def __init__(self) -> None:
        self._memory: list[NDArray[np.uint8]] = []

    def take(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array of this shape and type, in memory of just its size."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        return self._free(size).view(dtype).reshape(shape)

    def _free(self, size: int) -> NDArray[np.uint8]:
        unused = [k for k in range(len(self._memory)) if sys.getrefcount(self._memory[k]) <= UNUSED]
        for k in unused:
            if self._memory[k].size == size:
                return self._memory[k]
        self._memory = [memory for k, memory in enumerate(self._memory) if k not in unused]
        self._memory.append(np.empty(size, np.uint8))
        return self._memory[-1]
