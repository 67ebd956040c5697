"""Whether a store is whole: its manifest, what opening compares, and the preflight that reads every byte.

`manifest.json` lists the size and SHA-256 of every file of a store and carries a SHA-256 of its own. While a store is
written it says only who writes it; the list takes its place last of all, so a store with a list was finished.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from data_io import location
from data_io.errors import BadInput
from data_io.files import is_alive, sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    Progress = Callable[[int, int], None]

FORMAT = 3
MANIFEST = "manifest.json"
UNFINISHED = "unfinished"
METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
"""Files that change what Zarr readers see."""
REMEDY = "convert the source again into a new store"
IDLE_S = 600
"""An unfinished s3:// store of another machine that was not written to for so long is taken for abandoned."""


@dataclass(frozen=True)
class Manifest:
    """What a finished store consists of."""

    content_hash: str
    files: dict[str, tuple[int, str]]
    """Size in bytes and SHA-256 of every file, by its path in the store."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with one file of a store."""

    file: Path
    what: str
    place: str = ""
    """Array and chunk, if it is one."""

    def __str__(self) -> str:
        return f"{self.file}: {self.what}" + (f" ({self.place})" if self.place else "")


class Damaged(BadInput):
    """A store with faulty files. The first line says what and what to do; with several, a line for each follows."""

    def __init__(self, store: Path, faults: list[Fault]) -> None:
        self.faults = tuple(faults)
        if len(faults) == 1:
            super().__init__(f"{faults[0]}; {REMEDY}")
        else:
            text = f"{store}: {len(faults)} files are faulty, the first: {faults[0]}; {REMEDY}"
            super().__init__(text, *(f"  {fault}" for fault in faults))


def begin(store: Path) -> str:
    """Mark a new store as being written and return a token of this writer.

    Raises
    ------
    FileExistsError
        There is something already.
    """
    if location.is_remote(store):
        if location.sizes(store):
            raise FileExistsError(str(store))
    else:
        store.mkdir(parents=True)
    token = secrets.token_hex(8)
    writer = {"host": socket.gethostname(), "pid": os.getpid(), "token": token}
    mark = {"format": FORMAT, UNFINISHED: writer | {"since": datetime.now(UTC).isoformat(timespec="seconds")}}
    location.write_bytes(store / MANIFEST, json.dumps(mark, indent=1).encode())
    return token


def seal(store: Path, token: str, content_hash: str, files: Mapping[str, tuple[int, str]]) -> None:
    """Write the list: from now on the store is complete.

    Raises
    ------
    BadInput
        Another writer has taken the place meanwhile.
    """
    if (unfinished(store) or {}).get("token") != token:
        raise BadInput(f"{store}: another program writes here; choose another name")
    listed = {name: list(files[name]) for name in sorted(files)}
    location.write_bytes(store / MANIFEST, _text({"format": FORMAT, "content_hash": content_hash, "files": listed}))


def unfinished(store: Path) -> dict[str, Any] | None:
    """Return who began a store that is not finished, None where there is no such mark."""
    try:
        mark = json.loads(location.read_bytes(store / MANIFEST)).get(UNFINISHED)
    except (FileNotFoundError, NotADirectoryError, ValueError, AttributeError, RecursionError):
        return None
    return mark if isinstance(mark, dict) else None


def load(store: Path, names: Collection[str]) -> Manifest:
    """Read the manifest of a store with these files.

    Raises
    ------
    BadInput
        The store is unfinished, of another format, or the manifest was changed.
    """
    file = store / MANIFEST
    if MANIFEST not in names:
        ours = bool({"zarr.json", ".zgroup"} & set(names))
        kind = "an unfinished data set" if ours else "not a data set"
        raise BadInput(f"{store}: {kind} (no {MANIFEST}); make it with `python -m data_io.convert SOURCE OUT.zarr`")
    data = location.read_bytes(file)
    try:
        stored = json.loads(data)
    except (ValueError, RecursionError) as fault:
        raise BadInput(f"{file}: not JSON ({fault}); {REMEDY}") from fault
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        found = stored.get("format") if isinstance(stored, dict) else None
        raise BadInput(f"{file}: format {found}, not {FORMAT}; convert the source again")
    if UNFINISHED in stored:
        begun = stored[UNFINISHED] if isinstance(stored[UNFINISHED], dict) else {}
        raise BadInput(
            f"{store}: an unfinished data set, begun {begun.get('since')} on {begun.get('host')}; "
            "run its conversion again to complete it"
        )
    if _text({key: value for key, value in stored.items() if key != "sha256"}) != data:
        raise BadInput(f"{file}: changed since it was written (its own SHA-256 does not fit); {REMEDY}")
    try:
        files = {name: (int(size), str(digest)) for name, (size, digest) in stored["files"].items()}
        content_hash = str(stored["content_hash"])
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        raise BadInput(f"{file}: not the list of a data set ({fault!r}); {REMEDY}") from fault
    for name in files:
        if not _is_inside(name):
            raise BadInput(f"{file}: names a file outside the store ({name}); do not use it")
    return Manifest(content_hash, files)


def glance(store: Path, manifest: Manifest, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Compare every size, and every byte of the metadata; return the metadata by its path, parsed.

    Raises
    ------
    Damaged
        With all faults found.
    """
    metadata = [name for name in manifest.files if _is_metadata(name)]
    faults = [*_faulty_sizes(store, manifest, sizes), *_foreign(store, manifest, sizes)]
    broken = {fault.file for fault in faults}
    read, parsed = [name for name in metadata if store / name not in broken], {}
    with ThreadPoolExecutor(_threads(store)) as pool:
        for name, data in zip(read, pool.map(lambda name: location.read_bytes(store / name), read), strict=True):
            if hashlib.sha256(data).hexdigest() != manifest.files[name][1]:
                faults.append(Fault(store / name, "changed since it was written"))
                continue
            try:
                parsed[name] = json.loads(data)
            except (ValueError, RecursionError) as fault:
                faults.append(Fault(store / name, f"not JSON ({fault})"))
                continue
            if not isinstance(parsed[name], dict):
                faults.append(Fault(store / name, "not a JSON object"))
    if faults:
        raise Damaged(store, faults)
    return parsed


def preflight(store: Path, manifest: Manifest, progress: Progress | None = None) -> None:
    """Read every file of a store and compare its SHA-256.

    Parameters
    ----------
    store
        Its root.
    manifest
        What it should consist of.
    progress
        Called as (files done, files in all).

    Raises
    ------
    Damaged
        One error that names every missing, cut, changed or foreign file.
    """
    sizes = location.sizes(store)
    faults = [*_faulty_sizes(store, manifest, sizes), *_foreign(store, manifest, sizes)]
    broken = {fault.file for fault in faults}
    names = [name for name in manifest.files if store / name not in broken]
    with ThreadPoolExecutor(_threads(store)) as pool:
        found = pool.map(partial(_digest, store), names)
        for done, (name, digest) in enumerate(zip(names, found, strict=True), start=1):
            if digest is None:
                faults.append(Fault(store / name, "missing", _chunk(name, manifest.files)))
            elif digest != manifest.files[name][1]:
                faults.append(Fault(store / name, "changed since it was written", _chunk(name, manifest.files)))
            if progress is not None:
                progress(done, len(names))
    if faults:
        raise Damaged(store, sorted(faults, key=lambda fault: str(fault.file)))


@contextmanager
def in_place(store: Path) -> Iterator[Path]:
    """Give an s3:// place to write a store at, where nothing can be renamed: it counts only once it is sealed.

    What a killed writer left there is removed first; what this one leaves on failure, at once.

    Raises
    ------
    FileExistsError
        Something else is there.
    BadInput
        Another program writes it just now.
    """
    location.check_bucket(store)
    with location.reaching(store):
        if location.sizes(store):
            mark = unfinished(store)
            if mark is None:
                raise FileExistsError(str(store))
            _check_abandoned(store, mark)
            location.remove(store)
    try:
        with location.reaching(store):
            yield store
    except BaseException:
        with location.reaching(store):
            location.remove(store)
        raise


def is_taken(out: Path) -> bool:
    """Say whether something finished, or of someone else, is where a store is to be written."""
    if not location.is_remote(out):
        return os.path.lexists(out)
    location.check_bucket(out)
    with location.reaching(out):
        return bool(location.sizes(out)) and unfinished(out) is None


def _check_abandoned(store: Path, mark: dict[str, Any]) -> None:
    host, pid = mark.get("host"), mark.get("pid")
    if host == socket.gethostname():
        busy = isinstance(pid, int) and pid != os.getpid() and is_alive(pid)
    else:
        busy = location.last_change(store) < IDLE_S
    if busy:
        raise BadInput(f"{store}: being written by process {pid} on {host}; wait for it or choose another name")


def _text(body: dict[str, Any]) -> bytes:
    """Return the manifest with the SHA-256 of the rest of it in front; reading compares it byte by byte."""
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return (json.dumps({"sha256": digest, **body}, indent=1) + "\n").encode()


def _faulty_sizes(store: Path, manifest: Manifest, sizes: Mapping[str, int]) -> Iterator[Fault]:
    for name, (size, _) in manifest.files.items():
        if name not in sizes:
            yield Fault(store / name, "missing", _chunk(name, manifest.files))
        elif sizes[name] != size:
            yield Fault(store / name, f"{sizes[name]} bytes instead of {size}", _chunk(name, manifest.files))


def _foreign(store: Path, manifest: Manifest, sizes: Mapping[str, int]) -> Iterator[Fault]:
    """Find metadata that was added: readers would see something else. Other files, of the system say, do no harm."""
    for name in sizes:
        if name not in manifest.files and _is_metadata(name):
            yield Fault(store / name, "not part of this data set; delete it if you know it")


def _chunk(name: str, files: Collection[str]) -> str:
    """Return array and index of a chunk; empty for another file."""
    for parent in () if _is_metadata(name) else PurePosixPath(name).parents:
        if f"{parent}/zarr.json" in files or f"{parent}/.zarray" in files:
            index = name.removeprefix(f"{parent}/").removeprefix("c/").replace("/", ", ")
            return f"array {parent}, chunk {index}" if index.replace(", ", "").isdecimal() else ""
    return ""


def _digest(store: Path, name: str) -> str | None:
    try:
        if location.is_remote(store):
            return hashlib.sha256(location.read_bytes(store / name)).hexdigest()
        return sha256(store / name)
    except FileNotFoundError:
        return None


def _is_metadata(name: str) -> bool:
    return name.rsplit("/", 1)[-1] in METADATA


def _is_inside(name: str) -> bool:
    parts = name.split("/")
    return not ({"", ".", ".."} & set(parts) or "\\" in name or ":" in name)


def _threads(store: Path) -> int:
    """Return how many files to read at a time: a few per core, more where each waits for the network."""
    return 16 if location.is_remote(store) else min(8, 2 * (os.cpu_count() or 1))
