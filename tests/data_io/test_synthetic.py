"""Synthetic movies: exact labels, the right look, and said to be synthetic."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy import ndimage
from skimage.filters import threshold_otsu

from data_io import brightfield, population, synthetic, traits
from data_io.convert import convert
from data_io.errors import BadInput
from postprocess.morphology import measure

FRAME = (904, 1224)


@pytest.fixture(scope="module")
def movie():
    return synthetic.movie(1, 4, (384, 384), "paper")


def test_same_seed_same_movie(movie):
    again = synthetic.movie(1, 4, (384, 384), "paper")
    assert np.array_equal(movie.images, again.images)
    assert np.array_equal(movie.labels, again.labels)
    assert not np.array_equal(movie.images, synthetic.movie(2, 4, (384, 384), "paper").images)


def test_cells_are_as_many_and_as_large_as_the_study_s(movie):
    counts = [len(np.unique(labels)) - 1 for labels in movie.labels]
    assert 22 < np.mean(counts) < 50
    inner = movie.labels[0].copy()
    for edge in (inner[0], inner[-1], inner[:, 0], inner[:, -1]):
        inner[np.isin(inner, edge)] = 0
    radius = np.sqrt(np.unique(inner[inner > 0], return_counts=True)[1] / np.pi)
    assert abs(np.median(radius) - 11.5) < 1.2


def test_cells_keep_their_label_over_time(movie):
    for before, after in zip(movie.labels, movie.labels[1:], strict=False):
        for cell in np.intersect1d(before, after)[1:]:
            if min((before == cell).sum(), (after == cell).sum()) > 150:
                assert ((before == cell) & (after == cell)).sum() > 0.5 * (before == cell).sum()


def test_the_camera_gives_12_bits_in_16(movie):
    assert movie.images.dtype == np.uint16
    assert (movie.images % 16 == 0).all()
    background = np.median(movie.images[movie.labels == 0])
    assert abs(background / 65536 - 0.42) < 0.03


@pytest.mark.parametrize("radius", [9.0, 11.5, 14.0])
def test_the_profile_is_that_of_the_specification_behind_the_optics(radius):
    places = np.array([1.7, 0.42 * radius, radius, -2.6])
    seen = brightfield.profile(places, radius)
    np.testing.assert_allclose(seen, [-0.085, 0.060, -0.050, 0.018], atol=1e-9)


@pytest.fixture(scope="module")
def lone_cells():
    """Return a frame of cells in focus: scene, radius at each pixel, picture before the optics, isolated labels."""
    rng = np.random.default_rng(3)
    cells = population.populate(rng, FRAME, 1.2e-4, 0.0)
    n = len(cells.radius)
    scene = brightfield.draw(cells.outlines(), cells.position, brightfield.grains(rng, n), FRAME)
    picture = brightfield.contrast(scene, cells.radius, np.ones(n), 0.020)
    return scene, cells.radius[scene.owner], picture, traits.isolated(scene.labels)


def test_isolated_cells_of_a_frame_have_the_radial_profile_of_the_specification(lone_cells):
    scene, radius, picture, alone = lone_cells
    assert len(alone) > 80
    s, mine = scene.distance, np.isin(scene.owner + 1, alone)
    behind_the_optics = ndimage.gaussian_filter(picture, brightfield.PSF)
    for place, contrast in ((1.7, -0.085), (0.42 * radius, 0.060), (0.9 * radius, -0.050), (-2.6, 0.018)):
        there = mine & (abs(s - place) < 0.25)
        assert abs(behind_the_optics[there].mean() - contrast) < 0.01
        light = brightfield.profile(s[there], radius[there], blur=0.0).mean()
        assert abs(picture[there].mean() - light) < 0.002  # before the optics rim and ring are steeper


def test_the_texture_has_its_sd_behind_the_optics(lone_cells):
    scene, radius, picture, alone = lone_cells
    seen = ndimage.gaussian_filter(picture, brightfield.PSF)
    core = np.isin(scene.owner + 1, alone) & (scene.distance > 0.8 * radius)
    assert abs(seen[core].std() / 0.020 - 1) < 0.1


def test_noise_is_shot_and_read_noise():
    rng, size = np.random.default_rng(0), (512, 512)
    flat, lamp = np.zeros(size, np.float32), np.ones(size, np.float32)
    one, other = (brightfield.photograph(rng, flat, lamp, brightfield.PSF) / 16 for _ in range(2))
    level = one.mean() * brightfield.FULL_WELL / 4095
    sd = (one - other).std() / np.sqrt(2) * brightfield.FULL_WELL / 4095
    assert abs(level / (0.42 * 33_000) - 1) < 0.015
    assert abs(sd / np.sqrt(level + 7**2) - 1) < 0.02


def test_noise_on_the_background_of_a_movie(movie):
    clear = ndimage.minimum_filter((movie.labels == 0).all(axis=0), 25)
    grey = movie.images[:, clear].astype(float) / 16 * brightfield.FULL_WELL / 4095
    between = grey[1] / grey[1].mean() - grey[0] / grey[0].mean()
    sd = between.std() / np.sqrt(2) * grey.mean()
    assert abs(sd / np.sqrt(grey.mean() + 7**2) - 1) < 0.1


@pytest.mark.parametrize(("preset", "share"), [("easy", 0.20), ("paper", 0.45), ("hard", 0.65)])
def test_as_many_cells_touch_as_stated_and_none_sinks_into_another(preset, share):
    look = synthetic.PRESETS[preset]
    assert look.clustering == share
    touching = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        cells = population.populate(rng, FRAME, look.density, look.clustering)
        nothing = np.zeros((len(cells.radius), brightfield.GRAIN, brightfield.GRAIN), np.float32)
        for t in range(37):
            if t % 18 == 0:
                labels = brightfield.draw(cells.outlines(), cells.position, nothing, FRAME).labels
                touching.append(len(traits.in_contact(labels)) / (len(np.unique(labels)) - 1))
                assert _closest(cells) >= 0.93 - 1e-9
            cells.move(rng)
    assert abs(np.mean(touching) / share - 1) < 0.1


def _closest(cells):
    distance = np.hypot(*(cells.position[:, None] - cells.position).T)
    np.fill_diagonal(distance, np.inf)
    return (distance / (cells.radius[:, None] + cells.radius)).min()


def test_the_distance_to_the_outline_is_that_of_the_continuous_one():
    cells = population.populate(np.random.default_rng(0), FRAME, 2.35e-4, 0.45)
    one = np.array([np.argmax(cells.aspect)])
    nothing = np.zeros((1, brightfield.GRAIN, brightfield.GRAIN), np.float32)
    distance = brightfield.draw(cells.outlines(rows=one), np.array([[30.3, 30.6]]), nothing, (64, 64)).distance
    angles = np.linspace(-np.pi, np.pi, 2001)
    rho = cells.outlines(angles, one)[0]
    y, x = np.mgrid[:64, :64]
    dy, dx = y[..., None] - 30.3 - rho * np.sin(angles), x[..., None] - 30.6 - rho * np.cos(angles)
    near = distance > -brightfield.FAR
    np.testing.assert_allclose(abs(distance[near]), np.sqrt((dy**2 + dx**2).min(axis=-1))[near], atol=0.03)


def test_the_exact_traits_of_discs_and_ellipses():
    disc = traits.traits(np.full((1, len(traits.ANGLES)), 7.0))
    exact = {"area_px2": np.pi * 49, "perimeter_px": 14 * np.pi, "circularity": 1, "solidity": 1, "radius_px": 7}
    for name, value in (exact | {"shape_index": 2 * np.sqrt(np.pi)}).items():
        assert disc[name][0] == pytest.approx(value, rel=1e-12)
    ellipse = 1 / np.sqrt((np.cos(traits.ANGLES) / 15) ** 2 + (np.sin(traits.ANGLES) / 10) ** 2)
    found = traits.traits(ellipse[None])
    assert found["area_px2"][0] == pytest.approx(150 * np.pi, rel=1e-12)
    assert found["perimeter_px"][0] == pytest.approx(79.32719794645295, rel=1e-12)  # 60 E(1 - 4/9)
    assert found["solidity"][0] == pytest.approx(1, abs=1e-12)


def test_the_solidity_of_a_hollow_outline():
    clover = 10 * (1 + 0.3 * np.cos(3 * traits.ANGLES))[None]
    from scipy.spatial import ConvexHull

    points = np.stack([clover[0, :-1] * np.cos(traits.ANGLES[:-1]), clover[0, :-1] * np.sin(traits.ANGLES[:-1])], 1)
    hull = ConvexHull(points).volume
    assert traits.traits(clover)["solidity"][0] == pytest.approx(100 * np.pi * 1.045 / hull, rel=1e-4)


def test_which_cells_stand_alone():
    labels = np.zeros((12, 12), np.int32)
    labels[0:2, 0:2], labels[4:6, 4:6], labels[6:8, 6:8], labels[3:5, 9:11] = 1, 2, 3, 4
    assert traits.in_contact(labels).tolist() == [2, 3]  # they meet at a corner
    assert traits.isolated(labels).tolist() == [4]


def test_exact_traits_agree_with_the_pixels():
    made = synthetic.movie(2, 2, FRAME, "paper")
    pairs = [
        made.traits[made.traits["frame"] == t].merge(measure(made.labels[t]), on="label", suffixes=("", "_pixels"))
        for t in range(2)
    ]
    both = pd.concat(pairs)
    assert len(both) == len(made.traits) > 150
    ratio = both["area_px2_pixels"] / both["area_px2"]
    assert abs(ratio.mean() - 1) < 0.002
    assert ratio.sub(1).abs().max() < 0.05
    assert abs((both["circularity_pixels"] - both["circularity"]).mean() + 0.011) < 0.01  # the blur's bias on discs
    assert abs((both["perimeter_px_pixels"] / both["perimeter_px"]).mean() - 1) < 0.01
    assert (both["n_neighbours"] == 0).all()
    assert not both["border"].any()
    assert (both["circularity"] <= 1).all()
    assert (both["solidity"] <= 1 + 1e-12).all()


def test_written_movies_are_marked_synthetic_and_split_by_field(tmp_path):
    how = {"fields": 3, "frames": 2, "size": (160, 192), "seed": 4}
    out = synthetic.write(tmp_path / "movies", **how)
    assert synthetic.write(out, **how) == out
    dataset = convert(out, tmp_path / "d.zarr")
    assert dataset.synthetic
    assert dataset.splits.unit == "field"
    assert not dataset.warnings
    assert all(field.tracked for field in dataset.fields.values())
    assert tifffile.imread(out / "field_2/masks/t001.tif").dtype == np.uint16
    _check_traits(out)
    with pytest.raises(BadInput, match="is not these movies"):
        synthetic.write(out, fields=1)


def _check_traits(out):
    table = pd.read_csv(out / "traits.csv")
    assert list(table.columns) == ["field", "frame", "label", *traits.COLUMNS]
    assert set(table["field"]) <= {"field_1", "field_2", "field_3"}
    for row in table.itertuples():
        mask = tifffile.imread(out / row.field / f"masks/t{row.frame:03d}.tif")
        assert abs((mask == row.label).sum() / row.area_px2 - 1) < 0.06


def _bytes(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_same_seed_same_bytes_and_no_field_like_another(tmp_path):
    how = {"fields": 2, "frames": 2, "size": (96, 128), "seed": 7}
    one, other = _bytes(synthetic.write(tmp_path / "a", **how)), _bytes(synthetic.write(tmp_path / "b", **how))
    assert one == other
    assert len(one) == 2 * 2 * 2 + 2
    assert one["field_1/frames/t000.tif"] != one["field_2/frames/t000.tif"]


def test_the_command_needs_no_folder(tmp_path):
    command = [sys.executable, "-m", "data_io.synthetic", "--preset", "easy", "--frames", "2", "--size", "64x96"]
    here = os.environ | {"PYTHONPATH": str(Path(synthetic.__file__).parents[1])}
    done = subprocess.run([*command, "--seed", "5"], cwd=tmp_path, env=here, capture_output=True, text=True, check=True)
    assert "synthetic_easy_5: 1 movie of 2 frames made (synthetic)" in done.stdout
    assert tifffile.imread(tmp_path / "synthetic_easy_5/field_1/frames/t001.tif").shape == (64, 96)
    assert (tmp_path / "synthetic_easy_5/traits.csv").is_file()


def test_the_command_makes_the_folder_it_is_given(tmp_path, capsys):
    made = [str(tmp_path / "movies"), "--fields", "2", "--frames", "1", "--size", "64x64"]
    assert synthetic.main(made) == 0
    assert "2 movies of 1 frames made" in capsys.readouterr().out
    assert synthetic.main(made) == 0
    assert "already there" in capsys.readouterr().out
    (tmp_path / "movies/synthetic.json").write_text("{")
    with pytest.raises(BadInput, match="is not these movies"):
        synthetic.main(made)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (["--size", "904"], "--size 904: not a size; give YxX"),
        (["--seed", "-1"], "--seed -1: negative"),
        (["--fields", "0"], "--fields 0: no movie"),
        (["--preset", "nice"], "choose from easy, paper, hard"),
    ],
)
def test_bad_options_are_one_line(tmp_path, given, fault):
    with pytest.raises(BadInput, match=fault):
        synthetic.main([str(tmp_path / "x"), *given])
    assert not list(tmp_path.iterdir())


def test_bad_arguments_say_what_is_allowed(tmp_path):
    with pytest.raises(BadInput, match="choose from easy, paper, hard"):
        synthetic.write(tmp_path / "x", preset="nice")
    with pytest.raises(BadInput, match="at least 1 frame of 64x64"):
        synthetic.movie(0, 0, (384, 384))
    with pytest.raises(BadInput, match="147 billion pixels, which are made in memory; make 4 billion or less"):
        synthetic.write(tmp_path / "x", frames=10**6)


def _baseline_iou(preset, fields, size):
    both = either = 0
    for k in range(fields):
        made = synthetic.movie([0, k], 1, size, preset)
        for image, labels in zip(made.images.astype(float), made.labels, strict=True):
            sd = np.sqrt(ndimage.uniform_filter(image**2, 5) - ndimage.uniform_filter(image, 5) ** 2)
            filled = ndimage.binary_fill_holes(sd > threshold_otsu(sd))
            found = ndimage.binary_erosion(filled, iterations=2, border_value=1)
            both += (found & (labels > 0)).sum()
            either += (found | (labels > 0)).sum()
    return both / either


def test_a_classical_baseline_is_neither_lost_nor_perfect():
    assert abs(_baseline_iou("paper", 6, FRAME) - 0.79) < 0.05


def test_hard_is_harder_than_easy():
    easy, hard = (_baseline_iou(preset, 4, (452, 612)) for preset in ("easy", "hard"))
    assert hard < easy - 0.05


def test_a_cell_afloat_is_inverted():
    cells = population.populate(np.random.default_rng(0), (64, 64), 1e-4, 0.0)
    nothing = np.zeros((1, brightfield.GRAIN, brightfield.GRAIN), np.float32)
    scene = brightfield.draw(cells.outlines(rows=np.array([0])), np.array([[32.0, 32.0]]), nothing, (64, 64))
    right, inverted = (brightfield.contrast(scene, cells.radius[:1], np.array([f]), 0.0) for f in (1.0, -1.0))
    inside = scene.distance > -brightfield.FAR / 2
    np.testing.assert_allclose(right[inside], -inverted[inside], atol=1e-3)


@pytest.mark.parametrize("preset", ["easy", "hard"])
def test_the_other_presets(preset):
    made = synthetic.movie(0, 2, (256, 256), preset)
    assert made.labels.max() > 0
    assert made.images.max() < 65536 - 16
