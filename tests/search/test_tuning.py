"""The search on a real local Ray: shares of GPUs that Ray is told of, memory that runs out, several processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from cluster.start import stop_ray
from data_io import synthetic
from data_io.convert import convert
from data_io.crops import FrameBank
from data_io.errors import BadInput
from search.config import Config, load
from search.frames import Banks
from search.ledger import Ledger
from search.metrics import COLUMNS, read_metrics
from search.shares import Shares, kind_of, measured
from search.space import Plan
from search.trial import load_best, run_trial
from search.tuning import needs_training, search
from tests.search.trials import a_trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from search.space import TrialConfig

SETTINGS = [
    "train.crop=64",
    "train.batch_size=4",
    "train.crops_per_epoch=8",
    "train.validation_crops=4",
    "train.precision=fp32",
    "train.channels_last=true",
    "train.encoder_depth=3",
    "schedule.asha=false",
    "budget.minutes=null",
]
CONFIG: Config = load("demo", None, SETTINGS)


@pytest.fixture(scope="module")
def banks(tmp_path_factory: pytest.TempPathFactory) -> Banks:
    folder = tmp_path_factory.mktemp("movie")
    synthetic.write(folder / "raw", fields=3, frames=2, size=(128, 128), preset="easy", seed=1)
    dataset = convert(folder / "raw", folder / "dataset.zarr")
    FrameBank.build(dataset, dataset.frames("train"), folder / "train")
    FrameBank.build(dataset, dataset.frames("val"), folder / "val")
    return Banks(folder / "train", folder / "val")


def trial_of(name: str, **changes: Any) -> TrialConfig:
    return a_trial(CONFIG.train, id=name, **changes)


@pytest.fixture
def ray_with(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Start a local Ray whose workers call a function when they start."""
    import ray

    home = str(Path(__file__).resolve().parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([home, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

    def start(gpus: int, hook: Callable[[], None] | None = None) -> None:
        environment = {"worker_process_setup_hook": hook} if hook else None
        ray.init(
            address="local",
            num_cpus=2,
            num_gpus=gpus,
            include_dashboard=False,
            log_to_driver=False,
            runtime_env=environment,
            object_store_memory=100 * 1024 * 1024,
        )

    yield start
    stop_ray()


def train(trials: list[TrialConfig], banks: Banks, run_dir: Path, shares: Shares) -> Ledger:
    search(CONFIG, Plan(tuple(trials), ()), banks, run_dir, shares.ledger, [], shares)
    return shares.ledger


def events(ledger: Ledger, kind: str) -> list[dict[str, Any]]:
    return [event for event in ledger.events if event["event"] == kind]


@pytest.mark.parametrize(("gpus", "again"), [(0.5, (1.0, None)), (0.0, (0.0, 2))])
def test_a_trial_out_of_memory_comes_back_once_from_its_checkpoint_with_more_memory_or_fails_alone(
    gpus: float, again: tuple[float, int | None], ray_with: Any, banks: Banks, tmp_path: Path
) -> None:
    def little_memory() -> None:
        import torch

        from search.module import SegmentationModule

        step = SegmentationModule.training_step

        def limited(self: Any, batch: Any) -> Any:
            too_much = self.current_epoch == 1 and len(batch[0]) > 2 and self.trial.gpus < 1
            if too_much or self.trial.id == "huge":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return step(self, batch)

        SegmentationModule.training_step = limited  # type: ignore[method-assign]

    ray_with(1, little_memory)
    shares = Shares(CONFIG, {}, 1.0, gpus, Ledger(tmp_path / "ledger.jsonl"))
    ledger = train([trial_of("huge"), trial_of("large")], banks, tmp_path, shares)
    [lack] = [event for event in events(ledger, "oom") if event["trial"] == "large"]
    assert (lack["share"], lack["micro"]) == (gpus, None)
    assert (lack["next_share"], lack["next_micro"]) == again
    state = ledger.trials()["large"]
    assert (state.status, sorted(state.rows)) == ("completed", [1, 2])
    assert [state.rows[epoch]["gpus"] for epoch in (1, 2)] == [gpus, again[0]]
    assert shares.place(trial_of("large")).micro == again[1]
    failed = ledger.trials()["huge"]
    assert (failed.status, len(events(ledger, "oom"))) == ("failed", 2)
    assert "out of memory" in failed.ending["reason"]


def test_a_target_whose_only_survivor_fails_still_finishes_a_trial(ray_with: Any, banks: Banks, tmp_path: Path) -> None:
    def pretend(trial: TrialConfig, banks: Any, folder: Path, report: Any, encoders: Path) -> None:
        for epoch in (1, 2, 3):
            lost = trial.id == "first" and epoch == 2
            values = dict.fromkeys(COLUMNS, float("nan") if lost else trial.learning_rate)
            report(values | {"epoch": epoch})

    ray_with(0)
    config = load("demo", None, [*SETTINGS, "schedule.asha=true", "schedule.grace_epochs=1", "train.max_epochs=3"])
    trials = [trial_of("first", learning_rate=0.9, epochs=3)]
    trials += [trial_of(f"next {rate}", learning_rate=rate, epochs=3) for rate in (0.5, 0.4)]
    ledger = Ledger(tmp_path / "ledger.jsonl")
    shares = Shares(config, {}, 2.0, 0.0, ledger)
    search(config, Plan(tuple(trials), ()), banks, tmp_path, ledger, [], shares, train=pretend)
    ends = ["diverge", "stop", "complete"]
    told = [(event["event"], event["trial"]) for event in ledger.events if event["event"] in ends]
    assert told[0] == ("diverge", "first")
    assert sorted(told[1:3]) == [("stop", "next 0.4"), ("stop", "next 0.5")]
    assert told[3:] == [("complete", "next 0.5")]
    assert not needs_training(config, Plan(tuple(trials), ()), ledger)


def test_shares_of_a_gpu_follow_from_its_memory_and_are_whole_where_that_is_unknown(
    ray_with: Any, banks: Banks, tmp_path: Path
) -> None:
    ray_with(1)
    ledger = Ledger(tmp_path / "ledger.jsonl")
    resources = CONFIG.resources.model_copy(update={"gpu_memory_gb": 4.0})
    small, large = trial_of("small"), trial_of("large", crop=640)
    said: list[str] = []
    shares = measured(CONFIG.model_copy(update={"resources": resources}), [small, large], 1, ledger, said.append)
    assert 0 < shares.place(small).gpus < shares.place(large).gpus <= 1
    assert set(shares.fits) == {kind_of(small), kind_of(large)}
    assert "on a GPU" in said[-1]
    # the fake GPU has no memory to ask for
    assert measured(CONFIG, [small], 1, ledger, said.append).place(small).gpus == 1
    assert "resources.gpu_memory_gb" in said[-1]
    two = CONFIG.model_copy(update={"resources": CONFIG.resources.model_copy(update={"gpus_per_trial": 2.0})})
    with pytest.raises(BadInput, match=r"no node has more than 2 and 1"):
        measured(two, [small], 1, ledger, said.append)


def test_two_processes_train_one_trial_together(ray_with: Any, banks: Banks, tmp_path: Path) -> None:
    ray_with(0)
    shares = Shares(CONFIG, {}, 1.0, 0.0, Ledger(tmp_path / "ledger.jsonl"))
    trial = trial_of("whole-node", processes=2, reference=True)
    ledger = train([trial], banks, tmp_path, shares)
    assert ledger.trials()["whole-node"].status == "completed", events(ledger, "fail")
    folder = tmp_path / "trials" / "whole-node"
    rows = read_metrics(folder / "metrics.csv")
    assert [row["epoch"] for row in rows] == [1, 2]
    alone = tmp_path / "alone"
    run_trial(trial_of("whole-node"), banks, alone, lambda row: None)
    by_one = read_metrics(alone / "metrics.csv")
    assert rows[0]["train_loss"] == pytest.approx(by_one[0]["train_loss"], rel=0.1)
    together, _ = load_best(trial, folder, 1)
    assert all(bool(torch.isfinite(value).all()) for value in together.state_dict().values())


def test_shares_pack_two_gpus_and_a_trial_finds_torch_imported(ray_with: Any, banks: Banks, tmp_path: Path) -> None:
    def tell() -> None:
        import os
        import sys
        import time

        import ray

        from search import trial

        train, started = trial.run_trial, []

        def told(one: Any, banks: Any, folder: Path, *rest: Any) -> Any:
            [gpu] = ray.get_gpu_ids()  # type: ignore[no-untyped-call]
            folder.mkdir(parents=True, exist_ok=True)
            began, imported = time.time(), "pytorch_lightning" in sys.modules and bool(started)
            started.append(one.id)
            try:
                return train(one, banks, folder, *rest)
            finally:
                facts = f"{os.getpid()} {gpu} {began} {time.time()} {int(imported)}"
                (folder / "told.txt").write_text(facts)

        trial.run_trial = told  # type: ignore[assignment]

    ray_with(2, tell)
    shares = Shares(CONFIG, {}, 0.5, 0.5, Ledger(tmp_path / "ledger.jsonl"))
    trials = [trial_of(f"t{i}", seed=i, cpus=0.5) for i in range(10)]
    ledger = train(trials, banks, tmp_path, shares)
    assert {ledger.trials()[trial.id].status for trial in trials} == {"completed"}
    told = [(tmp_path / "trials" / trial.id / "told.txt").read_text().split() for trial in trials]
    assert len({pid for pid, *_ in told}) <= 5, "four at a time, and one that stood ready"
    assert sum(int(again) for *_, again in told) >= 5, "most trials began in a process that had trained another"
    assert {gpu for _, gpu, *_ in told} == {"0", "1"}
    for gpu in ("0", "1"):
        spans = [(float(began), float(ended)) for _, own, began, ended, _ in told if own == gpu]
        assert max(sum(a <= moment < b for a, b in spans) for moment, _ in spans) <= 2


def test_memory_that_one_of_several_processes_lacks_is_the_reason_told(
    ray_with: Any, banks: Banks, tmp_path: Path
) -> None:
    def little_memory_in_the_second() -> None:
        import torch

        from search.module import SegmentationModule

        step = SegmentationModule.training_step

        def limited(self: Any, batch: Any) -> Any:
            if self.trainer.global_rank == 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return step(self, batch)

        SegmentationModule.training_step = limited  # type: ignore[method-assign]

    ray_with(0, little_memory_in_the_second)
    shares = Shares(CONFIG, {}, 1.0, 0.0, Ledger(tmp_path / "ledger.jsonl"))
    ledger = train([trial_of("whole-node", processes=2, reference=True)], banks, tmp_path, shares)
    assert "out of memory" in ledger.trials()["whole-node"].ending["reason"]
