"""An object store that a run is kept in: reached with bounded patience, said in one line where it cannot be.

    store = Storage.at("s3://bucket/run")        packages, credentials, bucket and endpoint are checked here
    store.put(Path("config.yaml"), "config.yaml")

Each request that fails is made again, less and less often, for `patience` seconds; then `StorageLost` says so. Nothing
that lies in the folder of this machine is touched by that.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from data_io import files, location
from data_io.errors import BadInput
from data_io.location import located

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

PATIENCE = 300.0
"""Seconds for which a store that does not answer is asked again."""
LONGEST_PAUSE = 20.0
"""Seconds between two attempts, at most."""
ATTEMPTS = 2
"""How often the libraries themselves try a request; what is beyond that is ours."""
LOCAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""Faults of this machine's disk, which waiting for the store does not mend."""

WAY = {"botocore", "aiobotocore", "aiohttp", "fsspec"}
"""Packages whose errors come from the store or the way to it."""

Value = TypeVar("Value")


class StorageLost(Exception):
    """The store did not answer for as long as patience lasts; what it lacks is on this machine."""


class Stored(NamedTuple):
    """What a store says of an object."""

    size: int
    etag: str


@dataclass(frozen=True)
class Storage:
    """A place in an object store; it travels to other processes by its name.

    Parameters
    ----------
    place
        ``s3://bucket/name``.
    patience
        Seconds.
    """

    place: str
    patience: float = PATIENCE

    @classmethod
    def at(cls, place: str, patience: float = PATIENCE) -> Storage:
        """Return the storage at a place once it is known that it can be used.

        Raises
        ------
        BadInput
            A package, the credentials or the bucket is missing, or nothing answers.
        """
        there = located(place)
        if not location.is_remote(there):
            raise BadInput(f"{place}: not a place in an object store; write it as s3://bucket/run")
        store = cls(str(there), patience)
        with location.reaching(there):
            store._fs.call_s3("head_bucket", Bucket=store._root.split("/")[0])
        return store

    def check_rights(self) -> None:
        """Write an object and delete it again.

        Raises
        ------
        BadInput
            That is not allowed here, or nothing answers.
        """
        probe = self._key(f".probe-{secrets.token_hex(4)}")
        try:
            with location.reaching(located(self.place)):
                self._fs.pipe_file(probe, b"")
                _delete(self._fs, [probe])
        except NotDeleted as fault:
            raise BadInput(
                f"{self.place}: access denied ({fault}); a run replaces its checkpoints, so the keys must be allowed "
                "to delete objects in this bucket, too"
            ) from fault

    def put(self, file: Path, name: str) -> None:
        """Copy a file into the store; it is there whole or not at all."""
        self._patiently(lambda fs: fs.put_file(str(file), self._key(name)))

    def write(self, name: str, data: bytes, *, new: bool = False) -> None:
        """Write an object whole.

        Raises
        ------
        FileExistsError
            It was to be a new one and is there already.
        """
        mode = {"mode": "create"} if new else {}
        self._patiently(lambda fs: fs.pipe_file(self._key(name), data, **mode))

    def read(self, name: str) -> bytes | None:
        """Return the content of an object, None where there is none."""
        try:
            return bytes(self._patiently(lambda fs: fs.cat_file(self._key(name))))
        except FileNotFoundError:
            return None

    def get(self, name: str, file: Path) -> None:
        """Copy an object to a file, which is there whole or not at all.

        Raises
        ------
        BadInput
            There is no such object any more.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
        try:
            self._patiently(lambda fs: fs.get_file(self._key(name), str(partial)))
            partial.replace(file)
        except FileNotFoundError as fault:
            raise BadInput(
                f"{self.place}/{name}: was deleted while it was being brought; run the same command again"
            ) from fault
        finally:
            partial.unlink(missing_ok=True)

    def objects(self, under: str = "") -> dict[str, Stored]:
        """Return what is stored below a name, by name relative to the run."""
        prefix = self._key(under).rstrip("/") + "/"
        found: dict[str, dict[str, Any]] = self._patiently(lambda fs: fs.find(prefix, detail=True))
        own = {name: facts for name, facts in found.items() if name.startswith(prefix)}
        start = len(self._root) + 1
        if bad := next((name for name in own if {"..", ".", ""} & set(name.split("/"))), None):
            raise BadInput(f"s3://{bad}: a name that leads out of its folder; delete this object")
        return {name[start:]: Stored(int(facts["size"]), str(facts["ETag"])) for name, facts in sorted(own.items())}

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that are not there do not matter."""
        keys = [self._key(name) for name in names]
        for first in range(0, len(keys), 1000):  # as many as one request takes
            self._patiently(partial(_delete, keys=keys[first : first + 1000]))

    def drop_uploads(self) -> None:
        """Let go of what interrupted uploads of large files left: no objects, but they are paid for.

        A store that does not let them be listed keeps them.
        """
        bucket, _, name = self._root.partition("/")
        try:
            fs = self._fs
            for upload in fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{name}/").get("Uploads", []):
                which = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
                fs.call_s3("abort_multipart_upload", Bucket=bucket, **which)
        except Exception as fault:
            if not (isinstance(fault, FileNotFoundError) or _is_lost(fault)):
                raise

    @property
    def _fs(self) -> Any:
        there: Any = located(self.place)
        options = there.fs.storage_options | {"config_kwargs": {"retries": {"max_attempts": ATTEMPTS}}}
        fs = type(there.fs)(**options)  # fsspec keeps one per process
        fs.retries = ATTEMPTS
        return fs

    @property
    def _root(self) -> str:
        return self.place.removeprefix(location.S3).rstrip("/")

    def _key(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _patiently(self, request: Callable[[Any], Value]) -> Value:
        """Make a request until it is answered or patience ends."""
        return patiently(self.place, self.patience, lambda: request(self._fs), _is_lost)


def patiently(
    place: str, patience: float, request: Callable[[], Value], is_lost: Callable[[Exception], bool] | None = None
) -> Value:
    """Return what a request of a place returns, made again for `patience` seconds while the store does not answer.

    `is_lost` says which faults are such; without it those that have an object store or the network behind them.

    Raises
    ------
    StorageLost
        It did not answer.
    """
    began, pause = time.monotonic(), 0.5
    while True:
        try:
            return request()
        except Exception as fault:
            if not (is_lost or is_out_of_reach)(fault):
                raise
            if time.monotonic() - began + pause > patience:
                raise StorageLost(f"{place}: no answer for {patience:.0f} s ({_line(fault)})") from fault
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def is_out_of_reach(fault: BaseException) -> bool:
    """Whether an object store that does not answer, or refuses, is behind a fault; not that it lacks an object."""
    of_the_way, one = False, cast("BaseException | None", fault)
    while one is not None:
        if isinstance(one, FileNotFoundError) and not _lacks_bucket(one):
            return False
        of_the_way |= type(one).__module__.split(".")[0] in WAY
        one = one.__cause__ or one.__context__
    return of_the_way


class NotDeleted(OSError):
    """The store answered that it did not delete an object."""


def _delete(fs: Any, keys: list[str]) -> None:
    """Delete objects of one bucket; the answer to many deletions is no error even if none was done."""
    bucket, start = keys[0].split("/")[0], len(keys[0].split("/")[0]) + 1
    part = {"Objects": [{"Key": key[start:]} for key in keys], "Quiet": True}
    for fault in fs.call_s3("delete_objects", Bucket=bucket, Delete=part).get("Errors", []):
        if fault.get("Code") != "NoSuchKey":
            raise NotDeleted(f"{fault.get('Key')} was not deleted: {fault.get('Message') or fault.get('Code')}")


def working_folder(place: str, parent: Path) -> Path:
    """Return the folder of this machine in which a run of an object store is worked on, another one for each place."""
    name = place.removeprefix(location.S3).strip("/")
    return parent / f"{files.slug(name.split('/')[-1])}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _is_lost(fault: Exception) -> bool:
    """Whether a fault of a request may come from the store or the way to it: s3fs hands on botocore's, or OSError."""
    if isinstance(fault, FileNotFoundError):
        return _lacks_bucket(fault)
    if isinstance(fault, FileExistsError) or getattr(fault, "errno", None) in LOCAL:
        return False
    return isinstance(fault, OSError) or is_out_of_reach(fault)


def _lacks_bucket(fault: FileNotFoundError) -> bool:
    return bool(getattr(fault.__cause__, "response", {}).get("Error", {}).get("Code") == "NoSuchBucket")


def _line(fault: Exception) -> str:
    return " ".join(str(fault).split()) or type(fault).__name__
