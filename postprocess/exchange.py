"""What other programs open: TrackMate, ImageJ and QuPath files, pictures of outlines, masks for TrackMate's detector.

RUN/exports/<method>/<field>_spots.csv       TrackMate's table of spots, four rows of headers
RUN/exports/<method>/<field>_rois.zip        ImageJ ROIs, positions from 1
RUN/exports/<method>/<field>_NNNNN.geojson   QuPath objects of a frame, pixels from the top left corner
RUN/exports/<method>/outlines/<field>_NNNNN.png and <field>.gif
RUN/exports/<method>/binary/<field>_NNNNN.png   0 and 255, touching cells parted: TrackMate's threshold detector
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from data_io.errors import BadInput, disk_full, is_disk_full
from data_io.files import slug, write_bytes
from postprocess import export, outlines
from postprocess.colours import COLOURS
from postprocess.tables import read_parquet
from postprocess.three_class import part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray
    from PIL.Image import Image

    from data_io.store import Field, FrameRef

FOLDER = "exports"
GIF_SIDE = 720
"""Longest side of a frame of the animation, pixels."""
PNG_SIDE = 8192
"""Longest side of a picture of a frame, pixels."""
LEGIBLE = 512
"""Smaller frames are drawn twice as large, so that ids can be read."""
STRIP = 1024
"""Rows of a mask made at once."""
WHITE = (255, 255, 255)
WRITING: dict[str, Any] = {"fill": WHITE, "stroke_width": 1, "stroke_fill": (0, 0, 0)}
LENGTH, AREA_UNIT = "LENGTH", "AREA"
SPOTS = (
    # feature, its name, its short name, dimension, column of the cells table
    ("LABEL", "Label", "Label", "", None),
    ("ID", "Spot ID", "Spot ID", "", None),
    ("TRACK_ID", "Track ID", "Track ID", "", "track"),
    ("QUALITY", "Quality", "Quality", "QUALITY", "area_px2"),
    ("POSITION_X", "X", "X", LENGTH, "centroid_x_px"),
    ("POSITION_Y", "Y", "Y", LENGTH, "centroid_y_px"),
    ("POSITION_Z", "Z", "Z", LENGTH, None),
    ("POSITION_T", "T", "T", "TIME", None),
    ("FRAME", "Frame", "Frame", "", "frame"),
    ("RADIUS", "Radius", "R", LENGTH, "radius_trackmate"),
    ("VISIBILITY", "Visibility", "Visibility", "", None),
    ("MANUAL_SPOT_COLOR", "Manual spot color", "Spot color", "", None),
    ("AREA", "Area", "Area", AREA_UNIT, "area_trackmate"),
    ("PERIMETER", "Perimeter", "Perimeter", LENGTH, "perimeter_trackmate"),
    ("CIRCULARITY", "Circularity", "Circ.", "", "circularity_trackmate"),
    ("SOLIDITY", "Solidity", "Solidity", "", "solidity_trackmate"),
    ("SHAPE_INDEX", "Shape index", "Shape index", "", "shape_index_trackmate"),
)


@dataclass(frozen=True)
class Movie:
    """The cells of one method in one field: its frames in order of time, how to read them, and their table."""

    folder: Path
    field: Field
    refs: tuple[FrameRef, ...]
    labels: Callable[[FrameRef], NDArray[np.int32]]
    image: Callable[[FrameRef], NDArray[Any]]
    table: pd.DataFrame

    @property
    def name(self) -> str:
        """What its files start with."""
        return slug(self.field.slug)

    def of(self, ref: FrameRef) -> pd.DataFrame:
        """Return the rows of a frame."""
        return self.table[self.table["frame"] == ref.frame]

    def file(self, ref: FrameRef, suffix: str, folder: str = "") -> Path:
        """Return where a file of a frame goes."""
        return self.folder / folder / f"{self.name}_{ref.frame:05d}{suffix}"


def write_exports(
    run: Path,
    kinds: Sequence[str],
    methods: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write files for other programs from what `postprocess.run` left; return them.

    Parameters
    ----------
    run
        A run with cells.parquet and labels.zarr.
    kinds
        Names of `KINDS`.
    methods
        Which methods; all by default.
    progress
        Called with (done, to do), counted in kinds of files times fields times methods.

    Raises
    ------
    BadInput
        An unknown kind or method, no cells yet, or a folder that cannot be written.
    """
    work = [(KINDS[kind], movie) for movie in movies(run, methods) for kind in kinds_of(",".join(kinds))]
    written: list[Path] = []
    try:
        for done, (write, movie) in enumerate(work, 1):
            written += write(movie)
            if progress is not None:
                progress(done, len(work))
    except OSError as fault:
        if is_disk_full(fault):
            raise disk_full(fault, run / FOLDER) from fault
        told = fault.strerror or type(fault).__name__
        raise BadInput(f"{run / FOLDER}: cannot be written ({told}); see to its rights") from fault
    return written


def movies(run: Path, methods: Sequence[str] | None = None) -> Iterator[Movie]:
    """Yield the cells of every method and field of a run."""
    if not (run / "cells.parquet").is_file():
        raise BadInput(f"{run}: no cells yet; run `python -m postprocess.run {run}` first")
    table = read_parquet(run / "cells.parquet", f"`python -m postprocess.run {run}` writes it anew")
    dataset = export.open_dataset(run)
    store = export.label_store(run)
    known = store.methods()
    for method in methods or known:
        if method not in known:
            raise BadInput(f"{run}: no method {method!r}; it has {', '.join(known)}")
        if slug(method) != method:
            raise BadInput(f"{store.path}: method {method!r} is no safe file name; rename it to {slug(method)!r}")
        for field in dataset.fields.values():
            refs = tuple(ref for ref in field.refs() if store.mark(method, ref))
            if refs:
                own = table[(table["method"] == method) & (table["field"] == field.name)]
                read = partial(store.read, method)
                yield Movie(run / FOLDER / method, field, refs, read, dataset.image, own)


def spots(movie: Movie) -> list[Path]:
    """Write TrackMate's table of spots: micrometres and seconds where they are known, else pixels and frames.

    The traits are TrackMate's own. A cell without a contour (1 or 2 pixels) is no spot there and is left out.
    """
    import pandas as pd

    cells = movie.table[movie.table["area_trackmate"].notna()].reset_index(drop=True)
    pixel, interval = movie.field.pixel_size_um, movie.field.frame_interval_s
    scale = {LENGTH: pixel or 1.0, AREA_UNIT: (pixel or 1.0) ** 2}
    length = "micron" if pixel else "pixel"
    units = {LENGTH: length, AREA_UNIT: f"{length}^2", "TIME": "sec" if interval else "frame", "QUALITY": "quality"}
    made: dict[str, Any] = {
        "ID": np.arange(len(cells)),
        "LABEL": [f"ID{at}" for at in range(len(cells))],
        "POSITION_Z": 0.0,
        "POSITION_T": cells["frame"] * (interval or 1.0),
        "VISIBILITY": 1,
        "MANUAL_SPOT_COLOR": "",
    }
    columns: dict[str, Any] = {}
    for feature, _, _, dimension, source in SPOTS:
        columns[feature] = made[feature] if source is None else cells[source] * scale.get(dimension, 1)
    rows = pd.DataFrame(columns, index=cells.index)
    heads = [[name for _, name, *_ in SPOTS], [short for _, _, short, *_ in SPOTS]]
    heads.append([f"({units[dimension]})" if dimension else "" for *_, dimension, _ in SPOTS])
    header = pd.DataFrame(heads, columns=list(columns))
    path = movie.folder / f"{movie.name}_spots.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    export.write_csv(path, pd.concat([header, rows.astype(object)], ignore_index=True))
    return [path]


def rois(movie: Movie) -> list[Path]:
    """Write the cells of all frames as one set of ImageJ ROIs, named frame-id, on the stack's slices from 1."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for ref in movie.refs:
            for label, pieces in outlines.cells(movie.labels(ref)):
                name = f"{ref.frame + 1:04d}-{label:05d}"
                archive.writestr(f"{name}.roi", _roi(pieces, name, ref.frame + 1).tobytes())
    path = movie.folder / f"{movie.name}_rois.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, packed.getvalue())
    return [path]


def _roi(pieces: list[list[NDArray[np.int64]]], name: str, position: int) -> Any:
    """Return a polygon, or a composite where a cell has pieces or holes."""
    import roifile

    every = [ring for piece in pieces for ring in piece]
    roi = roifile.ImagejRoi.frompoints(np.concatenate(every), name=name)
    roi.position = position
    roi.roitype = roifile.ROI_TYPE.POLYGON
    if len(every) > 1:
        segments: list[float] = []
        for ring in every:
            for at, (x, y) in enumerate(ring.tolist()):
                segments += [1.0 if at else 0.0, x, y]
            segments.append(4.0)
        corners = np.concatenate(every)
        roi.roitype = roifile.ROI_TYPE.RECT
        (roi.left, roi.top), (roi.right, roi.bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
        roi.n_coordinates, roi.integer_coordinates = 0, None
        roi.multi_coordinates = np.array(segments, np.float32)
        roi.shape_roi_size = len(segments)
    return roi


def geojson(movie: Movie) -> list[Path]:
    """Write the cells of each frame as QuPath detections with their measures, one file per frame."""
    written = []
    for ref in movie.refs:
        rows = {int(row["label"]): row for row in movie.of(ref).to_dict("records")}
        features = [
            {
                "type": "Feature",
                "geometry": _geometry(pieces),
                "properties": {
                    "objectType": "detection",
                    "name": f"cell {label}",
                    "measurements": _measurements(rows.get(label, {})),
                },
            }
            for label, pieces in outlines.cells(movie.labels(ref))
        ]
        path = movie.file(ref, ".geojson")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, json.dumps({"type": "FeatureCollection", "features": features}, allow_nan=False).encode())
        written.append(path)
    return written


def _geometry(pieces: list[list[NDArray[np.int64]]]) -> dict[str, Any]:
    polygons = [[[*ring.tolist(), ring[0].tolist()] for ring in piece] for piece in pieces]
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}


def _measurements(row: dict[str, Any]) -> dict[str, float]:
    """Return the measures of a cell that are finite numbers, and its track."""
    numbers = {name: value for name, value in row.items() if isinstance(value, int | float | np.number)}
    left_out = {"label", "frame", "bbox_y0", "bbox_x0", "bbox_y1", "bbox_x1", "border"}
    return {name: float(v) for name, v in numbers.items() if np.isfinite(v) and name not in left_out}


def outline_pictures(movie: Movie) -> list[Path]:
    """Write each frame with the outlines and ids of its cells as PNG; a frame above 8192 px is reduced."""
    written = []
    for ref in movie.refs:
        path = movie.file(ref, ".png", "outlines")
        _save(path, lambda stream, ref=ref: drawn(movie, ref).save(stream, format="PNG"))  # type: ignore[misc]
        written.append(path)
    return written


def animation(movie: Movie) -> list[Path]:
    """Write the outlined frames, numbered from 0 in their corner, as an animated GIF at most 720 px wide and high."""
    from PIL import ImageDraw

    path = movie.folder / "outlines" / f"{movie.name}.gif"

    def numbered(ref: FrameRef) -> Image:
        picture = drawn(movie, ref, GIF_SIDE)
        ImageDraw.Draw(picture).text((3, 1), str(ref.frame), **WRITING)  # equal pictures would become one
        return few_colours(picture)

    first, *others = movie.refs
    _save(
        path,
        lambda stream: numbered(first).save(
            stream, format="GIF", save_all=True, append_images=map(numbered, others), duration=200, loop=0, disposal=1
        ),
    )
    return [path]


def few_colours(picture: Image) -> Image:
    """Return the picture in the colours of outlines, which stay as they are, and 65 greys."""
    from PIL import Image

    palette = Image.new("P", (1, 1))
    greys = np.arange(0, 256, 4).repeat(3).tolist()
    palette.putpalette([*(part for colour in COLOURS for part in colour), *greys, *WHITE])
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


def drawn(movie: Movie, ref: FrameRef, longest: int = PNG_SIDE) -> Image:
    """Return the first channel of a frame in 8 bit, outlines coloured by track over it, the track's id in each cell.

    A frame with a side above ``longest`` px is reduced by taking every n-th pixel, a small one is drawn twice as large.
    """
    from PIL import Image, ImageDraw

    shape = movie.field.shape
    step = -(-max(shape) // longest)
    zoom = 2 if max(shape) < LEGIBLE else 1
    grey = eight_bit(movie.image(ref)[0, ::step, ::step]).repeat(zoom, axis=0).repeat(zoom, axis=1)
    labels = movie.labels(ref)[::step, ::step].repeat(zoom, axis=0).repeat(zoom, axis=1)
    rows = movie.of(ref)
    track = dict(zip(rows["label"].tolist(), rows["track"].tolist(), strict=True))
    edge = _inner_edge(labels)
    ids, inverse = np.unique(labels[edge], return_inverse=True)
    tint = [COLOURS[int(track.get(label, label)) % len(COLOURS)] for label in ids.tolist()]
    canvas = np.repeat(grey[..., None], 3, axis=-1)
    canvas[edge] = np.array(tint, np.uint8).reshape(-1, 3)[inverse]
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    for row in rows.itertuples():
        middle = ((row.centroid_x_px + 0.5) * zoom / step, (row.centroid_y_px + 0.5) * zoom / step)
        pen.text(middle, str(row.track), anchor="mm", **WRITING)
    return picture


def eight_bit(plane: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a ``(Y, X)`` plane stretched to 0-255 between the 0.5 and 99.5 % of its grey values."""
    low, high = np.percentile(plane, (0.5, 99.5))
    stretched = (plane.astype(np.float32) - np.float32(low)) * np.float32(255 / max(float(high - low), 1e-6))
    return np.clip(stretched, 0, 255, out=stretched).astype(np.uint8)


def binary(movie: Movie) -> list[Path]:
    """Write each frame as an 8-bit mask, 255 in cells; a pixel of background parts cells that touch.

    It is taken from the cell with the larger id, so that TrackMate's threshold detector, which joins pixels by their
    sides, finds cells apart. Cells that meet in a corner only are left as they are; a cell that is nothing but such a
    pixel is not in the mask.
    """
    from PIL import Image

    written = []
    for ref in movie.refs:
        mask = parted(movie.labels(ref))
        path = movie.file(ref, ".png", "binary")
        _save(path, lambda stream, mask=mask: Image.fromarray(mask).save(stream, format="PNG"))  # type: ignore[misc]
        written.append(path)
    return written


def parted(labels: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Return 255 in the cells of ``(Y, X)`` labels, 0 elsewhere and in a pixel between touching cells."""
    mask = np.zeros(labels.shape, np.uint8)
    for top in range(0, len(labels), STRIP):
        above = min(top, 1)
        strip = part(labels[top - above : top + STRIP + 1])[above:][:STRIP]  # the gap depends on the nearest rows only
        mask[top : top + STRIP][strip > 0] = 255
    return mask


KINDS: dict[str, Callable[[Movie], list[Path]]] = {
    "trackmate": spots,
    "rois": rois,
    "geojson": geojson,
    "outlines": outline_pictures,
    "gif": animation,
    "binary": binary,
}
"""What can be written, by name."""


def kinds_of(text: str | None) -> list[str]:
    """Return the kinds that a comma-separated text names; ``all`` is all, None none."""
    if text is None:
        return []
    names = [name.strip() for name in text.split(",") if name.strip()]
    if names == ["all"]:
        return list(KINDS)
    unknown = [name for name in names if name not in KINDS]
    if unknown or not names:
        raise BadInput(f"export {', '.join(unknown) or text!r}: unknown; choose from {', '.join(KINDS)} or all")
    return names


def _inner_edge(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return the pixels of cells with another value above, below or beside them; the frame's edge is none."""
    edge = np.zeros(labels.shape, bool)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differ = labels[one] != labels[other]
        edge[one] |= differ
        edge[other] |= differ
    return edge & (labels > 0)


def _save(path: Path, write: Callable[[io.BytesIO], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    write(stream)
    write_bytes(path, stream.getvalue())
