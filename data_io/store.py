"""The data set on disk: the only file that knows the paths inside dataset.zarr.

A store is a bioformats2raw collection of OME-Zarr images, one per field, with our own facts beside them::

    dataset.zarr/
      zarr.json                  attributes "ome" (collection) and "dataset" (fields, splits, normalisation, ...)
      OME/zarr.json              the order of the fields
      OME/METADATA.ome.xml       the same for readers that ask OME-XML, with the groups of each field
      <slug>/zarr.json           OME-Zarr image, with "groups"
      <slug>/s0                  t, c, y, x; one checksummed chunk per frame up to 2048 px, else a grid of such chunks
      <slug>/labels/truth/s0     t, y, x int32; 0 background, each positive value a cell; frames that are not annotated
                                 are 0 and not in the attribute "annotated_frames"; track ids are label properties
      manifest.json              size and SHA-256 of every file above; written last: without it the store is unfinished

This is OME-Zarr 0.5 (zarr v3); in 0.4 (zarr v2) `.zgroup`, `.zattrs` and `.zarray` stand for `zarr.json`. A store is
written once by `Writer` and read-only from then on; it lies in a folder or at `s3://bucket/name`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from data_io import integrity, location, ngff, stored_facts
from data_io.errors import BadInput
from data_io.integrity import FORMAT, MANIFEST
from data_io.location import located
from data_io.ngff import LEVEL
from data_io.normalise import normalise, rule_limits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from data_io.integrity import Manifest, Progress

ROOTS = ("zarr.json", ".zattrs")
"""Where the facts stand in 0.5 and in 0.4."""
TRUTH = "labels/truth"
PARTS = ("train", "val", "test")


@dataclass(frozen=True, order=True)
class FrameRef:
    """One frame: the name of its field and its number in it, from 0."""

    field: str
    frame: int


@dataclass(frozen=True)
class Field:
    """One field of view and what is known about it; sequences have one entry per frame."""

    name: str
    slug: str
    n_frames: int
    channels: tuple[str, ...]
    shape: tuple[int, int]
    """(Y, X) in px."""
    dtype: str
    pixel_size_um: float | None
    frame_interval_s: float | None
    groups: dict[str, str]
    """patient, well, condition, ... as far as known."""
    annotated: tuple[bool, ...]
    cells: tuple[int, ...]
    """Annotated cells per frame; 0 where a frame is not annotated."""
    sources: tuple[str, ...]
    """The file each frame came from."""
    percentiles: tuple[tuple[tuple[float, float], ...], ...]
    """Per frame and channel: the 1 % and 99.8 % grey values."""
    tracked: bool
    """A cell keeps its label over time."""
    annotation: str
    """"labels", "binary: connected components" or "none"."""

    def refs(self) -> list[FrameRef]:
        """Return all frames of the field."""
        return [FrameRef(self.name, frame) for frame in range(self.n_frames)]


@dataclass(frozen=True)
class Splits:
    """Which annotated frames train, which choose, which are reported; the rest is in no part."""

    train: tuple[FrameRef, ...]
    val: tuple[FrameRef, ...]
    test: tuple[FrameRef, ...]
    unit: str
    """What is kept together: "field", "time" or a group such as "well"; "none" without annotation."""
    warnings: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """SHA-256 over the three lists."""
        return _hash([[(ref.field, ref.frame) for ref in getattr(self, part)] for part in PARTS])


class Dataset:
    """A complete store, opened for reading; see `Dataset.open`."""

    def __init__(self, path: Path, facts: dict[str, Any], manifest: Manifest) -> None:
        self.path = path
        self.facts = facts
        self.manifest = manifest
        self.content_hash = manifest.content_hash
        self.name: str = facts["name"]
        self.synthetic: bool = facts["synthetic"]
        self.warnings: tuple[str, ...] = tuple(facts["warnings"])
        self.normalisation: dict[str, Any] = facts["normalisation"]
        self.recommended: dict[str, Any] = facts["recommended"]
        self.fingerprint: dict[str, Any] = facts.get("fingerprint", {})
        self.ome_zarr: str = facts["ome_zarr"]
        self.fields: dict[str, Field] = {field["name"]: _field(field) for field in facts["fields"]}
        self.splits: Splits = _splits(facts["splits"])

    @classmethod
    def open(cls, path: Path | str) -> Dataset:
        """Open a store after checking that every file of its manifest is there in its full size.

        Metadata are compared byte by byte, chunks when they are read, or all at once by `preflight`.

        Raises
        ------
        BadInput
            No store, an unfinished one, one that lost or cut a file, one with links, objects or unknown codecs.
        """
        path = located(path)
        with location.reaching(path):
            sizes = location.sizes(path)
            if not sizes and not path.is_dir():
                location.check_bucket(path)
                raise BadInput(f"{path}: no such data set; make one with `python -m data_io.convert SOURCE {path}`")
            manifest = integrity.load(path, sizes)
            metadata = integrity.glance(path, manifest, sizes)
        facts = _facts(path, metadata)
        stored_facts.check(path, facts)
        _check_arrays(path, metadata, facts["fields"])
        return cls(path, facts, manifest)

    def preflight(self, progress: Progress | None = None) -> None:
        """Read every byte of the store and compare it with the manifest; `progress(files done, files in all)`.

        Raises
        ------
        BadInput
            `integrity.Damaged`, which names every missing, cut, changed or foreign file, by array and chunk.
        """
        with location.reaching(self.path):
            integrity.preflight(self.path, self.manifest, progress)

    @property
    def n_folds(self) -> int:
        """Folds stored beside the split; 0 when there are none."""
        return len(self.facts.get("folds", []))

    def in_fold(self, fold: int) -> Dataset:
        """Return the same data set split as in a stored fold, from 0; its content hash is another.

        Raises
        ------
        BadInput
            There is no such fold.
        """
        if not 0 <= fold < self.n_folds:
            held = f"has folds 0 to {self.n_folds - 1}" if self.n_folds else "has no folds"
            raise BadInput(f"{self.path}: {held}, fold {fold} is asked for; convert it with --folds K to get some")
        stored = self.facts["folds"][fold]
        manifest = replace(self.manifest, content_hash=_hash([self.content_hash, stored["hash"]]))
        return Dataset(self.path, self.facts | {"splits": stored}, manifest)

    @property
    def channels(self) -> int:
        """Channels of the images, the same in every field."""
        return len(next(iter(self.fields.values())).channels)

    def frames(self, split: str = "all") -> list[FrameRef]:
        """Return the frames of a part: train, val, test, unannotated or all.

        Raises
        ------
        BadInput
            Another name.
        """
        if split in PARTS:
            return list(getattr(self.splits, split))
        everything = [ref for field in self.fields.values() for ref in field.refs()]
        if split == "unannotated":
            return [ref for ref in everything if not self.fields[ref.field].annotated[ref.frame]]
        if split == "all":
            return everything
        raise BadInput(f"split {split!r}: unknown; choose from {', '.join(PARTS)}, unannotated, all")

    def split_of(self, ref: FrameRef) -> str:
        """Return train, val, test, unannotated, or gap for an annotated frame left out between two parts."""
        if not self._field(ref).annotated[ref.frame]:
            return "unannotated"
        return self._part.get(ref, "gap")

    def image(self, ref: FrameRef) -> NDArray[Any]:
        """Return a frame as stored: `(C, Y, X)`, grey values in the field's dtype."""
        return self._read(f"{self._field(ref).slug}/{LEVEL}", ref.frame)

    def limits(self, ref: FrameRef) -> NDArray[np.float64]:
        """Return `(C, 2)`: the grey values of a frame that become 0 and 1."""
        field = self._field(ref)
        return rule_limits(field.percentiles[ref.frame], self.normalisation, field.dtype)

    def normalised(self, ref: FrameRef) -> NDArray[np.float32]:
        """Return a frame as a network sees it: `(C, Y, X)` float32, clipped to [-1, 3]."""
        return normalise(self.image(ref), self.limits(ref))

    def labels(self, ref: FrameRef) -> NDArray[np.int32]:
        """Return the annotation of a frame: `(Y, X)` int32, 0 background, each positive value a cell.

        Raises
        ------
        BadInput
            The frame is not annotated.
        """
        field = self._field(ref)
        if not field.annotated[ref.frame]:
            raise BadInput(f"{self.path}: {ref.field} frame {ref.frame} is not annotated; choose an annotated frame")
        return self._read(f"{field.slug}/{TRUTH}/{LEVEL}", ref.frame)

    @cached_property
    def _part(self) -> dict[FrameRef, str]:
        return {ref: part for part in PARTS for ref in getattr(self.splits, part)}

    @cached_property
    def _arrays(self) -> dict[str, Any]:
        return {}

    def _field(self, ref: FrameRef) -> Field:
        field = self.fields.get(ref.field)
        if field is None or not 0 <= ref.frame < field.n_frames:
            raise BadInput(f"{self.path}: has no frame {ref.frame} of {ref.field!r}; fields: {', '.join(self.fields)}")
        return field

    def _read(self, array: str, frame: int) -> NDArray[Any]:
        from data_io import zarr_io

        with location.reaching(self.path):
            if array not in self._arrays:
                self._arrays[array] = zarr_io.open_array(zarr_io.store_at(self.path, read_only=True), array)
            return zarr_io.read_frame(self._arrays[array], frame, self.path)


class Writer:
    """Fills a new store frame by frame; `finish` writes the facts and, last of all, the manifest.

    Parameters
    ----------
    path
        A folder to make, or an s3:// place from `location.located`; `files.building` gives one.
    ome_zarr
        "0.5", or "0.4" for readers that do not know zarr v3.

    Raises
    ------
    BadInput
        Another version.
    FileExistsError
        There is something at `path`.
    """

    def __init__(self, path: Path, ome_zarr: str = ngff.DEFAULT) -> None:
        from data_io import zarr_io

        if ome_zarr not in ngff.ZARR_FORMATS:
            raise BadInput(f"OME-Zarr {ome_zarr}: not written; choose from {', '.join(ngff.ZARR_FORMATS)}")
        self.path = path
        self.ome_zarr = ome_zarr
        self._zarr_format = ngff.ZARR_FORMATS[ome_zarr]
        self._digests: list[str] = []
        self._tracks: dict[str, dict[int, tuple[int, int]]] = {}
        self._arrays: dict[str, Any] = {}
        self._token = integrity.begin(path)
        self._store = zarr_io.Recorded(zarr_io.store_at(path))

    def field(self, field: Field) -> tuple[Any, Any | None]:
        """Create the arrays of a field and return them: image `(t, c, y, x)`, truth `(t, y, x)` or None."""
        shape = (field.n_frames, len(field.channels), *field.shape)
        image = self._array(f"{field.slug}/{LEVEL}", shape, field.dtype, "tcyx")
        if not any(field.annotated):
            return image, None
        return image, self._array(f"{field.slug}/{TRUTH}/{LEVEL}", (field.n_frames, *field.shape), "int32", "tyx")

    def frame(self, array: Any, index: int, frame: NDArray[Any]) -> str:
        """Write one frame and return the SHA-256 of its values; values count towards the store's content hash."""
        from data_io import zarr_io

        zarr_io.write_region(array, (index,), frame)
        if array.path.endswith(f"{TRUTH}/{LEVEL}"):
            seen = self._tracks.setdefault(array.path, {})
            for label in _values(frame):
                first, last = seen.get(label, (index, index))
                seen[label] = (min(first, index), max(last, index))
        self._digests.append(hashlib.sha256(np.ascontiguousarray(frame).data).hexdigest())
        return self._digests[-1]

    def finish(
        self,
        *,
        fields: Sequence[Field],
        splits: Splits,
        normalisation: Mapping[str, Any],
        facts: Mapping[str, Any],
    ) -> None:
        """Write the facts and the manifest; `facts` has name, synthetic, warnings, recommended, source, provenance.

        Raises
        ------
        BadInput
            Another program wrote to the same place.
        RuntimeError
            A frame was left out.
        """
        described = {
            "format": FORMAT,
            "ome_zarr": self.ome_zarr,
            "fields": [asdict(field) for field in fields],
            "splits": splits_as_facts(splits),
            "normalisation": dict(normalisation),
            **facts,
        }
        json.dumps(described, allow_nan=False)  # ValueError: JSON has no NaN
        for field in fields:
            self._describe(field)
        self._group("OME", ngff.series([field.slug for field in fields], self.ome_zarr))
        self._write(ngff.XML, ngff.ome_xml(fields))
        self._group("", ngff.collection(self.ome_zarr) | {"dataset": described})
        content = [self._digests, described["fields"], described["splits"], described["normalisation"]]
        integrity.seal(self.path, self._token, _hash(content), self._files())

    def _describe(self, field: Field) -> None:
        """Write the groups of a field; frames that are not annotated get chunks of zeros."""
        self._group(field.slug, ngff.image(field, version=self.ome_zarr))
        name = f"{field.slug}/{TRUTH}/{LEVEL}"
        if name not in self._arrays:
            return
        for frame in np.flatnonzero(~np.array(field.annotated)).tolist():
            self._arrays[name][frame] = 0
        tracks = self._tracks.get(name) if field.tracked else None
        annotated = {"annotated_frames": np.flatnonzero(field.annotated).tolist()}
        self._group(f"{field.slug}/labels", ngff.labels(["truth"], self.ome_zarr))
        self._group(f"{field.slug}/{TRUTH}", ngff.label_image(field, self.ome_zarr, tracks) | annotated)

    def _files(self) -> dict[str, tuple[int, str]]:
        """Return size and SHA-256 of all files, as they were handed over to be written."""
        from data_io import zarr_io

        written = self._store.written
        for array in self._arrays.values():
            left_out = [key for key in zarr_io.chunk_keys(array) if key not in written]
            if left_out:
                raise RuntimeError(f"{self.path / left_out[0]}: this chunk was not written")
        location.flush(self.path)
        sizes = location.sizes(self.path)
        sizes.pop(MANIFEST)
        if sizes != {name: size for name, (size, _) in written.items()}:
            raise BadInput(f"{self.path}: holds other files than were written; choose another name and start again")
        return written

    def _array(self, name: str, shape: tuple[int, ...], dtype: str, axes: str) -> Any:
        from data_io import zarr_io

        array = zarr_io.create_array(self._store, name, shape, dtype, axes, zarr_format=self._zarr_format)
        self._arrays[name] = array
        return array

    def _group(self, name: str, attributes: dict[str, Any]) -> None:
        from data_io import zarr_io

        zarr_io.set_attributes(self._store, name, attributes, zarr_format=self._zarr_format)

    def _write(self, name: str, data: bytes) -> None:
        location.write_bytes(self.path / name, data)
        self._store.record(name, data)


def is_store(path: Path) -> bool:
    """Say whether there is a store of ours at `path`, complete or not; any other OME-Zarr is not."""
    if (path / MANIFEST).is_file():
        return True
    try:
        root = next(path / name for name in ROOTS if (path / name).is_file())
        attributes = json.loads(location.read_bytes(root))
    except (StopIteration, ValueError, RecursionError):
        return False
    told = attributes.get("attributes", attributes) if isinstance(attributes, dict) else None
    return isinstance(told, dict) and "dataset" in told


def store_around(place: Path) -> Path | None:
    """Return the finished store that a folder of this machine is, or lies in: nothing may be written there."""
    if location.is_remote(place):
        return None
    for folder in (place.resolve(), *place.resolve().parents):
        if (folder / MANIFEST).is_file() and any((folder / name).is_file() for name in ("zarr.json", ".zgroup")):
            return folder
    return None


def _values(labels: NDArray[Any]) -> list[int]:
    """Return the labels of a frame, in order; counting is faster than sorting unless they are huge."""
    if labels.max(initial=0) > labels.size:
        return [int(label) for label in np.unique(labels) if label > 0]
    return (np.flatnonzero(np.bincount(labels.ravel())[1:]) + 1).tolist()


def _facts(path: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    root: dict[str, Any] = next((metadata[name] for name in ROOTS if name in metadata), {})
    attributes = root.get("attributes", root) if isinstance(root, dict) else {}
    facts = attributes.get("dataset") if isinstance(attributes, dict) else None
    if not isinstance(facts, dict):
        raise BadInput(f"{path}: no facts of a data set in it; convert the source again into a new store")
    return facts


def _check_arrays(path: Path, metadata: dict[str, Any], fields: Sequence[dict[str, Any]]) -> None:
    """Refuse arrays that are not plain numbers, and fields that lie outside the store."""
    from data_io import zarr_io

    for name, described in metadata.items():
        if name.endswith("/.zarray") or described.get("node_type") == "array":
            zarr_io.check_array(path / name, described)
    for field in fields:
        shape = [field["n_frames"], *field["shape"]]
        wanted = {f"{field['slug']}/{LEVEL}": [shape[0], len(field["channels"]), *shape[1:]]}
        if any(field["annotated"]):
            wanted[f"{field['slug']}/{TRUTH}/{LEVEL}"] = shape
        for array, expected in wanted.items():
            found = [metadata[name] for name in (f"{array}/zarr.json", f"{array}/.zarray") if name in metadata]
            if not found:
                raise BadInput(f"{path / array}: no such array in the manifest; convert the source again")
            if found[0].get("shape") != expected:
                told = f"{found[0].get('shape')}, not {expected} as the facts say"
                raise BadInput(f"{path / array}: an array of {told}; convert the source again into a new store")


def _field(stored: dict[str, Any]) -> Field:
    field = Field(**stored)
    return replace(
        field,
        channels=tuple(field.channels),
        shape=(field.shape[0], field.shape[1]),
        annotated=tuple(field.annotated),
        cells=tuple(field.cells),
        sources=tuple(field.sources),
        percentiles=tuple(tuple((low, high) for low, high in frame) for frame in field.percentiles),
    )


def splits_as_facts(splits: Splits) -> dict[str, Any]:
    """Return a split ready for JSON, with its hash."""
    parts = {part: [[ref.field, ref.frame] for ref in getattr(splits, part)] for part in PARTS}
    return parts | {"unit": splits.unit, "warnings": list(splits.warnings), "hash": splits.hash}


def _splits(stored: dict[str, Any]) -> Splits:
    parts = {part: tuple(FrameRef(field, frame) for field, frame in stored[part]) for part in PARTS}
    return Splits(**parts, unit=stored["unit"], warnings=tuple(stored["warnings"]))


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
