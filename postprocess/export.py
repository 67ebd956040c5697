"""The files people open: label TIFF stacks, the cells table as parquet and CSV; and the reader of a run's cells."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_io.errors import BadInput
from data_io.files import write_bytes
from data_io.location import located
from data_io.store import Dataset, FrameRef
from postprocess.label_store import LabelStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

IMAGEJ_IDS = 65535
IMAGEJ_BYTES = 2**32 - 2**20
FORMULA = re.compile(r"(^|[;\n])(?=[=+\-@\t\r\uff1d\uff0b\uff0d\uff20])")
"""Where a spreadsheet sees the start of a formula: at the start of a text or of a line in it, and after a semicolon,
which divides cells where the comma is decimal; the signs of full width count, too.
"""


def read_labels(run: Path | str, method: str, field: FrameRef | str, frame: int | None = None) -> NDArray[np.int32]:
    """Return the cells a method found in a frame of a run, ``(Y, X)`` int32, 0 background.

    The frame is a `FrameRef`, or the name of its field and its number.

    Raises
    ------
    BadInput
        No such run, method or frame.
    """
    ref = field if isinstance(field, FrameRef) else FrameRef(field, int(frame or 0))
    labels: NDArray[np.int32] = label_store(Path(run).resolve()).read(method, ref)
    return labels


@lru_cache(maxsize=4)
def label_store(run: Path) -> LabelStore:
    """Return the label images of a run."""
    return LabelStore(run / "labels.zarr", open_dataset(run))


def read_facts(run: Path) -> dict[str, Any]:
    """Return run.json: where the data set is, what kind of run this is, whether the data are synthetic.

    Raises BadInput where the file is missing, is no JSON, or does not name its data set.
    """
    path = run / "run.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as fault:
        raise BadInput(f"{path}: missing; give a folder written by search.run or search.predict") from fault
    except (ValueError, RecursionError) as fault:
        raise BadInput(f"{path}: not JSON ({fault}); restore it or start the run again") from fault
    if not isinstance(facts, dict) or not isinstance(facts.get("dataset"), str):
        raise BadInput(f"{path}: does not name its dataset; restore it or start the run again")
    if not isinstance(facts.get("fold"), int | None):
        raise BadInput(f"{path}: its fold {facts['fold']!r} is no number; restore it or start the run again")
    return facts


def open_dataset(run: Path) -> Dataset:
    """Open the data set of a run, in its fold; its path in run.json is absolute, s3:// or relative to the run."""
    facts = read_facts(run)
    place = located(facts["dataset"])
    dataset = Dataset.open(run / place if isinstance(place, Path) else place)
    return dataset if facts.get("fold") is None else dataset.in_fold(facts["fold"])


def write_stack(
    path: Path,
    frames: Sequence[FrameRef],
    read: Callable[[FrameRef], NDArray[np.int32]],
    dataset: Dataset,
    highest: int,
) -> None:
    """Write the cells of many frames as one TIFF stack, a page per frame, read one at a time.

    uint16 as ImageJ expects where the ids fit, else uint32 OME-TIFF. Frames smaller than the largest are padded with
    background at the bottom and on the right.
    """
    import tifffile

    fields = [dataset.fields[ref.field] for ref in frames]
    shape = (max(field.shape[0] for field in fields), max(field.shape[1] for field in fields))
    fits = highest <= IMAGEJ_IDS and 2 * len(frames) * shape[0] * shape[1] < IMAGEJ_BYTES
    dtype = np.dtype(np.uint16 if fits else np.uint32)

    def pages() -> Any:
        for ref in frames:
            labels = read(ref)
            if labels.shape == shape:
                yield labels.view(np.uint32) if dtype == np.uint32 else labels.astype(dtype)
                continue
            page = np.zeros(shape, dtype)
            page[: labels.shape[0], : labels.shape[1]] = labels
            yield page

    metadata: dict[str, Any] = {"axes": "TYX"}
    pixel, interval = fields[0].pixel_size_um, fields[0].frame_interval_s
    if interval and fits:
        metadata["finterval"] = interval
    if pixel:
        metadata |= {"unit": "um"} if fits else {"PhysicalSizeX": pixel, "PhysicalSizeY": pixel}
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        tifffile.imwrite(
            temporary,
            pages(),
            shape=(len(frames), *shape),
            dtype=dtype,
            imagej=fits,
            ome=not fits,
            bigtiff=not fits,
            resolution=(1 / pixel, 1 / pixel) if pixel else None,
            metadata=metadata,
        )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV in which no text is taken for a formula by a spreadsheet."""
    write_bytes(path, harmless(table).to_csv(index=False, lineterminator="\n").encode())


def harmless(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with an apostrophe before text and names of columns that start like a formula; numbers stay.

    A carriage return, which would begin a new row for some readers, becomes a space.
    """
    import pandas as pd

    changed = {
        name: column.map(lambda value: _harmless(value) if isinstance(value, str) else value)
        for name, column in table.items()
        if not pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    }
    return table.assign(**changed).rename(columns=lambda name: _harmless(name) if isinstance(name, str) else name)


def _harmless(text: str) -> str:
    return FORMULA.sub(r"\1'", text).replace("\r", " ")
