"""Crops: cut from the right place, in an order that depends on nothing but the arguments."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_io import normalise
from data_io.augment import augment, turn
from data_io.convert import convert
from data_io.crops import FrameBank, batches, cut, plan, tiles
from data_io.errors import BadInput


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, write_movie):
    folder = tmp_path_factory.mktemp("crops")
    for name, size, n in (("a", (96, 128), 6), ("b", (100, 110), 4), ("c", (48, 120), 3), ("d", (96, 128), 0)):
        write_movie(folder / "set" / name, frames=3, size=size, n=n)
    return convert(folder / "set", folder / "d.zarr")


@pytest.fixture(scope="module")
def bank(dataset, tmp_path_factory):
    return FrameBank.build(dataset, dataset.frames("all"), tmp_path_factory.mktemp("bank") / "all")


def test_the_bank_holds_what_the_store_holds(dataset, bank):
    for i, ref in enumerate(bank.refs):
        assert np.array_equal(bank.image(i), dataset.normalised(ref))
        assert np.array_equal(bank.labels(i), dataset.labels(ref))
        assert len(bank.cells_of[i]) == dataset.fields[ref.field].cells[ref.frame]
    assert not bank.image(0).flags.writeable


def test_a_bank_travels_as_a_path(bank):
    packed = pickle.dumps(bank)
    assert len(packed) < 1000
    assert np.array_equal(pickle.loads(packed).image(2), bank.image(2))  # noqa: S301 - packed a line above


def test_a_bank_is_built_once_and_again_only_for_other_frames(dataset, tmp_path):
    first = FrameBank.build(dataset, dataset.frames("train"), tmp_path / "bank")
    stamp = (tmp_path / "bank/pixels.npy").stat().st_mtime_ns
    FrameBank.build(dataset, dataset.frames("train"), tmp_path / "bank")
    assert (tmp_path / "bank/pixels.npy").stat().st_mtime_ns == stamp
    other = FrameBank.build(dataset, dataset.frames("val"), tmp_path / "bank")
    assert other.refs != first.refs
    assert [path.name for path in tmp_path.iterdir()] == ["bank"]
    with pytest.raises(BadInput, match="no complete frame bank"):
        FrameBank.open(tmp_path / "gone")
    with pytest.raises(BadInput, match="no frames"):
        FrameBank.build(dataset, [], tmp_path / "none")


@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 1000), size=st.sampled_from([16, 40, 64]))
def test_a_plan_is_a_pure_function_and_stays_inside(bank, seed, epoch, size):
    order = plan(bank, seed=seed, epoch=epoch, n=30, size=size)
    assert np.array_equal(order, plan(bank, seed=seed, epoch=epoch, n=30, size=size))
    assert not np.array_equal(order, plan(bank, seed=seed, epoch=epoch + 1, n=30, size=size))
    room = np.maximum(np.array(bank.shapes)[order[:, 0]] - size, 0)
    assert (order[:, 1:] >= 0).all()
    assert (order[:, 1:] <= room).all()


def test_every_frame_gets_its_share_and_cells_are_preferred(bank):
    order = plan(bank, seed=1, epoch=0, n=1000, size=24, foreground=1.0)
    area = np.array([y * x for y, x in bank.shapes])
    assert np.abs(np.bincount(order[:, 0], minlength=len(bank)) - 1000 * area / area.sum()).max() <= 1.5
    _, around = cut(bank, order, 24)
    _, anywhere = cut(bank, plan(bank, seed=1, epoch=0, n=1000, size=24, foreground=0.0), 24)
    filled = order[:, 0] < 9
    assert around[filled].any(axis=(1, 2)).all()
    assert anywhere.any(axis=(1, 2)).mean() < 0.9


def test_a_crop_is_the_piece_of_the_frame(bank):
    images, labels = cut(bank, np.array([[1, 7, 11]]), 40)
    assert np.array_equal(images[0], bank.image(1)[:, 7:47, 11:51])
    assert np.array_equal(labels[0], bank.labels(1)[7:47, 11:51])
    assert images.flags.owndata
    assert images.flags.writeable


def test_a_frame_smaller_than_the_crop_is_mirrored(bank):
    small = next(i for i, shape in enumerate(bank.shapes) if shape == (48, 120))
    images, labels = cut(bank, np.array([[small, 0, 0]]), 128)
    assert np.array_equal(images[0, :, :48, :120], bank.image(small))
    assert np.array_equal(images[0, :, 48:96], images[0, :, :48][:, ::-1])
    assert np.array_equal(labels[0, 48:96], labels[0, :48][::-1])


def test_batches_repeat_and_drop_an_incomplete_last_one(bank):
    how = {"seed": 3, "epoch": 5, "n": 11, "size": 32, "batch": 4, "strength": 1.0}
    first, second = list(batches(bank, **how)), list(batches(bank, **how))
    assert len(first) == 2
    for (a, b), (c, d) in zip(first, second, strict=True):
        assert a.shape == (4, 1, 32, 32)
        assert a.dtype == np.float32
        assert b.dtype == np.int32
        assert np.array_equal(a, c)
        assert np.array_equal(b, d)


def test_tiles_are_fixed_and_spread_over_all_frames(bank):
    images, labels = tiles(bank, size=48, limit=12)
    assert images.shape == (12, 1, 48, 48)
    assert np.array_equal(labels, tiles(bank, size=48, limit=12)[1])
    assert len(tiles(bank, size=48, limit=10_000)[0]) == 3 * 6 + 3 * 9 + 3 * 3 + 3 * 6
    assert len(tiles(bank, size=256, limit=100)[0]) == len(bank)


def test_turning_moves_image_and_labels_together():
    images = np.arange(8 * 36, dtype=np.float32).reshape(8, 1, 6, 6)
    turned, labels = turn(images, images[:, 0].astype(np.int32), np.arange(8))
    assert np.array_equal(turned[:, 0], labels)
    assert np.array_equal(turned[0], images[0])
    one = np.repeat(images[:1], 8, axis=0)
    assert len({turn(one, one[:, 0].astype(np.int32), np.arange(8))[1][i].tobytes() for i in range(8)}) == 8


@given(seed=st.integers(0, 2**31), strength=st.floats(0, 1))
def test_augmentation_keeps_the_range_and_the_cells(seed, strength):
    rng = np.random.default_rng(seed)
    images, labels = rng.uniform(-1, 3, (4, 2, 16, 16)).astype(np.float32), rng.integers(0, 3, (4, 16, 16), np.int32)
    before = images.copy()
    shaded, turned = augment(images, labels, np.random.default_rng(seed), strength)
    assert np.array_equal(images, before)
    assert shaded.dtype == np.float32
    assert shaded.min() >= -1
    assert shaded.max() <= 3
    assert [np.bincount(a.ravel(), minlength=3).tolist() for a in turned] == [
        np.bincount(a.ravel(), minlength=3).tolist() for a in labels
    ]


def test_strength_0_changes_nothing():
    images, labels = np.ones((2, 1, 8, 8), np.float32), np.ones((2, 8, 8), np.int32)
    shaded, same = augment(images, labels, np.random.default_rng(0), 0)
    assert np.array_equal(shaded, images)
    assert np.array_equal(same, labels)


def test_a_new_frame_is_normalised_as_the_store_does(dataset):
    ref = dataset.frames("train")[0]
    image = dataset.image(ref)
    limits = normalise.frame_limits(image, dataset.normalisation)
    assert np.array_equal(normalise.normalise(image, limits), dataset.normalised(ref))
    with pytest.raises(ValueError, match="2 channels"):
        normalise.frame_limits(np.concatenate([image, image]), dataset.normalisation)


def test_frames_normalised_by_data_set_share_their_limits():
    dim, bright = (np.arange(low, low + 1000, dtype=np.uint16).reshape(1, 40, 25) for low in (100, 900))
    measured = {"uint16": [normalise.percentiles(dim), normalise.percentiles(bright)]}
    by_set, by_frame = normalise.rule(measured, "dataset"), normalise.rule(measured)
    shared = [normalise.frame_limits(image, by_set) for image in (dim, bright)]
    assert np.array_equal(*shared)
    low, high = np.median([p[0, [0, 2]] for p in measured["uint16"]], axis=0)
    assert shared[0].tolist() == [[pytest.approx(low), pytest.approx(high)]]
    assert not np.array_equal(*(normalise.frame_limits(image, by_frame) for image in (dim, bright)))
    eight = normalise.frame_limits((bright >> 3).astype(np.uint8), by_set)
    assert 10 < eight[0, 0] < eight[0, 1] < 255
    old = {key: value for key, value in by_frame.items() if key not in ("mode", "limits")}
    assert np.array_equal(normalise.frame_limits(dim, old), normalise.frame_limits(dim, by_frame))
    assert normalise.for_new_images(old, by_frame)["min_range"] == by_frame["min_range"]


READ_ALL = """
import sys
from data_io.crops import FrameBank
bank = FrameBank.open(sys.argv[1])
print(sum(float(bank.image(i).sum()) + int(bank.labels(i).sum()) for i in range(len(bank))), flush=True)
sys.stdin.read()
"""


def _charged(pid, folder) -> int:
    """Return the bytes of files in a folder that a process is charged with, shared pages split among its users."""
    total, ours = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if not line.split()[0].endswith(":"):
            ours = str(folder) in line
        elif ours and line.startswith("Pss:"):
            total += int(line.split()[1]) * 1024
    return total


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="memory is counted as Linux counts it")
def test_processes_share_one_copy_of_the_frames(bank, tmp_path):
    folder = shutil.copytree(bank.path, tmp_path / "bank")  # this process maps the original

    def held_by(n):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        running = [subprocess.Popen([sys.executable, "-c", READ_ALL, str(folder)], **pipes) for _ in range(n)]
        try:
            assert len({one.stdout.readline() for one in running} - {b""}) == 1
            return sum(_charged(one.pid, folder) for one in running)
        finally:
            for one in running:
                one.communicate()

    one = held_by(1)
    assert one > 0
    assert held_by(3) <= 1.3 * one


def _scene(background, cells, seed=0):
    """Return (1, 64, 64) uint16: noise of 2 % of the cells' height, with cells and without."""
    rng = np.random.default_rng(seed)
    empty = background + rng.normal(0, 0.02 * abs(cells), (1, 64, 64))
    full = empty.copy()
    full[:, 10:30, 10:40] += cells
    return np.clip(full, 0, 65535).astype(np.uint16), np.clip(empty, 0, 65535).astype(np.uint16)


@pytest.mark.parametrize(("background", "cells"), [(27000, 9000), (300, 30000), (9000, 4000)])
def test_an_8_bit_copy_looks_the_same(background, cells):
    full, empty = _scene(background, cells)
    rule = normalise.rule({"uint16": [normalise.percentiles(full)]})
    copy = (full >> 8).astype(np.uint8)
    own = normalise.rule({"uint8": [normalise.percentiles(copy)]})
    seen = normalise.normalise(full, normalise.frame_limits(full, rule))
    for known in (rule, normalise.for_new_images(rule, own)):
        again = normalise.normalise(copy, normalise.frame_limits(copy, known))
        assert np.abs(again - seen).mean() < 0.05
        assert not normalise.hits_floor(copy, known)
    assert not normalise.hits_floor(full, rule)
    assert normalise.hits_floor(empty, rule)
    assert normalise.normalise(empty, normalise.frame_limits(empty, rule)).std() < 0.1
    flat = (empty >> 8).astype(np.uint8)
    known = normalise.for_new_images(rule, own)
    assert normalise.hits_floor(flat, known)
    assert normalise.normalise(flat, normalise.frame_limits(flat, known)).std() < 0.1
    assert normalise.hits_floor(full // 4, rule)
    assert normalise.for_new_images(rule, rule) == rule


def test_a_constant_frame_stays_finite():
    image = np.full((1, 8, 8), 7, np.uint8)
    rule = normalise.rule({"uint8": [normalise.percentiles(image)]})
    seen = normalise.normalise(image, normalise.frame_limits(image, rule))
    assert np.isfinite(seen).all()
