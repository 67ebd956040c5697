"""What early stopping did: how well a rung foretells the end, what was lost, who was stopped, and slow starters.

The metric is the one that early stopping looked at (column rung_metric), compared within one target only. A curve is
complete when it has the epochs of a full trial, as references and the trials that survived have; its end is its best
value up to there, since a trial is used at its best epoch. Everything here is worked out from the record of a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis import figures
from analysis.record import Record, curves
from analysis.report import Block, Cell, Gallery, Section, Table, number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from analysis.figures import Curve, Picture

FEWEST_CURVES = 5
"""Complete curves below which a rank correlation says nothing."""
REDUCTION = 3.0
"""One trial in so many goes on, where the record does not say."""
FEWEST_EPOCHS = 5
"""Epochs of a stopped trial below which its slope says nothing."""
SURE = 2.0
"""Standard errors taken off a difference of slopes before it is carried on."""


@dataclass(frozen=True)
class Rung:
    """Rank correlation of the values at one rung with the ends of `n` complete curves; NaN where not to be judged."""

    epoch: int
    n: int
    spearman: float
    kendall: float


@dataclass(frozen=True)
class Bracket:
    """The trials of one target as early stopping saw them.

    Attributes
    ----------
    values
        Per trial the metric by epoch, higher is better.
    exempt
        References: judged by no rung and counted in none.
    stopped
        Per stopped trial the rung's epoch, its value and the cutoff.
    rungs
        Epochs at which trials are judged, ascending.
    reduction
        One trial in so many goes on.
    full
        Epochs of a full trial.
    """

    target: str
    values: Mapping[str, pd.Series[float]]
    exempt: frozenset[str]
    stopped: Mapping[str, Mapping[str, Any]]
    rungs: tuple[int, ...]
    reduction: float
    full: int

    @cached_property
    def ends(self) -> dict[str, float]:
        """Best value of every complete curve, best curve first."""
        complete = {t: self.end(t) for t, v in self.values.items() if len(v) and v.index.max() >= self.full}
        return dict(sorted(complete.items(), key=lambda item: -item[1]))

    def end(self, trial: str) -> float:
        """Best value up to the epochs of a full trial."""
        return float(self.values[trial].loc[: self.full].max())

    def at(self, trial: str, epoch: int) -> float:
        """Value at an epoch, NaN where the trial has none."""
        return float(self.values[trial].get(epoch, np.nan)) if trial in self.values else np.nan

    def place(self, trial: str) -> int:
        """Place among the complete curves, 1 is best."""
        return 1 + sum(end > self.ends[trial] for end in self.ends.values())

    def cutoff(self, trial: str, rung: int) -> float:
        """Cutoff from all other trials that reached the rung, in whatever order they came; NaN without any."""
        found = [self.at(other, rung) for other in self.values if other != trial and other not in self.exempt]
        rivals = [value for value in found if np.isfinite(value)]
        return float(np.percentile(rivals, 100 * (1 - 1 / self.reduction))) if rivals else np.nan

    def would_stop(self, trial: str) -> int | None:
        """First rung at which the rule would stop this trial, None where it would not."""
        return next((rung for rung in self.rungs if self.at(trial, rung) < self.cutoff(trial, rung)), None)

    @cached_property
    def kept(self) -> list[str]:
        """Complete curves that the rule stops at no rung, best first."""
        return [trial for trial in self.ends if self.would_stop(trial) is None]

    @property
    def regret(self) -> float:
        """Best end of all complete curves minus the best end of those the rule keeps; NaN where it keeps none."""
        return max(self.ends.values()) - self.ends[self.kept[0]] if self.kept else np.nan

    def foretold(self, rung: int) -> Rung:
        """Rank correlation of the values at a rung with the ends, over the complete curves."""
        from scipy.stats import kendalltau, spearmanr

        pairs = np.array([(self.at(trial, rung), end) for trial, end in self.ends.items()]).reshape(-1, 2)
        pairs = pairs[np.isfinite(pairs).all(axis=1)]
        if len(pairs) < FEWEST_CURVES or (np.ptp(pairs, axis=0) == 0).any():
            return Rung(rung, len(pairs), np.nan, np.nan)
        early, late = pairs.T
        return Rung(rung, len(pairs), float(spearmanr(early, late)[0]), float(kendalltau(early, late)[0]))

    def is_slow_starter(self, trial: str) -> bool:
        """Whether the rule would stop a complete curve that it should have kept.

        That is one that ended above all it keeps, or a reference that ended among the best one in `reduction`. (A trial
        that survived because it came early is near the cutoff, not slow.)
        """
        if len(self.ends) < 2 or self.would_stop(trial) is None:
            return False
        if trial in self.exempt and self.place(trial) <= max(1.0, len(self.ends) / self.reduction):
            return True
        return self.ends[trial] > max((self.ends[kept] for kept in self.kept), default=np.inf)

    def slope(self, trial: str, epoch: int) -> tuple[float, float]:
        """Rise per epoch over the later half of the epochs up to `epoch`, 3 at least, and its standard error."""
        from scipy.stats import linregress

        known = self.values[trial].loc[:epoch].dropna() if trial in self.values else pd.Series(dtype=float)
        last = known.iloc[-max(3, len(known) // 2) :]
        if len(last) < 3:
            return np.nan, np.nan
        line = linregress(last.index.to_numpy(float), last.to_numpy(float))
        return float(line.slope), float(line.stderr)

    def catches_up(self, trial: str) -> float:
        """Epoch at which a stopped trial passes the best curve kept, if both go on with their slopes at its rung.

        Two standard errors are taken off the difference of the slopes. Infinite where it never does, NaN where it has
        too few epochs to tell or nothing is kept.
        """
        rung = int(self.stopped[trial]["rung"])
        if rung < FEWEST_EPOCHS or not self.kept:
            return np.nan
        best = self.kept[0]
        (slope, error), (rival, rival_error) = self.slope(trial, rung), self.slope(best, rung)
        faster = slope - rival - SURE * float(np.hypot(error, rival_error))
        if not faster > 0:
            return np.inf if np.isfinite(faster) else np.nan
        return rung + (self.at(best, rung) - self.at(trial, rung)) / faster

    def may_overtake(self, trial: str) -> bool:
        """Whether a stopped trial passes the best curve that is kept within the epochs of a full trial."""
        return self.catches_up(trial) <= self.full


def brackets(record: Record) -> list[Bracket]:
    """Return one bracket per target in which trials could be stopped; empty where nothing could."""
    search = record.summary.get("search", {})
    stops = {str(s["trial"]): {**s, "rung": s.get("rung") or s["epoch"]} for s in search.get("stops", [])}
    rungs = sorted(int(e) for e in search.get("rungs") or {s["rung"] for s in stops.values()})
    if not rungs or record.trials.empty:
        return []
    found = curves(record)
    built = []
    for target, own in record.trials.groupby("target", sort=False):
        values = {curve.trial: _metric(curve) for curve in found if curve.target == target}
        exempt = frozenset(curve.trial for curve in found if curve.reference)
        longest = {t: len(v) for t, v in values.items() if t not in exempt}
        searched = own[~own["trial"].isin(exempt)]
        full = int(searched["max_epochs"].max()) if "max_epochs" in searched and len(searched) else 0
        full = full or max(longest.values(), default=0)
        below = tuple(rung for rung in rungs if rung < full)
        if longest and below:
            own_stops = {trial: stop for trial, stop in stops.items() if trial in values}
            reduction = float(search.get("reduction_factor") or REDUCTION)
            built.append(Bracket(str(target), values, exempt, own_stops, below, reduction, full))
    return built


def _metric(curve: Curve) -> pd.Series[float]:
    column = "rung_metric" if "rung_metric" in curve.table else "val_dataset_iou"
    table = curve.table.drop_duplicates("epoch", keep="last").sort_values("epoch")
    return pd.Series(pd.to_numeric(table[column], errors="coerce").to_numpy(float), table["epoch"].astype(int))


def early_stopping_chapter(record: Record) -> Section | None:
    """Tell what early stopping saved, what it may have lost, and whom it stopped where and why."""
    built = brackets(record)
    if not built:
        return None
    names = {curve.trial: curve.name for curve in curves(record)}
    stopped = sum(len(b.stopped) for b in built)
    judged = sum(len(set(b.values) - b.exempt) for b in built)
    saved = sum(b.full - int(stop["rung"]) for b in built for stop in b.stopped.values())
    paragraphs = [
        "Early stopping ends a trial that is weaker than most others after the same number of epochs. It saves time, "
        "but it can lose a model that learns slowly and ends well. The complete curves, of references that nothing "
        "stops and of trials that survived, show how far it can be trusted here.",
        f"It stopped {stopped} of {judged} trials and saved {saved:,} epochs.",
        *[line for bracket in built for line in _lost(bracket)],
        *_slow_starters(built, names),
    ]
    blocks = [_correlations(built), _complete(built, names), _stops(built, names)]
    shown: tuple[Block, ...] = (
        Gallery([_survivors(b) for b in built], SURVIVORS),
        *(block for block in blocks if block.rows),
    )
    return Section("stopping", "What early stopping did", tuple(paragraphs), shown, "The search", "Early stopping")


SURVIVORS = (
    "Trials in training in each epoch, references left out; dotted: the epochs at which trials are judged. The area "
    "above the line, up to its height in the first epoch, is the training that was not done."
)
"""What the figure of each target shows."""


def survivors(bracket: Bracket) -> pd.DataFrame:
    """Return how many trials that may be stopped were trained for each epoch: columns epoch, trials."""
    lasted = [len(values) for trial, values in bracket.values.items() if trial not in bracket.exempt]
    epochs = range(1, bracket.full + 1)
    return pd.DataFrame({"epoch": epochs, "trials": [sum(n >= epoch for n in lasted) for epoch in epochs]})


def _survivors(bracket: Bracket) -> Picture:
    table = survivors(bracket)
    with figures.canvas() as (figure, axis):
        axis.step(table["epoch"], table["trials"], where="mid", color=figures.BLUE, linewidth=1.6)
        axis.fill_between(table["epoch"], table["trials"], step="mid", color=figures.BLUE, alpha=0.2)
        for rung in bracket.rungs:
            axis.axvline(rung, color=figures.INK, linewidth=0.8, linestyle=(0, (1, 2)))
        axis.set(title=figures.short(bracket.target), xlabel="epoch", ylabel="trials in training")
        axis.set_ylim(0, 1.05 * max(1, table["trials"].max()))
        figures.whole_numbers(axis.xaxis, axis.yaxis)
        first, last = int(table["trials"].iloc[0]), int(table["trials"].iloc[-1])
        alt = (
            f"Trials of {bracket.target} in training: {first} after the first epoch, {last} after epoch {bracket.full}."
        )
        return figures.svg(figure, alt, name=f"survivors_{bracket.target}", data=table)


def _lost(bracket: Bracket) -> list[str]:
    """Say what the rule would have cost among the complete curves of one target."""
    if not bracket.ends:
        return [f"{bracket.target}: no curve is complete, so nothing can be said about what was lost."]
    n = len(bracket.ends)
    few = "" if n >= FEWEST_CURVES else f" Below {FEWEST_CURVES} complete curves this cannot be judged; only described."
    counted = f"{n} complete curve{'s' if n > 1 else ''}"
    if not bracket.kept:
        return [f"{bracket.target}: the rule would have kept none of the {counted}.{few}"]
    best, kept = next(iter(bracket.ends.values())), bracket.ends[bracket.kept[0]]
    return [
        f"{bracket.target}: estimated regret {number(bracket.regret)}. The best of {counted} ended at {number(best)}, "
        f"the best that the rule would have kept at {number(kept)}.{few}"
    ]


def _slow_starters(built: list[Bracket], names: Mapping[str, str]) -> list[str]:
    lines = [
        f"Slow starter: {names[trial]} ({b.target}, {trial}) would have been stopped at epoch {b.would_stop(trial)}, "
        f"ended {_ordinal(b.place(trial))} of {len(b.ends)} complete curves."
        for b in built
        for trial in b.ends
        if b.is_slow_starter(trial)
    ]
    lines += [
        f"Possible slow starter: {names[trial]} ({b.target}, {trial}) was stopped at epoch {b.stopped[trial]['rung']} "
        f"while it rose faster than the best curve kept; going on so it passes it at epoch {b.catches_up(trial):.0f}. "
        "This is a guess: curves flatten. Train it once as a reference to know."
        for b in built
        for trial in b.stopped
        if b.may_overtake(trial)
    ]
    complete = sum(len(b.ends) for b in built)
    told = sum(not np.isnan(b.catches_up(trial)) for b in built for trial in b.stopped)
    return lines or [
        f"No slow starter was found: {complete} complete curves and the slopes of {told} stopped trials "
        "could be judged."
    ]


def _correlations(built: list[Bracket]) -> Table:
    rows: list[list[Cell | str]] = []
    for bracket in built:
        for found in map(bracket.foretold, bracket.rungs):
            judged = np.isfinite(found.spearman)
            few = found.n < FEWEST_CURVES
            remark = "" if judged else f"cannot be judged: {'too few curves' if few else 'all values are equal'}"
            values = (number(found.spearman, 2), number(found.kendall, 2))
            rows.append([bracket.target, str(found.epoch), str(found.n), *values, remark])
    return Table(
        "Does the order at a rung foretell the order at the end?",
        ("target", "after epoch", "complete curves", "Spearman", "Kendall", "remark"),
        rows,
        ("target", "remark"),
        "Rank correlation of the value at the rung with the end: 1 is the same order, 0 none. Trials that survived "
        "were chosen by their early values, so the correlation over all trials may differ; references were not. Below "
        f"{FEWEST_CURVES} complete curves it cannot be judged.",
    )


def _complete(built: list[Bracket], names: Mapping[str, str]) -> Table:
    rows: list[list[Cell | str]] = []
    for b in built:
        for trial, end in b.ends.items():
            name = names[trial] + (" (reference)" if trial in b.exempt else "")
            rung = b.would_stop(trial)
            told = "kept"
            if rung:
                told = f"stop at epoch {rung}: {number(b.at(trial, rung))} below {number(b.cutoff(trial, rung))}"
            remark = "slow starter" if b.is_slow_starter(trial) else ""
            rows.append([b.target, name, number(end), str(b.place(trial)), told, Cell(remark, strong=True)])
    return Table(
        "Complete curves held against the rule",
        ("target", "model", "end", "place", "what the rule would do", "remark"),
        rows,
        ("target", "model", "what the rule would do", "remark"),
        "How the regret is estimated: at each rung a complete curve is held against all trials of its target that "
        "reached the rung, in whatever order they came, and kept if it is not below their cutoff; the regret is the "
        "best end of all minus the best end of those kept. The end is the best value of the validation metric up to "
        "the epochs of a full trial. Stopped trials are not in it: nobody knows where they would have ended.",
        folded=len(rows) > 15,
    )


def _stops(built: list[Bracket], names: Mapping[str, str]) -> Table:
    rows: list[list[Cell | str]] = []
    for b in built:
        for trial, stop in sorted(b.stopped.items(), key=lambda item: (item[1]["rung"], item[0])):
            slope, error = b.slope(trial, int(stop["rung"]))
            remark = "may be a slow starter" if b.may_overtake(trial) else ""
            rows.append(
                [
                    b.target,
                    names[trial],
                    trial,
                    str(stop["rung"]),
                    number(stop.get("value")),
                    number(stop.get("cutoff")),
                    Cell(number(slope, 4), below=f"SE {number(error, 4)}" if np.isfinite(error) else ""),
                    "never" if np.isinf(late := b.catches_up(trial)) else number(late, 0),
                    Cell(remark, strong=True),
                ]
            )
    return Table(
        "Who was stopped, where and why",
        (
            "target", "model", "trial", "after epoch", "value", "cutoff", "slope per epoch", "passes the best",
            "remark",
        ),
        rows,
        ("target", "model", "trial", "remark"),
        "A trial stops when its value is below the cutoff at that moment. Slope: of the later half of its epochs, 3 at "
        "least, with its standard error. Passes the best: the epoch at which it would pass the best curve kept if "
        f"both kept their slopes ({SURE:g} standard errors off); a dash below {FEWEST_EPOCHS} epochs: too few to tell.",
        folded=len(rows) > 15,
    )  # fmt: skip


def _ordinal(n: int) -> str:
    ending = "th" if 10 <= n % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"
