"""What a search costs on top of the training itself.

    python tests/benchmarks/overhead.py epoch     an epoch of a trial against a bare PyTorch loop over the same batches
    python tests/benchmarks/overhead.py search    trials on Ray against plain functions in as many processes

Both sides train the same network on the same crops, in turns (epoch) or one after the other (search); the figure is a
ratio of wall times in one run. The bare loop has the forward and backward passes, the optimiser, the calibration and
the validation counts, and neither checkpoints nor records.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:
    from search.config import Config
    from search.frames import Banks
    from search.space import Plan, TrialConfig

MOVIE = "data.synthetic={fields: 4, frames: 4, height: 384, width: 384}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("epoch", "search"))
    parser.add_argument("--trials", type=int, default=24, help="trials of the search")
    parser.add_argument("--seconds", type=float, default=30.0, help="about how long one of them trains")
    parser.add_argument("--slots", type=int, default=2, help="trials at a time")
    parser.add_argument("--crops", type=int, default=64, help="crops of an epoch")
    parser.add_argument("--size", type=int, default=128, help="edge of a crop")
    parser.add_argument("--rounds", type=int, default=5, help="epochs timed on each side")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.what == "epoch":
            time_epochs(Path(folder), given)
        else:
            time_search(Path(folder), given)
    return 0


def prepared(folder: Path, given: argparse.Namespace, *overrides: str) -> tuple[Config, Plan, Banks, int]:
    """Return a search of one cell with as many seeds as trials, its frames decoded under `folder`."""
    from search import prepare
    from search.config import load

    cell = ["space.targets=[two_class]", "space.architectures=[unet]", "space.encoders=[resnet18]"]
    cell += ["space.losses={two_class: [dice]}", "space.stardist_unet=false", "schedule.references=[]"]
    cell += ["schedule.asha=false", f"train.crops_per_epoch={given.crops}", f"train.crop={given.size}", MOVIE]
    config = load("demo", None, [*cell, "tracking.wandb=disabled", *overrides])
    config = config.model_copy(update={"budget": type(config.budget)()})
    dataset = prepare.prepare_data(config, folder)
    config = prepare.resolve(config, dataset)
    plan, _ = prepare.make_plan(config, dataset, folder)
    return config, plan, prepare.decode_frames(config, dataset, folder), dataset.channels


def time_epochs(folder: Path, given: argparse.Namespace) -> None:
    """Time an epoch of a trial and one of the bare loop, in turns, and print their ratio."""
    import torch

    from search.batches import Batches
    from search.losses import loss_for
    from search.trial import make_network, run_trial

    torch.set_num_threads(1)
    _, plan, banks, channels = prepared(folder, given, f"train.max_epochs={given.rounds + 2}")
    trial = plan.trials[0]
    torch.manual_seed(trial.seed)
    data, network, loss = Batches(trial, banks), make_network(trial, channels), loss_for(trial.loss)
    optimiser = torch.optim.AdamW(network.parameters(), lr=trial.learning_rate, weight_decay=trial.weight_decay)
    ours: list[float] = []
    bare: list[float] = []
    before = time.perf_counter()

    def report(row: dict[str, Any]) -> None:
        nonlocal before
        ours.append(time.perf_counter() - before)
        began = time.perf_counter()
        bare_epoch(network, loss, optimiser, data, trial, row["epoch"])
        bare.append(time.perf_counter() - began)
        before = time.perf_counter()

    run_trial(trial, banks, folder / "trial", report)
    ours, bare = ours[2:], bare[2:]  # the first epochs allocate
    ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
    print(f"epoch of a trial       {statistics.median(ours):7.3f} s   median of {len(ours)}")
    print(f"bare PyTorch loop      {statistics.median(bare):7.3f} s")
    print(f"ratio                  {ratio:7.3f}     aim: at most 1.05")


def bare_epoch(network: Any, loss: Any, optimiser: Any, data: Any, trial: TrialConfig, epoch: int) -> None:
    """Train and validate once, with nothing around it."""
    import torch

    from search import targets
    from search.batches import CropBatches
    from search.module import calibrate

    network.train()
    for images, target, _ in CropBatches(data.bank, trial, epoch):
        optimiser.zero_grad()
        loss(network(images), target).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), trial.train.gradient_clip)
        optimiser.step()
    network.eval()
    calibrate(network, data.calibration)
    overlap = targets.Overlap()
    with torch.no_grad():
        for images, target, labels in data.val:
            scores = network(images)
            float(loss(scores, target))
            targets.count(trial.target, scores, labels.numpy(), overlap, gap=trial.gap)


def time_search(folder: Path, given: argparse.Namespace) -> None:
    """Time a search and plain functions in as many processes, and print their ratio."""
    from cluster.start import start_ray, stop_ray
    from search.ledger import Ledger
    from search.shares import measured
    from search.tuning import search

    probe = prepared(folder / "probe", given, "train.max_epochs=4")
    _, plan, banks, _ = probe
    began = time.perf_counter()
    in_pool(plan.trials[:1], banks, folder / "probe", 1)
    epochs = max(2, round(4 * given.seconds / (time.perf_counter() - began)))
    seeds = f"space.seeds={list(range(given.trials))}"
    config, plan, banks, channels = prepared(folder / "run", given, f"train.max_epochs={epochs}", seeds)
    ledger = Ledger(folder / "run" / "ledger.jsonl")
    began = time.perf_counter()
    start_ray(cpus=given.slots)
    up = time.perf_counter()
    shares = measured(config, plan.trials, channels, ledger, lambda _: None)
    search(config, plan, banks, folder / "run", ledger, [], shares)
    on_ray, with_start = time.perf_counter() - up, time.perf_counter() - began
    stop_ray()
    done = sum(state.status == "completed" for state in ledger.trials().values())
    ledger.close()
    began = time.perf_counter()
    in_pool(plan.trials, banks, folder / "plain", given.slots)
    plain = time.perf_counter() - began
    print(f"{done} of {given.trials} trials of {epochs} epochs, {given.slots} at a time")
    print(f"on Ray                 {on_ray:7.1f} s   {with_start:.1f} s with Ray's start")
    print(f"plain functions        {plain:7.1f} s   {plain * given.slots / given.trials:.1f} s a trial")
    print(
        f"ratio                  {on_ray / plain:7.3f}     {with_start / plain:.3f} with Ray's start; aim: at most 1.15"
    )


def in_pool(trials: Any, banks: Banks, folder: Path, slots: int) -> None:
    """Train trials in so many processes, each of which imports torch once."""
    with ProcessPoolExecutor(slots, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in [pool.submit(_alone, trial, banks, folder / "trials" / trial.id) for trial in trials]:
            future.result()


def _alone(trial: TrialConfig, banks: Banks, folder: Path) -> None:
    import torch

    from search.trial import run_trial

    torch.set_num_threads(1)
    run_trial(trial, banks, folder, lambda _: None)


if __name__ == "__main__":
    sys.exit(main())
