"""How fast crops come, beside other ways to get them, how much memory they take, and whether their order holds.

    python tests/benchmarks/crops.py [--zarrdataset] [--frames 47] [--size 904x1224]

One core and one thread for everything. Rates are units per second of processor time; the ratio of wall times follows in
brackets. Exit 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import venv
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import bench
from bench import ROOT, Row, compare

if TYPE_CHECKING:
    from data_io.crops import FrameBank
    from data_io.store import Dataset
    from data_io.stream import FrameStream

BATCH, FOREGROUND, PROCESSES = 8, 0.7, 4
SLICES = 64
"""Crops that are cut by one slice each, per round."""
HEADS = ("", "ours", "other", "ratio", "target", "reached")

CUT_EVERYWHERE = """
import sys
import numpy as np
from data_io.crops import FrameBank, cut
bank, size = FrameBank.open(sys.argv[1]), int(sys.argv[2])
steps = [(i, y, x) for i, (h, w) in enumerate(bank.shapes)
         for y in range(0, h, size) for x in range(0, w, size)]
for at in range(0, len(steps), 8):
    cut(bank, np.array(steps[at : at + 8]), size)
print("done", flush=True)
sys.stdin.read()
"""
"""A process that touches every pixel of a bank, then waits."""

STREAM_ONCE = """
import re, sys
from pathlib import Path
from data_io.stream import FrameStream
def status(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
stream, size, n = FrameStream.open(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
args = dict(seed=0, size=size, batch=8, foreground=0.7)
next(stream.crops(epoch=0, n=8, **args))
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
for _ in stream.crops(epoch=1, n=n, **args):
    pass
print(stream.most_held, status("VmHWM") - before)
"""
"""A process that streams an epoch; prints bytes of frames held and by how much its memory grew, at most."""


def in_memory(bank: FrameBank, dataset: Dataset, crops: int, size: int, rounds: int) -> list[Row]:
    """Crops of a bank beside copies of plain arrays made float32 and int32, with and without normalisation."""
    import numpy as np

    from data_io.crops import plan
    from data_io.normalise import CLIP

    order = plan(bank, seed=0, epoch=0, n=crops, size=size, foreground=FOREGROUND)
    images = np.stack([dataset.image(ref) for ref in bank.refs])
    labels = np.stack([dataset.labels(ref) for ref in bank.refs])
    limits = [dataset.limits(ref).astype(np.float32).T[:, :, None, None] for ref in bank.refs]

    def plain(normalised: bool) -> int:
        for at in range(0, len(order), BATCH):
            grey = np.empty((BATCH, bank.channels, size, size), np.float32)
            drawn = np.empty((BATCH, size, size), np.int32)
            for i, (frame, y, x) in enumerate(order[at : at + BATCH].tolist()):
                grey[i] = images[frame, :, y : y + size, x : x + size]
                drawn[i] = labels[frame, y : y + size, x : x + size]
                if normalised:
                    low, high = limits[frame]
                    grey[i] -= low
                    grey[i] *= 1 / (high - low)
                    np.clip(grey[i], *CLIP, out=grey[i])
        return len(order)

    def ours() -> int:
        made = bank.crops(seed=0, epoch=0, n=crops, size=size, batch=BATCH, foreground=FOREGROUND)
        return sum(len(drawn) for _, (_, drawn) in made)

    found = bench.rates(rounds, ours=ours, copied=lambda: plain(False), normalised=lambda: plain(True))
    return [
        compare("shared : array copied, converted", found["ours"], found["copied"], 0.5, "crops/s"),
        compare("shared : array copied, converted, normalised", found["ours"], found["normalised"], 0.5, "crops/s"),
    ]


def streamed(stream: FrameStream, dataset: Dataset, size: int, rounds: int) -> tuple[list[Row], bench.Rate]:
    """An epoch at one frame area of crops beside bare decoding, one at 64 per frame beside one slice per crop."""
    import dask.array as da
    import numpy as np
    import zarr

    slug = next(iter(dataset.fields.values())).slug
    paths = [str(dataset.path / slug / name) for name in ("s0", "labels/truth/s0")]
    images, labels = (zarr.open_array(path, mode="r") for path in paths)
    lazy_images, lazy_labels = (da.from_zarr(path) for path in paths)
    frames, (y, x) = len(stream), stream.shapes[0]
    area = max(1, round(y * x / size**2))
    rng = np.random.default_rng(0)
    epoch = 0

    def epoch_of(per_frame: int) -> int:
        nonlocal epoch
        epoch += 1
        order = stream.crops(
            seed=0, epoch=epoch, n=frames * per_frame, size=size, batch=BATCH, foreground=FOREGROUND
        )  # fmt: skip
        return sum(len(drawn) for _, (_, drawn) in order)

    def decode() -> int:
        for t in range(frames):
            images[t], labels[t]
        return frames

    def slices(dask: bool) -> int:
        for t, u, v in np.column_stack([rng.integers(0, top, SLICES) for top in (frames, y - size, x - size)]).tolist():
            window = (slice(u, u + size), slice(v, v + size))
            if dask:
                lazy_images[t, :, *window].compute(), lazy_labels[t, *window].compute()
            else:
                images[t, :, *window], labels[t, *window]
        return SLICES

    found = bench.rates(
        rounds,
        few=lambda: epoch_of(area) / area,
        decode=decode,
        many=lambda: epoch_of(64),
        dask=lambda: slices(True),
        zarr=lambda: slices(False),
    )
    rows = [
        compare(f"stream, {area} crops/frame : bare decode", found["few"], found["decode"], 0.6, "frames/s"),
        compare("stream, 64 crops/frame : Dask slice each", found["many"], found["dask"], 40, "crops/s"),
        compare("stream, 64 crops/frame : zarr slice each", found["many"], found["zarr"], 20, "crops/s"),
    ]
    return rows, found["many"]


def beside_zarrdataset(many: bench.Rate, dataset: Dataset, cache: Path, size: int, rounds: int) -> Row:
    """The stream (images and labels) beside zarrdataset (images alone) in an environment of its own."""
    import numpy as np

    home = cache / "zarr2"
    python = home / "bin" / "python"
    if not (home / "installed").is_file():
        venv.create(home, with_pip=True, clear=True)
        wanted = ["zarrdataset==0.2.2", "zarr<3", "numcodecs<0.16"]
        done = subprocess.run(
            [str(python), "-m", "pip", "install", "-q", *wanted], capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:]
            sys.exit(f"zarrdataset: cannot be installed ({' '.join(last)}); run without --zarrdataset")
        (home / "installed").touch()
    name = dataset.path.name.removesuffix(".zarr")
    arrays = cache / f"{name}.npy"
    if not arrays.is_file():
        np.save(arrays, np.stack([dataset.image(ref) for ref in dataset.frames()]))
    script = Path(__file__).with_name("other_zarrdataset.py")
    call = [str(python), str(script), str(arrays), str(cache / f"{name}_v2.zarr"), str(size), "400", str(rounds)]
    told = subprocess.run(call, capture_output=True, text=True, check=False)
    if told.returncode:
        sys.exit(f"zarrdataset: {told.stderr.strip().splitlines()[-1]}; run without --zarrdataset")
    seen = json.loads(told.stdout)
    other = bench.Rate(seen["wall"], seen["cpu"])
    return compare("stream, 64 crops/frame : zarrdataset, images", many, other, 10, "crops/s")


def memory_of_trials(bank: FrameBank, size: int) -> Row:
    """What four processes that cut crops all over one bank take for it together, beside one."""
    one, four = (_pss(bank, size, n) for n in (1, PROCESSES))
    ratio = four / one
    return Row(
        f"memory of {PROCESSES} trials : of one", _mb(four), _mb(one), f"{ratio:.2f}", "<= 1.3", ratio <= 1.3
    )  # fmt: skip


def _pss(bank: FrameBank, size: int, n: int) -> int:
    """Return the bytes of the bank's files that n processes are charged with, shared pages split among them."""
    call = [sys.executable, "-c", CUT_EVERYWHERE, str(bank.path), str(size)]
    held = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": _env()}
    running = [subprocess.Popen(call, **held) for _ in range(n)]
    try:
        for one in running:
            if one.stdout.readline() != "done\n":
                raise RuntimeError("a process that maps the bank ended early")
        return sum(_charged(one.pid, str(bank.path)) for one in running)
    finally:
        for one in running:
            one.communicate()


def _charged(pid: int, folder: str) -> int:
    total, ours = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        head = line.split(maxsplit=5)
        if "-" in head[0] and not head[0].endswith(":"):
            ours = len(head) == 6 and head[5].startswith(folder)
        elif ours and head[0] == "Pss:":
            total += int(head[1]) * 1024
    return total


def memory_of_stream(stream: FrameStream, size: int, budget: int) -> list[Row]:
    """The ceiling of the stream, and by how much a process grows that streams an epoch, batches and all."""
    call = [sys.executable, "-c", STREAM_ONCE, str(stream.path), str(size), str(64 * len(stream))]
    told = subprocess.run(call, capture_output=True, text=True, check=True, env=_env()).stdout
    held, grown = map(int, told.split())
    return [
        Row("stream, frames held : budget", _mb(held), _mb(budget), f"{held / budget:.2f}", "<= 1", held <= budget),
        Row("stream, growth of the process : budget", _mb(grown), _mb(budget), f"{grown / budget:.2f}", "", None),
    ]


def order_of_crops(frames: FrameBank | FrameStream, name: str, n: int, size: int) -> Row:
    """The hash of an epoch's crops with 1, 2 and 4 worker processes, and begun again in the middle."""
    n = n // BATCH * BATCH
    half = n // BATCH // 2
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("forkserver")) as pool:
        seen = {}
        for workers in (1, 2, 4):
            running = [pool.submit(_hashes, frames, n, size, w, workers, 0) for w in range(workers)]
            shares = [one.result() for one in running]
            seen[workers] = _one([hashed for k, hashed in sorted(kv for share in shares for kv in share)])
        whole, rest = (pool.submit(_hashes, frames, n, size, 0, 1, first).result() for first in (0, half))
    same = len(set(seen.values())) == 1 and whole[half:] == rest
    return Row(
        f"{name}: order with 1, 2, 4 workers, resumed", seen[1][:12], seen[4][:12], "same" if same else "differs",
        "same", same,
    )  # fmt: skip


def _hashes(
    frames: FrameBank | FrameStream, n: int, size: int, worker: int, workers: int, first: int
) -> list[tuple[int, str]]:
    cut = frames.crops(
        seed=0, epoch=1, n=n, size=size, batch=BATCH, foreground=FOREGROUND, worker=worker, workers=workers, first=first
    )
    return [(k, _one([image.tobytes(), drawn.tobytes()])) for k, (image, drawn) in cut]


def _one(parts: list[Any]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else part.encode())
    return digest.hexdigest()


def _env() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


def _mb(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


def run(given: argparse.Namespace) -> list[Row]:
    """Measure everything and return the rows of the table."""
    from data_io.crops import FrameBank
    from data_io.stream import FrameStream

    cache = bench.cache_folder(given.cache)
    dataset = bench.make_store(cache, given.frames, given.size)
    refs, size = dataset.frames(), given.crop
    budget = int(given.memory_mb * 1e6)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        bank = FrameBank.build(dataset, refs, Path(scratch) / "bank")
        stream = FrameStream.build([dataset], [refs], Path(scratch) / "stream", budget)
        shared = memory_of_trials(bank, size)  # first: as soon as this process reads the bank it shares the pages
        rows = in_memory(bank, dataset, given.crops // BATCH * BATCH, size, given.rounds)
        of_stream, many = streamed(stream, dataset, size, given.rounds)
        rows += of_stream
        if given.zarrdataset:
            rows.append(beside_zarrdataset(many, dataset, cache, size, given.rounds))
        rows.append(shared)
        rows += memory_of_stream(stream, size, budget)
        rows += [order_of_crops(frames, name, 256, size) for name, frames in (("shared", bank), ("stream", stream))]
    return rows


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=47)
    parser.add_argument("--size", type=bench.read_size, default=(904, 1224), metavar="YxX")
    parser.add_argument("--crop", type=int, default=224, help="side of a crop in px (default: 224)")
    parser.add_argument("--crops", type=int, default=1024, help="crops of a round in memory (default: 1024)")
    parser.add_argument("--rounds", type=int, default=5, help="of which the median counts (default: 5)")
    parser.add_argument("--memory-mb", type=float, default=100, help="ceiling of the stream (default: 100)")
    parser.add_argument("--cache", type=Path, help="folder for the stores, kept (default: in the temporary folder)")
    parser.add_argument("--zarrdataset", action="store_true", help="install zarrdataset with zarr 2 aside and time it")
    given = parser.parse_args(argv)
    core = bench.one_core()
    rows = run(given)
    size = f"{given.frames} x {given.size[0]} x {given.size[1]} uint16"
    print(f"{size}, crops of {given.crop} px with labels, core {core}, medians of {given.rounds} rounds")
    print(bench.table(rows, HEADS))
    return int(any(row.reached is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
