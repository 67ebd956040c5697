"""A run kept in an object store, so that another machine can go on with it: who holds it, its ledger, its files.

    head.json                        who holds the run and where its ledger lies; replaced in one write
    ledger/<sitting>/000000.jsonl    the ledger as that driver wrote it: the last part grows, the others never change
    trials/<id>/                     written by the trial's own process, see `search.stored_trial`
    config.yaml, dataset.zarr/ ...   as in the folder of a run

A driver works in a folder of its machine and the ledger follows it here within seconds; a checkpoint is here before the
epoch that made it is told to the driver, so what the ledger promises is always there. A driver that goes on copies the
ledger into a part of its own and then changes the head: one that was thought dead writes where nobody reads any more.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from bisect import bisect_left
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_io import files
from data_io.errors import BadInput
from data_io.location import is_remote
from search.ledger import LEDGER, is_sound
from search.signals import Ended
from search.storage import Storage, StorageLost, Stored, working_folder
from search.stored_trial import TRIALS, bring_curves, bring_trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from data_io.store import Dataset

HEAD = "head.json"
LEDGERS = "ledger"
DATASET = "dataset.zarr"
MANIFEST = f"{DATASET}/manifest.json"
RECORD = ".stored.json"
"""In the working folder: what its files are in the store."""
NEEDED = ("config.yaml", "run.json", "memory.json", "encoders", DATASET, "best", "confirm.json")
"""What a run needs to go on, beside its ledger and trials; all else follows from it and is stored at the end."""
ANEW = "give the run's options again with --out in place of --resume: what its trials stored is used"
NOT_STORED = {"cache", "synthetic", "lock", LEDGER, RECORD, TRIALS}
PAUSE = 1.0
"""Seconds between two copies of the ledger's end, at least."""
PART = 256 * 1024
"""Bytes of a part of the ledger that is not touched again."""
BEAT = 15.0
"""Seconds between two signs of life of a driver."""
STALE = 60.0
"""Seconds without one after which a run is taken over."""
HURRY = 8.0
"""Seconds that are left for the ledger's last lines when the process is asked to end."""
AT_ONCE = 8
"""Files on their way at the same time."""


class Unstored:
    """Stands for the storage of a run that has none: its folder is all there is."""

    store: Storage | None = None
    place = ""
    """Name of the storage."""
    folder: Path | None = None
    """Working folder of a run that has a storage."""
    lost: str | None = None
    """Why the storage is out of reach, or not ours any more."""

    @contextmanager
    def held(self, say: Callable[[str], None]) -> Iterator[None]:
        """See `StoredRun.held`."""
        yield

    def bring_settings(self) -> Path | None:
        """See `StoredRun.bring_settings`."""
        return None

    def put_needed(self, dataset: Dataset) -> None:
        """See `StoredRun.put_needed`."""

    def put_results(self) -> None:
        """See `StoredRun.put_results`."""

    def bring_trials(self, trials: Iterable[str], *, curves_of: Iterable[str] = ()) -> None:
        """See `StoredRun.bring_trials`."""

    def dataset_of(self, dataset: Dataset) -> str:
        """Return where every node finds a data set."""
        return str(dataset.path if is_remote(dataset.path) else dataset.path.resolve())


class StoredRun(Unstored):
    """A run in an object store and the folder of this machine in which it is worked on.

    Parameters
    ----------
    store
        Where it is kept.
    parent
        Where working folders lie.
    resumed
        Whether it must be there already.

    Raises
    ------
    BadInput
        The run is to be resumed and is not there.
    """

    def __init__(self, store: Storage, parent: Path, *, resumed: bool = False) -> None:
        self.store: Storage = store
        self.place = store.place
        self.head = _read_head(store)
        if self.head is None and resumed:
            raise BadInput(f"{store.place}: no run to resume ({HEAD} is missing); give the place of a run, or {ANEW}")
        self.new = self.head is None
        self.run = self.head["run"] if self.head else secrets.token_hex(4)
        self.folder: Path = working_folder(f"{store.place}-{self.run}", parent)
        self.sitting = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        self.lost = None
        self.from_elsewhere: dict[str, Path] = {}
        """Files of a data set that lies in another folder of this machine."""

    @contextmanager
    def held(self, say: Callable[[str], None]) -> Iterator[None]:
        """Take the run over from a dead driver or begin it, bring it here, and let its ledger follow ours.

        Raises
        ------
        BadInput
            Another driver holds it.
        """
        self.store.check_rights()
        self._wait_for_other_driver(say)
        self._bring(say)
        copy = LedgerCopy(self.store, f"{LEDGERS}/{self.sitting}", self.folder / LEDGER)
        copy.all_of_it()
        before = self.head
        self._take()
        if before:
            self._delete_ledgers(before["ledger"])
            self.store.drop_uploads()
        heart = Heart(self, copy)
        heart.start()
        patience = self.store.patience + BEAT
        try:
            yield
        except Ended:
            patience = HURRY
            raise
        finally:
            heart.end(patience)
            if self.lost or heart.is_alive():
                say(f"note: {self.lost or f'{self.place} is behind'}; the newest is in {self.folder}")
            else:
                self._release()

    def put_needed(self, dataset: Dataset) -> None:
        """Store what a run needs to go on elsewhere: settings, pretrained encoders, data, the choice if it is made.

        Raises
        ------
        StorageLost
            The storage does not answer, or another driver has taken the run over.
        """
        if not is_remote(dataset.path) and dataset.path.resolve() != (self.folder / DATASET).resolve():
            self.from_elsewhere = _walk(dataset.path, DATASET)
            self._put(self.from_elsewhere)
        self._put({name: file for name, file in self._files().items() if name.split("/")[0] in NEEDED})

    def put_results(self) -> None:
        """Store all that the run wrote, what someone has deleted or changed there again; raises like `put_needed`."""
        self._put(self._files() | self.from_elsewhere, look=True)
        self.store.put(self.folder / LEDGER, LEDGER)
        self.store.drop_uploads()

    def bring_trials(self, trials: Iterable[str], *, curves_of: Iterable[str] = ()) -> None:
        """Have trials here as their own processes stored them, of others learning curves, settings and examples."""
        folder = self.folder / TRIALS
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda trial: bring_trial(self.store, trial, folder / trial), trials))
            list(pool.map(lambda trial: bring_curves(self.store, trial, folder / trial), curves_of))

    def bring_settings(self) -> Path:
        """Have the settings of the run here, and what tells why there are none; return the folder."""
        if (settings := self.store.read("config.yaml")) is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            files.write_bytes(self.folder / "config.yaml", settings)
        return self.folder

    def dataset_of(self, dataset: Dataset) -> str:
        """Return where every node finds a data set."""
        return str(dataset.path) if is_remote(dataset.path) else f"{self.place}/{DATASET}"

    def _wait_for_other_driver(self, say: Callable[[str], None]) -> None:
        """Return once nobody holds the run: at once, or when its holder has given no sign of life for long enough."""
        began = time.monotonic()
        first = self.head
        while self.head and (holder := self.head["holder"]):
            who = _who(holder)
            here = (holder["host"], holder.get("boot")) == (socket.gethostname(), _boot())
            gone = here and not files.is_alive(holder["pid"])
            if gone or time.monotonic() - began > STALE:
                say(f"note: {who} held {self.place} and has ended; taken over")
                return
            if first and self.head["beat"] != first["beat"]:
                raise BadInput(f"{self.place}: locked by {who}; wait for it or end it")
            if time.monotonic() - began < 1:
                say(f"{self.place} is held by {who}; waiting for up to {STALE:.0f} s to see whether it lives")
            time.sleep(min(2.0, STALE / 4))
            self.head = _read_head(self.store)

    def _bring(self, say: Callable[[str], None]) -> None:
        """Have here what the run needs to go on, and the longer of both ledgers where one continues the other."""
        if self.head is None:
            return
        parts = self._parts(self.head["ledger"])
        stored = b"".join(parts.values())
        own = self.folder / LEDGER
        here = own.read_bytes() if own.exists() else b""
        if not here.startswith(stored) and not self._is_better(here, parts, say):
            if here and not stored.startswith(here):
                own.replace(own.with_name("ledger.replaced.jsonl"))
                say(f"note: {self.place} went on elsewhere; what this folder had is in ledger.replaced.jsonl")
            files.write_bytes(own, stored)
        there = self.store.objects()
        wanted = {n: facts for n, facts in there.items() if n.split("/")[0] not in {*NOT_STORED, HEAD, LEDGERS}}
        record = _read_record(self.folder)
        missing = [n for n, facts in wanted.items() if record.get(n) != [facts.etag, *_stat(self.folder / n)]]
        as_stored = {n: facts for n, facts in record.items() if n in wanted and facts[0] == wanted[n].etag}
        if MANIFEST in as_stored:  # the data that were stored from here, perhaps from another folder of this machine
            from_elsewhere = not (self.folder / DATASET).exists()
            missing = [
                n
                for n in missing
                if not n.startswith(f"{DATASET}/")
                or not (from_elsewhere or record.get(n, [""])[1:] == _stat(self.folder / n))
            ]
        files.write_json(self.folder / RECORD, as_stored)  # what was deleted or changed there is stored again
        if missing:
            say(f"bringing {len(missing)} files of {self.place}")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda name: self.store.get(name, self.folder / name), sorted(missing, key=_last)))
        self._note({name: wanted[name] for name in missing})

    def _parts(self, under: str) -> dict[str, bytes]:
        """Return the ledger of a sitting; a part that is being replaced is there as it was or as it will be."""
        names = list(self.store.objects(under))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return {name: part or b"" for name, part in zip(names, pool.map(self.store.read, names), strict=True)}

    def _is_better(self, here: bytes, parts: dict[str, bytes], say: Callable[[str], None]) -> bool:
        """Whether the stored ledger is damaged, and the one of this folder is not and has as much.

        Raises
        ------
        BadInput
            It is damaged, and this folder has nothing in its place.
        """
        names, stored = list(parts), b"".join(parts.values())
        if is_sound(BytesIO(stored)):
            return False

        def is_damaged_by(number: int) -> bool:
            return not is_sound(BytesIO(b"".join(parts[name] for name in names[: number + 1])))

        bad = f"{self.place}/{names[bisect_left(range(len(names)), True, key=is_damaged_by)]}"
        if len(stored) <= len(here) and is_sound(BytesIO(here)):
            say(f"note: {bad} is damaged; this folder has the whole ledger, which is stored again")
            return True
        raise BadInput(
            f"{bad}: damaged, or the part before it is gone; resume on the machine that trained last, or delete this "
            "part and those after it: epochs that they held are read from the trials"
        )

    def _take(self) -> None:
        if not self.new and (now := _read_head(self.store)) != self.head:
            who = _who(now["holder"]) if now and now["holder"] else "another driver"
            raise BadInput(f"{self.place}: locked by {who}, which went on with it meanwhile; wait for it or end it")
        head = {"run": self.run, "ledger": f"{LEDGERS}/{self.sitting}", "holder": self._me(), "beat": 0}
        try:
            self.store.write(HEAD, json.dumps(head).encode(), new=self.new)
        except FileExistsError:
            raise BadInput(f"{self.place}: another driver begins a run here; choose another place with --out") from None
        self.head, self.new = head, False

    def beat(self) -> None:
        """Give a sign of life; BadInput when another driver has taken the run over."""
        now = _read_head(self.store) or self.head  # it may have been deleted
        if now is None or (now["holder"] or {}).get("token") != self.sitting:
            raise BadInput(f"{self.place}: taken over by another driver; this one ends")
        self.head = now | {"beat": now["beat"] + 1}
        self.store.write(HEAD, json.dumps(self.head).encode())

    def _release(self) -> None:
        now = _read_head(self.store) or self.head
        if now and (now["holder"] or {}).get("token") == self.sitting:
            self.store.write(HEAD, json.dumps(now | {"holder": None}).encode())

    def _me(self) -> dict[str, Any]:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        who = {"host": socket.gethostname(), "boot": _boot(), "pid": os.getpid()}
        return who | {"since": since, "token": self.sitting}

    def _delete_ledgers(self, last: str) -> None:
        """Delete what drivers up to the last one wrote; ours holds all of it, and one that begins may write another."""
        ours = f"{LEDGERS}/{self.sitting}/"
        self.store.delete(n for n in self.store.objects(LEDGERS) if n < f"{last}~" and not n.startswith(ours))

    def _files(self) -> dict[str, Path]:
        files_of_run = {n: file for n, file in _walk(self.folder, "").items() if n.split("/")[0] not in NOT_STORED}
        told = {f"{TRIALS}/{file.parent.name}/{file.name}": file for file in (self.folder / TRIALS).glob("*/error.txt")}
        return files_of_run | told  # the driver writes why a trial failed, the trial all else

    def _put(self, wanted: dict[str, Path], *, look: bool = False) -> None:
        """Store the files that are not stored as they are; manifests and settings last.

        What was stored is taken to be there still, unless one is to `look`.
        """
        if self.lost:
            raise StorageLost(self.lost)
        record = _read_record(self.folder)
        if look:
            there = self.store.objects()
            record = {name: facts for name, facts in record.items() if name in there and there[name].etag == facts[0]}
        changed = [name for name, file in wanted.items() if record.get(name, [""])[1:] != _stat(file)]
        for late in (False, True):
            with ThreadPoolExecutor(AT_ONCE) as pool:
                part = [name for name in sorted(changed, key=_last) if (_last(name)[0] > 0) == late]
                list(pool.map(lambda name: self.store.put(wanted[name], name), part))
        if changed:
            tops = {name.split("/")[0] for name in changed}
            self._note({n: facts for n, facts in self.store.objects().items() if n.split("/")[0] in tops}, wanted)

    def _note(self, stored: dict[str, Stored], wanted: dict[str, Path] | None = None) -> None:
        """Remember which stored objects the files of the working folder are."""
        record = _read_record(self.folder)
        for name, facts in stored.items():
            file = (wanted or {}).get(name, self.folder / name)
            if file.exists() and (wanted is None or name in wanted):
                record[name] = [facts.etag, *_stat(file)]
        files.write_json(self.folder / RECORD, record)


def kept_at(place: Path | str | None, *, resumed: bool = False) -> Unstored | StoredRun:
    """Return what keeps the run of a place: nothing for a folder; an s3:// place has a working folder in the cache.

    Raises
    ------
    BadInput
        The object store cannot be used, or has no run to resume.
    """
    if not isinstance(place, str):
        return Unstored()
    from search.precision import cache_folder

    return StoredRun(Storage.at(place), cache_folder() / "runs", resumed=resumed)


class LedgerCopy:
    """Lets the ledger of a driver follow in the store, whole lines only, in parts.

    Parameters
    ----------
    store, under
        Where the parts go.
    ledger
        The file; it need not be there yet.
    """

    def __init__(self, store: Storage, under: str, ledger: Path) -> None:
        self.store = store
        self.under = under
        self.ledger = ledger
        self.number = 0
        self.start = self.end = 0
        """Where the part that grows begins and, as far as it is stored, ends in the file."""

    def all_of_it(self) -> None:
        """Store every whole line that is not stored yet."""
        if not self.ledger.exists() or self.ledger.stat().st_size <= self.end:
            return
        with self.ledger.open("rb") as file:
            file.seek(self.start)
            new = file.read()
        new, at = new[: new.rfind(b"\n") + 1], 0
        while self.start + (left := len(new) - at) > self.end:
            cut = left if left <= PART else (new.rfind(b"\n", at, at + PART) + 1 or new.find(b"\n", at) + 1) - at
            self.store.write(f"{self.under}/{self.number:06d}.jsonl", new[at : at + cut])
            self.end = self.start + cut
            if cut < left or cut >= PART:
                self.number, self.start, at = self.number + 1, self.end, at + cut


class Heart(threading.Thread):
    """Copies the ledger as it grows and gives signs of life, until it is ended or the store is lost."""

    def __init__(self, run: StoredRun, copy: LedgerCopy) -> None:
        super().__init__(daemon=True)
        self.of = run
        self.copy = copy
        self.over = threading.Event()

    def run(self) -> None:
        """Beat."""
        beaten = time.monotonic()
        try:
            while not self.over.wait(PAUSE):
                self.copy.all_of_it()
                if time.monotonic() - beaten > BEAT:
                    self.of.beat()
                    beaten = time.monotonic()
            self.copy.all_of_it()
        except (StorageLost, BadInput) as fault:
            self.of.lost = str(fault)
        except Exception as fault:
            self.of.lost = f"{self.of.place}: {type(fault).__name__}: {fault}"

    def end(self, seconds: float) -> None:
        """Let the last lines follow, for so long at most."""
        self.over.set()
        self.join(seconds)


def _who(holder: dict[str, Any]) -> str:
    return f"{holder['host']}/{holder['pid']} since {holder['since']}"


def _boot() -> str:
    """Return which start of which machine this is, where the system tells: host names need not be unique."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _read_head(store: Storage) -> dict[str, Any] | None:
    data = store.read(HEAD)
    try:
        head: dict[str, Any] | None = json.loads(data) if data else None
        if head is not None and not {"run", "ledger", "holder", "beat"} <= head.keys():
            raise ValueError("it lacks a key")
    except ValueError as fault:
        told = f"not the head of a run ({fault}); choose another place, or delete it and {ANEW}"
        raise BadInput(f"{store.place}/{HEAD}: {told}") from fault
    return head


def _walk(folder: Path, prefix: str) -> dict[str, Path]:
    """Files below a folder by their name in the store; what is half written is left out."""
    found = {}
    for root, folders, names in os.walk(folder):
        at = Path(root)
        folders[:] = sorted(n for n in folders if not n.endswith((".partial", ".tmp")))
        if at == folder and not prefix:
            folders[:] = [n for n in folders if n not in NOT_STORED]
        for name in sorted(names):
            if not name.endswith((".partial", ".tmp")):
                file = at / name
                found["/".join(filter(None, [prefix, file.relative_to(folder).as_posix()]))] = file
    return found


def _last(name: str) -> tuple[int, str]:
    """Order of storing: what says that others are complete comes after them, the settings at the very end."""
    file = name.split("/")[-1]
    return (2 if name == "config.yaml" else int(file in {"manifest.json", "model.json", "selection.json"}), name)


def _stat(file: Path) -> list[int]:
    try:
        facts = file.stat()
    except OSError:
        return []
    return [facts.st_size, facts.st_mtime_ns]


def _read_record(folder: Path) -> dict[str, list[Any]]:
    try:
        record: dict[str, list[Any]] = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return record
