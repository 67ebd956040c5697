"""What on this machine would stop or slow a search, in about ten lines.

    python -m search.doctor
    python -m search.doctor --data FOLDER --out RUN

Nothing is trained, started or sent, and no key is shown. Each line says ok, slow or stops, with the remedy. Exit code
0: a search can run here; 2: something stops it.
"""

from __future__ import annotations

import json
import os
import re
import resource
import secrets
import shutil
import sys
import tempfile
import threading
import warnings
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from data_io import location
from data_io.command_line import Parser
from data_io.errors import DONE, REFUSED, BadInput, entry_point, printable
from data_io.secrecy import veiled
from search import trust
from search.options import CONFIG_OF_A_RUN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ANSWER_SECONDS = 5.0
"""How long the network is waited for."""
GIB = 2**30
MEMORY_GIB, LITTLE_MEMORY_GIB = 2, 6
"""Free memory below which no trial fits, and below which it is tight."""
DISK_GIB, LITTLE_DISK_GIB = 1, 10
GPU_GIB, LITTLE_GPU_GIB = 1, 4
SHARED_MIB = 256
"""What Ray's store takes of the shared memory, and some more for data loading."""
FILES, FEW_FILES = 256, 1024
SCRATCH_FULL = 0.95
"""Ray refuses to write where more of the disk is in use."""

State = Literal["ok", "slow", "stops"]


@dataclass(frozen=True)
class Finding:
    """One line of the answer."""

    what: str
    state: State
    told: str
    remedy: str = ""

    def __str__(self) -> str:
        """Return the line."""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return printable(veiled(f"{self.state:<5}  {self.what:<13}  {self.told}{remedy}"))


# --- libraries ------------------------------------------------------------------------------------------------------


def versions(required: list[str] | None = None, environment: Mapping[str, str] = os.environ) -> Finding:
    """Compare Python and the libraries with the range that was tested."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    if trust.FORCED in environment:
        return Finding("versions", "stops", f"{trust.FORCED} is set: files could run code", f"unset {trust.FORCED}")
    required = _required() if required is None else required
    if not required:
        return Finding("versions", "slow", f"Python {python}; not installed, so not compared", "run `bash .ci/setup`")
    missing, other = [], []
    for name, low, high in filter(None, map(_bounds, required)):
        found = _version(name)
        if found is None:
            missing.append(name)
        elif not _numbers(low) <= _numbers(found) < _numbers(high):
            other.append(f"{name} {found} (tested: {low} to below {high})")
    if missing:
        return Finding("versions", "stops", f"not installed: {', '.join(missing)}", "run `bash .ci/setup`")
    if other:
        return Finding(
            "versions", "slow", f"Python {python}; outside the tested range: {', '.join(other)}", "pip install"
        )
    key = ", ".join(f"{name} {_version(name)}" for name in ("torch", "ray", "zarr", "pytorch-lightning"))
    return Finding("versions", "ok", f"Python {python}, {key}: within the tested range")


def _required() -> list[str]:
    from importlib import metadata

    try:
        return [line for line in metadata.requires("cellsearch") or [] if "extra ==" not in line]
    except metadata.PackageNotFoundError:
        return []


def _bounds(line: str) -> tuple[str, str, str] | None:
    """Return name, lower and upper bound of a requirement.

    >>> _bounds("dask[array]<2027,>=2026.8")
    ('dask', '2026.8', '2027')
    """
    name, low, high = re.match(r"[\w.-]+", line), re.search(r">=([\w.]+)", line), re.search(r"<([\w.]+)", line)
    return (name[0], low[1], high[1]) if name and low and high else None


def _version(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.match(r"[\d.]*", version)[0].split(".") if part)  # type: ignore[index]


# --- the machine ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gpu:
    """A GPU that PyTorch can use; `free` and `total` in bytes."""

    name: str
    free: int
    total: int
    bf16: bool


def gpus(found: list[Gpu] | str, driver: bool) -> Finding:
    """Judge the GPUs (or the fault that PyTorch met); `driver` says whether NVIDIA's driver is on this machine."""
    if isinstance(found, str):
        return Finding(
            "GPUs",
            "stops",
            f"PyTorch cannot use them ({found})",
            "restart the driver, or hide them: CUDA_VISIBLE_DEVICES=",
        )
    if not found:
        if driver:
            remedy = "install the PyTorch of your CUDA version, or ask for a GPU in this container or job"
            return Finding("GPUs", "slow", "a driver is here, but PyTorch sees no GPU", remedy)
        return Finding(
            "GPUs", "slow", "none: trials train on the processor", "take small encoders and few epochs, or a GPU"
        )
    told = ", ".join(f"{one.name} {one.free / GIB:.1f} of {one.total / GIB:.1f} GiB free" for one in found)
    told += "" if all(one.bf16 for one in found) else "; no bf16, fp16 is used where faster"
    free = max(one.free for one in found) / GIB
    if free < GPU_GIB:
        return Finding("GPUs", "stops", told, "end what uses them (nvidia-smi), or hide them: CUDA_VISIBLE_DEVICES=")
    if free < LITTLE_GPU_GIB:
        return Finding("GPUs", "slow", told, "end what uses them (nvidia-smi)")
    return Finding("GPUs", "ok", told)


def seen_gpus() -> list[Gpu] | str:
    """Return the GPUs that PyTorch can use, or in one line why it cannot."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's many words on a driver that does not fit
        if not torch.cuda.is_available():
            return []
    try:
        return [
            Gpu(
                torch.cuda.get_device_name(i),
                *torch.cuda.mem_get_info(i),
                torch.cuda.get_device_capability(i) >= (8, 0),
            )
            for i in range(torch.cuda.device_count())
        ]
    except RuntimeError as fault:
        return str(fault).splitlines()[0]


def cores(usable: float, flags: str) -> Finding:
    """Judge the processor: cores that may be used, and whether it calculates in bf16."""
    told = f"{usable:g} cores, {'with' if re.search('avx512_bf16|amx_bf16|bf16', flags) else 'without'} bf16 arithmetic"
    if usable < 1:
        return Finding("cores", "slow", told, "give this container or job at least one core")
    return Finding("cores", "ok", told)


def usable_cores() -> float:
    """Return how many cores this process may use, a container's quota counted."""
    allowed = float(len(os.sched_getaffinity(0)))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(allowed, int(quota) / int(period))
    except (OSError, ValueError):  # no such file, or "max"
        return allowed


def cpu_flags() -> str:
    """Return what the processor says it can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.lower().startswith(("flags", "features"))), "")


def memory(free: int) -> Finding:
    """Judge the free memory in bytes."""
    told = f"{free / GIB:.1f} GiB free"
    if free < MEMORY_GIB * GIB:
        return Finding("memory", "stops", told, f"end other programs, or give {LITTLE_MEMORY_GIB} GiB or more")
    if free < LITTLE_MEMORY_GIB * GIB:
        return Finding(
            "memory", "slow", f"{told}: few trials at a time", "end other programs; take smaller encoders or crops"
        )
    return Finding("memory", "ok", told)


def shared_memory(free: int | None) -> Finding:
    """Judge the free bytes of /dev/shm, None where there is none."""
    if free is None:
        return Finding("shared memory", "slow", "no /dev/shm: Ray writes to disk instead", "mount one (tmpfs)")
    told = f"{free / 2**20:.0f} MiB free in /dev/shm"
    if free < SHARED_MIB * 2**20:
        remedy = "start the container with --shm-size=1g, or remove what others left in /dev/shm"
        return Finding("shared memory", "slow", f"{told}: Ray writes to disk instead", remedy)
    return Finding("shared memory", "ok", told)


def open_files(limit: int) -> Finding:
    """Judge how many files a process may have open."""
    told = f"{'unlimited' if limit == resource.RLIM_INFINITY else limit} open files allowed"
    if limit == resource.RLIM_INFINITY or limit >= FEW_FILES:
        return Finding("open files", "ok", told)
    return Finding("open files", "stops" if limit < FILES else "slow", told, "raise it: `ulimit -n 65536`")


# --- places ---------------------------------------------------------------------------------------------------------


def output(out: Path) -> Finding:
    """Judge the disk of a run on this machine: room, whether it may be written, locked, and gone on with."""
    folder = next(one for one in (out.absolute(), *out.absolute().parents) if one.exists())
    try:
        if (out / CONFIG_OF_A_RUN).is_file():
            trust.refuse_foreign(out)
    except BadInput as fault:
        fault_told, _, remedy = str(fault).partition("; ")
        return Finding("output", "stops", fault_told, remedy)
    try:
        _try_to_write(folder)
    except OSError as fault:
        told = f"{folder}: cannot be written or locked ({fault.strerror})"
        return Finding("output", "stops", told, "choose another place with --out")
    free = shutil.disk_usage(folder).free
    told = f"{free / GIB:.1f} GiB free at {folder}"
    if free < DISK_GIB * GIB:
        return Finding("output", "stops", told, f"free {LITTLE_DISK_GIB} GiB, or choose another place with --out")
    if free < LITTLE_DISK_GIB * GIB:
        return Finding("output", "slow", f"{told}: a large search may fill it", f"free {LITTLE_DISK_GIB} GiB or more")
    return Finding("output", "ok", told)


def _try_to_write(folder: Path) -> None:
    import fcntl

    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"doctor")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def scratch(folder: Path) -> Finding:
    """Judge the disk on which Ray keeps its session."""
    there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    usage = shutil.disk_usage(there)
    told = f"{usage.free / GIB:.1f} GiB free at {there}, for Ray's session"
    remedy = "free some, or set RAY_TMPDIR to a short path on another disk"
    if not os.access(there, os.W_OK):
        return Finding("scratch", "stops", f"{there}: cannot be written", remedy)
    if usage.used > SCRATCH_FULL * usage.total:
        return Finding("scratch", "slow", f"{told}: more than {SCRATCH_FULL:.0%} in use", remedy)
    return Finding("scratch", "ok", told)


def data(place: str | None) -> Finding:
    """Judge whether the images or the store can be reached; `data_io.check` says what they are like."""
    if place is None:
        return Finding("data", "ok", "none named: a search makes synthetic movies")
    if place.startswith(location.S3):
        return _stored("data", place, lambda: location.check_bucket(location.located(place)))
    path = Path(place)
    if not path.exists():
        return Finding("data", "stops", f"{place}: no such file or folder", "give a folder of images or a dataset.zarr")
    if not os.access(path, os.R_OK):
        return Finding("data", "stops", f"{place}: you may not read it", "change its permissions")
    return Finding("data", "ok", f"{place} is there; `python -m data_io.check {place}` says what it is like")


def stored_output(place: str) -> Finding:
    """Judge whether an s3:// place for a run can be written: a small object is put there and removed."""

    def put() -> None:
        at = location.located(place)
        location.check_bucket(at)
        with location.reaching(at):
            probe = at / f".doctor-{secrets.token_hex(4)}"
            location.write_bytes(probe, b"doctor")
            probe.unlink()

    return _stored("output", place, put)


def _stored(what: str, place: str, ask: Callable[[], None]) -> Finding:
    try:
        within(ANSWER_SECONDS, ask)
    except BadInput as fault:
        told, _, remedy = str(fault).partition("; ")
        return Finding(what, "stops", told, remedy)
    except TimeoutError:
        told = f"{place}: no answer within {ANSWER_SECONDS:.0f} s"
        return Finding(what, "stops", told, "check AWS_ENDPOINT_URL, the proxy and the network")
    return Finding(what, "ok", f"{place} answers{' and can be written' * (what == 'output')}")


# --- others -------------------------------------------------------------------------------------------------------


def ray(environment: Mapping[str, str], address_file: Path) -> Finding:
    """Tell of Ray's token and of clusters that lie about; a search of this machine joins none of them."""
    from cluster import start, token

    if start.belongs_to_job(environment):
        asks = "asks for a token" if token.is_asked_for(environment) else "asks for no token"
        told = f"inside a Ray job, whose cluster {asks}; it is examined when the search starts"
        if token.is_asked_for(environment):
            return Finding("Ray", "ok", told)
        return Finding("Ray", "slow", told, "start it with RAY_AUTH_MODE=token, see cluster/README.md")
    file = token.token_file(environment)
    if not token.is_used(environment):
        kept = "the token's file is not used here"
    elif not file.exists() or token.is_empty(file):
        folder = next(one for one in file.absolute().parents if one.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK) or not shutil.disk_usage(folder).free:
            told = f"{file}: Ray's token cannot be written there"
            return Finding(
                "Ray", "stops", told, f"make room, or set {token.TOKEN_FILE} to a file in a folder of your own"
            )
        kept = "no token yet, it is made at the next start"
    elif not token.is_private(file):
        kept = f"{file} is readable by others, which the next start ends"
    else:
        kept = "the token's file is private"
    foreign = start.foreign_clusters(environment, address_file)
    if foreign:
        return Finding("Ray", "ok", f"{kept}; a search starts its own session: {'; '.join(foreign)}")
    return Finding("Ray", "ok", f"{kept}; no other cluster lies about")


def wandb(environment: Mapping[str, str], home: Path) -> Finding:
    """Tell whether W&B could be used online; the key is never shown, and nobody is asked."""
    host = re.sub(r"^\w+://|/.*$", "", environment.get("WANDB_BASE_URL", "")) or "api.wandb.ai"
    if environment.get("WANDB_API_KEY"):
        return Finding(
            "W&B", "ok", f"a key for {host} is set in the environment; runs stay offline unless asked for online"
        )
    if _in_netrc(host, Path(environment.get("NETRC", home / ".netrc"))):
        return Finding("W&B", "ok", f"logged in to {host}; runs stay offline unless asked for online")
    return Finding("W&B", "ok", "not logged in: runs are written offline; `wandb login` before --wandb online")


def _in_netrc(host: str, file: Path) -> bool:
    from netrc import NetrcParseError, netrc

    try:
        return host in netrc(str(file)).hosts
    except (OSError, NetrcParseError):
        return False


def hub(ask: Callable[[], Any], *, offline: bool) -> Finding:
    """Judge whether pretrained weights could be fetched; `ask` raises where the model hub does not answer."""
    remedy = "connect, or set space.encoder_weights=none"
    lost = "pretrained weights not kept on this machine cannot be fetched, and trials start from random ones"
    if offline:
        return Finding(
            "model hub", "slow", f"switched off by HF_HUB_OFFLINE: {lost}", f"unset HF_HUB_OFFLINE, {remedy}"
        )
    try:
        within(ANSWER_SECONDS, ask)
    except Exception as fault:  # each client and proxy has its own kind
        return Finding("model hub", "slow", f"does not answer ({type(fault).__name__}): {lost}", remedy)
    return Finding("model hub", "ok", "answers: pretrained weights can be fetched")


def ask_hub() -> None:
    """Ask the model hub for a small file; an answer that it has none is an answer."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    try:
        get_hf_file_metadata(hf_hub_url("timm/resnet18.a1_in1k", "config.json"), timeout=ANSWER_SECONDS, token=False)
    except HfHubHTTPError:
        return


def within(seconds: float, work: Callable[[], Any]) -> None:
    """Do something that may hang; TimeoutError after so many seconds, it is then left to itself."""
    raised: list[BaseException] = []
    ended = threading.Event()

    def run() -> None:
        try:
            work()
        except BaseException as fault:
            raised.append(fault)
        ended.set()

    threading.Thread(target=run, daemon=True).start()
    if not ended.wait(seconds):
        raise TimeoutError(f"no answer within {seconds:g} s")
    if raised:
        raise raised[0]


# --- the answer -----------------------------------------------------------------------------------------------------


def examine(place: str | None, out: str | None) -> list[Finding]:
    """Return all findings; what waits for the network runs beside the rest."""
    from cluster.start import address_file
    from data_io.stream import free_bytes

    environment = os.environ
    remote = out is not None and out.startswith(location.S3)
    waiting = _beside(
        partial(data, place),
        partial(stored_output, str(out)) if remote else partial(output, Path(out or ".")),
        partial(hub, ask_hub, offline=environment.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on")),
    )
    shm = Path("/dev/shm")  # noqa: S108 - where Ray puts its store
    found = [
        versions(),
        gpus(seen_gpus(), Path("/proc/driver/nvidia/version").exists()),
        cores(usable_cores(), cpu_flags()),
        memory(free_bytes()),
        shared_memory(shutil.disk_usage(shm).free if shm.is_dir() else None),
        open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        scratch(address_file().parent),
        ray(environment, address_file()),
        wandb(environment, Path.home()),
    ]
    return [*found, *waiting()]


def _beside(*questions: Callable[[], Finding]) -> Callable[[], list[Finding]]:
    """Begin to answer questions at once, each in a thread; what is returned waits for the answers."""
    answers: list[Finding | BaseException | None] = [None] * len(questions)

    def answer(at: int) -> None:
        try:
            answers[at] = questions[at]()
        except BaseException as fault:
            answers[at] = fault

    threads = [threading.Thread(target=answer, args=(at,), daemon=True) for at in range(len(questions))]
    for thread in threads:
        thread.start()

    def waited() -> list[Finding]:
        for thread in threads:
            thread.join()
        for one in answers:
            if isinstance(one, BaseException):
                raise one
        return [one for one in answers if isinstance(one, Finding)]

    return waited


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = Parser(prog="python -m search.doctor", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", metavar="PATH", help="images or a dataset.zarr that the search is meant for")
    parser.add_argument("--out", metavar="PATH", help="where the run is meant to go (default: here)")
    parser.add_argument("--json", action="store_true", help="the findings as JSON")
    given = parser.parse_args(arguments)
    found = examine(given.data, given.out)
    usable = all(one.state != "stops" for one in found)
    if given.json:
        findings = [{name: veiled(text) for name, text in asdict(one).items()} for one in found]
        print(json.dumps({"usable": usable, "findings": findings}, indent=1))
        return DONE if usable else REFUSED
    print("\n".join(map(str, found)))
    slow = sum(one.state == "slow" for one in found)
    print(
        f"a search can run here{f', {slow} things slow it' * bool(slow)}" if usable else "a search cannot run here yet"
    )
    return DONE if usable else REFUSED


if __name__ == "__main__":
    entry_point(main)
