"""slurm.sh and machines.sh, with stand-ins for srun, scontrol and ssh that run on this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cluster.heads import ROOT, SMALLEST, end, free_port, user_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

SRUN = """\
#!/usr/bin/env bash
# Runs the command as often as --ntasks says, each time as on a node of its own with one core.
tasks=1 options=()
while [[ $1 == --* ]]; do
    case $1 in --ntasks=*) tasks=${1#*=} ;; esac
    options+=("$1")
    shift
done
echo "${options[*]} ${1##*/}" >> "$SRUN_LOG"
export SLURM_CPUS_ON_NODE=1
trap 'kill $(jobs -p)' TERM
for ((i = 0; i < tasks; i++)); do
    SLURM_PROCID=$i "$@" &
done
wait
wait
"""
SCONTROL = """\
#!/usr/bin/env bash
[[ "$1 $2" == "show hostnames" ]] || exit 1
echo "$3" | tr , '\\n'
"""
SSH = """\
#!/usr/bin/env bash
# Each machine has a home directory of its own; the rest is this machine's.
while [[ $1 == -* ]]; do shift 2; done
export HOME=$MACHINES_ROOT/$1 RAY_TMPDIR=$MACHINES_ROOT/$1/tmp
mkdir -p "$RAY_TMPDIR"
shift
exec bash -c "$*"
"""

SHARED_HOME = {
    "ssh": """\
#!/usr/bin/env bash
# All machines have one home directory; the rest is this machine's.
while [[ $1 == -* ]]; do shift 2; done
export MACHINE=$1
shift
exec bash -c "$*"
""",
    "uname": '#!/usr/bin/env bash\necho "$MACHINE"\n',
    "python": "#!/usr/bin/env bash\n[ $1 != -c ] || echo 10.0.0.1\n",
    "ray": '#!/usr/bin/env bash\nexec -a "python bin/ray $*" sleep 300\n',
}
"""Programs of machines that share a home directory, with a `ray` that waits."""


@pytest.fixture
def bench() -> Iterator[Path]:
    """Return a folder with the stand-ins in bin/, short because Ray's sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="bench"))
    (folder / "bin").mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("ssh", SSH)):
        file = folder / "bin" / name
        file.write_text(text)
        file.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def environment(bench: Path, **more: str) -> dict[str, str]:
    found = user_environment(bench, home=bench / "home")
    (bench / "home").mkdir(exist_ok=True)
    return found | {"PATH": f"{bench / 'bin'}{os.pathsep}{found['PATH']}", "TMPDIR": str(bench)} | more


def slurm(bench: Path, job: int = 7) -> dict[str, str]:
    return environment(
        bench,
        SLURM_JOB_ID=str(job),
        SLURM_JOB_NODELIST="node1,node2",
        SLURM_CPUS_ON_NODE="1",
        SLURM_SUBMIT_DIR=str(ROOT),
        SRUN_LOG=str(bench / "srun.log"),
    )


@pytest.mark.slow
def test_slurm_starts_a_head_and_workers_searches_and_leaves_nothing(bench: Path) -> None:
    run = bench / "runs" / "first"
    command = ["bash", "cluster/slurm.sh", "--out", str(run), *SMALLEST]
    done = subprocess.run(command, cwd=ROOT, env=slurm(bench), capture_output=True, text=True, check=False, timeout=500)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert f"run folder: {run} (as asked for)" in said
    assert "fit for a search" in said
    assert json.loads((run / "summary.json").read_text())["winner"]["target"] == "two_class"
    steps = (bench / "srun.log").read_text().splitlines()
    assert [step for step in steps if "--nodelist=node1" in step and step.endswith("bash")]
    assert [step for step in steps if "--ntasks=1 --exclude=node1" in step]
    assert not list((bench / "home" / ".ray").glob("slurm-*"))
    assert not left_by(bench)


@pytest.mark.slow
def test_slurms_warning_ends_the_search_well(bench: Path) -> None:
    run = bench / "runs" / "first"
    command = [
        "bash",
        "cluster/slurm.sh",
        "--out",
        str(run),
        *SMALLEST,
        "train.max_epochs=500",
        "train.crops_per_epoch=8",
    ]
    with (bench / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=slurm(bench, 8), stdout=log, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + 300
        while not (run / "ledger.jsonl").exists() or '"epoch"' not in (run / "ledger.jsonl").read_text():
            assert process.poll() is None, (bench / "log").read_text()
            assert time.monotonic() < until, (bench / "log").read_text()
            time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 75
    finally:
        end(process)
    said = (bench / "log").read_text()
    assert "stopping: the same command goes on from here" in said
    assert f"go on with: python -m search.run --resume {run}" in said
    assert not left_by(bench)


@pytest.mark.slow
def test_machines_are_started_by_ssh_and_only_they_are_stopped(bench: Path) -> None:
    run = bench / "runs" / "first"
    machines = environment(
        bench,
        MACHINES="gpu1 gpu2",
        MACHINES_ROOT=str(bench / "machines"),
        CODE=str(ROOT),
        PORT=free_port(),
        DASHBOARD=free_port(),
    )

    def script(*arguments: str) -> str:
        done = subprocess.run(
            ["bash", "cluster/machines.sh", *arguments],
            cwd=ROOT,
            env=machines,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    try:
        assert "fit for a search" in script("start")
        tokens = {file.read_text() for file in bench.glob("machines/*/.ray/auth_token")}
        assert tokens == {(bench / "home/.ray/auth_token").read_text()}
        assert {stat.S_IMODE(file.stat().st_mode) for file in bench.glob("machines/*/.ray/auth_token")} == {0o600}
        assert "runs already" in script("start")
        assert f"run folder: {run} (as asked for)" in script("submit", "--out", str(run), *SMALLEST)
        assert (run / "summary.json").is_file()
    finally:
        stopped = script("stop")
    assert "gpu1: stopped" in stopped
    assert "gpu2: stopped" in stopped
    assert not left_by(bench)
    assert "nothing to stop" in script("stop")


def test_machines_that_share_a_home_directory_are_told_apart_and_another_program_is_not_ended(bench: Path) -> None:
    for name, text in SHARED_HOME.items():
        (bench / "bin" / name).write_text(text)
        (bench / "bin" / name).chmod(0o755)
    (bench / "code" / ".venv" / "bin").mkdir(parents=True)
    (bench / "code" / ".venv" / "bin" / "activate").write_text(f"export PATH={bench / 'bin'}:$PATH\n")
    asked = environment(bench, MACHINES="gpu1 gpu2", CODE=str(bench / "code"))

    def script(command: str) -> list[str]:
        words = ["bash", "cluster/machines.sh", command]
        done = subprocess.run(words, cwd=ROOT, env=asked, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.splitlines()

    processes = {name: bench / "home" / ".ray" / f"cellsearch-6379-{name}.pid" for name in ("gpu1", "gpu2")}
    script("start")
    started = {name: int(file.read_text()) for name, file in processes.items()}
    with subprocess.Popen(["sleep", "60"]) as another:
        try:
            assert script("start") == ["gpu1: runs already", "gpu2: runs already"]
            processes["gpu2"].write_text(str(another.pid))  # the machine was started anew, the number is given again
            assert script("stop") == ["gpu2: nothing to stop", "gpu1: stopped"]
            assert another.poll() is None
        finally:
            another.kill()
            os.kill(started["gpu2"], signal.SIGKILL)
    assert not [file for file in processes.values() if file.exists()]


def left_by(bench: Path) -> list[str]:
    """Return what is left half a minute after the end: Ray's dashboard takes a moment to go."""
    until = time.monotonic() + 30
    while (left := started_from(bench)) and time.monotonic() < until:
        time.sleep(0.5)
    return left


def started_from(bench: Path) -> list[str]:
    """Return the processes of Ray whose environment names the folder."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and str(bench) in process.environ().get("RAY_TMPDIR", ""):
                found.append(" ".join(process.cmdline())[:100])
        except (psutil.Error, OSError):
            continue
    return found


@pytest.mark.parametrize("name", ["slurm.sh", "machines.sh"])
def test_the_scripts_are_shell_and_never_stop_what_they_did_not_start(name: str) -> None:
    file = ROOT / "cluster" / name
    assert subprocess.run(["bash", "-n", str(file)], check=False).returncode == 0
    text = "\n".join(line for line in file.read_text().splitlines() if not line.startswith("#"))
    assert os.access(file, os.X_OK)
    everywhere = "0.0.0.0"  # noqa: S104 - what must not be there
    for never in ("ray stop", "pkill", "killall", everywhere, "RAY_AUTH_MODE=disabled", "rm -r"):
        assert never not in text
    assert "RAY_AUTH_MODE=token" in text


def test_machines_without_a_command_explains_itself(bench: Path) -> None:
    done = subprocess.run(
        ["bash", "cluster/machines.sh"],
        cwd=ROOT,
        env=environment(bench, MACHINES="gpu1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "cluster/machines.sh start" in done.stdout
