"""Tables written part by part, whole or not at all, so that their length costs no memory."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from data_io.damage import one_line
from data_io.errors import BadInput, disk_full, is_disk_full
from postprocess.export import harmless

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pandas as pd

ROWS = 5_000
"""Rows collected before they are written."""


def read_parquet(path: Path, remedy: str, columns: list[str] | None = None) -> pd.DataFrame:
    """Return a table that this project wrote; its pages' checksums are looked at.

    Parameters
    ----------
    path, columns
        The file, and which columns of it; all without them.
    remedy
        What to do about a damaged one.

    Raises
    ------
    BadInput
        It cannot be read, or is not what was written.
    """
    import pandas as pd

    try:
        return pd.read_parquet(path, columns=columns, page_checksum_verification=True)
    except Exception as fault:  # a decoder raises whatever damage makes it stumble over
        raise BadInput(f"{path}: damaged ({one_line(fault)}); {remedy}") from fault


@contextmanager
def appending(out: Path) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Give a function that appends tables of equal columns to a file, which takes its name when all are written.

    Raises
    ------
    BadInput
        Neither .csv nor .parquet, or it cannot be written.
    """
    if out.suffix.lower() not in WRITERS:
        raise BadInput(f"{out}: a table is .csv or .parquet; give it one of these suffixes")
    if out.is_dir():
        raise BadInput(f"{out}: is a folder; give the name of a file")
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    pending: list[pd.DataFrame] = []

    def flush() -> None:
        import pandas as pd

        filled = [table for table in pending if len(table)] or pending[:1]
        if filled:
            append(pd.concat(filled, ignore_index=True))
        pending.clear()

    def add(table: pd.DataFrame) -> None:
        pending.append(table)
        if sum(map(len, pending)) >= ROWS:
            flush()

    try:
        with _writing(out), temporary.open("wb") as file:
            append, close = WRITERS[out.suffix.lower()](file)
            try:
                yield add
                flush()
            finally:
                close()
            file.flush()
            os.fsync(file.fileno())
        with _writing(out):
            temporary.replace(out)
    finally:
        with suppress(OSError):
            temporary.unlink()


def _csv(file: Any) -> tuple[Callable[[pd.DataFrame], None], Callable[[], None]]:
    """Return how to append to a CSV file, in which no text is taken for a formula, and how to end it."""

    def append(table: pd.DataFrame) -> None:
        file.write(harmless(table).to_csv(index=False, header=file.tell() == 0, lineterminator="\n").encode())

    return append, lambda: None


def _parquet(file: Any) -> tuple[Callable[[pd.DataFrame], None], Callable[[], None]]:
    """Return how to append to a parquet file and how to end it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    writers: list[Any] = []

    def append(table: pd.DataFrame) -> None:
        if writers:
            rows = pa.Table.from_pandas(table, schema=writers[0].schema, preserve_index=False)
        else:
            rows = pa.Table.from_pandas(table, preserve_index=False)
            writers.append(pq.ParquetWriter(file, rows.schema, write_page_checksum=True))
        writers[0].write_table(rows)

    def close() -> None:
        for writer in writers:
            writer.close()

    return append, close


WRITERS = {".csv": _csv, ".parquet": _parquet}
"""How a table of each suffix is written."""


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        if is_disk_full(fault):
            raise disk_full(fault, out) from fault
        told = fault.strerror or type(fault).__name__
        raise BadInput(f"{out}: cannot be written ({told}); give --out in a folder that is there and yours") from fault
