"""Ray heads of the tests' own, on ports and in folders that nobody else uses."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
START_SECONDS = 90
SMALLEST = (
    "--wandb=disabled",
    "data.synthetic.frames=1",
    "data.synthetic.height=128",
    "data.synthetic.width=128",
    "space.architectures=[unet]",
    "space.encoders=[tu-mobilenetv3_small_050]",
    "space.targets=[two_class]",
    "space.losses={two_class: [dice]}",
    "space.encoder_weights=none",
    "space.stardist_unet=false",
    "schedule.grace_epochs=1",
    "schedule.references=[]",
    "train.max_epochs=1",
    "train.crops_per_epoch=2",
    "train.batch_size=2",
)
"""One trial of one epoch on three frames."""


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def user_environment(folder: Path, home: Path) -> dict[str, str]:
    """Return the environment of a user with a home directory of her own, whose Ray works in `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SEARCH_", "WANDB_"))}
    return kept | {
        "HOME": str(home),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RAY_TMPDIR": str(folder),
        "MPLCONFIGDIR": str(folder / "matplotlib"),
    }


@dataclass
class Head:
    """A head that `ray start` has started, and the environment of the user who did it."""

    home: Path
    environment: dict[str, str]
    port: str
    log: Path
    process: subprocess.Popen[bytes] | None = None
    others: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def ray(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command of Ray as the user would, in the root of the project."""
        environment = self.environment | more
        return subprocess.run(
            [str(BIN / "ray"), *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )

    def submit(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return self.ray("job", "submit", *arguments, **more)

    def wait(self) -> None:
        """Wait until it takes jobs."""
        until = time.monotonic() + START_SECONDS
        while (done := self.ray("job", "list")).returncode:
            ended = self.process is not None and self.process.poll() is not None
            if ended or time.monotonic() > until:
                raise AssertionError(f"the head takes no jobs: {done.stdout}{done.stderr}\n{self.log.read_text()}")
            time.sleep(0.5)

    def stop(self) -> None:
        for process in filter(None, [*self.others, self.process]):
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that we started, and what it has started."""
    try:
        below = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        below = []
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(below, timeout=5)
    for left in alive:
        left.kill()
    psutil.wait_procs(alive, timeout=5)


@contextmanager
def ray_head(mode: str = "token", dashboard: str = "127.0.0.1", **more: str) -> Iterator[Head]:
    """Start a head for a user with an empty home directory and `more` variables."""
    folder = Path(tempfile.mkdtemp(prefix="head"))  # short: Ray's sockets lie in it
    home = folder / "home"
    home.mkdir()
    ports = [free_port() for _ in range(5)]
    environment = user_environment(folder, home) | {
        "RAY_AUTH_MODE": mode,
        "RAY_API_SERVER_ADDRESS": f"http://{dashboard}:{ports[1]}",
        "AUTOSCALER_METRIC_PORT": ports[2],
        "DASHBOARD_METRIC_PORT": ports[3],
        **more,
    }
    log = folder / "head.log"
    head = Head(home, environment, ports[0], log)
    if mode == "token":
        made = subprocess.run(
            ["bash", "-c", "umask 077; ray get-auth-token --generate > /dev/null"],
            env=head.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert made.returncode == 0, made.stderr
    command = [
        *(
            "ray",
            "start",
            "--head",
            "--block",
            "--disable-usage-stats",
            "--num-cpus=2",
            "--object-store-memory=100000000",
        ),
        *(f"--port={ports[0]}", f"--dashboard-host={dashboard}", f"--dashboard-port={ports[1]}"),
        *(f"--dashboard-agent-listen-port={ports[4]}", f"--temp-dir={folder / 'ray'}"),
    ]
    try:
        with log.open("wb") as output:
            head.process = subprocess.Popen(command, env=head.environment, stdout=output, stderr=subprocess.STDOUT)
        head.wait()
        yield head
    finally:
        head.stop()
        shutil.rmtree(folder, ignore_errors=True)
