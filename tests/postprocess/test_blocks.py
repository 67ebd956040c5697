"""Frames decoded in blocks: the same cells as the whole frame, no cell cut at a seam."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage as ndi
from scipy.spatial import cKDTree

from postprocess import blocks, large, methods, star, three_class, two_class
from postprocess.components import Box, components, tiles_of
from postprocess.prediction import Prediction
from postprocess.run import open_stage, plan, run


def window_of(prediction):
    """Return ``read(box)`` of a prediction that is held whole."""

    def read(box: Box) -> Prediction:
        g = prediction.grid
        assert box.y0 % g == 0
        assert box.x0 % g == 0
        part = np.s_[:, box.y0 // g : -(-box.y1 // g), box.x0 // g : -(-box.x1 // g)]
        distance = None if prediction.distance is None else prediction.distance[part]
        return Prediction(prediction.probability[part], distance, g, (box.y1 - box.y0, box.x1 - box.x0))

    return read


def by_blocks(target, prediction, params, block):
    out = np.full(prediction.shape, -7, np.int32)
    done = blocks.decode(target, window_of(prediction), prediction.shape, params, out, block)
    assert done.cells == out.max(initial=0) == len(np.unique(out[out > 0]))
    return out, done


def same_partition(one, other):
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    one_to_one = len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    return one_to_one and not ((pairs == 0).sum(0) == 1).any()


def noisy(prediction, seed, sigma):
    """Return a prediction as a network with errors would give it: blurred, with smooth noise."""
    rng = np.random.default_rng(seed)
    scores = ndi.gaussian_filter(prediction.probability.astype(np.float64), (0, 1, 1))
    scores += ndi.gaussian_filter(rng.normal(0, sigma, scores.shape), (0, 2, 2)) * 4
    return replace(prediction, probability=np.clip(scores, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("side", [16, 37, 200])
def test_components_seen_in_tiles_are_those_seen_whole(seed, side):
    mask = np.random.default_rng(seed).random((113, 140)) < 0.6
    tiles = tiles_of(mask.shape, side)
    found = components(lambda box: mask[box.at], tiles, mask.shape)
    whole, n = ndi.label(mask)
    seen = np.zeros(mask.shape, np.int64)
    for place, tile in enumerate(tiles):
        seen[tile.at] = found.label(place, mask[tile.at])
    np.testing.assert_array_equal(seen, whole)
    np.testing.assert_array_equal(found.size[1:], np.bincount(whole.ravel())[1:])
    boxes = [(r.start, c.start, r.stop, c.stop) for r, c in ndi.find_objects(whole)]
    np.testing.assert_array_equal(found.box[1:], boxes)
    assert (whole.ravel()[found.first[1:]] == np.arange(1, n + 1)).all()


@pytest.mark.parametrize("block", [24, 48, 96, 150])
@pytest.mark.parametrize(("n", "size"), [(40, 150), (400, 301)])
@pytest.mark.parametrize("target", list(methods.TARGETS))
def test_crowded_frames_give_the_same_cells_in_blocks_of_any_size(crowd, target, n, size, block):
    prediction = noisy(methods.TARGETS[target].perfect(crowd(n, n, size)), 1, 60)
    params = methods.TARGETS[target].Params()
    whole = methods.TARGETS[target].decode(prediction, params)
    found, _ = by_blocks(target, prediction, params, block)
    assert whole.max() > 20
    assert same_partition(whole, found)
    if target == "three_class":
        np.testing.assert_array_equal(whole, found)


@pytest.mark.parametrize("block", [48, 96])
@pytest.mark.parametrize(
    ("target", "params"),
    [
        ("three_class", three_class.Params(core_bias=-0.2, min_core=9, min_blob=3, min_area=40)),
        ("three_class", three_class.Params(paper_gap=True, min_area=20)),
        ("two_class", two_class.Params(min_distance=2, neck=0.1, min_area=60)),
        ("two_class", two_class.Params(paper_gap=True)),
        ("star", star.Params(probability=0.3, nms=0.3)),
    ],
)
def test_parameters_mean_the_same_in_blocks(crowd, target, params, block):
    prediction = noisy(methods.TARGETS[target].perfect(crowd(5, 120, 220)), 2, 60)
    whole = methods.TARGETS[target].decode(prediction, params)
    assert same_partition(whole, by_blocks(target, prediction, params, block)[0])


def test_a_confluent_frame_larger_than_a_block_loses_no_pixel_and_cuts_no_cell():
    rng = np.random.default_rng(0)
    middles = np.stack(np.meshgrid(np.arange(12, 520, 24), np.arange(12, 520, 24)), axis=-1).reshape(-1, 2)
    middles = middles + rng.uniform(-4, 4, middles.shape)
    y, x = np.mgrid[:520, :520]
    _, nearest = cKDTree(middles).query(np.stack([y.ravel(), x.ravel()], axis=1))
    truth = (nearest + 1).reshape(520, 520).astype(np.int32)
    for target in ("three_class", "star"):
        module = methods.TARGETS[target]
        prediction = module.perfect(truth)
        whole = module.decode(prediction, module.Params())
        found, _ = by_blocks(target, prediction, module.Params(), 132)
        assert same_partition(whole, found), target
    cells = cKDTree(middles).query(np.stack([y.ravel(), x.ravel()], axis=1))[0].reshape(520, 520) < 12.2
    prediction = Prediction(cells[None].astype(np.uint8) * np.uint8(255), None, 1, (520, 520))
    pieces, _ = ndi.label(cells)
    assert np.bincount(pieces.ravel())[1:].max() > 0.7 * cells.sum(), "most cells hang together"
    for params in (two_class.Params(), two_class.Params(neck=0.1)):
        whole = two_class.decode(prediction, params)
        found, done = by_blocks("two_class", prediction, params, 132)
        assert ((found > 0) == cells).all()
        assert same_partition(whole, found), done


@pytest.mark.parametrize("seed", range(3))
def test_where_blocks_disagree_every_pixel_still_belongs_to_one_whole_cell(seed):
    rng = np.random.default_rng(seed)
    cells = ndi.gaussian_filter(rng.normal(size=(400, 400)), 5) > -0.05
    prediction = Prediction(cells[None].astype(np.uint8) * np.uint8(255), None, 1, cells.shape)
    whole = two_class.decode(prediction, two_class.Params())
    found, done = by_blocks("two_class", prediction, two_class.Params(), 96)
    assert ((found > 0) == cells).all()
    assert done.disputed_px < 0.01 * cells.sum()
    assert abs(int(found.max()) - int(whole.max())) <= 0.02 * whole.max()


def test_growth_that_crosses_several_blocks_is_as_in_the_whole_frame():
    classes = np.zeros((300, 300), np.uint8)
    classes[140:160] = three_class.BOUNDARY
    classes[145:150, 3:8] = three_class.CORE
    classes[148:152, 250:260] = three_class.CORE
    classes[20:30, 20:200] = three_class.BOUNDARY  # a blob without a core, over several blocks
    one_hot = (classes[None] == np.arange(3)[:, None, None]).astype(np.uint8) * np.uint8(255)
    prediction = Prediction(one_hot, None, 1, classes.shape)
    whole = three_class.decode(prediction, three_class.Params())
    np.testing.assert_array_equal(by_blocks("three_class", prediction, three_class.Params(), 36)[0], whole)
    assert whole.max() == 3


@pytest.mark.parametrize("target", list(methods.TARGETS))
@pytest.mark.parametrize("shape", [(1, 1), (5, 200), (64, 64)])
def test_empty_and_narrow_frames(target, shape):
    module = methods.TARGETS[target]
    empty = module.perfect(np.zeros(shape, np.int32))
    assert by_blocks(target, empty, module.Params(), 36)[0].max() == 0
    full = module.perfect(np.ones(shape, np.int32))
    block = 216 if target == "two_class" else 36  # a flat ridge has as many peaks as fit, wherever they begin
    assert same_partition(module.decode(full, module.Params()), by_blocks(target, full, module.Params(), block)[0])


def test_a_large_frame_gives_the_same_tables_and_labels(make_run, monkeypatch):
    run_dir = make_run(0.5)
    assert not run(run_dir, "sync").failed
    whole = pd.read_parquet(run_dir / "cells.parquet")
    stage = open_stage(run_dir)
    labels = {(job.method, job.ref): stage.labels.read(job.method, job.ref) for job in plan(stage)}
    for name in ("cells", "labels", "labels.zarr"):
        shutil.rmtree(run_dir / name)
    monkeypatch.setattr(large, "PIXELS", 1000)
    monkeypatch.setattr(blocks, "BLOCK", 36)
    monkeypatch.setattr(blocks.decode, "__defaults__", (36,))
    monkeypatch.setattr(large.measure_tiles, "__defaults__", (40,))
    assert not run(run_dir, "sync").failed
    assert not list((run_dir / "cells").rglob("*.cells"))
    stage = open_stage(run_dir)
    same = {key: (stage.labels.read(*key) == cells).all() for key, cells in labels.items()}
    for (method, ref), cells in labels.items():
        assert same_partition(stage.labels.read(method, ref), cells), (method, ref)
    exact = [key for key in labels if key[0] in ("three_class", "truth", "classical")]
    assert all(same[key] for key in exact)
    table = pd.read_parquet(run_dir / "cells.parquet")
    assert len(table) == len(whole)
    place = ["method", "frame", "bbox_y0", "bbox_x0", "bbox_y1", "bbox_x1", "area_px2"]
    measures = [name for name in whole if name not in ("label", "track")]
    one, other = (each.sort_values(place, ignore_index=True)[measures] for each in (whole, table))
    pd.testing.assert_frame_equal(one, other, rtol=1e-9)
