"""A search in which everything goes wrong, and which must end like one in which nothing did.

    python -m tests.faults.chaos                    seed 0, ten minutes at most
    python -m tests.faults.chaos --seed 7 --minutes 5

Twelve toy trials and two references beside them (`tests.faults.toy`) are disturbed by at least twenty faults, drawn
with the seed: drivers, workers and Ray are killed, signals sent, the disk fills up (a real one where this user may
mount one), checkpoints, ledger and Optuna's file are damaged, locks are left behind. One line tells of each fault, the
last lines give the verdict; exit code 0 means that all of it held.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from data_io import errors
from search import checkpoints
from tests.faults.disturbed import (
    Search,
    assert_exact,
    corrupt,
    replayed,
    small_dataset,
    stopped,
    temporary_files,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EPOCHS, GRACE = 27, 3
SITTINGS = 8
DISK_MB = 64
SETTINGS = (
    f"train.max_epochs={EPOCHS}",
    f"schedule.grace_epochs={GRACE}",
    "train.checkpoint_every=3",
    "resources.hang_minutes=0.2",
)


class Chaos:
    """One disturbed search."""

    def __init__(self, folder: Path, seed: int, minutes: float) -> None:
        self.random = random.Random(seed)  # noqa: S311 - it draws faults
        self.deadline = time.monotonic() + 60 * minutes
        self.began = time.monotonic()
        self.faults: list[str] = []
        self.search = Search(folder / "run", small_dataset(folder / "data"), trials=12, references=2, settings=SETTINGS)

    def tell(self, fault: str) -> None:
        """Count and print a fault."""
        self.faults.append(fault)
        print(f"{time.monotonic() - self.began:6.1f} s  fault {len(self.faults):2d}: {fault}", flush=True)

    def run(self) -> list[str]:
        """Disturb the search, let it finish, and return what did not hold."""
        draw = self.random
        self.search.behave(
            every={"seconds": 0.1},
            reference_0={"seconds": 0.1, "what": "hang", "epoch": draw.randint(4, 12), "times": 1},
            reference_1={"seconds": 0.1, "what": "raise", "epoch": draw.randint(4, 20), "times": 1},
            toy_000={"seconds": 0.1, "what": "exit", "epoch": draw.randint(1, 3), "times": 1},
            toy_001={"seconds": 0.1, "what": "raise", "epoch": draw.randint(1, 3), "times": 1},
        )
        endings = self._shuffled([self.kill_driver, self.terminate, self.interrupt, self.kill_ray, self.fill_disk])
        rests = self._shuffled(
            [self.damage_checkpoint, self.tear_ledger, self.lose_ledger_lines, self.leave_lock, self.damage_optuna],
            2 * SITTINGS,
        )
        for number in range(SITTINGS):
            if time.monotonic() > self.deadline - 90:
                print(f"         time is short: {SITTINGS - number} sittings left out")
                break
            self.search.begin(*(["--resume"] if number else []))
            if not self._goes_on():
                break
            self.kill_worker()
            if not self._goes_on():
                break
            endings[number]()
            for damage in rests[2 * number : 2 * number + 2]:
                damage()
        self.search.begin("--resume")
        return self.verdict(self.search.finish(600))

    def _shuffled(self, all_of: list[Callable[[], None]], number: int = SITTINGS) -> list[Callable[[], None]]:
        """Each of some, in any order, until there are so many."""
        drawn: list[Callable[[], None]] = []
        while len(drawn) < number:
            drawn += self.random.sample(all_of, len(all_of))
        return drawn[:number]

    def _goes_on(self) -> bool:
        """Let a few epochs pass; whether the search still runs then."""
        assert self.search.process is not None
        wanted = len(self.search.events("epoch")) + self.random.randint(1, 6)
        deadline = time.monotonic() + 120
        while len(self.search.events("epoch")) < wanted and time.monotonic() < deadline:
            if self.search.process.poll() is not None:
                print(f"         the search ended by itself with {self.search.process.returncode}")
                return False
            time.sleep(0.02)
        time.sleep(self.random.random() * 0.3)
        return True

    def kill_worker(self) -> None:
        """Kill a process that trains."""
        workers = self.search.workers()
        if workers:
            victim = self.random.choice(workers)
            victim.kill()
            self.tell(f"SIGKILL to worker {victim.pid}")

    def kill_driver(self) -> None:
        """Kill the driver."""
        self.tell(f"SIGKILL to the driver, ended with {self.search.kill()}")

    def terminate(self) -> None:
        """Ask the driver to end, as a batch system does."""
        code = self._expect(self.search.kill(signal.SIGTERM), errors.PREEMPTED)
        self.tell(f"SIGTERM to the driver, ended with {code}")

    def interrupt(self) -> None:
        """Press Ctrl-C in the driver's terminal."""
        assert self.search.process is not None
        os.killpg(self.search.process.pid, signal.SIGINT)
        code = self._expect(self.search.finish(60), errors.INTERRUPTED)
        self.tell(f"SIGINT to the driver and all its processes, ended with {code}")

    def kill_ray(self) -> None:
        """Kill Ray on this machine."""
        process = self.random.choice(self.search.named("raylet", "gcs_server"))
        name = process.name()
        process.kill()
        self.tell(f"SIGKILL to {name}, ended with {self._expect(self.search.finish(120), errors.PREEMPTED)}")

    def fill_disk(self) -> None:
        """Leave the run no room until it stops; where it has no disk of its own, kill the driver instead."""
        if not self.search.folder.parent.is_mount():
            self.kill_driver()
            return
        filler = self.search.folder.parent / "filler"
        with filler.open("wb") as file:
            while True:
                try:
                    os.write(file.fileno(), bytes(4096))
                except OSError:
                    break
        code = self._expect(self.search.finish(120), errors.PREEMPTED)
        filler.unlink()
        self.tell(f"no room on the disk, ended with {code}")

    def damage_checkpoint(self) -> None:
        """Damage the newest checkpoint of a trial."""
        found = sorted(self.search.folder.glob("trials/*/checkpoints/epoch_*/state.ckpt"))
        if found:
            file, how = self.random.choice(found), self.random.choice(["cut", "empty", "flipped", "absent"])
            file = max(file.parent.parent.glob("epoch_*/state.ckpt"), key=lambda p: checkpoints.epoch_of(p.parent))
            if file.stat().st_size:
                corrupt(file, how)
                self.tell(f"{file.relative_to(self.search.folder)} {how}")

    def tear_ledger(self) -> None:
        """Cut the last line of the ledger."""
        path = self.search.folder / "ledger.jsonl"
        cut = self.random.randint(2, 60)
        path.write_bytes(path.read_bytes()[:-cut])
        self.tell(f"ledger.jsonl torn, {cut} bytes lost")

    def lose_ledger_lines(self) -> None:
        """Take the last lines of the ledger away."""
        path, lost = self.search.folder / "ledger.jsonl", self.random.randint(2, 8)
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-lost]))
        self.tell(f"ledger.jsonl lost its last {lost} lines")

    def leave_lock(self) -> None:
        """Leave the lock of a driver on another machine that died an hour ago."""
        lock = self.search.folder / "lock"
        lock.write_text("another-machine/4711 since 2020-01-01 00:00:00")
        os.utime(lock, (time.time() - 3600,) * 2)
        self.tell("a stale lock of another machine")

    def damage_optuna(self) -> None:
        """Damage Optuna's file."""
        file, how = self.search.folder / "optuna.db", self.random.choice(["cut", "empty", "flipped", "absent"])
        if file.exists() and file.stat().st_size:
            corrupt(file, how)
            self.tell(f"optuna.db {how}")

    def _expect(self, code: int, wanted: int) -> int:
        if code != wanted:
            raise AssertionError(f"exit code {code}, not {wanted}\n{self.search.said[-3000:]}")
        return code

    def verdict(self, code: int) -> list[str]:
        """Check everything that must hold; return what does not."""
        wrong = []

        def hold(what: str, check: Callable[[], bool | None]) -> None:
            try:
                fine = check() is not False
            except AssertionError as fault:
                fine, what = False, f"{what} ({str(fault).splitlines()[0]})"
            print(f"{'holds' if fine else 'FAILS'}: {what}")
            if not fine:
                wrong.append(what)

        hold(f"the search ends with 0 (it ended with {code})", lambda: code == 0)
        for event in self.search.events("retry"):
            if event["trial"] in {"reference-0", "reference-1", "toy-000", "toy-001"} and event["cause"] != "death":
                self.tell(f"{event['trial']} {event['cause']}: {event['reason'][:60]}")
        if code:
            print(self.search.said[-3000:])
            return wrong
        outcome = self.search.outcome()
        hold(f"at least 20 faults ({len(self.faults)})", lambda: len(self.faults) >= 20)
        hold("every epoch once, with the numbers of an undisturbed trial", lambda: assert_exact(self.search, outcome))
        statuses = {found["status"] for found in outcome.values()}
        hold("every trial completed or stopped", lambda: statuses <= {"completed", "stopped"})
        references = [found for name, found in outcome.items() if name.startswith("reference")]
        hold("both references complete", lambda: [found["epochs"] for found in references] == [EPOCHS] * 2)
        rungs = replayed(self.search, grace=GRACE, epochs=EPOCHS)
        hold(f"{len(rungs)} stop decisions are those of a replay of the ledger", lambda: stopped(self.search) == rungs)
        hold("no process is left", lambda: not self.search.no_orphans())
        hold("no temporary file is left", lambda: not temporary_files(self.search.folder))
        return wrong


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mount a file system of `DISK_MB` at `folder` where this user may; elsewhere it stays a plain folder."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    command = [str(mount), "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    mounted = bool(mount and umount) and subprocess.run(command, capture_output=True, check=False).returncode == 0
    print(f"run on {'a disk' if mounted else 'a folder; no disk can be filled up; a disk'} of {DISK_MB} MB: {folder}")
    try:
        yield
    finally:
        if mounted:
            subprocess.run([str(umount), "--lazy", str(folder)], check=False)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos", description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="seed of the faults (default: 0)")
    parser.add_argument("--minutes", type=float, default=10.0, help="about how long (default: 10)")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        disk = Path(folder) / "disk"
        disk.mkdir()
        with small_disk(disk):
            chaos = Chaos(disk, given.seed, given.minutes)
            try:
                wrong = chaos.run()
            finally:
                chaos.search.end()
    end = f"FAILED: {'; '.join(wrong)}" if wrong else "everything held"
    print(f"seed {given.seed}: {len(chaos.faults)} faults in {time.monotonic() - chaos.began:.0f} s, {end}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
