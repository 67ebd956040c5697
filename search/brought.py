"""What a command reads of a finished run: a folder as it is, of an object store the files it needs, for a while."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from data_io.errors import BadInput
from data_io.location import S3
from search.storage import Storage, StorageLost

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 30.0
"""Seconds for which a store that does not answer is asked again."""


@contextmanager
def brought(place: Path | str, *parts: str) -> Iterator[Path]:
    """Give the folder of a place; of one in an object store a temporary folder with files, or all below folders, of it.

    Parameters
    ----------
    place
        A folder, or the text ``s3://bucket/name``.
    *parts
        Names relative to it; without any all that is there.

    Raises
    ------
    BadInput
        The object store cannot be used, or nothing is there.
    """
    if isinstance(place, Path):
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="cellsearch-") as temporary:
        folder = Path(temporary)
        try:
            _bring(Storage.at(place, PATIENCE), parts, folder)
        except StorageLost as fault:
            raise BadInput(f"{fault}; check AWS_ENDPOINT_URL and the network") from fault
        try:
            yield folder
        except BadInput as fault:  # the user knows the place
            raise BadInput(*(str(line).replace(str(folder), place) for line in fault.args)) from fault


def _bring(store: Storage, parts: tuple[str, ...], folder: Path) -> None:
    found = {name for part in parts or ("",) for name in store.objects(part)}
    for part in parts:
        if part not in found and (data := store.read(part)) is not None:
            (folder / part).write_bytes(data)
    for name in sorted(found):
        store.get(name, folder / name)
    if not any(folder.iterdir()):
        raise BadInput(f"{store.place}: nothing is there; give the place of a finished search")


def place_of(text: str) -> Path | str:
    """Return a folder's path, or the name of a place in an object store as it was given."""
    return text if text.startswith(S3) else Path(text)
