"""Memory is used again, but never while someone still looks at it."""

from __future__ import annotations

import numpy as np

from data_io.buffers import Buffers


def _where(array) -> int:
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_only_when_nobody_refers_to_it():
    buffers = Buffers()
    first = buffers.take((4, 8), np.float32)
    first[...] = 7
    kept, place = first[1:3].T, _where(first)
    del first
    second = buffers.take((8, 4), np.int32)
    second[...] = 0
    assert (kept == 7).all()
    assert _where(second) != place
    del kept
    third = buffers.take((32,), np.float32)
    assert _where(third) == place
    assert third.flags.writeable


def test_batches_in_hand_stay_as_they_were():
    buffers, held = Buffers(), []
    for k in range(5):
        batch = buffers.take((3, 3), np.int32)
        batch[...] = k
        held.append(batch)
    assert [int(batch[0, 0]) for batch in held] == [0, 1, 2, 3, 4]


def test_unused_memory_of_another_size_is_given_back():
    buffers = Buffers()
    for size in range(1, 50):
        buffers.take((size,), np.uint8)
    assert len(buffers._memory) == 1
