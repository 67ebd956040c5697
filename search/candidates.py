"""What a trial's best checkpoint is worth on the validation frames, and how the seeds of a configuration add up."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from analysis.scores import clusters_of, frame_counts, iou_score, pq_score, score
from analysis.statistics import FEWEST_CLUSTERS
from postprocess import methods
from search import inference, models, pareto, speed
from search.trial import load_best

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from analysis.scores import Counts
    from data_io.store import Dataset
    from postprocess.prediction import Prediction
    from search.space import TrialConfig

    Labels = NDArray[np.integer]


@dataclass(frozen=True)
class Candidate:
    """One trial on the validation frames.

    Attributes
    ----------
    epoch
        The epoch of its best checkpoint.
    parameters
        Trainable parameters of the network, which is not kept.
    fit
        Decode parameters that score best there.
    value
        The objective on the validation frames, larger is better.
    counts
        Counts of each validation frame, decoded so.
    speed
        Megapixels predicted in a second on this device.
    point, fidelity
        PQ and TFE where the objective names a trait, and minus the TFE on the validation frames of these positions.
    seeds
        Trial and value of each seed of this configuration, where it stands for several (`pooled`).
    """

    trial: TrialConfig
    epoch: int
    parameters: int
    fit: methods.Fit
    value: float
    counts: tuple[Counts, ...] = ()
    speed: float = float("nan")
    point: pareto.Point | None = None
    fidelity: Callable[[Sequence[int]], float] | None = None
    seeds: tuple[tuple[str, float], ...] = ()


def examine(trial: TrialConfig, folder: Path, dataset: Dataset, objective: str) -> Candidate:
    """Predict the validation frames with a trial's best checkpoint and fit its decoding there."""
    refs = dataset.frames("val")
    network, epoch = load_best(trial, folder, dataset.channels)
    predictions = list(inference.predict_frames(network, (dataset.normalised(ref) for ref in refs)))
    truth = [dataset.labels(ref) for ref in refs]
    measure = iou_score if objective == "iou" else pq_score
    fit = methods.fit(trial.target, predictions, truth, measure)
    if trial.gap:
        fit = with_gap(fit, predictions, truth, measure)
    cells = [methods.target_named(trial.target).decode(prediction, fit.params) for prediction in predictions]
    counts = tuple(frame_counts(t, c) for t, c in zip(truth, cells, strict=True))
    rate = speed.megapixels_per_second(network, (dataset.channels, *predictions[0].shape))
    size, (kind, _, trait) = models.parameter_count(network), objective.partition(":")
    if not trait:
        return Candidate(trial, epoch, size, fit, fit.value, counts, rate)
    truth_to_cells = zip(truth, cells, strict=True)
    parts, sigma = [_trait_parts(trait, t, c) for t, c in truth_to_cells], _spread_in_training(trait, dataset)

    def fidelity(frames: Sequence[int]) -> float:
        return -_tfe(trait, [parts[i] for i in frames], sigma)

    point = _point(trial.id, counts, fidelity, clusters_of([(ref.field, ref.frame) for ref in refs]), size)
    value = point.pq if kind == "pareto" else -point.tfe
    return Candidate(trial, epoch, size, fit, value, counts, rate, point, fidelity)


def with_gap(
    fit: methods.Fit, predictions: Sequence[Prediction], truth: Sequence[Labels], measure: methods.Score
) -> methods.Fit:
    """Return a three_class fit that keeps the gap between cells where that scores better than growing them back."""
    params = replace(fit.params, paper_gap=True)
    cells = [methods.target_named("three_class").decode(prediction, params) for prediction in predictions]
    value = float(measure(truth, cells))
    return methods.Fit(params, value, [*fit.curve, {**asdict(params), "value": value}]) if value > fit.value else fit


def _point(
    trial: str,
    counts: Sequence[Counts],
    fidelity: Callable[[Sequence[int]], float],
    clusters: Sequence[Hashable],
    size: int,
) -> pareto.Point:
    """PQ and TFE of a candidate on the validation frames, with their standard errors over clusters."""

    def pq(frames: Sequence[int]) -> float:
        found = score([counts[i] for i in frames])["pq_50"]
        return float("nan") if found is None else float(found)

    every = range(len(counts))
    pq_se, tfe_se = (pareto.jackknife(estimate, clusters, FEWEST_CLUSTERS) for estimate in (pq, fidelity))
    return pareto.Point(trial, pq(every), -fidelity(every), pq_se, tfe_se, size)


def _spread_in_training(trait: str, dataset: Dataset) -> float:
    """SD of a trait over the whole cells of the training frames."""
    from analysis.fidelity import natural_spread
    from postprocess.morphology import measure

    measured = [measure(dataset.labels(ref)) for ref in dataset.frames("train")]
    known = [cells.loc[~cells["border"], _column(trait)].to_numpy() for cells in measured]
    return natural_spread(trait, np.concatenate(known))


def _column(trait: str) -> str:
    return {"area": "area_px2", "perimeter": "perimeter_px", "radius": "radius_px"}.get(trait, trait)


@dataclass(frozen=True)
class _Parts:
    """A trait in one frame: of matched whole cells, predicted and true, and how many were missed and invented."""

    predicted: NDArray[np.float64]
    true: NDArray[np.float64]
    missed: int
    invented: int


def _trait_parts(trait: str, truth: Labels, cells: Labels) -> _Parts:
    from analysis.matching import match
    from postprocess.morphology import measure

    found = match(truth, cells)
    left, right = measure(truth).set_index("label"), measure(cells).set_index("label")
    inside = ~left["border"].loc[found.truth].to_numpy()
    true = left[_column(trait)].loc[found.truth].to_numpy()[inside]
    predicted = right[_column(trait)].loc[found.pred].to_numpy()[inside]
    return _Parts(predicted, true, int((~left["border"]).sum()) - int(inside.sum()), found.fp)


def _tfe(trait: str, parts: Sequence[_Parts], sigma: float) -> float:
    from analysis.fidelity import fidelity

    return fidelity(
        trait,
        np.concatenate([part.predicted for part in parts]),
        np.concatenate([part.true for part in parts]),
        missed=sum(part.missed for part in parts),
        invented=sum(part.invented for part in parts),
        sigma=sigma,
    ).tfe


def winner(candidates: Sequence[Candidate]) -> Candidate:
    """Return the candidate with the best objective; of equals the smaller network, then the name decides."""
    return max(candidates, key=lambda c: (-np.inf if np.isnan(c.value) else c.value, -c.parameters, c.trial.id))


def pooled(rivals: Sequence[Candidate], clusters: Sequence[Hashable]) -> list[Candidate]:
    """Return one candidate per configuration: its seeds are repeats of one thing, and none wins by luck.

    Its value is the mean over its seeds, its counts are theirs added up frame by frame, and the seed that does best on
    the validation frames lends its network.
    """
    groups: dict[str, list[Candidate]] = {}
    for rival in rivals:
        groups.setdefault(rival.trial.configuration, []).append(rival)
    return [group[0] if len(group) == 1 else _mean_of_seeds(group, clusters) for group in groups.values()]


def _mean_of_seeds(group: Sequence[Candidate], clusters: Sequence[Hashable]) -> Candidate:
    best = winner(group)
    counts = tuple(_added(same) for same in zip(*(one.counts for one in group), strict=True))
    estimates, point = [one.fidelity for one in group if one.fidelity is not None], None

    def fidelity(frames: Sequence[int]) -> float:
        return float(np.mean([estimate(frames) for estimate in estimates]))

    if estimates:
        point = _point(best.trial.id, counts, fidelity, clusters, best.parameters)
    return replace(
        best,
        value=float(np.mean([one.value for one in group])),
        counts=counts,
        point=point,
        fidelity=fidelity if estimates else None,
        seeds=tuple((one.trial.id, one.value) for one in group),
    )


def _added(counts: Sequence[Counts]) -> Counts:
    """Return the counts of one frame, added up over several predictions of it."""
    summed = {
        name: sum(getattr(one, name) for one in counts)
        for name in ("shared", "union", "truth_px", "pred_px", "n_truth", "n_pred", "iou_sum")
    }
    return type(counts[0])(tp=tuple(map(sum, zip(*(one.tp for one in counts), strict=True))), **summed)
