"""ImageJ ROI files become the labels that ImageJ would fill; damaged or hostile ones are refused in a line."""

from __future__ import annotations

import struct
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
import roifile
from roifile import ROI_OPTIONS, ROI_SUBTYPE, ROI_TYPE, ImagejRoi
from scipy import ndimage

from data_io import rois
from data_io.errors import BadInput
from data_io.polygons import fill

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (40, 50)


def crack_rings(mask: np.ndarray) -> list[np.ndarray]:
    """Return the borders of a mask along pixel edges as closed rings of integer corners x, y."""
    padded = np.pad(mask.astype(bool), 1)
    after: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for y, x in zip(*np.nonzero(padded), strict=True):
        corners = [(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)]
        outside = [padded[y - 1, x], padded[y, x + 1], padded[y + 1, x], padded[y, x - 1]]
        for at, same in enumerate(outside):
            if not same:
                after.setdefault(corners[at], []).append(corners[(at + 1) % 4])
    rings = []
    while after:
        start = at = next(iter(after))
        ring = []
        while True:
            ring.append(at)
            step = after[at].pop()
            if not after[at]:
                del after[at]
            at = step
            if at == start:
                break
        rings.append(np.array(ring) - 1)
    return rings


def outline(points: object, **told: object) -> ImagejRoi:
    roi = ImagejRoi.frompoints(np.asarray(points))
    roi.roitype = ROI_TYPE.POLYGON
    for name, value in told.items():
        setattr(roi, name, value)
    return roi


def square(at: int, side: int = 5, **told: object) -> ImagejRoi:
    return outline([[at, at], [at + side, at], [at + side, at + side], [at, at + side]], **told)


def box(kind: ROI_TYPE, left: int, top: int, width: int, height: int, **told: object) -> ImagejRoi:
    roi = ImagejRoi(roitype=kind, left=left, top=top, right=left + width, bottom=top + height)
    for name, value in told.items():
        setattr(roi, name, value)
    return roi


def composite(numbers: list[float]) -> ImagejRoi:
    roi = box(ROI_TYPE.RECT, 0, 0, 30, 30)
    roi.multi_coordinates = np.array(numbers, np.float32)
    roi.shape_roi_size = len(numbers)
    return roi


def saved(folder: Path, *found: ImagejRoi, name: str = "RoiSet.zip") -> Path:
    with zipfile.ZipFile(folder / name, "w") as file:
        for at, roi in enumerate(found):
            file.writestr(f"{roi.name or at}.roi", roi.tobytes())
    return folder / name


def blobs(seed: int) -> np.ndarray:
    """Return `(40, 50)` labels of ragged simply connected cells."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 1.5)
    labels, count = ndimage.label(noise > 0.05)
    whole = np.zeros_like(labels)
    for value in range(1, count + 1):
        whole[ndimage.binary_fill_holes(labels == value)] = value
    return whole


@pytest.mark.parametrize("seed", range(6))
def test_traced_outlines_give_back_the_labels_they_were_traced_from(seed, tmp_path):
    labels = blobs(seed)
    values = [value for value in np.unique(labels) if value]
    traced = [ImagejRoi.frompoints(max(crack_rings(labels == value), key=len)) for value in values]
    for roi in traced:
        roi.roitype = ROI_TYPE.TRACED
    got = rois.read(saved(tmp_path, *traced), 1, SHAPE)
    expected = np.searchsorted(np.array([0, *values]), labels)
    assert len(values) > 4
    np.testing.assert_array_equal(got.labels[0], expected)
    assert got.labels.dtype == np.int32
    assert got.notes == ()


@pytest.mark.parametrize("seed", range(4))
def test_a_composite_with_holes_is_exact(seed, tmp_path):
    mask = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 1) > 0
    numbers: list[float] = []
    for ring in crack_rings(mask):
        numbers += [0, *ring[0], *(n for point in ring[1:] for n in (1, *point)), 4]
    np.testing.assert_array_equal(rois.read(saved(tmp_path, composite(numbers)), 1, SHAPE).labels[0], mask)


def test_curves_of_a_composite_are_followed(tmp_path):
    k = 10 * 4 / 3 * (np.sqrt(2) - 1)
    circle = [0, 25, 15, 3, 25, 15 + k, 15 + k, 25, 15, 25, 3, 15 - k, 25, 5, 15 + k, 5, 15]
    circle += [3, 5, 15 - k, 15 - k, 5, 15, 5, 3, 15 + k, 5, 25, 15 - k, 25, 15, 4]
    got = rois.read(saved(tmp_path, composite(circle)), 1, SHAPE).labels[0]
    oval = rois.read(saved(tmp_path, box(ROI_TYPE.OVAL, 5, 5, 20, 20)), 1, SHAPE).labels[0]
    assert np.count_nonzero(got != oval) <= 8
    quadratic = rois.read(saved(tmp_path, composite([0, 2, 2, 2, 12, 30, 22, 2, 4])), 1, SHAPE).labels[0]
    assert abs(quadratic.sum() - 2 / 3 * 20 * 14) < 12


def test_rectangles_and_ovals_as_imagej_fills_them(tmp_path):
    """A 4 x 4 oval of ImageJ lacks its corner pixels, a 3 x 3 one too, a 2 x 2 none, a 5 x 5 one pixel at each."""
    got = rois.read(saved(tmp_path, box(ROI_TYPE.RECT, 3, 4, 7, 2)), 1, SHAPE).labels[0]
    assert got[4:6, 3:10].all()
    assert got.sum() == 14
    for side, area in ((1, 1), (2, 4), (3, 9), (4, 12), (5, 21), (8, 52)):
        got = rois.read(saved(tmp_path, box(ROI_TYPE.OVAL, 3, 4, side, side)), 1, SHAPE).labels[0]
        y, x = np.mgrid[:side, :side] - (side - 1) / 2
        np.testing.assert_array_equal(got[4 : 4 + side, 3 : 3 + side], y**2 + x**2 <= side**2 / 4)
        assert got.sum() == area
    sub = box(ROI_TYPE.RECT, 3, 4, 3, 3, options=ROI_OPTIONS.SUB_PIXEL_RESOLUTION, xd=3.6, yd=4.4, widthd=2, heightd=2)
    got = rois.read(saved(tmp_path, sub), 1, SHAPE).labels[0]
    assert got[4:6, 4:6].all()
    assert got.sum() == 4


def test_pixel_centres_decide_also_between_pixels(tmp_path):
    rng = np.random.default_rng(1)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 12))
    points = np.stack([25 + 14 * np.cos(angle), 20 + 12 * np.sin(angle)], 1).astype(np.float32)
    got = rois.read(saved(tmp_path, outline(points)), 1, SHAPE).labels[0]
    y, x = np.mgrid[:40, :50] + 0.5
    start, end = points.astype(float), np.roll(points.astype(float), -1, 0)
    inside = np.zeros(SHAPE, bool)
    for (x1, y1), (x2, y2) in zip(start, end, strict=True):
        if y1 != y2:
            inside ^= ((y1 <= y) != (y2 <= y)) & (x > x1 + (y - y1) * (x2 - x1) / (y2 - y1))
    np.testing.assert_array_equal(got, inside)


def test_a_centre_on_a_border_is_inside_on_the_right_and_below_only():
    ring = np.array([[2.5, 2.5], [6.5, 2.5], [6.5, 5.5], [2.5, 5.5]])
    patch = fill(0, [ring], SHAPE)
    assert (patch.top, patch.left, patch.inside.shape, patch.area) == (2, 3, (3, 4), 12)


def test_the_smaller_cell_keeps_shared_pixels_and_numbers_follow_the_file(tmp_path):
    got = rois.read(saved(tmp_path, square(2, 20), square(5, 4), square(30, 4), square(30, 4)), 1, SHAPE)
    assert np.unique(got.labels).tolist() == [0, 1, 2, 3]
    assert (got.labels == 2).sum() == 16
    assert [note.split(": ")[1] for note in got.notes] == [
        "1 outlines lie wholly under others (drawn twice?); left out",
        "32 px lie in more than one outline; the smaller cell keeps them",
    ]


def test_outlines_are_clipped_to_the_frame(tmp_path):
    got = rois.read(saved(tmp_path, square(-3), outline([[45.0, 35], [1e7, 35], [1e7, 1e7], [45, 1e7]])), 1, SHAPE)
    assert (got.labels == 1).sum() == 4
    assert (got.labels[0, 35:, 45:] == 2).all()
    beside = rois.read(saved(tmp_path, square(3), square(70)), 1, SHAPE)
    assert beside.notes[0].endswith("1 outlines cover no pixel of their frame; left out")
    with pytest.raises(BadInput, match="all 1 ROIs lie outside the image"):
        rois.read(saved(tmp_path, square(70)), 1, SHAPE)


@pytest.mark.parametrize(
    "told",
    [
        [{"t_position": t} for t in (1, 2, 3)],
        [{"position": t} for t in (1, 2, 3)],
        [{"t_position": 1, "z_position": t} for t in (1, 2, 3)],
        [{"name": f"{t:04d}-0012-0034"} for t in (1, 2, 3)],
        [{"name": f"{t:04d}-0012-0034-1"} for t in (1, 2, 3)],
        [{"t_position": 1, "position": 9}, {"position": 2}, {"name": "0003-0001-0002", "t_position": 3}],
    ],
)
def test_the_frame_of_a_roi(told, tmp_path):
    got = rois.read(saved(tmp_path, *(square(5 * t, 4 + t, **how) for t, how in enumerate(told))), 3, SHAPE).labels
    assert [np.count_nonzero(frame) for frame in got] == [16, 25, 36]
    assert got.max() == 1


def test_one_frame_takes_rois_of_one_slice(tmp_path):
    assert rois.read(saved(tmp_path, square(3, position=7), square(20, position=7)), 1, SHAPE).labels.max() == 2
    with pytest.raises(BadInput, match="is on slice 7, the image has 1"):
        rois.read(saved(tmp_path, square(3, position=2), square(20, position=7)), 1, SHAPE)
    with pytest.raises(BadInput, match="is on slice 9, the image has 3"):
        rois.read(saved(tmp_path, square(3, position=9)), 3, SHAPE)
    with pytest.raises(BadInput, match=r"1 ROIs, such as '.*', have no slice in an image of 3 frames; associate"):
        rois.read(saved(tmp_path, square(3, position=2), square(9)), 3, SHAPE)


def test_lines_points_and_texts_are_counted(tmp_path):
    points = outline([[1, 1], [4, 5]])
    points.roitype = ROI_TYPE.POINT
    line = ImagejRoi(roitype=ROI_TYPE.LINE, x1=1, y1=1, x2=5, y2=5)
    got = rois.read(saved(tmp_path, square(3), points, line), 1, SHAPE)
    assert got.notes == (f"{tmp_path}/RoiSet.zip: 2 ROIs that are no area (1 point, 1 line); left out",)
    assert got.labels.max() == 1
    text = box(ROI_TYPE.RECT, 1, 1, 9, 9, subtype=ROI_SUBTYPE.TEXT, text="cell", text_name="Arial")
    with pytest.raises(BadInput, match=r"holds no area, only 1 line, 1 text; outline the cells"):
        rois.read(saved(tmp_path, line, text), 1, SHAPE)


def test_a_single_roi_file_and_hostile_names(tmp_path):
    (tmp_path / "a.roi").write_bytes(square(3).tobytes())
    assert rois.read(tmp_path / "a.roi", 1, SHAPE).labels.sum() == 25
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as file:
        file.writestr("../../etc/x.roi", square(3).tobytes())
        file.writestr("__MACOSX/._x.roi", b"resource fork")
        file.writestr("notes.txt", "left alone")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    assert rois.read(tmp_path / "b.zip", 1, SHAPE).labels.sum() == 25
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def _zip(path: Path, name: str, data: bytes, how: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", how) as file:
        file.writestr(name, data)


def _cut(path: Path) -> None:
    saved(path.parent, *(square(at) for at in range(1, 30)), name=path.name)
    path.write_bytes(path.read_bytes()[:-200])


def _flipped(path: Path) -> None:
    saved(path.parent, *(square(at) for at in range(1, 30)), name=path.name)
    data = bytearray(path.read_bytes())
    data[data.index(b"Iout") + 70] ^= 8
    path.write_bytes(data)


def _encrypted(path: Path) -> None:
    saved(path.parent, square(3), name=path.name)
    data = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + at] |= 1
    path.write_bytes(data)


def _nan(path: Path) -> None:
    roi = outline([[1.0, 1.0], [9.0, 1.0], [9.0, 9.0]])
    roi.subpixel_coordinates[1, 0] = np.nan
    saved(path.parent, roi, name=path.name)


def _bad_count(path: Path) -> None:
    data = bytearray(square(3).tobytes())
    data[16:18] = struct.pack(">H", 60000)
    _zip(path, "a.roi", bytes(data))


FAULTS = {
    "zero bytes": (lambda path: path.write_bytes(b""), "empty file"),
    "no zip": (lambda path: path.write_text("no zip" * 100), r"unreadable ROI file \(File is not a zip"),
    "cut": (_cut, "unreadable ROI file"),
    "flipped": (_flipped, r"unreadable ROI file \(Bad CRC"),
    "encrypted": (_encrypted, "protected by a password"),
    "no roi inside": (lambda path: _zip(path, "a.txt", b"x"), "a zip without .roi files"),
    "no roi in the roi": (lambda path: _zip(path, "a.roi", b"x" * 99), "unreadable ROI file .*not an ImageJ ROI"),
    "short roi": (lambda path: _zip(path, "a.roi", b"Iout"), "unreadable ROI file .*too short"),
    "more points than bytes": (_bad_count, "unreadable ROI file"),
    "unknown kind": (
        lambda path: _zip(path, "a.roi", square(3).tobytes()[:6] + b"M" + square(3).tobytes()[7:]),
        "holds no area, only 1 unknown",
    ),
    "nan": (_nan, r"ROI '.*' cannot be filled \(NaN or infinite"),
    "bad composite": (lambda path: saved(path.parent, composite([9, 1, 2]), name=path.name), "cannot be filled"),
    "cut composite": (lambda path: saved(path.parent, composite([0, 1]), name=path.name), "cannot be filled"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_file_gives_one_line(fault, tmp_path, caplog):
    spoil, line = FAULTS[fault]
    spoil(tmp_path / "RoiSet.zip")
    with pytest.raises(BadInput, match=f"RoiSet.zip: .*{line}") as caught:
        rois.read(tmp_path / "RoiSet.zip", 1, SHAPE)
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)
    assert not caplog.records, "the line says it"


def test_a_bomb_is_refused_unread(tmp_path, monkeypatch):
    _zip(tmp_path / "a.zip", "a.roi", bytes(2**22), zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(rois, "MAX_BYTES", 2**20)
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(BadInput, match=r"1 ROIs of 4 MiB unpacked; save one ROI set per movie"):
        rois.read(tmp_path / "a.zip", 1, SHAPE)


def test_a_tangle_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("data_io.polygons.MAX_CROSSINGS", 100)
    with pytest.raises(BadInput, match=r"cannot be filled \(an outline too tangled"):
        rois.read(saved(tmp_path, outline([[x % 7, 39 * (x % 2)] for x in range(40)])), 1, SHAPE)


def test_what_roifile_writes_is_read(tmp_path):
    roifile.roiwrite(tmp_path / "set.zip", [square(3, name="a"), square(20, name="b")])
    assert np.unique(rois.read(tmp_path / "set.zip", 1, SHAPE).labels).tolist() == [0, 1, 2]
