"""A run in an object store: nothing half written is ever read, whoever is killed when; one driver holds it."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from data_io.errors import BadInput
from search import checkpoints, stored_run
from search.ledger import LEDGER, Ledger
from search.metrics import COLUMNS, write_metrics
from search.signals import Ended
from search.storage import Storage, StorageLost, Stored
from search.stored_run import HEAD, LedgerCopy, StoredRun
from search.stored_trial import StoredTrial
from tests.s3_stand_in import S3

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("moto.server")
PLACE = "s3://runs/lab/one"


class Killed(BaseException):
    """The process is no more."""


class Memory(Storage):
    """A store in this process, whose user is killed before request number `life`."""

    def __init__(self, content: dict[str, bytes] | None = None, life: int = 10**9) -> None:
        super().__init__(PLACE, 1.0)
        object.__setattr__(self, "content", {} if content is None else content)
        object.__setattr__(self, "life", life)
        object.__setattr__(self, "done", [])

    content: dict[str, bytes]
    life: int
    done: list[str]

    def _request(self, what: str) -> None:
        if len(self.done) >= self.life:
            raise Killed
        self.done.append(what)

    def put(self, file: Path, name: str) -> None:
        self.write(name, file.read_bytes())

    def write(self, name: str, data: bytes, *, new: bool = False) -> None:
        self._request(f"put {name}")
        if new and name in self.content:
            raise FileExistsError(name)
        self.content[name] = data

    def read(self, name: str) -> bytes | None:
        self._request(f"get {name}")
        return self.content.get(name)

    def get(self, name: str, file: Path) -> None:
        self._request(f"get {name}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(self.content[name])

    def objects(self, under: str = "") -> dict[str, Stored]:
        self._request(f"list {under}")
        own = sorted(name for name in self.content if name.startswith(f"{under}/" if under else ""))
        return {name: Stored(len(self.content[name]), str(hash(self.content[name]))) for name in own}

    def delete(self, names: Any) -> None:
        for name in list(names):
            self._request(f"delete {name}")
            self.content.pop(name, None)


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    s3 = S3()
    yield s3
    s3.unplug()


@pytest.fixture
def s3(server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    server.make_bucket("runs")
    return server


def train_epoch(folder: Path, epoch: int, best: int) -> None:
    """Write what an epoch leaves: metrics, a checkpoint of a pretended state; only the newest and best are kept."""
    rows = [{**dict.fromkeys(COLUMNS, 0.5), "epoch": e} for e in range(1, epoch + 1)]
    folder.mkdir(parents=True, exist_ok=True)
    write_metrics(folder / "metrics.csv", rows)
    new = checkpoints.begin(folder / "checkpoints", epoch)
    (new / checkpoints.STATE).write_bytes(bytes([epoch]) * 100)
    write_metrics(new / checkpoints.METRICS, rows)
    checkpoints.seal(new, epoch, 0.5)
    checkpoints.prune(folder / "checkpoints", {epoch, best})


def epochs(folder: Path) -> set[int]:
    return {checkpoints.epoch_of(p) for p in (folder / "checkpoints").glob("epoch_*") if checkpoints.manifest(p)}


def test_a_trial_killed_at_any_request_goes_on_elsewhere_from_a_complete_checkpoint_and_its_best(
    tmp_path: Path,
) -> None:
    best = {1: 1, 2: 1, 3: 3, 4: 3}
    requests = 0
    for life in range(10**3):
        content: dict[str, bytes] = {}
        store, reported = Memory(content, life), 0
        folder = tmp_path / f"a{life}"
        try:
            kept = StoredTrial(store, "t", folder)
            assert not kept.bring()
            for epoch in best:
                train_epoch(folder, epoch, best[epoch])
                kept.put()
                reported = epoch
        except Killed:
            requests += 1
        elsewhere = tmp_path / f"b{life}"
        came = StoredTrial(Memory(content), "t", elsewhere).bring()
        there = epochs(elsewhere)
        assert came == bool(there)
        if there:
            assert max(there) in {reported, reported + 1}, "what was reported is there"
            assert best[max(there)] in there, "and the best so far"
        else:
            assert reported == 0
        if life > len(store.done):
            break
    assert requests > 20
    names = {name.split("/")[3] for name in content if "checkpoints" in name}
    assert names == {"epoch_000003", "epoch_000004"}, "the keep rules hold in the store"


def test_a_node_that_goes_on_is_brought_only_what_it_lacks(tmp_path: Path) -> None:
    store = Memory()
    here, other = tmp_path / "here", tmp_path / "other"
    kept = StoredTrial(store, "t", here)
    kept.bring()
    train_epoch(here, 1, 1)
    kept.put()
    del store.done[:]
    assert not StoredTrial(store, "t", here).bring()
    assert store.done == ["list trials/t"]
    moved = StoredTrial(store, "t", other)
    assert moved.bring()
    train_epoch(other, 2, 2)
    del store.done[:]
    moved.put()
    root = "trials/t/checkpoints/epoch_00000"
    assert store.done == [
        "put trials/t/metrics.csv",
        *(f"put {root}2/{name}" for name in ("metrics.csv", "state.ckpt", "manifest.json")),
        *(f"delete {root}1/{name}" for name in ("manifest.json", "metrics.csv", "state.ckpt")),
    ]
    assert epochs(other) == {2}
    assert not any("epoch_000001" in name for name in store.content)


def test_a_trial_that_comes_back_to_a_node_brings_no_old_checkpoints_along(tmp_path: Path) -> None:
    store = Memory()
    here, other = tmp_path / "here", tmp_path / "other"
    kept = StoredTrial(store, "t", here)
    kept.bring()
    for epoch in (1, 2):
        train_epoch(here, epoch, 1)
    kept.put()
    moved = StoredTrial(store, "t", other)
    assert moved.bring()
    for epoch in (3, 4):
        train_epoch(other, epoch, 3)
        moved.put()
    back = StoredTrial(store, "t", here)
    assert back.bring()
    (here / "metrics.csv").write_text("an epoch without a checkpoint")
    back.put()
    assert epochs(here) == {3, 4}
    names = {name.split("/")[3] for name in store.content if "checkpoints" in name}
    assert names == {"epoch_000003", "epoch_000004"}


def test_the_ledger_in_the_store_is_always_a_beginning_of_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_run, "PART", 500)
    ledger = Ledger(tmp_path / LEDGER)
    content: dict[str, bytes] = {}
    copy = LedgerCopy(Memory(content), "ledger/s", tmp_path / LEDGER)
    for number in range(60):
        for _ in range(number % 4):
            ledger.append("start", f"trial-{number}")
        copy.all_of_it()
        assert b"".join(content[name] for name in sorted(content)) == (tmp_path / LEDGER).read_bytes()
    ledger.close()
    sizes = [len(content[name]) for name in sorted(content)]
    assert len(sizes) > 5
    assert all(size <= 500 for size in sizes)
    with (tmp_path / LEDGER).open("ab") as file:
        file.write(b'{"half a li')
    copy.all_of_it()
    assert b"half" not in b"".join(content.values())
    whole = LedgerCopy(Memory(again := {}), "ledger/s", tmp_path / LEDGER)
    whole.all_of_it()
    assert b"".join(again[name] for name in sorted(again)) == b"".join(content[name] for name in sorted(content))
    again.clear()
    whole = LedgerCopy(Memory(again, 2), "ledger/s", tmp_path / LEDGER)
    with pytest.raises(Killed):
        whole.all_of_it()
    assert len(again) == 2


def lines_of(store: Storage) -> int:
    head = json.loads(store.read(HEAD) or b"{}")
    return sum((store.read(name) or b"").count(b"\n") for name in store.objects(head["ledger"]))


def test_a_run_goes_on_in_another_folder_and_a_second_driver_is_refused(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_run, "PAUSE", 0.05)
    monkeypatch.setattr(stored_run, "BEAT", 0.1)
    monkeypatch.setattr(stored_run, "STALE", 0.6)
    store, said = Storage.at(PLACE, 5), []
    first = StoredRun(store, tmp_path / "a")
    first.folder.mkdir(parents=True)
    with first.held(said.append):
        (first.folder / "config.yaml").write_text("seed: 1\n")
        (first.folder / "encoders").mkdir()
        (first.folder / "encoders" / "w.safetensors").write_bytes(b"w" * 1000)
        first._put(first._files())
        ledger = Ledger(first.folder / LEDGER)
        ledger.append("start", "t")
        ledger.append("complete", "t")
        second = StoredRun(store, tmp_path / "b", resumed=True)
        refused = pytest.raises(BadInput, match=rf"{PLACE}: locked by .*/{os.getpid()} since .*; wait for it or end it")
        with refused, second.held(said.append):
            pass
    ledger.close()
    assert lines_of(store) == 2, "the last lines follow before the run is let go"
    third = StoredRun(store, tmp_path / "b", resumed=True)
    third.folder.mkdir(parents=True)
    with third.held(said.append):
        assert (third.folder / LEDGER).read_bytes() == (first.folder / LEDGER).read_bytes()
        assert (third.folder / "config.yaml").read_text() == "seed: 1\n"
        assert (third.folder / "encoders" / "w.safetensors").stat().st_size == 1000
        ledger = Ledger(third.folder / LEDGER)
        ledger.append("sitting", "")
    ledger.close()
    s3.asked.clear()
    again = StoredRun(store, tmp_path / "a", resumed=True)
    assert again.folder == first.folder
    with again.held(said.append):
        assert len(Ledger(again.folder / LEDGER).events) == 3, "the folder of the first machine learns of the second"
    assert s3.asked["GET", "encoders"] == 0, "what it has is not brought again"
    assert sum(name.startswith("ledger/") for name in store.objects()) == 1, "earlier drivers' parts are deleted"


def test_a_dead_driver_is_taken_over_and_its_late_writes_change_nothing(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_run, "PAUSE", 0.05)
    monkeypatch.setattr(stored_run, "BEAT", 10**6)  # it gives no sign of life, but it lives
    monkeypatch.setattr(stored_run, "STALE", 0.5)
    store, said = Storage.at(f"{PLACE}-zombie", 5), []
    zombie = StoredRun(store, tmp_path / "a")
    zombie.folder.mkdir(parents=True)
    with zombie.held(said.append):
        ledger = Ledger(zombie.folder / LEDGER)
        ledger.append("start", "t")
        until(lambda: lines_of(store) == 1)
        other = StoredRun(store, tmp_path / "b")
        other.folder.mkdir(parents=True)
        with other.held(said.append):
            ledger.append("start", "late")
            Ledger(other.folder / LEDGER).append("sitting", "")
            until(lambda: lines_of(store) == 2)
            assert b"late" not in (other.folder / LEDGER).read_bytes()
            with pytest.raises(BadInput, match="taken over by another driver"):
                zombie.beat()
    assert any("has ended; taken over" in line for line in said)
    ledger.close()
    mine = StoredRun(store, tmp_path / "a")
    with mine.held(said.append):
        assert (mine.folder / LEDGER).read_bytes() == (other.folder / LEDGER).read_bytes()
    assert b"late" in (mine.folder / "ledger.replaced.jsonl").read_bytes(), "nothing is thrown away"


def test_a_store_out_of_reach_is_waited_for_then_named_and_nothing_is_lost(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_run, "PAUSE", 0.05)
    monkeypatch.setattr(stored_run, "STALE", 0.5)
    store, said = Storage.at(f"{PLACE}-unplugged", 20), []
    run = StoredRun(store, tmp_path / "a")
    run.folder.mkdir(parents=True)
    with run.held(said.append):
        ledger = Ledger(run.folder / LEDGER)
        s3.unplug()
        ledger.append("start", "t")
        threading.Timer(1.5, s3.plug_in).start()
        until(lambda: s3.is_plugged_in and lines_of(store) == 1)
    impatient = StoredRun(Storage(store.place, 0.5), tmp_path / "a")
    with impatient.held(said.append):
        s3.unplug()
        ledger.append("complete", "t")
        until(lambda: impatient.lost is not None)
        assert str(impatient.lost).startswith(f"{store.place}: no answer for 0 s (")
        with pytest.raises(StorageLost, match="no answer for"):
            StoredTrial(impatient.store, "t", tmp_path / "t").bring()
    s3.plug_in()
    assert said[-1].startswith(f"note: {store.place}: no answer")
    assert said[-1].endswith(f"the newest is in {run.folder}")
    ledger.close()
    with StoredRun(store, tmp_path / "a").held(said.append):
        assert lines_of(store) == 2, "what this machine knew more is stored when it goes on"


def test_a_driver_asked_to_end_does_not_wait_for_a_store_out_of_reach(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_run, "HURRY", 0.2)
    run = StoredRun(Storage.at(f"{PLACE}-hurry", 60), tmp_path)
    run.folder.mkdir(parents=True)
    said: list[str] = []
    began = time.monotonic()

    def ended() -> None:
        with run.held(said.append):
            s3.unplug()
            Ledger(run.folder / LEDGER).append("start", "t")
            raise Ended(15)

    with pytest.raises(Ended):
        ended()
    s3.plug_in()
    assert time.monotonic() - began < 10
    assert "is behind; the newest is in" in said[-1]


def test_a_driver_that_was_overtaken_while_it_brought_the_run_does_not_begin(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_run, "PAUSE", 0.05)
    store, said = Storage.at(f"{PLACE}-overtaken", 5), []
    first = StoredRun(store, tmp_path / "a")
    first.folder.mkdir(parents=True)
    with first.held(said.append):
        Ledger(first.folder / LEDGER).append("start", "t")
    slow, fast = StoredRun(store, tmp_path / "b"), StoredRun(store, tmp_path / "a")
    slow.folder.mkdir(parents=True)
    with fast.held(said.append):
        refused = pytest.raises(BadInput, match=rf"{PLACE}-overtaken: locked by .*/{os.getpid()} since .*meanwhile")
        with refused, slow.held(said.append):  # its head is as old as that of the fast one
            pass
        Ledger(fast.folder / LEDGER).append("complete", "t")
        until(lambda: lines_of(store) == 2)


def test_a_head_that_is_deleted_is_written_again_and_results_that_were_are_stored_again(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_run, "PAUSE", 0.05)
    monkeypatch.setattr(stored_run, "BEAT", 0.1)
    store, said = Storage.at(f"{PLACE}-deleted", 5), []
    run = StoredRun(store, tmp_path / "a")
    run.folder.mkdir(parents=True)
    with run.held(said.append):
        (run.folder / "summary.json").write_text("{}")
        (run.folder / "config.yaml").write_text("seed: 1")
        Ledger(run.folder / LEDGER).append("start", "t")
        run.put_results()
        store.delete([HEAD, "summary.json"])
        store.write("config.yaml", b"seed: 2")
        until(lambda: store.read(HEAD) is not None)
        run.put_results()
        assert (store.read("summary.json"), store.read("config.yaml")) == (b"{}", b"seed: 1")
        run.lost = f"{store.place}: taken over by another driver; this one ends"
        with pytest.raises(StorageLost, match="taken over"):
            run.put_results()
    assert not said[1:], "nothing but that it was lost"


@pytest.mark.parametrize("elsewhere", [False, True])
def test_data_that_were_deleted_or_changed_there_are_stored_again_and_never_brought_over_good_ones(
    elsewhere: bool, s3: S3, tmp_path: Path
) -> None:
    store, said = Storage.at(f"{PLACE}-data-{elsewhere}", 5), []
    run = StoredRun(store, tmp_path / "a")
    data = tmp_path / "movie.zarr" if elsewhere else run.folder / "dataset.zarr"
    data.mkdir(parents=True)
    run.folder.mkdir(parents=True, exist_ok=True)
    good = {name: f"the {name}".encode() for name in ("manifest.json", "zarr.json", "chunk")}
    for name, content in good.items():
        (data / name).write_bytes(content)
    dataset: Any = type("Dataset", (), {"path": data})()
    with run.held(said.append):
        Ledger(run.folder / LEDGER).append("start", "t")
        run.put_needed(dataset)
    store.delete(["dataset.zarr/zarr.json"])
    store.write("dataset.zarr/chunk", b"the chink")
    again = StoredRun(store, tmp_path / "a")
    with again.held(said.append):
        assert {file.name: file.read_bytes() for file in data.iterdir()} == good
        assert (again.folder / "dataset.zarr").exists() is not elsewhere
        again.put_needed(dataset)
    assert {name: store.read(f"dataset.zarr/{name}") for name in good} == good
    assert not said, "nothing had to be brought"


def test_a_damaged_ledger_is_never_gone_on_with(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_run, "PART", 300)
    store, said = Storage.at(f"{PLACE}-damaged", 5), []
    first = StoredRun(store, tmp_path / "a")
    first.folder.mkdir(parents=True)
    with first.held(said.append):
        ledger = Ledger(first.folder / LEDGER)
        for number in range(20):
            ledger.append("start", f"t{number}")
    ledger.close()
    names = list(store.objects(first.head["ledger"]))  # type: ignore[index]
    whole = {name: store.read(name) or b"" for name in names}
    assert len(names) > 5
    flipped = whole[names[2]].replace(b"start", b"stars", 1)
    for change, named in ((flipped, names[2]), (whole[names[2]][:-7], names[3]), (None, names[3])):
        if change is None:
            store.delete([names[2]])
        else:
            store.write(names[2], change)
        other = StoredRun(store, tmp_path / "b")
        refused = pytest.raises(BadInput, match=rf"{PLACE}-damaged/{named}: damaged, or .*; resume on the machine that")
        with refused, other.held(said.append):
            pass
        assert not (other.folder / LEDGER).exists(), "what is damaged is not left here"
    store.delete(names[2:])
    other.folder.mkdir(parents=True, exist_ok=True)
    with other.held(said.append):
        assert 0 < len(Ledger(other.folder / LEDGER).events) < 20, "as the refusal says"
    store.write(stored_ledger := next(iter(store.objects("ledger"))), flipped)
    with StoredRun(store, tmp_path / "a").held(said.append):
        assert lines_of(store) == 20
    assert f"{store.place}/{stored_ledger} is damaged; this folder has the whole ledger" in said[-1]


def test_what_interrupted_uploads_left_is_let_go_of(s3: S3, tmp_path: Path) -> None:
    store = Storage.at(f"{PLACE}-uploads", 5)
    for name in ("trials/t/checkpoints/epoch_000001/state.ckpt", "../other"):
        store._fs.call_s3("create_multipart_upload", Bucket="runs", Key=f"lab/one-uploads/{name}")
    run = StoredRun(store, tmp_path)
    run.folder.mkdir(parents=True)
    with run.held(lambda text: None):
        Ledger(run.folder / LEDGER).append("start", "t")
        run.put_results()
    left = store._fs.call_s3("list_multipart_uploads", Bucket="runs").get("Uploads", [])
    assert not left


class Refusing:
    """Stands for a file system whose store answers the deletion of many objects, and does none."""

    def pipe_file(self, name: str, data: bytes) -> None:
        pass

    def call_s3(self, method: str, **given: Any) -> dict[str, Any]:
        keys = [one["Key"] for one in given["Delete"]["Objects"]]
        return {"Errors": [{"Key": key, "Code": "AccessDenied", "Message": "Access Denied"} for key in keys]}


def test_keys_that_may_not_delete_or_write_are_refused_at_once(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = StoredRun(Storage.at(f"{PLACE}-rights", 60), tmp_path)
    monkeypatch.setattr(Storage, "_fs", Refusing())
    with pytest.raises(BadInput, match=r"access denied \(.*Access Denied\); a run replaces its checkpoints"):
        run.store.check_rights()
    impatient = Storage(run.place, 0.1)
    with pytest.raises(StorageLost, match=r"t/state\.ckpt was not deleted: Access Denied"):
        impatient.delete(["trials/t/state.ckpt"])


def test_what_is_missing_is_said_before_anything_is_begun(
    s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=r"s3://nobucket/run: no such bucket or object"):
        Storage.at("s3://nobucket/run")
    with pytest.raises(BadInput, match=r"run to resume \(head\.json is missing\)"):
        StoredRun(Storage.at("s3://runs/none"), tmp_path, resumed=True)
    store = Storage.at("s3://runs/thesis")
    store.write(HEAD, b"not ours")
    with pytest.raises(BadInput, match=r"s3://runs/thesis/head\.json: not the head of a run"):
        StoredRun(store, tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(BadInput, match=r"http://127\.0\.0\.1:9 does not answer .*; check AWS_ENDPOINT_URL"):
        Storage.at("s3://runs/run")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:10")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(BadInput, match="no credentials; set AWS_ACCESS_KEY_ID"):
        Storage.at("s3://runs/run")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(BadInput, match=r"pip install 'cellsearch\[s3\]'"):
        Storage.at("s3://runs/run")


def until(holds: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)
