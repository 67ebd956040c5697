"""Files and folders that exist whole or not at all, their hashes, and names that are safe on every file system."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import unicodedata
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_io.errors import DiskFull, is_disk_full

if TYPE_CHECKING:
    from collections.abc import Iterator


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write `data` to `path` atomically: a temporary file in the same folder, fsync, rename."""
    path = Path(path)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        with temporary.open("xb") as file, space_for(path, len(data)):
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def space_for(path: Path | str, needed: int | None = None) -> Iterator[None]:
    """Around the writing of a file of `needed` bytes: a full disk becomes `DiskFull`, which tells path and bytes."""
    try:
        yield
    except Exception as fault:
        if is_disk_full(fault):
            raise DiskFull(path, needed) from fault
        raise


def write_text(path: Path | str, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinity are refused (ValueError): JSON has none."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


@contextmanager
def building(out: Path) -> Iterator[Path]:
    """Give a path beside `out` to build a folder at; it takes the name `out` on success and vanishes on failure.

    What a killed process of this machine left behind is removed first. On s3://, where nothing can be renamed, the
    path is `out` itself; see `integrity.in_place`.

    Raises
    ------
    OSError
        Something has taken the name meanwhile.
    """
    if not isinstance(out, Path):
        from data_io.integrity import in_place

        with in_place(out) as place:
            yield place
        return
    made = [folder for folder in (out.parent, *out.parent.parents) if not folder.exists()]
    out.parent.mkdir(parents=True, exist_ok=True)
    mine = f".{out.name}.{slug(socket.gethostname())}."
    for stale in out.parent.glob(f"{glob.escape(mine)}*.partial"):
        if not is_alive(int(stale.name.removeprefix(mine).removesuffix(".partial"))):
            shutil.rmtree(stale, ignore_errors=True)
    partial = out.parent / f"{mine}{os.getpid()}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with suppress(OSError):  # folders that hold something stay
            for folder in made:
                folder.rmdir()


def sha256(path: Path | str) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


RESERVED = frozenset({"ome", "manifest.json", "zarr.json"})
"""Names that mean something else in a store."""
DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def slug(text: str) -> str:
    """Return `text` as a safe file name: letters, digits, `.`, `_` and `-` only, at most 80 of them.

    >>> slug("Well B1 / Bright Field"), slug("OME")
    ('Well-B1-Bright-Field', '_OME')

    Accents are dropped; a text with letters that have no ASCII form gets a short hash instead of them, one that is
    `RESERVED` or a device of Windows an underscore before it. Two texts may still share a slug; that is the caller's
    error to raise.
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._")[:80]
    is_free = name.lower() not in RESERVED and not DEVICE.fullmatch(name)
    if plain.isascii() and name:
        return name if is_free else f"_{name}"
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:6]}".lstrip("-")


def is_alive(pid: int) -> bool:
    """Say whether a process of this machine runs."""
    try:
        os.kill(pid, 0)
    except OSError as fault:
        return not isinstance(fault, ProcessLookupError)  # not permitted: it lives, and is someone else's
    return True
