"""The process that writes W&B runs: ``python -m search.wandb_writer MODE PROJECT EXPERIMENT FOLDER < JSON lines``.

Started by `search.tracking`, the only one to talk to it. A line is ``{"do": "sweep" | "start" | "epoch" | "finish" |
"report", "trial": id, "step": epoch, "values": {...}}``. Every epoch becomes exactly one history row: the rows that
stand in the trial's earlier run files (a resumed search) are read first and never written again. Online, the runs are
those of one sweep; where the server has none, a group. The report is a run of its own. Under ``wandb agent`` the run is
the agent's. At the end of the input every run is finished. What goes wrong is one line on standard output.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.sweep import SearchOnWandb
from search.wandb_sync import register

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TextIO

    import wandb

INIT_SECONDS = 20.0
READ_SECONDS = 60.0
LOCK_SECONDS = 30.0
FINISH_SECONDS = 25
"""After the end of the input; then this process ends, whatever W&B does."""
REPORT = "report"
"""Begin of the id of the run that holds the report."""


class Writer:
    """The open runs of one experiment and the epochs that each of them holds."""

    def __init__(self, mode: str, project: str, experiment: str, folder: Path, say: Callable[[str], None]) -> None:
        self.mode = mode
        self.search = SearchOnWandb.of(folder, project, experiment)
        self.say = say
        self.agent = mode == "online" and "WANDB_SWEEP_ID" in os.environ
        self.runs: dict[str, wandb.Run] = {}
        self.epochs: dict[str, set[int]] = {}

    def follow(self, lines: Iterable[str]) -> None:
        """Do what each line says, then finish every run."""
        for line in lines:
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
        signal.alarm(FINISH_SECONDS)  # whoever began us may have gone
        for trial in list(self.runs):
            self.finish(trial, {})
        signal.alarm(0)

    def sweep(self, description: dict[str, Any]) -> None:
        """Make the sweep of the search, once; offline only its description is kept."""
        if description:
            self.search.description = description
        if self.mode == "online" and not self.agent and self.search.sweep is None and self.search.description:
            try:
                self.search.sweep = in_time(lambda: register(self.search), INIT_SECONDS)
            except Exception as error:  # a server that is not there says so again, and better, at the first run
                self.say(f"no sweep ({first_line(error)}); the runs are the group {self.search.name}")
        self.search.save()

    def run_id(self, trial: str) -> str:
        """Id of a trial's run."""
        return (
            os.environ.get("WANDB_RUN_ID", "") or self.search.run_id(trial) if self.agent else self.search.run_id(trial)
        )

    def start(self, trial: str, config: dict[str, Any]) -> wandb.Run:
        """Begin the run of a trial, or return the open one."""
        if trial not in self.epochs:
            self.epochs[trial] = logged_epochs(self.search.folder, self.run_id(trial))
        if trial not in self.runs:
            self.runs[trial] = self._begin(trial, config)
        return self.runs[trial]

    def epoch(self, trial: str, step: int, row: dict[str, Any]) -> None:
        """Log the row of an epoch that no run file of the trial holds yet; empty values are left out."""
        run = self.start(trial, {})
        if step in self.epochs[trial]:
            return
        run.log({name: value for name, value in row.items() if value is not None}, step=step, commit=True)
        self.epochs[trial].add(step)

    def finish(self, trial: str, summary: dict[str, Any]) -> None:
        """Write the summary of a trial and finish its run."""
        run = self.start(trial, {})
        run.summary.update(summary)
        run.finish()
        del self.runs[trial]

    def report(self, values: dict[str, Any]) -> None:
        """Send the report as an artifact, the table of the trials and the pictures given, in a run of their own.

        `values` has ``file``, ``trials`` (parquet), ``pictures`` (caption and file) and ``sha256`` of the report but
        for its times; the same one is not sent again.
        """
        import pandas as pd
        import wandb

        if self.search.report == values["sha256"]:
            return
        run = self._begin(REPORT, {}, kind=REPORT)
        artifact = wandb.Artifact(f"{self.search.name}-{REPORT}", type=REPORT)
        artifact.add_file(values["file"], name="report.html")
        run.log_artifact(artifact)
        seen: dict[str, Any] = {"trials": wandb.Table(dataframe=pd.read_parquet(values["trials"]))}
        if values["pictures"]:
            seen["examples"] = [wandb.Image(file, caption=caption) for caption, file in values["pictures"]]
        run.log(seen)
        run.finish()
        self.search.report = values["sha256"]
        self.search.save()

    def _begin(self, trial: str, config: dict[str, Any], kind: str = "trial") -> wandb.Run:
        """Begin a run; without its sweep where the server refuses that, and offline where it does not answer."""
        try:
            return self._init(trial, config, kind)
        except Exception as error:
            if self.mode == "offline":
                raise
            fault = error
        if self.search.sweep is not None and kind == "trial" and not self.agent:
            sweep, self.search.sweep = self.search.sweep, None
            self._leave_service()
            try:
                run = self._init(trial, config, kind)
            except Exception:
                self.search.sweep = sweep
            else:
                self.search.save()
                told = f"the sweep {sweep} is refused ({first_line(fault)}); the runs are the group {self.search.name}"
                self.say(told)
                return run
        self.mode, self.agent = "offline", False
        self._leave_service()
        told = "written offline, send it later with `python -m search.wandb_sync`"
        self.say(f"no connection ({first_line(fault)}); {told}")
        return self._init(trial, config, kind)

    def _leave_service(self) -> None:
        """Finish every open run and end W&B's service: it holds the id of a run that failed to begin.

        A run that was open begins again, and goes on, at its trial's next row.
        """
        import wandb

        for run in self.runs.values():
            run.finish()
        self.runs.clear()
        wandb.teardown()

    def _init(self, trial: str, config: dict[str, Any], kind: str) -> wandb.Run:
        import wandb

        settings = wandb.Settings(
            silent=True,
            console="off",
            init_timeout=INIT_SECONDS,
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


def in_time(work: Callable[[], str], seconds: float) -> str:
    """Return what `work` gives; TimeoutError after so many seconds, its thread is then left to itself."""
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["value"] = work()
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if "error" in outcome:
        raise outcome["error"]
    if "value" not in outcome:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    return str(outcome["value"])


def logged_epochs(folder: Path, trial: str) -> set[int]:
    """Return the epochs that the run files of a trial under `folder` hold, read with W&B's own reader."""
    epochs: set[int] = set()
    for file in sorted(folder.glob(f"*run-*/run-{trial}.wandb")):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=READ_SECONDS, check=False)
        for line in result.stdout.splitlines():
            record = _record(line)
            if record.get("type") == "history":
                epochs.add(int(record["history"]["item"]["_step"]))
    return epochs


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, else its kind."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def main(arguments: list[str]) -> int:
    """Follow standard input to its end; 0 when all was written, 1 after a failure, which is said in one line."""
    mode, project, experiment, folder = arguments
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which then closes the input
    with _own_output() as output:

        def say(text: str) -> None:
            print(text, file=output, flush=True)

        try:
            with (Path(folder) / "writer.lock").open("w") as lock:
                _wait_for(lock)
                Writer(mode, project, experiment, Path(folder), say).follow(sys.stdin)
        except BaseException as error:
            say(f"{type(error).__name__}: {first_line(error)}")
            raise
    return 0


def _own_output() -> TextIO:
    """Return standard output for our own lines and send what libraries print there to standard error."""
    ours = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return ours


def _wait_for(lock: TextIO) -> None:
    """Wait until the writer of a killed driver has finished its files."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"another search still writes to {lock.name}") from None
            time.sleep(0.2)
        else:
            return


def _record(line: str) -> dict[str, Any]:
    """Return one record of the reader's output; an empty one for a line that is no record."""
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
