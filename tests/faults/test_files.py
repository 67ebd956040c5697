"""Each file of a run cut, empty, changed or gone: told with the remedy, or made anew; never a silent restart."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from data_io import errors, store, synthetic
from data_io.convert import convert
from data_io.errors import BadInput
from search import checkpoints, prepare, run
from search.changes import Made, settle
from search.config import load
from search.ledger import BACKUP, LEDGER, Ledger
from search.lock import only_driver
from search.reopened import reopen, without_best
from search.signals import Signals
from search.space import Plan
from search.tuning import _settle_interrupted, needs_training, take_over
from tests.faults import driver, toy
from tests.faults.disturbed import corrupt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from search.metrics import Row

HOWS = ["cut", "empty", "flipped", "absent"]
NUMBER = 3


class Killed(RuntimeError):
    """Stands for the end of the process."""


@contextmanager
def unchanged_signals() -> Iterator[None]:
    """A command takes the signals over; give them back to the tests."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.fixture(scope="module")
def finished(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run whose trials are all completed, as a driver leaves it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch, unchanged_signals():
        driver.install(NUMBER, 0, 1, patch.setattr)
        patch.setattr(run, "compare", lambda run_dir: run_dir / "summary.json")
        ledger = Ledger(folder / LEDGER)
        for trial in driver.trials(config(), NUMBER, 0):
            ledger.append("start", trial.id)

            def report(row: Row, name: str = trial.id) -> None:
                ledger.epoch(name, row)

            toy.train(trial, toy.NoFrames(), folder / "trials" / trial.id, report, folder)
            ledger.append("complete", trial.id, reason="")
        ledger.close()
        shutil.copytree(folder / "trials", folder.parent / "trials")
        assert run.main(command(folder, small_data)) == errors.DONE
    return folder


def config(*more: str) -> Any:
    return load("demo", None, [*driver.SETTINGS, *more])


def command(folder: Path, data: Path, *more: str) -> list[str]:
    return ["--out", str(folder), f"data.path={json.dumps(str(data))}", *driver.SETTINGS, *more]


@pytest.fixture
def again(
    finished: Path,
    small_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[tuple[Path, Callable[..., tuple[int, str]]]]:
    """Return a copy of the run, and what starts its driver: exit code, and what is said."""
    shutil.copytree(finished, folder := tmp_path / "run")
    driver.install(NUMBER, 0, 1, monkeypatch.setattr)
    monkeypatch.setattr(run, "compare", lambda run_dir: run_dir / "summary.json")

    def start(*more: str, resume: bool = False) -> tuple[int, str]:
        given = ["--resume", str(folder), *more] if resume else command(folder, small_data, *more)
        try:
            code = run.main(given)
        except BadInput as fault:
            return errors.REFUSED, str(fault)
        said = capsys.readouterr()
        return code, said.out + said.err

    with unchanged_signals():
        yield folder, start


def test_an_untouched_run_has_nothing_to_train(again: Any) -> None:
    folder, start = again
    before = (folder / LEDGER).read_bytes()
    code, said = start()
    assert code == errors.DONE
    assert "nothing to train" in said
    assert (folder / LEDGER).read_bytes() == before


@pytest.mark.parametrize("how", ["empty", "flipped", "absent"])
def test_f03_a_damaged_ledger_is_refused_and_its_newest_good_copy_is_named_and_serves(how: str, again: Any) -> None:
    folder, start = again
    whole = (folder / LEDGER).read_bytes()
    corrupt(folder / LEDGER, how)
    code, said = start()
    assert code == errors.REFUSED
    assert str(folder / LEDGER) in said
    assert f"the newest good copy is {folder / BACKUP}" in said
    assert said == start(resume=True)[1]
    shutil.copy(folder / BACKUP, folder / LEDGER)
    assert (folder / LEDGER).read_bytes() == whole
    assert start()[0] == errors.DONE


@pytest.mark.parametrize("how", HOWS)
def test_f03_a_damaged_copy_is_not_named(how: str, again: Any) -> None:
    folder, start = again
    corrupt(folder / BACKUP, how)
    assert start()[0] == errors.DONE
    corrupt(folder / BACKUP, "empty")
    corrupt(folder / LEDGER, "empty")
    assert "restore the file from a copy or start a new run with --out" in start()[1]


def test_f03_every_changed_byte_of_a_ledger_is_noticed(again: Any) -> None:
    folder, _ = again
    path = folder / LEDGER
    whole = path.read_bytes()
    for place in range(0, whole.rstrip(b"\n").rfind(b"\n"), 97):
        changed = bytearray(whole)
        changed[place] ^= 1 << (place % 7)
        path.write_bytes(changed)
        with pytest.raises(BadInput, match=r"ledger\.jsonl:\d+: damaged line"):
            Ledger(path)


def test_f03_lines_that_are_missing_or_in_another_order_are_noticed(again: Any) -> None:
    folder, _ = again
    path = folder / LEDGER
    lines = path.read_bytes().splitlines(keepends=True)
    for changed in ([*lines[:3], *lines[4:]], [lines[1], lines[0], *lines[2:]], [*lines[:5], lines[4], *lines[5:]]):
        path.write_bytes(b"".join(changed))
        with pytest.raises(BadInput, match="damaged line"):
            Ledger(path)


def test_f03_a_ledger_that_is_cut_gets_its_epochs_back_from_the_trials(again: Any, small_data: Path) -> None:
    folder, _ = again
    corrupt(folder / LEDGER, "cut")
    (folder / BACKUP).unlink()
    ledger = Ledger.of_run(folder)
    assert "was cut short" in ledger.notes[0]
    assert ledger.epochs < 9 * NUMBER
    trials = driver.trials(config(), NUMBER, 0)
    missing = 9 * NUMBER - ledger.epochs
    assert take_over(ledger, list(trials), folder) == missing
    for trial in trials:
        rows = Ledger(folder / LEDGER).trials()[trial.id].rows
        for wanted in toy.expected(trial.id, 9):
            assert {name: rows[wanted["epoch"]][name] for name in wanted} == wanted


@pytest.mark.parametrize("how", ["cut", "lines lost"])
def test_f03_lines_that_a_ledger_lost_are_put_back_from_its_copy(how: str, again: Any) -> None:
    folder, start = again
    whole = (folder / LEDGER).read_bytes()
    if how == "cut":
        corrupt(folder / LEDGER, "cut")
    else:
        (folder / LEDGER).write_bytes(b"".join(whole.splitlines(keepends=True)[:-4]))
    code, said = start()
    assert code == errors.DONE
    assert f"lines were lost and are put back from {BACKUP}" in said
    assert "nothing to train" in said
    assert (folder / LEDGER).read_bytes() == whole


def test_f03_a_copy_that_is_damaged_or_of_another_run_puts_nothing_back(again: Any) -> None:
    folder, _ = again
    whole = (folder / LEDGER).read_bytes()
    short = b"".join(whole.splitlines(keepends=True)[:-4])
    for copy in (whole[: len(short) + 50] + b"?" + whole[len(short) + 51 :], b"{}\n" + whole, short, whole[:-1]):
        (folder / BACKUP).write_bytes(copy)
        (folder / LEDGER).write_bytes(short)
        ledger = Ledger.of_run(folder)
        ledger.close()
        assert len(ledger.events) == len(short.splitlines()) + (3 if copy == whole[:-1] else 0)


@pytest.mark.parametrize("content", ["[]", "null", "[]\n", '{"a": 1}\n', "[" * 100_000 + "\n"])
def test_f03_what_is_no_ledger_is_refused(content: str, again: Any) -> None:
    folder, start = again
    (folder / LEDGER).write_text(content)
    code, said = start()
    assert code == errors.REFUSED
    assert f"the newest good copy is {folder / BACKUP}" in said
    assert (folder / LEDGER).read_text() == content


def test_f03_a_configuration_that_is_gone_is_known_to_the_ledger(again: Any) -> None:
    folder, start = again
    corrupt(folder / "config.yaml", "absent")
    code, said = start(resume=True)
    assert code == errors.REFUSED
    assert f"{folder / 'config.yaml'}: missing" in said
    assert f"with --out {folder}" in said
    code, said = start("train.max_epochs=8")
    assert code == errors.REFUSED
    assert "train.max_epochs: 9 -> 8" in said
    assert start()[0] == errors.DONE
    assert (folder / "config.yaml").exists()


@pytest.mark.parametrize("how", ["cut", "empty"])
def test_f03_a_configuration_that_is_cut_is_refused(how: str, again: Any) -> None:
    folder, start = again
    corrupt(folder / "config.yaml", how)
    code, said = start(resume=True)
    assert code == errors.REFUSED
    assert str(folder) in said


@pytest.mark.parametrize("name", ["run.json", "summary.json", "optuna.db", "ledger.backup.jsonl", "lock"])
@pytest.mark.parametrize("how", HOWS)
def test_f04_f37_files_that_follow_from_the_ledger_are_made_anew(name: str, how: str, again: Any) -> None:
    folder, start = again
    (folder / name).touch()
    if (folder / name).stat().st_size or how != "flipped":
        corrupt(folder / name, how)
    code, said = start()
    assert code == errors.DONE
    assert "nothing to train" in said
    if name == "run.json":
        assert json.loads((folder / name).read_text())["kind"] == "search"


def test_f04_no_state_of_ray_is_kept_to_go_on_from(finished: Path) -> None:
    assert not list(finished.rglob("*.pkl"))
    assert not list(finished.rglob("experiment_state*"))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"bytes_for_decoded_frames": "many"}'])
def test_the_memory_of_a_run_that_cannot_be_read_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / prepare.MEMORY).write_text(content)
    with pytest.raises(BadInput, match=r"memory\.json: damaged; delete it .* or set data\.memory_gb"):
        prepare._memory_for_frames(config(), tmp_path)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", ["state.ckpt", "metrics.csv", "manifest.json"])
def test_f07_f31_a_damaged_checkpoint_is_never_used_and_changes_no_number(name: str, how: str, tmp_path: Path) -> None:
    [trial] = driver.trials(config(), 1, 0)
    told: dict[int, Row] = {}

    def until(last: int) -> Callable[[Row], None]:
        def report(row: Row) -> None:
            told[row["epoch"]] = row
            if row["epoch"] == last:
                raise Killed

        return report

    with pytest.raises(Killed):
        toy.train(trial, toy.NoFrames(), tmp_path, until(7), tmp_path)
    newest = checkpoints.newest(tmp_path / "checkpoints")
    assert newest is not None
    corrupt(newest / name, how)
    assert checkpoints.newest(tmp_path / "checkpoints") != newest
    (tmp_path / "checkpoints" / "epoch_000008").mkdir()
    (tmp_path / "checkpoints" / "epoch_000008" / "stale").write_text("of a process that was killed")
    toy.train(trial, toy.NoFrames(), tmp_path, until(99), tmp_path)
    assert [told[epoch] for epoch in sorted(told)] == toy.expected(trial.id, 9)
    assert not list(tmp_path.rglob("stale"))
    assert len(list((tmp_path / "checkpoints").iterdir())) <= 2


@pytest.mark.parametrize("how", HOWS)
def test_the_metrics_of_a_trial_that_goes_on_are_those_of_its_checkpoint(how: str, tmp_path: Path) -> None:
    [trial] = driver.trials(config(), 1, 0)

    def killed(row: Row) -> None:
        if row["epoch"] == 5:
            raise Killed

    with pytest.raises(Killed):
        toy.train(trial, toy.NoFrames(), tmp_path, killed, tmp_path)
    corrupt(tmp_path / "metrics.csv", how)
    toy.train(trial, toy.NoFrames(), tmp_path, lambda row: None, tmp_path)
    whole = tmp_path.with_name("whole")
    toy.train(trial, toy.NoFrames(), whole, lambda row: None, tmp_path)
    assert (tmp_path / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


def test_f11_a_lock_of_another_machine_is_respected_while_its_heart_beats(tmp_path: Path) -> None:
    lock, notes = tmp_path / "lock", []
    lock.write_text("another-machine/4711 since 2026-01-02 03:04:05")
    with pytest.raises(BadInput, match="locked by another-machine/4711 since 2026-01-02"), only_driver(tmp_path):
        pass
    os.utime(lock, (time.time() - 3600,) * 2)
    with only_driver(tmp_path, notes.append):
        assert "another-machine/4711" in notes[0]
        assert "is stale" in notes[0]
        assert lock.read_text().startswith(f"{os.uname().nodename}/{os.getpid()} since ")
    assert not lock.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_f11_a_lock_of_another_machine_whose_clock_runs_ahead_says_how_to_go_on(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text("another-machine/4711 since 2026-01-02 03:04:05")
    os.utime(lock, (time.time() + 86400,) * 2)
    with pytest.raises(BadInput, match=rf"; if that machine has ended for good, delete {lock}$"), only_driver(tmp_path):
        pass


def test_f11_a_lock_with_rubbish_in_it_is_one_line(tmp_path: Path) -> None:
    lock, notes = tmp_path / "lock", []
    lock.write_bytes(b"\xff\xfe\x00\n\n" + b"x" * 100_000)
    os.utime(lock, (time.time() - 3600,) * 2)
    with only_driver(tmp_path, notes.append):
        pass
    [note] = notes
    assert len(note) < 300
    assert "\n" not in note


def test_f11_a_run_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(BadInput, match=r"cannot be written to \(Is a directory\); give another"), only_driver(tmp_path):
        pass


def test_f05_a_full_disk_is_found_behind_other_errors_with_its_place() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/run/metrics.csv")
    wrapped = RuntimeError("saving failed")
    wrapped.__cause__ = full
    assert errors.is_disk_full(wrapped)
    assert str(errors.disk_full(wrapped)).startswith("/run/metrics.csv: the disk is full (")
    shared = RuntimeError("unable to write to file </torch_12_34>: No space left on device (28)")
    assert str(errors.disk_full(shared)).startswith("/dev/shm: ")  # noqa: S108 - no file is made
    assert not errors.is_disk_full(OSError(errno.EACCES, "Permission denied"))


def test_f05_a_full_disk_in_the_conversion_is_told_as_such_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthetic.write(tmp_path / "raw", fields=1, frames=3, size=(128, 128), preset="easy", seed=1)
    frame = store.Writer.frame

    def full(self: store.Writer, array: Any, at: int, values: Any) -> None:
        if at:
            raise OSError(errno.ENOSPC, "No space left on device")
        frame(self, array, at, values)

    monkeypatch.setattr(store.Writer, "frame", full)
    with pytest.raises(errors.DiskFull, match=r"dataset\.zarr: the disk is full \("):
        convert(tmp_path / "raw", tmp_path / "run" / "dataset.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
    monkeypatch.undo()
    assert convert(tmp_path / "raw", tmp_path / "run" / "dataset.zarr").fields


def test_f25_a_changed_chunk_of_the_data_set_of_a_run_is_named_when_it_goes_on(tmp_path: Path) -> None:
    made, own = tmp_path / "raw", tmp_path / "run" / "dataset.zarr"
    synthetic.write(made, fields=3, frames=1, size=(128, 128), preset="easy", seed=1)
    settings = config(f"data.path={json.dumps(str(made))}")
    dataset = prepare.prepare_data(settings, own.parent)
    assert prepare.prepare_data(settings, own.parent).content_hash == dataset.content_hash
    chunk = next(path for path in sorted(own.rglob("s0/c/0/0/0/*")) if path.is_file())
    corrupt(chunk, "flipped")
    remedy = "convert the source again into a new store, or delete .*: this run then converts it anew"
    with pytest.raises(BadInput, match=rf"{chunk.name}: changed since it was written .*; {remedy}"):
        prepare.prepare_data(settings, own.parent)
    shutil.rmtree(own)
    assert prepare.prepare_data(settings, own.parent).content_hash == dataset.content_hash


def test_f05_a_full_disk_in_the_report_is_no_failed_report(again: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, start = again

    def full(run_dir: Path) -> Path:
        raise errors.DiskFull(run_dir / "report.html", 12345)

    monkeypatch.undo()
    driver.install(NUMBER, 0, 1, monkeypatch.setattr)
    monkeypatch.setattr("analysis.compare.compare_run", full)
    code, said = start(resume=True)
    assert code == errors.PREEMPTED
    assert f"error: {folder / 'report.html'}: the disk is full (" in said
    assert f"12345 needed); mend that, then go on with: python -m search.run --resume {folder}" in said
    assert not (folder / "report_error.txt").exists()


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO, errno.EACCES])
def test_f05_a_disk_that_is_out_of_order_is_one_line_and_the_search_goes_on_afterwards(
    number: int, again: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, start = again

    def fails(path: Path | str, value: Any) -> None:
        raise OSError(number, os.strerror(number), f"{path}.tmp", None, str(path))

    monkeypatch.setattr("data_io.files.write_json", fails)
    code, said = start(resume=True)
    assert code == errors.PREEMPTED
    [line] = [line for line in said.splitlines() if line.startswith("error: ")]
    assert line.startswith(
        f"error: {folder / 'run.json'}: cannot be written or read ({os.strerror(number)}); mend that"
    )
    assert line.endswith(f"go on with: python -m search.run --resume {folder}")
    monkeypatch.undo()
    for elsewhere in (OSError(number, "no", "/root/other"), PermissionError(errno.EACCES, "of the images")):
        assert run.of_the_machine(elsewhere, folder) is None


def test_f11_a_driver_that_is_refused_leaves_the_run_of_the_other_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "make_folder", lambda run_dir: True)  # both saw that it was not there
    with only_driver(tmp_path):
        (tmp_path / "synthetic").mkdir()
        with pytest.raises(BadInput, match="locked by"):
            run.run(config(), tmp_path, Signals())
        assert (tmp_path / "synthetic").is_dir()


def test_f11_only_one_of_two_drivers_has_made_the_folder(tmp_path: Path) -> None:
    assert prepare.make_folder(tmp_path / "runs" / "0001")
    assert not prepare.make_folder(tmp_path / "runs" / "0001")
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot be made a folder"):
        prepare.make_folder(tmp_path / "file")


def test_what_a_killed_process_had_not_finished_writing_goes(tmp_path: Path) -> None:
    half = [
        ".run.json.1a2b3c4d.tmp",
        "best/.selection.json.1a2b3c4d.tmp",
        "best/star/.model.safetensors.1a2b3c4d.tmp",
        "cells/.counts.csv.1a2b3c4d.tmp",
        "cells/star/.a_00001.parquet.1a2b3c4d.tmp",
        "labels/.star.tif.tmp",
        "labels.zarr/a/s0/c/0/0/0.0123456789abcdef.partial",
        "predictions.zarr/star/a/mark/zarr.0123456789abcdef.partial",
        "trials/a/.metrics.csv.1a2b3c4d.tmp",
        "trials/a/checkpoints/epoch_000001/.state.ckpt.1a2b3c4d.tmp",
    ]
    whole = ["run.json", "best/star/model.json", "labels.zarr/a/s0/c/0/0/0", "trials/a/metrics.csv"]
    for name in (*half, *whole):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".permissions.1a2b3c4d.tmp").mkdir()
    (tmp_path / ".dataset.zarr.host.123.partial" / "a").mkdir(parents=True)
    prepare.remove_half_written(tmp_path)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == sorted(whole)
    assert not list(tmp_path.glob(".*"))


def test_a_completed_trial_that_lost_its_best_checkpoint_is_trained_again_with_the_same_numbers(tmp_path: Path) -> None:
    [trial] = driver.trials(config(), 1, 0)
    plan, folder = Plan((trial,), ()), tmp_path / "trials" / trial.id
    ledger = Ledger(tmp_path / LEDGER)

    def train() -> None:
        ledger.append("start", trial.id)
        toy.train(trial, toy.NoFrames(), folder, lambda row: bool(ledger.epoch(trial.id, row)), tmp_path)
        ledger.append("complete", trial.id, reason="")

    train()
    assert without_best([trial], ledger, tmp_path) == {}
    rows = dict(ledger.trials()[trial.id].rows)
    corrupt(folder / "checkpoints" / "epoch_000009" / "state.ckpt", "flipped")
    lost = without_best([trial], ledger, tmp_path)
    assert lost == {trial.id: 9}
    reopen(lost, ledger, tmp_path)
    ledger.close()

    ledger = Ledger(tmp_path / LEDGER)
    assert needs_training(config(), plan, ledger)
    _settle_interrupted(ledger, plan, {})
    assert ledger.trials()[trial.id].status is None, "that all its epochs are known does not end it"
    train()
    assert without_best([trial], ledger, tmp_path) == {}
    assert ledger.trials()[trial.id].rows == rows
    assert not needs_training(config(), plan, ledger)
    ledger.close()


def test_f11_the_heart_of_a_driver_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.lock.BEAT_SECONDS", 0.02)
    with only_driver(tmp_path):
        os.utime(tmp_path / "lock", (time.time() - 3600,) * 2)
        deadline = time.monotonic() + 20
        while time.time() - (tmp_path / "lock").stat().st_mtime > 60:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"config": {"train.max_epochs": 8}}, "train.max_epochs: 9 -> 8"),
        ({"data": "b" * 64}, "data: content aaaaaaaaaaaa -> bbbbbbbbbbbb"),
        ({"code": {"search/losses.py": "2"}}, "search/losses.py: '1' -> '2'"),
        ({"code": {}}, "search/losses.py: '1' -> None"),
    ],
)
def test_f32_what_changed_is_shown_and_refused_unless_accepted_which_is_kept(
    changed: dict[str, Any], told: str, tmp_path: Path
) -> None:
    facts: dict[str, Any] = {"config": {"train.max_epochs": 9}, "data": "a" * 64, "code": {"search/losses.py": "1"}}
    before, after = Made(**facts), Made(**(facts | changed))
    ledger = Ledger(tmp_path / LEDGER)
    assert settle(ledger, before, accept=False) == []
    assert settle(ledger, before, accept=False) == []
    assert len(ledger.events) == 1
    with pytest.raises(BadInput, match="--accept-change") as refused:
        settle(ledger, after, accept=False)
    assert told in str(refused.value)
    assert settle(ledger, after, accept=True) == [told]
    assert settle(ledger, after, accept=False) == []
    assert ledger.events[-1]["accepted"] == [told]


def test_f32_a_changed_configuration_is_refused_before_anything_is_done(again: Any) -> None:
    folder, start = again
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for resume in (False, True):
        code, said = start("schedule.grace_epochs=2", resume=resume)
        assert code == errors.REFUSED
        assert "schedule.grace_epochs: 1 -> 2" in said or resume
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_f10_nothing_interrupts_the_end_of_an_interrupted_search(again: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, start = again

    def interrupted(*others: Any, **more: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(run, "hand_on", interrupted)
    code, said = start(resume=True)
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    assert code == errors.INTERRUPTED
    assert f"SIGINT: stopped; go on with: python -m search.run --resume {folder}" in said


def test_f35_a_report_that_fails_leaves_the_numbers_and_its_traceback(
    again: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, start = again

    def fails(run_dir: Path) -> Path:
        raise ZeroDivisionError("no frames")

    monkeypatch.undo()
    driver.install(NUMBER, 0, 1, monkeypatch.setattr)
    monkeypatch.setattr("analysis.compare.compare_run", fails)
    (folder / "summary.json").unlink()
    code, said = start()
    assert code == errors.REPORT_FAILED
    assert f"report failed: no frames; numbers are saved, details in {folder / 'report_error.txt'}" in said
    assert "ZeroDivisionError" in (folder / "report_error.txt").read_text()
    assert json.loads((folder / "summary.json").read_text())["toy-000"]["status"] == "completed"
