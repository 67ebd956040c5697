"""Where a store lies: a folder of this machine, or `s3://bucket/name` in an object store.

The packages of object stores (extra `s3`) are imported only for such a name. Keys, region and endpoint come from where
every AWS program looks for them: the environment (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, ...) and `~/.aws`.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from data_io import files
from data_io.errors import BadInput
from data_io.secrecy import has_password, hidden

if TYPE_CHECKING:
    from collections.abc import Iterator

S3 = "s3://"
KEYS_IN_ADDRESS = (
    "an address with keys in it, which would stand in every file; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)


def located(place: Path | str) -> Path:
    """Return a folder's `Path`, or for `s3://bucket/name` a `upath.UPath`, which has the same methods.

    Raises
    ------
    BadInput
        The packages for s3:// are missing, the name has no bucket or nothing after it, or it carries keys.
    """
    if is_remote(place):
        return cast("Path", place)  # a UPath
    if not str(place).startswith(S3):
        return Path(place)
    if has_password(str(place)):
        raise BadInput(f"{hidden(str(place))}: {KEYS_IN_ADDRESS}")
    bucket, _, name = str(place).removeprefix(S3).strip("/").partition("/")
    if not bucket or not name or {"..", ".", ""} & set(name.split("/")) or "::" in name:  # which chains file systems
        raise BadInput(f"{place}: not a place in a bucket; write it as s3://bucket/name.zarr")
    if find_spec("s3fs") is None or find_spec("upath") is None:
        raise BadInput(f"{place}: s3:// needs more packages; `pip install 'cellsearch[s3]'`")
    from upath import UPath

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    options: dict[str, Any] = {"endpoint_url": endpoint} if endpoint else {}
    place_there: Any = UPath(f"{S3}{bucket}/{name}", use_listings_cache=False, **options)
    return cast("Path", place_there)


def refuse_remote(place: Path | str, option: str = "") -> None:
    """Raise BadInput for an s3:// place that is given to a command which works in folders of this machine.

    `option` is what an output was given with; empty for what is read.
    """
    if not str(place).startswith("s3:/"):  # pathlib takes the second stroke away
        return
    name = hidden(S3 + str(place).removeprefix("s3:").lstrip("/"))
    folder = name.rstrip("/").split("/")[-1]
    if option:
        raise BadInput(f"{option} {name}: this command writes to a folder; give one, then `aws s3 sync FOLDER {name}`")
    raise BadInput(
        f"{name}: this command works in a folder; `aws s3 sync {name} {folder}` brings it, then give {folder}"
    )


def is_remote(place: Path | str) -> bool:
    """Say whether a place that `located` returned is in an object store."""
    return not isinstance(place, Path | str)


@contextmanager
def reaching(place: Path) -> Iterator[None]:
    """Turn what an object store answers when it cannot be used into `BadInput`; nothing is changed for a folder."""
    try:
        yield
    except BadInput:
        raise
    except Exception as fault:
        if not is_remote(place) or not _is_answer(fault):
            raise
        raise BadInput(_in_words(place, fault)) from fault


def check_bucket(place: Path) -> None:
    """Ask for the bucket of an s3:// place.

    Raises
    ------
    BadInput
        It is not there, may not be used, or nothing answers.
    """
    if is_remote(place):
        with reaching(place):
            _fs(place).call_s3("head_bucket", Bucket=_key(place).split("/")[0])


def sizes(place: Path) -> dict[str, int]:
    """Return the size in bytes of every file below a place, by its name relative to it; nothing there: none.

    Raises
    ------
    BadInput
        A symbolic link is among them: it may lead out of the store.
    """
    if is_remote(place):
        return {name: int(facts["size"]) for name, facts in _objects(place).items()}
    return dict(_walk(place, "")) if place.is_dir() else {}


def last_change(place: Path) -> float:
    """Return how many seconds ago an s3:// place was last written to."""
    times = [facts["LastModified"] for facts in _objects(place).values()]
    return float((datetime.now(UTC) - max(times)).total_seconds())


def remove(place: Path) -> None:
    """Delete everything at an s3:// place."""
    if _objects(place):
        _fs(place).rm(_key(place), recursive=True)


def read_bytes(file: Path) -> bytes:
    """Return the content of a file or object."""
    if is_remote(file):
        return bytes(_fs(file).cat_file(_key(file)))
    return file.read_bytes()


def write_bytes(file: Path, data: bytes) -> None:
    """Write a file or object whole or not at all."""
    if is_remote(file):
        _fs(file).pipe_file(_key(file), data)
        return
    files.write_bytes(file, data)


def flush(place: Path) -> None:
    """Have every file of a folder on the disk; an object store has them already."""
    if is_remote(place):
        return
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: _sync(place / name), sizes(place)))


def _sync(file: Path) -> None:
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                raise BadInput(f"{entry.path}: a symbolic link in a store; put what it points to in its place")
            if entry.is_dir():
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name, entry.stat().st_size


def _objects(place: Path) -> dict[str, dict[str, Any]]:
    root = _key(place) + "/"
    found: dict[str, dict[str, Any]] = _fs(place).find(root, detail=True)
    return {name.removeprefix(root): facts for name, facts in found.items() if name.startswith(root)}


def _fs(place: Any) -> Any:
    return place.fs


def _key(place: Any) -> str:
    return str(place.path).rstrip("/")


def _is_answer(fault: BaseException) -> bool:
    """Say whether a fault comes from the object store or the way to it: s3fs hands on what botocore raised."""
    chain = (fault, fault.__cause__, fault.__context__)
    return any(type(one).__module__.split(".")[0] in ("botocore", "aiobotocore", "aiohttp") for one in chain)


def _in_words(place: Path, fault: Exception) -> str:
    kind = type(fault).__name__
    if kind in ("NoCredentialsError", "PartialCredentialsError"):
        return f"{place}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run `aws configure`"
    if isinstance(fault, PermissionError):
        return f"{place}: access denied ({_line(fault)}); check the keys and what they may do in this bucket"
    if isinstance(fault, FileNotFoundError):
        return f"{place}: no such bucket or object ({_line(fault)}); check the name and AWS_ENDPOINT_URL"
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "AWS")
    return f"{place}: {endpoint} does not answer as it should ({_line(fault)}); check AWS_ENDPOINT_URL and the network"


def _line(fault: Exception) -> str:
    return " ".join(str(fault).split()) or type(fault).__name__
