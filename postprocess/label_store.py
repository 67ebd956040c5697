"""labels.zarr: every method's cells on top of the image, as OME-Zarr 0.5 that napari opens with the right pixel size.

Layout (a bioformats2raw collection like the data set)::

    labels.zarr/
      <slug>/s0                            t, c, y, x   the image
      <slug>/labels/<method>/s0            t, y, x      int32; 0 background, each positive value a cell
      <slug>/labels/<method>/mark          t            uint32, set once a frame is whole (likewise <slug>/mark)
      <slug>/labels/<method>/zarr.json     attribute "segmented_frames": in all others 0 does not mean "no cell"
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data_io import ngff
from data_io.errors import BadInput
from data_io.files import write_bytes
from data_io.ngff import LEVEL
from postprocess.colours import of_labels
from postprocess.frame_store import MARK, FrameStore

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from data_io.store import Dataset, Field, FrameRef

SEGMENTED = "segmented_frames"


class LabelStore:
    """Cells of several methods on the frames of one data set, read and written a frame at a time."""

    def __init__(self, path: Path, dataset: Dataset) -> None:
        self.path = path
        self.dataset = dataset
        self._stores: dict[tuple[str, str], FrameStore] = {}

    def prepare(self, methods: Sequence[str]) -> None:
        """Make room for the methods on every field; their cells that are there already are kept.

        Methods that are no longer among them are no longer listed; label images of other programs stay.
        """
        from data_io.zarr_io import attributes, set_attributes

        fields = list(self.dataset.fields.values())
        set_attributes(self.path, "", ngff.collection())
        set_attributes(self.path, "OME", ngff.series([field.slug for field in fields]))
        described, xml = ngff.ome_xml(fields), self.path / ngff.XML
        if not xml.is_file() or xml.read_bytes() != described:
            write_bytes(xml, described)
        for field in fields:
            folder, group = self.path / field.slug, f"{field.slug}/labels"
            set_attributes(self.path, field.slug, ngff.image(field))
            image = (field.n_frames, len(field.channels), *field.shape)
            self._stores[field.name, ""] = _frames(folder, image, field.dtype, "tcyx")
            set_attributes(self.path, group, {})
            listed = attributes(self.path, group).get("ome", {}).get("labels", [])
            kept = [name for name in listed if name in methods or not (folder / "labels" / name / MARK).is_dir()]
            set_attributes(self.path, group, ngff.labels([*kept, *(name for name in methods if name not in kept)]))
            for method in methods:
                known = (folder / "labels" / method / "zarr.json").is_file()
                colours = colours_of(attributes(self.path, f"{group}/{method}")) if known else []
                set_attributes(self.path, f"{group}/{method}", described_in(colours, field))
                shape = (field.n_frames, *field.shape)
                self._stores[field.name, method] = _frames(folder / "labels" / method, shape, "int32", "tyx")

    def methods(self) -> list[str]:
        """Return the methods that have label images of some field, in the order they were added."""
        from data_io.zarr_io import attributes

        found: dict[str, None] = {}
        for field in self.dataset.fields.values():
            group = f"{field.slug}/labels"
            if (self.path / group / "zarr.json").is_file():
                found |= dict.fromkeys(attributes(self.path, group).get("ome", {}).get("labels", []))
        return list(found)

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

    def keep(self, method: str, refs: Collection[FrameRef], highest: Mapping[str, int]) -> None:
        """Forget the method's cells on all other frames, list the frames it has, and give every label a colour.

        Parameters
        ----------
        method, refs
            The method and the frames it has cells of.
        highest
            Field -> highest label.
        """
        from data_io.zarr_io import set_attributes

        for field in self.dataset.fields.values():
            described = described_in(of_labels(highest.get(field.name, 0)), field)
            set_attributes(self.path, f"{field.slug}/labels/{method}", described)
            listed = [ref.frame for ref in field.refs() if ref in refs]
            for ref in field.refs():
                if ref.frame not in listed and self.mark(method, ref):
                    self._frames(ref, method).forget(ref.frame)
            set_attributes(self.path, f"{field.slug}/labels/{method}", {SEGMENTED: listed})

    def mark(self, method: str, ref: FrameRef) -> int:
        """Return the checksum of a frame's cells, 0 if they were not written."""
        return self._frames(ref, method).mark(ref.frame)

    def read(self, method: str, ref: FrameRef) -> Any:
        """Return the ``(Y, X)`` int32 cells of a frame; one not segmented, or damaged, is refused."""
        store, n_frames = self._frames(ref, method), self.dataset.fields[ref.field].n_frames
        if not 0 <= ref.frame < n_frames:
            raise BadInput(f"{self.path}: {ref.field} has no frame {ref.frame}; it has 0 to {n_frames - 1}")
        if not store.mark(ref.frame):
            raise BadInput(
                f"{self.path}: {method} has no cells of frame {ref.frame} of {ref.field}, it was not segmented; "
                f"predict it, then run `python -m postprocess.run {self.path.parent}`"
            )
        return store.read(ref.frame)[LEVEL]

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


def described_in(colours: list[dict[str, Any]], field: Field) -> dict[str, Any]:
    """Return the attributes of a label image whose labels have these colours."""
    described = ngff.label_image(field)
    if colours:
        described["ome"]["image-label"]["colors"] = colours
    return described


def colours_of(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the colours in the attributes of a label image."""
    return list(attributes.get("ome", {}).get("image-label", {}).get("colors", []))


def _frames(folder: Path, shape: tuple[int, ...], dtype: str, axes: str) -> FrameStore:
    """Open the frames in a folder, or make them anew where there are none of this shape and type."""
    from data_io.zarr_io import open_checked

    if (folder / LEVEL / "zarr.json").is_file() and (folder / "mark" / "zarr.json").is_file():
        array = open_checked(folder / LEVEL)
        if array.shape == shape and array.dtype == dtype:
            return FrameStore(folder, [LEVEL])
    return FrameStore.create(folder, {LEVEL: (shape, dtype, axes)})
