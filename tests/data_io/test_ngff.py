"""Stores are OME-Zarr that other programs open: by the models of the specification and by the reader of napari."""

from __future__ import annotations

import json
import warnings
from xml.etree import ElementTree

import numpy as np
import pytest
import zarr

from data_io import ngff
from data_io.errors import BadInput
from data_io.store import FrameRef

VERSIONS = ("0.5", "0.4")


def models(version):
    if version == "0.5":
        from ome_zarr_models import v05 as found
    else:
        from ome_zarr_models import v04 as found
    return found


@pytest.fixture(scope="module")
def napari_reader():
    """Return the function by which napari opens a path, without a window."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # napari's own, of its dependencies
        reader = pytest.importorskip("napari_ome_zarr").napari_get_reader

    def read(path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return reader(str(path))(str(path))

    return read


@pytest.mark.parametrize("version", VERSIONS)
def test_the_models_of_the_specification_accept_it(write_store, tmp_path, version):
    store = write_store(tmp_path / "d.zarr", ome_zarr=version, channels=("phase", "GFP")).path
    root = zarr.open_group(store, mode="r")
    assert root.metadata.zarr_format == ngff.ZARR_FORMATS[version]
    found = models(version)
    found.BioFormats2Raw.from_zarr(root)
    image = found.Image.from_zarr(root["Field-1"])
    scale = image.ome_attributes if version == "0.5" else image.attributes
    multiscale = scale.multiscales[0]
    assert [axis.name for axis in multiscale.axes] == ["t", "c", "y", "x"]
    assert list(multiscale.datasets[0].coordinateTransformations[0].scale) == [60, 1, 0.5, 0.5]
    found.Labels.from_zarr(root["Field-1/labels"])
    found.ImageLabel.from_zarr(root["Field-1/labels/truth"])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("inside", ["", "Field-1"])
def test_napari_opens_image_and_labels_at_the_right_scale(write_store, tmp_path, napari_reader, version, inside):
    dataset = write_store(tmp_path / "d.zarr", ome_zarr=version)
    (image, shown, kind), (labels, drawn, drawn_kind) = napari_reader(dataset.path / inside)
    assert (kind, drawn_kind) == ("image", "labels")
    assert (shown["scale"], drawn["scale"]) == ([60, 0.5, 0.5], [60, 0.5, 0.5])
    assert shown["units"] == drawn["units"] == ("second", "micrometer", "micrometer")
    assert shown["channel_axis"] == 1
    assert shown["name"] == ["Field 1: phase"]
    assert shown["contrast_limits"] == [[900, 1800]]
    assert drawn["name"].endswith("labels/truth")
    ref = FrameRef("Field 1", 2)
    assert np.array_equal(np.asarray(image[0][2]), dataset.image(ref))
    assert np.array_equal(np.asarray(labels[0][2]), dataset.labels(ref))
    assert drawn["properties"]["track"] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_unknown_pixel_size_has_scale_1_and_no_unit(write_store, tmp_path, napari_reader, version):
    store = write_store(tmp_path / "d.zarr", ome_zarr=version, pixel_size_um=None, frame_interval_s=None).path
    for _, shown, _ in napari_reader(store):
        assert shown["scale"] == [1, 1, 1]
        assert "units" not in shown
    assert b"PhysicalSize" not in (store / ngff.XML).read_bytes()


@pytest.mark.parametrize("version", VERSIONS)
def test_groups_and_tracks_are_in_the_metadata(write_store, tmp_path, version):
    dataset = write_store(tmp_path / "d.zarr", ome_zarr=version)
    groups = {"plate": "P1", "well": "B1", "patient": "7"}
    assert dataset.fields["Field 1"].groups == groups
    image = zarr.open_group(dataset.path / "Field-1", mode="r")
    assert image.attrs["groups"] == groups
    xml = ElementTree.fromstring((dataset.path / ngff.XML).read_bytes())  # noqa: S314 - our own
    keys = {m.get("K"): m.text for m in xml.iter(f"{{{ngff.SCHEMA}}}M")}
    assert keys == groups
    truth = dict(image["labels/truth"].attrs)
    assert truth["annotated_frames"] == [0, 1, 2, 3]
    properties = truth.get("ome", truth)["image-label"]["properties"]
    assert properties[0] == {"label-value": 1, "track": 1, "first_frame": 0, "last_frame": 3}
    untracked = write_store(tmp_path / "e.zarr", ome_zarr=version, tracked=False).path
    truth = dict(zarr.open_group(untracked / "Field-1/labels/truth", mode="r").attrs)
    assert "properties" not in truth.get("ome", truth)["image-label"]


def test_the_xml_is_what_its_schema_asks_for(write_store, tmp_path):
    ome_types = pytest.importorskip("ome_types")
    dataset = write_store(tmp_path / "d.zarr", channels=("phase", "GFP"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (image,) = ome_types.from_xml((dataset.path / ngff.XML).read_text(), validate=False).images
    assert (image.id, image.name) == ("Image:Field-1", "Field 1")
    assert (image.pixels.size_x, image.pixels.size_y, image.pixels.size_c, image.pixels.size_t) == (128, 96, 2, 5)
    assert (image.pixels.physical_size_x, image.pixels.time_increment) == (0.5, 60)


def test_both_versions_hold_the_same(write_store, tmp_path):
    first, second = (write_store(tmp_path / f"{version}.zarr", ome_zarr=version) for version in VERSIONS)
    assert first.content_hash == second.content_hash
    for ref in first.frames():
        assert np.array_equal(first.image(ref), second.image(ref))
    with pytest.raises(BadInput, match=r"0\.3: not written; choose from 0\.5, 0\.4"):
        write_store(tmp_path / "old.zarr", ome_zarr="0.3")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_chunk_is_written_and_checksummed(write_store, tmp_path, version):
    store = write_store(tmp_path / "d.zarr", ome_zarr=version).path
    for array, axes in (("Field-1/s0", "0/0/0"), ("Field-1/labels/truth/s0", "0/0")):
        described = json.loads((store / array / ("zarr.json" if version == "0.5" else ".zarray")).read_text())
        if version == "0.5":
            assert described["codecs"][-1] == {"name": "zstd", "configuration": {"level": 1, "checksum": True}}
        else:
            assert described["compressor"] == {"id": "zstd", "level": 1, "checksum": True}
        for t in range(5):  # the last frame has no annotation: zeros, written
            assert (store / array / ("c" if version == "0.5" else "") / str(t) / axes).stat().st_size > 0
