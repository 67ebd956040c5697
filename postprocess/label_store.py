"""labels.zarr: every method's cells on top of the image, as OME-Zarr 0.5 that napari opens with the right pixel size.

Layout (a bioformats2raw collection like the data set)::

    labels.zarr/
      <slug>/s0                            t, c, y, x   the image
      <slug>/labels/<method>/s0            t, y, x      int32; 0 background, each positive value a cell
      <slug>/labels/<method>/mark          t            uint32, set once a frame is whole (likewise <slug>/mark)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data_io.errors import BadInput
from postprocess.frame_store import FrameStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from data_io.store import Dataset, Field, FrameRef

LEVEL = "s0"


class LabelStore:
    """Cells of several methods on the frames of one data set, read and written a frame at a time."""

    def __init__(self, path: Path, dataset: Dataset) -> None:
        self.path = path
        self.dataset = dataset
        self._stores: dict[tuple[str, str], FrameStore] = {}

    def prepare(self, methods: Sequence[str]) -> None:
        """Make room for the methods on every field; what is there already is kept."""
        import zarr

        fields = list(self.dataset.fields.values())
        _group(self.path, {"ome": {"version": "0.5", "bioformats2raw.layout": 3}})
        _group(self.path / "OME", {"ome": {"version": "0.5", "series": [field.slug for field in fields]}})
        for field in fields:
            folder = self.path / field.slug
            _group(folder, {"ome": _multiscales(field, "tcyx")})
            image = (field.n_frames, len(field.channels), *field.shape)
            self._stores[field.name, ""] = _frames(folder, image, field.dtype, "tcyx")
            _group(folder / "labels", {})
            stored: dict[str, Any] = dict(zarr.open_group(folder / "labels", mode="r").attrs)
            listed = stored.get("ome", {}).get("labels", [])
            everything = [*listed, *(method for method in methods if method not in listed)]
            _group(folder / "labels", {"ome": {"version": "0.5", "labels": everything}})
            for method in methods:
                overlay = {"image-label": {"version": "0.5", "source": {"image": "../../"}}}
                _group(folder / "labels" / method, {"ome": _multiscales(field, "tyx") | overlay})
                shape = (field.n_frames, *field.shape)
                self._stores[field.name, method] = _frames(folder / "labels" / method, shape, "int32", "tyx")

    def copy_image(self, ref: FrameRef) -> None:
        """Copy a frame of the data set, unless it is there."""
        store = self._frames(ref, "")
        if not store.mark(ref.frame):
            store.write(ref.frame, **{LEVEL: self.dataset.image(ref)})

    def write(self, method: str, ref: FrameRef, labels: Any) -> int:
        """Write the ``(Y, X)`` int32 cells of a frame and return their checksum."""
        store = self._frames(ref, method)
        store.write(ref.frame, **{LEVEL: labels})
        return store.mark(ref.frame)

    def mark(self, method: str, ref: FrameRef) -> int:
        """Return the checksum of a frame's cells, 0 if they were not written."""
        return self._frames(ref, method).mark(ref.frame)

    def read(self, method: str, ref: FrameRef) -> Any:
        """Return the ``(Y, X)`` int32 cells of a frame; a missing or damaged one is refused."""
        return self._frames(ref, method).read(ref.frame)[LEVEL]

    def _frames(self, ref: FrameRef, method: str) -> FrameStore:
        if ref.field not in self.dataset.fields:
            raise BadInput(f"{self.path}: no field {ref.field!r}; it has {', '.join(self.dataset.fields)}")
        if (ref.field, method) not in self._stores:
            image = self.path / self.dataset.fields[ref.field].slug
            folder = image / "labels" / method if method else image
            if not (folder / LEVEL).is_dir():
                raise BadInput(f"{folder}: no such cells; run `python -m postprocess.run {self.path.parent}`")
            self._stores[ref.field, method] = FrameStore(folder, [LEVEL])
        return self._stores[ref.field, method]


def _frames(folder: Path, shape: tuple[int, ...], dtype: str, axes: str) -> FrameStore:
    """Open the frames in a folder, or make them anew where there are none of this shape and type."""
    import zarr

    if (folder / LEVEL / "zarr.json").is_file() and (folder / "mark" / "zarr.json").is_file():
        array = zarr.open_array(folder / LEVEL, mode="r")
        if array.shape == shape and array.dtype == dtype:
            return FrameStore(folder, [LEVEL])
    return FrameStore.create(folder, {LEVEL: (shape, dtype, axes)})


def _group(path: Path, attributes: dict[str, Any]) -> None:
    import zarr

    group = zarr.open_group(path, mode="a")
    if attributes and dict(group.attrs) != attributes:
        group.attrs.put(attributes)


def _multiscales(field: Field, axes: str) -> dict[str, Any]:
    """Return OME-Zarr 0.5 image metadata; units are stated where the size is known."""
    kinds = {"t": "time", "c": "channel", "y": "space", "x": "space"}
    sizes = {"t": field.frame_interval_s, "c": None, "y": field.pixel_size_um, "x": field.pixel_size_um}
    units = {"t": "second", "y": "micrometer", "x": "micrometer"}
    described = [{"name": axis, "type": kinds[axis]} | ({"unit": units[axis]} if sizes[axis] else {}) for axis in axes]
    scale = {"type": "scale", "scale": [float(sizes[axis] or 1.0) for axis in axes]}
    dataset = {"path": LEVEL, "coordinateTransformations": [scale]}
    return {"version": "0.5", "multiscales": [{"name": field.name, "axes": described, "datasets": [dataset]}]}
