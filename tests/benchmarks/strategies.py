"""How well the search strategies find the best network per epoch spent, replayed on recorded learning curves.

    python -m tests.benchmarks.strategies                                  the table, from the recorded curves
    python -m tests.benchmarks.strategies --from RUN [RUN...] --csv FILE   curves of runs as a CSV

Two data sets, each a full grid of 36 trials that nothing stopped (3 architectures x 2 encoders x 2 losses x 3 learning
rates, 27 epochs): `curves_synthetic.csv` from synthetic movies, `curves_yeast.csv` from a phase-contrast movie of
budding yeast (16 bit, annotated). Recorded with

    python -m search.run --preset demo 'space.architectures=[unet, linknet, fpn]' 'space.targets=[two_class]' \\
        'space.encoders=[tu-regnety_002, timm-mobilenetv3_small_075]' 'space.losses={two_class: [dice, bce_dice]}' \\
        'space.learning_rate=[0.0005, 0.003, 0.02]' 'schedule.references=[]' schedule.asha=false train.max_epochs=27 \\
        train.crops_per_epoch=32 train.validation_crops=12 train.schedule=warmup_stable_decay budget.minutes=null \\
        'data.synthetic={preset: hard}'                     (yeast: --data FOLDER train.crop=128 in its place)

A replay runs a strategy on two slots; the next epoch to end is that of the trial with the least time, as recorded. The
decisions are those of the project's own `search.asha.Bracket` and `search.proposals.Proposer`. The answer of a search
is its completed trial with the best rung metric; what it loses is that trial's validation IoU against that of the
full grid's answer, in points of 100. Every replay has an order (or a seed) of its own.

On yeast the learning curves cross: among its twelve best trainings the rank correlation of epochs 1, 3 and 9 with the
end is -0.46, -0.13 and 0.03, and what makes an early epoch look like a late one does not help. Validating an average of
the weights over about the last tenth of the steps (polynomial decay, Shamir & Zhang 2013) gives -0.47, -0.08 and -0.31
and costs 0.8 points at the end, where the learning rate has decayed; a whole decay of the rate to epoch 9 gives 0.07 in
place of 0.01 among 19 trainings. Ends of the same configuration trained again have a standard deviation of 0.7 points.
27 epochs are 216 steps here; curves of longer trainings were not recorded.
"""

from __future__ import annotations

import argparse
import heapq
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from search.asha import Bracket
from search.config import load
from search.proposals import Proposer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from search.space import Cell, Setting

HERE = Path(__file__).parent
CURVES = {"synthetic": HERE / "curves_synthetic.csv", "yeast": HERE / "curves_yeast.csv"}
REPLAYS = 100
SLOTS = 2
WITHIN = 0.5
"""Points of IoU that a strategy may lose."""
QUARTER = 9
"""Trials of a full length that take a quarter of the grid's epochs: what stopping nobody finds for them."""
COLUMNS = ("rung_metric", "val_dataset_iou", "seconds")
Place = tuple["Cell", "Setting"]


@dataclass(frozen=True)
class Curve:
    """One recorded trial: its place in the space and its rung metric, IoU and seconds by epoch."""

    place: Place
    metric: np.ndarray[Any, Any]
    iou: np.ndarray[Any, Any]
    seconds: np.ndarray[Any, Any]

    @property
    def answer(self) -> tuple[float, float]:
        """Best rung metric of an epoch, and the IoU there."""
        best = int(np.argmax(self.metric))
        return float(self.metric[best]), float(self.iou[best])


@dataclass(frozen=True)
class Outcome:
    """What a replay spent, as a share of the full grid's epochs, and what it lost, in points of IoU."""

    spent: float
    lost: float


Curves = dict[Place, Curve]
Next = "Callable[[], Place | None]"


def record(runs: Sequence[Path], file: Path) -> None:
    """Write the learning curves of the completed trials of runs as one table."""
    parts = []
    for run in runs:
        events = [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]
        completed = {event["trial"] for event in events if event["event"] == "complete"}
        for name in sorted(completed):
            folder = run / "trials" / name
            trial = YAML(typ="safe", pure=True).load((folder / "config.yaml").read_text())
            part = pd.read_csv(folder / "metrics.csv")[["epoch", *COLUMNS]].round(5)
            facts = {key: trial[key] for key in ("target", "architecture", "encoder", "loss", "learning_rate")}
            facts |= {key: trial[key] for key in ("weight_decay", "augmentation")}
            parts.append(part.assign(**facts))
    place = ["target", "architecture", "encoder", "loss", "learning_rate", "weight_decay", "augmentation", "epoch"]
    pd.concat(parts).drop_duplicates(place, keep="last").to_csv(file, index=False)


def read(file: Path) -> Curves:
    """Curves of a table by their place in the search space."""
    names = ["target", "architecture", "encoder", "loss", "learning_rate", "weight_decay", "augmentation"]
    curves = {}
    for place, part in pd.read_csv(file).groupby(names):
        ordered = part.sort_values("epoch")
        values = [ordered[column].to_numpy() for column in COLUMNS]
        cell, setting = tuple(map(str, place[:4])), tuple(map(float, place[4:]))
        curves[cell, setting] = Curve((cell, setting), *values)  # type: ignore[arg-type, index]
    return curves  # type: ignore[return-value]


def replay(
    curves: Curves,
    suggest: Callable[[], Place | None],
    bracket: Bracket | None,
    tell: Callable[[Place, int, float | None, str], None] = lambda *_: None,
) -> Outcome:
    """Run one search on recorded curves.

    Parameters
    ----------
    suggest
        The next configuration, None when there is no more.
    bracket
        Who stops trials early, None for nobody.
    tell
        Called after every epoch with (place, epoch, value, "") and at the end of a trial with its status.
    """
    running: list[tuple[float, int, Place, int]] = []
    order, spent, completed = 0, 0, []

    def start(now: float) -> None:
        nonlocal order
        if (place := suggest()) is not None:
            heapq.heappush(running, (now + curves[place].seconds[0], order, place, 1))
            order += 1

    for _ in range(SLOTS):
        start(0.0)
    while running:
        now, number, place, epoch = heapq.heappop(running)
        curve = curves[place]
        spent += 1
        value = float(curve.metric[epoch - 1])
        tell(place, epoch, value, "")
        if epoch == len(curve.metric):
            completed.append(curve)
            tell(place, epoch, None, "completed")
            start(now)
        elif bracket is not None and bracket.judge(str(place), epoch, value).stop:
            tell(place, epoch, None, "stopped")
            start(now)
        else:
            heapq.heappush(running, (now + curve.seconds[epoch], number, place, epoch + 1))
    best = max(curve.answer for curve in curves.values())[1]
    found = max(curve.answer for curve in completed)[1]
    return Outcome(spent / sum(len(curve.metric) for curve in curves.values()), 100 * (best - found))


def listed(places: Sequence[Place]) -> Callable[[], Place | None]:
    """Return what suggests the places one after another."""
    left: Iterator[Place] = iter(places)
    return lambda: next(left, None)


def drawn(curves: Curves, seed: int, trials: int | None = None) -> list[Place]:
    """Return some of the places, all by default, in an order of the seed's."""
    places = list(curves)
    return [places[i] for i in np.random.default_rng(seed).permutation(len(places))[:trials]]


def advised(curves: Curves, seed: int, trials: int, bracket: Bracket) -> Outcome:
    """One replay of Optuna with early stopping."""
    cells, rates = {place[0] for place in curves}, sorted({place[1][0] for place in curves})
    architectures, encoders, losses = (sorted({cell[i] for cell in cells}) for i in (1, 2, 3))
    config = load(
        "demo",
        None,
        [
            "space.mode=optuna",
            f"space.trials={trials}",
            "space.targets=[two_class]",
            f"space.architectures={json.dumps(architectures)}",
            f"space.encoders={json.dumps(encoders)}",
            f"space.losses={json.dumps({'two_class': losses})}",
            f"space.learning_rate={json.dumps(rates)}",
            f"space.weight_decay={json.dumps(sorted({place[1][1] for place in curves}))}",
            f"space.augmentation={json.dumps(sorted({place[1][2] for place in curves}))}",
            "schedule.references=[]",
            f"seed={seed}",
        ],
    )
    proposer = Proposer(config, drawn(curves, seed))

    def suggest() -> Place | None:
        place = proposer.ask() if len(proposer.told) < trials else None
        if place is not None:
            proposer.begin(str(place), *place)
        return place

    def tell(place: Place, epoch: int, value: float | None, status: str) -> None:
        if value is not None:
            proposer.tell_epoch(str(place), epoch, value)
        else:
            proposer.tell_end(str(place), status)

    return replay(curves, suggest, bracket, tell)


def strategies(curves: Curves) -> dict[str, Callable[[int], Outcome]]:
    """Return every strategy as a function of the replay's seed."""
    epochs = max(len(curve.metric) for curve in curves.values())
    made: dict[str, Callable[[int], Outcome]] = {
        "full grid": lambda seed: replay(curves, listed(drawn(curves, seed)), None),
        f"random {QUARTER}, none stopped": lambda seed: replay(curves, listed(drawn(curves, seed, QUARTER)), None),
    }
    for grace, eta in ((1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 3), (3, 4)):

        def bracket(grace: int = grace, eta: int = eta) -> Bracket:
            return Bracket(grace, epochs, eta)

        made[f"grid + ASHA {grace}/{eta}"] = lambda seed, b=bracket: replay(curves, listed(drawn(curves, seed)), b())  # type: ignore[misc]
        if (grace, eta) in ((1, 3), (2, 3), (3, 3)):
            for trials in (12, 18, 24):
                made[f"random {trials} + ASHA {grace}/{eta}"] = lambda seed, b=bracket, n=trials: replay(  # type: ignore[misc]
                    curves, listed(drawn(curves, seed, n)), b()
                )
                made[f"Optuna {trials} + ASHA {grace}/{eta}"] = lambda seed, b=bracket, n=trials: advised(  # type: ignore[misc]
                    curves, seed, n, b()
                )
    return made


def table(curves: Curves, replays: int = REPLAYS) -> pd.DataFrame:
    """Return one row per strategy: epochs spent, points lost (mean, 95th percentile), share of replays within 0.5."""
    rows = []
    for name, strategy in strategies(curves).items():
        outcomes = [strategy(seed) for seed in range(replays)]
        lost = np.array([outcome.lost for outcome in outcomes])
        rows.append(
            {
                "strategy": name,
                "epochs %": 100 * float(np.mean([outcome.spent for outcome in outcomes])),
                "points lost": float(lost.mean()),
                "95th percentile": float(np.percentile(lost, 95)),
                "within 0.5 %": 100 * float(np.mean(lost <= WITHIN)),
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    """Print the tables, or write recorded curves."""
    parser = argparse.ArgumentParser(description="search strategies replayed on recorded learning curves")
    parser.add_argument("--from", dest="runs", type=Path, nargs="+", metavar="RUN", help="runs to take curves from")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="where to write them")
    parser.add_argument("--replays", type=int, default=REPLAYS)
    given = parser.parse_args()
    if given.runs:
        record(given.runs, given.csv)
        return
    for name, file in CURVES.items():
        curves = read(file)
        print(f"{name}: {len(curves)} curves, {given.replays} replays of each strategy (ASHA grace/reduction)")
        print(table(curves, given.replays).round(2).to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
