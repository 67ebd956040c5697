"""The process that writes W&B runs: ``python -m search.wandb_writer MODE PROJECT EXPERIMENT FOLDER < JSON lines``.

Started by `search.tracking`, the only one to talk to it. A line is ``{"do": "start" | "epoch" | "finish", "trial": id,
"step": epoch, "values": {...}}``. Every epoch becomes exactly one history row: the rows that stand in the trial's
earlier run files (a resumed search) are read first and never written again. At the end of the input every run is
finished. What goes wrong is one line on standard output.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TextIO

    import wandb

INIT_SECONDS = 20.0
READ_SECONDS = 60.0
LOCK_SECONDS = 30.0


class Writer:
    """The open runs of one experiment and the epochs that each of them holds."""

    def __init__(self, mode: str, project: str, experiment: str, folder: Path, say: Callable[[str], None]) -> None:
        self.mode = mode
        self.project = project
        self.experiment = experiment
        self.folder = folder
        self.say = say
        self.runs: dict[str, wandb.Run] = {}
        self.epochs: dict[str, set[int]] = {}

    def follow(self, lines: Iterable[str]) -> None:
        """Do what each line says, then finish every run."""
        for line in lines:
            message = json.loads(line)
            trial, values = message["trial"], message["values"]
            if message["do"] == "start":
                self.start(trial, values)
            elif message["do"] == "epoch":
                self.epoch(trial, message["step"], values)
            else:
                self.finish(trial, values)
        for trial in list(self.runs):
            self.finish(trial, {})

    def start(self, trial: str, config: dict[str, Any]) -> wandb.Run:
        """Begin the run of a trial, or return the open one."""
        if trial not in self.epochs:
            self.epochs[trial] = logged_epochs(self.folder, trial)
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

    def _begin(self, trial: str, config: dict[str, Any]) -> wandb.Run:
        """Begin a run; when the server does not answer, go on offline."""
        import wandb

        try:
            return self._init(trial, config)
        except (wandb.Error, OSError, TimeoutError) as error:
            if self.mode == "offline":
                raise
            self.mode = "offline"
            self.say(f"no connection ({first_line(error)}); written offline, send it later with `wandb sync`")
            return self._init(trial, config)

    def _init(self, trial: str, config: dict[str, Any]) -> wandb.Run:
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
            x_disable_stats=True,
            x_save_requirements=False,
        )
        return wandb.init(
            id=trial,
            name=trial,
            group=self.experiment,
            project=self.project,
            config=config,
            dir=self.folder.parent,  # W&B adds the folder wandb itself
            mode="online" if self.mode == "online" else "offline",
            reinit="create_new",
            resume="allow",
            settings=settings,
        )


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
