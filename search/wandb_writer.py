"""The process that writes W&B runs: ``python -m search.wandb_writer MODE PROJECT EXPERIMENT FOLDER < JSON lines``.

Started by `search.tracking`, the only one to talk to it. A line is ``{"do": "sweep" | "start" | "epoch" | "finish" |
"report", "trial": id, "step": epoch, "values": {...}}``. Every epoch becomes exactly one history row: the rows that
stand in the trial's earlier run files (a resumed search) are read first and never written again, those that they lack
are taken from its ``metrics.csv``. Online, the runs are those of one sweep; where the server has none, a group. The
report is a run of its own. Under ``wandb agent`` the run is the agent's. At the end of the input every run is finished.

A server that does not answer in time is given up: what follows is written offline, what it did not take is written
again by `search.wandb_sync`, and this process ends within `END_SECONDS` of the end of its input. What goes wrong is one
line on standard output.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from data_io.errors import BadInput
from search.metrics import read_metrics
from search.sweep import SearchOnWandb
from search.wandb_sync import register

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TextIO

    import wandb

ANSWER_SECONDS = 15.0
"""How long a server may take to answer; then the search goes on offline."""
SEND_SECONDS = 20.0
"""How long it may take to take the rest of a run."""
READ_SECONDS = 60.0
LOCK_SECONDS = 30.0
LAST_SECONDS = 15.0
"""After the end of the input, how long a server is waited for in all."""
LEAVE_SECONDS = 4.0
"""How long W&B may take to end once its server is given up."""
END_SECONDS = 25
"""After the end of the input; then this process has ended, whatever W&B does."""
REPORT = "report"
"""Begin of the id of the run that holds the report."""


class Patience:
    """How long a server is waited for: as long as the caller says, but for little once the input has ended."""

    def __init__(self) -> None:
        self.ended = math.inf

    def end(self) -> None:
        """Say that the input has ended."""
        self.ended = time.monotonic()

    def left(self, seconds: float) -> float:
        """Return how many of so many seconds may be waited now; less than 0 is not at all."""
        return min(seconds, self.ended + LAST_SECONDS - time.monotonic())


class Writer:
    """The open runs of one experiment and the epochs that each of them holds."""

    def __init__(
        self,
        mode: str,
        project: str,
        experiment: str,
        folder: Path,
        say: Callable[[str], None],
        patience: Patience | None = None,
    ) -> None:
        self.mode = mode
        self.search = SearchOnWandb.of(folder, project, experiment)
        self.say = say
        self.patience = patience or Patience()
        self.agent = mode == "online" and "WANDB_SWEEP_ID" in os.environ
        self.runs: dict[str, wandb.Run] = {}
        self.epochs: dict[str, set[int]] = {}
        self.no_sweep = ""

    def follow(self, lines: Iterable[str]) -> None:
        """Do what each line says, then finish every run; a line that was cut short is none."""
        for line in lines:
            if not line.endswith("\n"):
                continue
            message = json.loads(line)
            trial, values = message["trial"], message["values"]
            if message["do"] == "sweep":
                self.sweep(values)
            elif message["do"] == "start":
                self.start(trial, values)
            elif message["do"] == "epoch":
                self.epoch(trial, message["step"], values)
            elif message["do"] == "report":
                self.report(values)
            else:
                self.finish(trial, values)
        self._finish(list(self.runs))

    def sweep(self, description: dict[str, Any]) -> None:
        """Make the sweep of the search, once; offline only its description is kept."""
        if description:
            self.search.description = description
        if self.mode == "online" and not self.agent and self.search.sweep is None and self.search.description:
            import wandb  # noqa: F401 - which takes time of its own

            answer = Call(partial(register, self.search))
            if not wait([answer], ANSWER_SECONDS, self.patience):
                self._go_offline(f"no answer within {ANSWER_SECONDS:.0f} s")
            elif answer.error is not None:  # a server that is not there says so again, and better, at the first run
                self.no_sweep = f"no sweep ({first_line(answer.error)}); the runs are the group {self.search.name}"
            else:
                self.search.sweep = answer.value
        self.search.save()

    def run_id(self, trial: str) -> str:
        """Id of a trial's run."""
        return (
            os.environ.get("WANDB_RUN_ID", "") or self.search.run_id(trial) if self.agent else self.search.run_id(trial)
        )

    def start(self, trial: str, config: dict[str, Any]) -> wandb.Run:
        """Begin the run of a trial, or return the open one."""
        known = trial in self.epochs
        if not known:
            self.epochs[trial] = logged_epochs(self.search.folder, self.run_id(trial))
        if trial not in self.runs:
            self.runs[trial] = self._begin(trial, config)
        if not known:
            for row in recorded(self.search.folder.parent, trial):
                self.epoch(trial, row["epoch"], row)
        return self.runs[trial]

    def epoch(self, trial: str, step: int, row: dict[str, Any]) -> None:
        """Log the row of an epoch that no run file of the trial holds yet; empty values are left out."""
        run = self.start(trial, {})
        if step in self.epochs[trial]:
            return
        run.log({name: value for name, value in row.items() if value is not None}, step=step, commit=True)
        self.epochs[trial].add(step)

    def complete(self, trial: str, config: dict[str, Any]) -> int:
        """Write the epochs of a trial's own table that none of its run files holds; returns how many these were."""
        rows = recorded(self.search.folder.parent, trial)
        if len(rows) <= self.search.finished.get(trial, 0):
            return 0
        held = self.epochs[trial] = logged_epochs(self.search.folder, self.run_id(trial))
        lacking = [row for row in rows if row["epoch"] not in held]
        if lacking:
            self.runs[trial] = self._begin(trial, config)
            for row in lacking:
                self.epoch(trial, row["epoch"], row)
            self._finish([trial])
        self.search.finished[trial] = len(self.epochs[trial])
        self.search.save()
        return len(lacking)

    def finish(self, trial: str, summary: dict[str, Any]) -> None:
        """Write the summary of a trial and finish its run."""
        self.start(trial, {}).summary.update(summary)
        self._finish([trial])

    def report(self, values: dict[str, Any]) -> None:
        """Send the report as an artifact, the table of the trials and the pictures given, in a run of their own.

        `values` has ``file``, ``trials`` (parquet), ``pictures`` (caption and file) and ``sha256`` of the report but
        for its times; the same one is not sent again.
        """
        import pandas as pd
        import wandb

        if self.search.report == values["sha256"]:
            return
        for _ in range(2):  # a second time offline, where the server does not take it
            artifact = wandb.Artifact(f"{self.search.name}-{REPORT}", type=REPORT)
            artifact.add_file(values["file"], name="report.html")
            seen: dict[str, Any] = {"trials": wandb.Table(dataframe=pd.read_parquet(values["trials"]))}
            if values["pictures"]:
                seen["examples"] = [wandb.Image(file, caption=caption) for caption, file in values["pictures"]]
            run = self.runs[REPORT] = self._begin(REPORT, {}, kind=REPORT)
            run.log_artifact(artifact)
            run.log(seen)
            if self._finish([REPORT]):
                break
        self.search.report = values["sha256"]
        self.search.save()

    def _finish(self, names: Sequence[str]) -> bool:
        """Finish runs; False where the server did not take all of them in time, what follows is then offline."""
        error, ended = self._end(names, SEND_SECONDS)
        if error is not None:
            raise error
        self.search.finished |= {name: len(self.epochs[name]) for name in ended if name in self.epochs}
        self.search.save()
        if len(ended) == len(names):
            return True
        if self.mode == "offline":
            raise TimeoutError("W&B does not finish what it writes")
        self._go_offline("the server does not take what is sent")
        return False

    def _end(self, names: Sequence[str], seconds: float) -> tuple[BaseException | None, list[str]]:
        """Finish runs, all at once; returns an error, and which ended in time.

        Online these have been sent, and their folders are marked as W&B's own sync marks what it sent. Of the others
        every epoch is written again where they go on, or by `complete`.
        """
        runs = {name: self.runs.pop(name) for name in names}
        calls = {name: Call(run.finish) for name, run in runs.items()}
        wait(list(calls.values()), seconds, self.patience if self.mode == "online" else None)
        ended = [name for name, call in calls.items() if call.over and call.error is None]
        if self.mode == "online":
            for run in (runs[name] for name in ended):
                (Path(run.dir).parent / f"run-{run.id}.wandb.synced").touch()
            for name in set(names) - set(ended):
                self.epochs.pop(name, None)
        return next((call.error for call in calls.values() if call.error is not None), None), ended

    def _begin(self, trial: str, config: dict[str, Any], kind: str = "trial") -> wandb.Run:
        """Begin a run; without its sweep where the server refuses that, and offline where it does not answer."""
        began, limit = time.monotonic(), self.patience.left(ANSWER_SECONDS)
        try:
            return self._begun(trial, config, kind)
        except Exception as error:
            if self.mode == "offline":
                raise
            fault = error
        answered = time.monotonic() - began < limit - 1
        if answered and self.search.sweep is not None and kind == "trial" and not self.agent:
            sweep, self.search.sweep = self.search.sweep, None
            self._leave_service(SEND_SECONDS)
            try:
                run = self._begun(trial, config, kind)
            except Exception:
                self.search.sweep = sweep
            else:
                self.search.save()
                told = f"the sweep {sweep} is refused ({first_line(fault)}); the runs are the group {self.search.name}"
                self.say(told)
                return run
        self._go_offline(f"no connection ({first_line(fault)})")
        return self._init(trial, config, kind)

    def _begun(self, trial: str, config: dict[str, Any], kind: str) -> wandb.Run:
        run = self._init(trial, config, kind)
        if self.no_sweep:
            self.say(self.no_sweep)
            self.no_sweep = ""
        return run

    def _go_offline(self, why: str) -> None:
        """Write what follows to disk only."""
        self.say(f"{why}; written offline from here on")
        self._leave_service(LEAVE_SECONDS)
        self.mode, self.agent, self.no_sweep = "offline", False, ""

    def _leave_service(self, seconds: float) -> None:
        """Finish every open run and end W&B's service: it holds the id of a run that failed to begin.

        A run that was open begins again, and goes on, at its trial's next row.
        """
        self._end(list(self.runs), seconds)
        wait([Call(end_service)], LEAVE_SECONDS)

    def _init(self, trial: str, config: dict[str, Any], kind: str) -> wandb.Run:
        import wandb

        settings = wandb.Settings(
            silent=True,
            console="off",
            init_timeout=max(1.0, self.patience.left(ANSWER_SECONDS)),
            login_timeout=1,
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            x_disable_meta=True,
            x_save_requirements=False,
        )
        if self.search.sweep is not None and kind == "trial" and not self.agent:
            settings.sweep_id = self.search.sweep
        return wandb.init(
            id=None if self.agent else self.search.run_id(trial),
            name=trial,
            group=self.search.name,
            job_type=kind,
            project=None if self.agent else self.search.project,
            config=config,
            dir=self.search.folder.parent,  # W&B adds the folder wandb itself
            mode="online" if self.mode == "online" else "offline",
            reinit="create_new",
            resume=None if self.agent else "allow",
            settings=settings,
        )


class Call:
    """A call in a thread of its own, which is left to itself where it takes too long."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.value = self._work()
        except BaseException as error:
            self.error = error

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return not self._thread.is_alive()


def wait(calls: Sequence[Call], seconds: float, patience: Patience | None = None) -> bool:
    """Wait for calls, so many seconds at most and as long as there is patience; whether all have ended."""
    began = time.monotonic()
    while not all(call.over for call in calls):
        left = began + seconds - time.monotonic()
        if left <= 0 or (patience is not None and patience.left(left) <= 0):
            return False
        time.sleep(0.02)
    return True


def end_service() -> None:
    """End W&B's service; it first writes to disk what it holds and gives up what it cannot send."""
    import wandb

    wandb.teardown()


def recorded(run_dir: Path, trial: str) -> list[dict[str, Any]]:
    """Return the rows of a trial's own table, none where it is not here or damaged."""
    try:
        return read_metrics(run_dir / "trials" / trial / "metrics.csv")
    except (BadInput, OSError):
        return []


def logged_epochs(folder: Path, run_id: str) -> set[int]:
    """Return the epochs that the run files of a trial under `folder` hold.

    Only whole files that were sent or will be count: a run that was online and was cut off is on the server in part.
    """
    epochs: set[int] = set()
    for file in sorted(folder.glob(f"*run-*/run-{run_id}.wandb")):
        if file.parent.name.startswith("offline-") or file.with_name(f"{file.name}.synced").exists():
            held, whole = read_run(file)
            epochs |= held if whole else set()
    return epochs


def read_run(file: Path) -> tuple[set[int], bool]:
    """Return the epochs of a run file and whether it was finished, read with W&B's own reader.

    One that a kill of W&B's service cut short lacks its last epochs, and W&B's sync refuses to send it whole.
    """
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=READ_SECONDS, check=False)
    records = [_record(line) for line in result.stdout.splitlines()]
    steps = [record["history"]["item"]["_step"] for record in records if record.get("type") == "history"]
    return set(map(int, steps)), any(record.get("type") == "exit" for record in records)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, else its kind."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def main(arguments: list[str]) -> NoReturn:
    """Follow standard input to its end, then end this process, whatever W&B's threads still wait for.

    The exit code is 0 when all was written, 1 after a failure, which is said in one line.
    """
    code = 1
    try:
        follow(arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    if "wandb" in sys.modules:
        wait([Call(end_service)], LEAVE_SECONDS)
    sys.stderr.flush()
    os._exit(code)


def follow(arguments: list[str]) -> None:
    """Follow standard input to its end; what goes wrong is said in one line, and raised."""
    mode, project, experiment, folder = arguments
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which then closes the input
    with _own_output() as output:

        def say(text: str) -> None:
            with suppress(OSError, ValueError):  # whoever began us may have gone
                print(text, file=output, flush=True)

        patience = Patience()
        lines = read_ahead(sys.stdin, patience.end, partial(end_in_time, say))
        try:
            with held(Path(folder)):
                Writer(mode, project, experiment, Path(folder), say, patience).follow(lines)
        except BaseException as error:
            say(f"{type(error).__name__}: {first_line(error)}")
            raise


def _own_output() -> TextIO:
    """Return standard output for our own lines and send what libraries print there to standard error."""
    ours = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return ours


def read_ahead(stream: TextIO, *at_end: Callable[[], None]) -> Iterator[str]:
    """Return the lines of a stream, which a thread reads meanwhile: what is due at the end is done at once."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in stream:
            lines.put(line)
        for due in at_end:
            due()
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return iter(lines.get, None)


def end_in_time(say: Callable[[str], None]) -> None:
    """See to it that this process ends: whoever began it may have gone, and W&B may hang."""

    def end() -> None:
        say(f"not all was written within {END_SECONDS - LEAVE_SECONDS:.0f} s")
        wait([Call(end_service)], LEAVE_SECONDS - 1)
        os._exit(1)

    timer = threading.Timer(END_SECONDS - LEAVE_SECONDS, end)
    timer.daemon = True
    timer.start()
    signal.alarm(END_SECONDS)


@contextmanager
def held(folder: Path, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the run files, once the writer of a killed driver has finished them; TimeoutError where it does not."""
    with (folder / "writer.lock").open("w") as lock:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another search still writes to {lock.name}") from None
                time.sleep(0.2)
        yield


def _record(line: str) -> dict[str, Any]:
    """Return one record of the reader's output; an empty one for a line that is no record."""
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


if __name__ == "__main__":
    main(sys.argv[1:])
