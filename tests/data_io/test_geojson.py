"""QuPath GeoJSON becomes instance labels; broken or foreign JSON is refused in a line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from data_io import geojson
from data_io.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (40, 50)


def ring(left: float, top: float, width: float, height: float) -> list[list[float]]:
    right, bottom = left + width, top + height
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def feature(*rings: object, kind: str | None = "annotation", plane: object = None, **more: object) -> dict[str, Any]:
    geometry: dict[str, Any] = {"type": "Polygon", "coordinates": list(rings)}
    if plane is not None:
        geometry["plane"] = plane
    properties = {"objectType": kind} if kind else {}
    return {"type": "Feature", "id": "a-uuid", "geometry": geometry, "properties": properties, **more}


def saved(folder: Path, found: object, name: str = "a.geojson") -> Path:
    (folder / name).write_text(json.dumps(found))
    return folder / name


@pytest.mark.parametrize("how", ["collection", "list", "single"])
def test_what_qupath_writes(how, tmp_path):
    cells = [feature(ring(3, 4, 7, 2)), feature(ring(20, 10, 5, 5))]
    found = {"collection": {"type": "FeatureCollection", "features": cells}, "list": cells, "single": cells[0]}[how]
    got = geojson.read(saved(tmp_path, found), 1, SHAPE)
    assert got.labels.dtype == np.int32
    assert got.labels.shape == (1, *SHAPE)
    assert (got.labels[0, 4:6, 3:10] == 1).all()
    assert (got.labels == 1).sum() == 14
    assert (got.labels == 2).sum() == (0 if how == "single" else 25)
    assert got.notes == ()


def test_holes_and_parts(tmp_path):
    holed = feature(ring(2, 2, 20, 20), ring(5, 5, 10, 10))
    parts = {"type": "MultiPolygon", "coordinates": [[ring(30, 2, 4, 4)], [ring(36, 2, 10, 10), ring(38, 4, 2, 2)]]}
    got = geojson.read(saved(tmp_path, [holed, feature() | {"geometry": parts}]), 1, SHAPE).labels[0]
    assert (got == 1).sum() == 400 - 100
    assert (got[5:15, 5:15] == 0).all()
    assert (got == 2).sum() == 16 + 100 - 4
    assert (got[4:6, 38:40] == 0).all()


def test_a_cell_is_its_outline_and_regions_around_detections_are_no_cells(tmp_path):
    cell = feature(ring(5, 5, 8, 8), kind="cell", nucleusGeometry=feature(ring(7, 7, 3, 3))["geometry"])
    region = feature(ring(0, 0, 50, 40), kind="annotation")
    got = geojson.read(saved(tmp_path, [region, cell, feature(ring(30, 5, 4, 4), kind="detection")]), 1, SHAPE)
    assert [(got.labels == value).sum() for value in (1, 2, 3)] == [64, 16, 0]
    assert got.notes == (f"{tmp_path}/a.geojson: 1 annotations, which are regions around the detections, left out",)
    old = feature(ring(5, 5, 8, 8), kind=None) | {"id": "PathDetectionObject"}
    alone = geojson.read(saved(tmp_path, [feature(ring(0, 0, 40, 40), kind=None), old]), 1, SHAPE)
    assert alone.labels.sum() == 64


def test_points_lines_and_tiles_are_counted(tmp_path):
    point = feature() | {"geometry": {"type": "Point", "coordinates": [1, 2]}}
    nothing = feature() | {"geometry": None}
    tile = feature(ring(0, 0, 9, 9), kind="tile")
    got = geojson.read(saved(tmp_path, [point, nothing, tile, feature(ring(5, 5, 8, 8))]), 1, SHAPE)
    assert got.labels.sum() == 64
    assert [note.split(": ")[1] for note in got.notes] == [
        "1 features that are no area (Point) left out",
        "1 features that are no area (no geometry) left out",
        "1 objects of type 'tile' left out",
    ]
    with pytest.raises(BadInput, match="none of its 2 features is the outline of a cell"):
        geojson.read(saved(tmp_path, [point, tile]), 1, SHAPE)


def test_an_empty_collection_is_an_image_without_cells(tmp_path):
    got = geojson.read(saved(tmp_path, {"type": "FeatureCollection", "features": []}), 1, SHAPE)
    assert not got.labels.any()


@pytest.mark.parametrize("axis", ["t", "z"])
def test_planes_are_frames(axis, tmp_path):
    cells = [feature(ring(5, 5, 4 + at, 4 + at), plane={"c": -1, "z": 0, "t": 0} | {axis: at}) for at in (0, 1, 2)]
    del cells[0]["geometry"]["plane"]
    got = geojson.read(saved(tmp_path, cells), 3, SHAPE).labels
    assert [np.count_nonzero(frame) for frame in got] == [16, 25, 36]
    assert got.max() == 1
    with pytest.raises(BadInput, match=r"an outline on frame 2 \(from 0\), the image has 2"):
        geojson.read(saved(tmp_path, cells), 2, SHAPE)
    with pytest.raises(BadInput, match="no outline says its frame, and the image has 3"):
        geojson.read(saved(tmp_path, [feature(ring(5, 5, 4, 4))]), 3, SHAPE)


def test_degenerate_outside_and_huge_outlines(tmp_path):
    odd = [feature([[1, 1], [9, 9]]), feature([]), feature(ring(5, 5, 0, 8)), feature(ring(900, 5, 8, 8))]
    huge = feature([[40, 30], [1e300, 30], [1e300, 1e300], [40, 1e300]])
    got = geojson.read(saved(tmp_path, [*odd, huge]), 1, SHAPE)
    assert (got.labels[0, 30:, 40:] == 5).all()
    assert got.labels.any(axis=0).sum() == 100
    assert got.notes == (f"{tmp_path}/a.geojson: 4 outlines cover no pixel of their frame; left out",)
    with pytest.raises(BadInput, match="all 1 outlines lie outside the image; export them in pixels"):
        geojson.read(saved(tmp_path, [odd[3]]), 1, SHAPE)


def _geometry(coordinates: object, kind: str = "Polygon") -> str:
    return json.dumps(feature() | {"geometry": {"type": kind, "coordinates": coordinates}})


FAULTS = {
    "zero bytes": ("", "empty file"),
    "no json": ("cells: 3", "not readable as JSON"),
    "cut": (json.dumps([feature(ring(5, 5, 8, 8))])[:-9], "not readable as JSON"),
    "other json": ('{"tracked": true}', "JSON, but not GeoJSON features"),
    "number": ("3", "JSON, but not GeoJSON features"),
    "features missing": ('{"type": "FeatureCollection"}', "JSON, but not GeoJSON features"),
    "list of numbers": ("[1, 2]", "JSON, but not GeoJSON features"),
    "too deep": ("[" * 200_000, r"not readable as JSON \(nested too deep"),
    "nan": (_geometry([[[1, 1], [float("nan"), 2], [3, 3]]]), r"not readable as JSON \(NaN is no number"),
    "infinite": (_geometry([[[1, 1], [7, 2], [3, 3]]]).replace("7", "1e999"), r"feature 1 .*\(NaN or infinite"),
    "huge integer": (_geometry([[[1, 1], [7, 2], [3, 3]]]).replace("7", "9" * 400), "feature 1 has broken coordinates"),
    "text": (_geometry([[["1", "1"], ["5", "1"], ["5", "5"]]]), "feature 1 has broken coordinates"),
    "ragged": (_geometry([[[1, 1], [5], [5, 5]]]), "feature 1 has broken coordinates"),
    "flat": (_geometry([1, 1, 5, 5]), "feature 1 has broken coordinates"),
    "no list": (_geometry(5), "feature 1 has broken coordinates"),
    "polygon called multi": (_geometry([ring(1, 1, 5, 5)], "MultiPolygon"), "feature 1 has broken coordinates"),
    "bad plane": (json.dumps(feature(ring(5, 5, 4, 4), plane={"t": -1})), "feature 1 has the plane"),
    "bytes": (b"\xff\xfe\x00\x01", "not readable as JSON"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_file_gives_one_line(fault, tmp_path):
    text, line = FAULTS[fault]
    path = tmp_path / "a.geojson"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadInput, match=f"a.geojson: {line}") as caught:
        geojson.read(path, 1, SHAPE)
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)


def test_a_large_file_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(geojson, "MAX_BYTES", 2**20)
    (tmp_path / "a.geojson").write_bytes(b" " * (2**20 + 1))
    with pytest.raises(BadInput, match="more than 1 MiB of JSON; export one file per image"):
        geojson.read(tmp_path / "a.geojson", 1, SHAPE)
