"""The data set on disk: the only file that knows the paths inside dataset.zarr.

A store is a bioformats2raw collection of OME-Zarr 0.5 images, one per field, with our own facts beside them::

    dataset.zarr/
      zarr.json                  attributes "ome" (collection) and "dataset" (fields, splits, normalisation, ...)
      OME/zarr.json              the order of the fields
      <slug>/zarr.json           OME-Zarr image
      <slug>/s0                  t, c, y, x; one checksummed chunk per frame
      <slug>/labels/truth/s0     t, y, x int32; 0 background, each positive value a cell
      manifest.json              size and SHA-256 of every file above; written last: without it the store is unfinished

It is written once by `Writer` and read-only from then on.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_io.errors import BadInput
from data_io.files import sha256, write_json
from data_io.normalise import normalise, rule_limits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

FORMAT = 2
MANIFEST = "manifest.json"
LEVEL = "s0"
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

    def __init__(self, path: Path, facts: dict[str, Any], content_hash: str) -> None:
        self.path = path
        self.facts = facts
        self.content_hash = content_hash
        self.name: str = facts["name"]
        self.synthetic: bool = facts["synthetic"]
        self.warnings: tuple[str, ...] = tuple(facts["warnings"])
        self.normalisation: dict[str, Any] = facts["normalisation"]
        self.recommended: dict[str, Any] = facts["recommended"]
        self.fields: dict[str, Field] = {field["name"]: _field(field) for field in facts["fields"]}
        self.splits: Splits = _splits(facts["splits"])

    @classmethod
    def open(cls, path: Path | str) -> Dataset:
        """Open a store after checking that every file of its manifest is there in its full size.

        Raises
        ------
        BadInput
            No store, an unfinished one, or one that lost or cut a file.
        """
        path = Path(path)
        if not path.is_dir():
            raise BadInput(f"{path}: no such data set; make one with `python -m data_io.convert SOURCE {path}`")
        manifest = _manifest(path)
        _check_files(path, manifest["files"])
        facts = json.loads((path / "zarr.json").read_text())["attributes"]["dataset"]
        return cls(path, facts, manifest["content_hash"])

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
        if array not in self._arrays:
            import zarr

            self._arrays[array] = zarr.open_array(self.path / array, mode="r")
        opened = self._arrays[array]
        chunk = self.path / array / "c" / "/".join([str(frame), *["0"] * (opened.ndim - 1)])
        if not chunk.exists():  # zarr would read it as zeros
            raise BadInput(f"{chunk}: missing chunk; convert the source again into a new store")
        try:
            return np.asarray(opened[frame])
        except (RuntimeError, ValueError, OSError) as fault:
            raise BadInput(f"{chunk}: damaged chunk ({fault}); convert the source again into a new store") from fault


class Writer:
    """Fills a new store frame by frame; `finish` writes the facts and, last of all, the manifest."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._digests: list[str] = []
        path.mkdir(parents=True)

    def field(self, field: Field) -> tuple[Any, Any | None]:
        """Create the arrays of a field and return them: image `(t, c, y, x)`, truth `(t, y, x)` or None."""
        image = self._array(f"{field.slug}/{LEVEL}", (field.n_frames, len(field.channels), *field.shape), field.dtype)
        _group(self.path / field.slug, {"ome": _multiscales(field, "tcyx")})
        if not any(field.annotated):
            return image, None
        truth = self._array(f"{field.slug}/{TRUTH}/{LEVEL}", (field.n_frames, *field.shape), "int32")
        _group(self.path / field.slug / "labels", {"ome": {"version": "0.5", "labels": ["truth"]}})
        source = {"version": "0.5", "source": {"image": "../../"}}
        _group(self.path / field.slug / TRUTH, {"ome": _multiscales(field, "tyx") | {"image-label": source}})
        return image, truth

    def frame(self, array: Any, index: int, frame: NDArray[Any]) -> str:
        """Write one frame and return the SHA-256 of its values; values count towards the store's content hash."""
        array[index] = frame
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
        """Write the facts and the manifest; `facts` has name, synthetic, warnings, recommended, source, provenance."""
        described = {
            "format": FORMAT,
            "fields": [asdict(field) for field in fields],
            "splits": {part: [[r.field, r.frame] for r in getattr(splits, part)] for part in PARTS}
            | {"unit": splits.unit, "warnings": list(splits.warnings), "hash": splits.hash},
            "normalisation": dict(normalisation),
            **facts,
        }
        _group(self.path, {"ome": {"version": "0.5", "bioformats2raw.layout": 3}, "dataset": described})
        _group(self.path / "OME", {"ome": {"version": "0.5", "series": [field.slug for field in fields]}})
        files = sorted(path for path in self.path.rglob("*") if path.is_file())
        content = [self._digests, described["fields"], described["splits"], described["normalisation"]]
        manifest = {
            "format": FORMAT,
            "content_hash": _hash(content),
            "files": {f.relative_to(self.path).as_posix(): [f.stat().st_size, sha256(f)] for f in files},
        }
        write_json(self.path / MANIFEST, manifest)

    def _array(self, name: str, shape: tuple[int, ...], dtype: str) -> Any:
        import zarr
        from zarr.codecs import ZstdCodec

        return zarr.create_array(
            self.path / name,
            shape=shape,
            chunks=(1, *shape[1:]),
            dtype=dtype,
            compressors=[ZstdCodec(level=1, checksum=True)],
            dimension_names=list("tcyx" if len(shape) == 4 else "tyx"),
            config={"write_empty_chunks": True},
        )


def is_store(path: Path) -> bool:
    """Say whether there is a store at `path`, complete or not."""
    return (path / MANIFEST).is_file() or (path / "zarr.json").is_file()


def _manifest(path: Path) -> dict[str, Any]:
    if not (path / MANIFEST).is_file():
        kind = "an unfinished data set" if (path / "zarr.json").is_file() else "not a data set"
        raise BadInput(f"{path}: {kind} (no {MANIFEST}); make it with `python -m data_io.convert SOURCE OUT.zarr`")
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text())
    except ValueError as fault:
        raise BadInput(f"{path / MANIFEST}: not JSON ({fault}); convert the source again into a new store") from fault
    if manifest.get("format") != FORMAT:
        raise BadInput(f"{path}: format {manifest.get('format')}, not {FORMAT}; convert the source again")
    return manifest


def _check_files(path: Path, files: dict[str, list[Any]]) -> None:
    """Compare every size, and the SHA-256 of the metadata, which has no checksum of its own."""
    for name, (size, digest) in files.items():
        file = path / name
        if ".." in Path(name).parts or not file.is_file():
            raise BadInput(f"{file}: missing; convert the source again into a new store")
        if file.stat().st_size != size:
            raise BadInput(f"{file}: {file.stat().st_size} bytes instead of {size}; convert the source again")
        if file.name == "zarr.json" and sha256(file) != digest:
            raise BadInput(f"{file}: changed since it was written; convert the source again into a new store")


def _group(path: Path, attributes: dict[str, Any]) -> None:
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": attributes})


def _multiscales(field: Field, axes: str) -> dict[str, Any]:
    """Return the OME-Zarr image metadata; a unit is stated only where the size is known."""
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
    return {"version": "0.5", "multiscales": [image]}


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


def _splits(stored: dict[str, Any]) -> Splits:
    parts = {part: tuple(FrameRef(field, frame) for field, frame in stored[part]) for part in PARTS}
    return Splits(**parts, unit=stored["unit"], warnings=tuple(stored["warnings"]))


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
