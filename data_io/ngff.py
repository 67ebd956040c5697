"""OME-Zarr metadata of a collection of fields: 0.5 (zarr v3) and 0.4 (zarr v2).

https://ngff.openmicroscopy.org/0.5 and /0.4. Every function returns the attributes of one group. Axes are a subset of
tczyx in that order; a unit is stated only where the size is known, else the scale is 1.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from data_io.store import Field

ZARR_FORMATS = {"0.5": 3, "0.4": 2}
DEFAULT = "0.5"
LEVEL = "s0"
"""The array of an image group at full size; there is no other."""
XML = "OME/METADATA.ome.xml"
SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
COLOURS = ("FFFFFF", "00FF00", "FF00FF", "00FFFF", "FFFF00", "FF0000", "0000FF")
"""One per channel, grey first; they begin again after the last."""


def collection(version: str = DEFAULT) -> dict[str, Any]:
    """Describe the root: a bioformats2raw collection of images."""
    return _under(version, {"bioformats2raw.layout": 3})


def series(slugs: Sequence[str], version: str = DEFAULT) -> dict[str, Any]:
    """Describe the group OME: the paths of the images in order."""
    return _under(version, {"series": list(slugs)})


def image(field: Field, axes: str = "tcyx", version: str = DEFAULT) -> dict[str, Any]:
    """Describe an image group, with what viewers show at first where the grey values of its frames are known."""
    body: dict[str, Any] = {"multiscales": [_multiscale(field, axes, version)]}
    if "c" in axes and field.percentiles:
        channels = zip(field.channels, _windows(field), strict=True)
        body["omero"] = {
            "channels": [
                {"label": name, "color": COLOURS[i % len(COLOURS)], "active": True, "window": window}
                for i, (name, window) in enumerate(channels)
            ]
        }
    return _under(version, body) | {"groups": dict(field.groups)}


def labels(names: Sequence[str], version: str = DEFAULT) -> dict[str, Any]:
    """Describe the group `labels` of an image: the label images in it."""
    return _under(version, {"labels": list(names)})


def label_image(
    field: Field, version: str = DEFAULT, tracks: Mapping[int, tuple[int, int]] | None = None
) -> dict[str, Any]:
    """Describe a label image of the field, axes t, y, x.

    Parameters
    ----------
    field
        The field it lies on.
    version
        "0.5" or "0.4".
    tracks
        Label -> first and last frame, where a label is the same cell in all frames; they become label properties.
    """
    described: dict[str, Any] = {"version": version, "source": {"image": "../../"}}
    if tracks:
        described["properties"] = [
            {"label-value": label, "track": label, "first_frame": first, "last_frame": last}
            for label, (first, last) in sorted(tracks.items())
        ]
    return _under(version, {"multiscales": [_multiscale(field, "tyx", version)], "image-label": described})


def ome_xml(fields: Sequence[Field]) -> bytes:
    """Return the OME-XML of the collection, for readers that ask it for the images; groups are map annotations."""
    ElementTree.register_namespace("", SCHEMA)
    root = ElementTree.Element(f"{{{SCHEMA}}}OME")
    annotations = ElementTree.Element(f"{{{SCHEMA}}}StructuredAnnotations")
    for i, field in enumerate(fields):
        one = _child(root, "Image", ID=f"Image:{field.slug}", Name=field.name)
        _pixels(one, i, field)
        if field.groups:
            _child(one, "AnnotationRef", ID=f"Annotation:{i}")
            value = _child(_child(annotations, "MapAnnotation", ID=f"Annotation:{i}", Namespace="groups"), "Value")
            for key, group in field.groups.items():
                _child(value, "M", K=key).text = _xml(group)
    if len(annotations):
        root.append(annotations)
    return bytes(ElementTree.tostring(root, "utf-8", xml_declaration=True))


def _pixels(parent: ElementTree.Element, i: int, field: Field) -> None:
    pixel, interval = field.pixel_size_um, field.frame_interval_s
    types = {"float16": "float", "float32": "float", "float64": "double", "bool": "bit"}
    sizes = {"SizeX": field.shape[1], "SizeY": field.shape[0], "SizeZ": 1}
    sizes |= {"SizeC": len(field.channels), "SizeT": field.n_frames}
    known = {"PhysicalSizeX": pixel, "PhysicalSizeY": pixel, "TimeIncrement": interval}
    pixels = _child(
        parent,
        "Pixels",
        ID=f"Pixels:{i}",
        DimensionOrder="XYZCT",
        Type=types.get(field.dtype, field.dtype),
        **{name: str(value) for name, value in {**sizes, **known}.items() if value is not None},
    )
    for c, name in enumerate(field.channels):
        _child(pixels, "Channel", ID=f"Channel:{i}:{c}", Name=name, SamplesPerPixel="1")
    _child(pixels, "MetadataOnly")


def _child(parent: ElementTree.Element, tag: str, **attributes: str) -> ElementTree.Element:
    return ElementTree.SubElement(parent, f"{{{SCHEMA}}}{tag}", {key: _xml(text) for key, text in attributes.items()})


def _xml(text: str) -> str:
    r"""Return text with the characters written out that XML 1.0 has no place for.

    >>> _xml("a\x1bb")
    'a\\x1bb'
    """
    return NOT_IN_XML.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _under(version: str, body: dict[str, Any]) -> dict[str, Any]:
    """Put metadata where its version has it."""
    return {"ome": {"version": version, **body}} if version == "0.5" else body


def _multiscale(field: Field, axes: str, version: str) -> dict[str, Any]:
    pixel, interval = field.pixel_size_um, field.frame_interval_s
    described: dict[str, dict[str, str]] = {
        "t": {"name": "t", "type": "time"} | ({"unit": "second"} if interval else {}),
        "c": {"name": "c", "type": "channel"},
        "y": {"name": "y", "type": "space"} | ({"unit": "micrometer"} if pixel else {}),
        "x": {"name": "x", "type": "space"} | ({"unit": "micrometer"} if pixel else {}),
    }
    scale = {"t": interval or 1.0, "c": 1.0, "y": pixel or 1.0, "x": pixel or 1.0}
    transformation = {"type": "scale", "scale": [float(scale[axis]) for axis in axes]}
    image = {
        "name": field.name,
        "axes": [described[axis] for axis in axes],
        "datasets": [{"path": LEVEL, "coordinateTransformations": [transformation]}],
    }
    return image | ({"version": "0.4"} if version == "0.4" else {})


def _windows(field: Field) -> list[dict[str, float]]:
    """Return, per channel, the possible grey values and those shown from black to white: those of the middle frame."""
    seen = np.median(np.array([[(one[0], one[-1]) for one in frame] for frame in field.percentiles], float), axis=0)
    dtype, windows = np.dtype(field.dtype), []
    for low, high in seen.tolist():
        whole = np.iinfo(dtype) if dtype.kind in "iu" else None
        high = high if high > low else low + 1
        lowest, highest = (float(whole.min), float(whole.max)) if whole else (min(low, 0.0), max(high, 1.0))
        windows.append({"min": lowest, "max": highest, "start": low, "end": high})
    return windows
