"""From finished trials to one model per target: validation frames decide, then every candidate is tested once."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.scores import clusters_of, frame_counts, iou_score, pq_score, score
from analysis.statistics import FEWEST_CLUSTERS
from data_io import files
from postprocess import methods
from search import handover, inference, pareto, speed
from search.models import parameter_count
from search.top_set import standing
from search.trial import load_best

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from analysis.scores import Counts
    from data_io.store import Dataset, FrameRef
    from postprocess.prediction import Prediction
    from search.config import Config
    from search.ledger import TrialState
    from search.space import TrialConfig

    Labels = NDArray[np.integer]

ELIGIBLE = ("completed", "budget")
"""States of a trial whose best checkpoint may win: it ran to the end, or the budget ended the search."""


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


def eligible(
    trials: Sequence[TrialConfig], states: dict[str, TrialState], folder: Callable[[str], Path]
) -> list[TrialConfig]:
    """Trials that may win: those that ran to the end; where a target has none, those the budget cut short."""
    chosen = []
    for target in dict.fromkeys(trial.target for trial in trials):
        for status in ELIGIBLE:
            group = [t for t in trials if t.target == target and t.id in states and states[t.id].status == status]
            group = [t for t in group if any((folder(t.id) / "checkpoints").glob("epoch_*/manifest.json"))]
            if group:
                chosen += group
                break
    return chosen


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
    size, (kind, _, trait) = parameter_count(network), objective.partition(":")
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


def scores_of(
    trial: TrialConfig, decode: dict[str, Any], folder: Path, dataset: Dataset, refs: Sequence[FrameRef]
) -> dict[str, float]:
    """``dataset_iou`` and ``pq`` of a trial's best checkpoint on annotated frames; NaN without frames."""
    if not refs:
        return {"dataset_iou": float("nan"), "pq": float("nan")}
    network, _ = load_best(trial, folder, dataset.channels)
    params, counts = methods.params_from(trial.target, decode), []
    images = (dataset.normalised(ref) for ref in refs)
    for ref, prediction in zip(refs, inference.predict_frames(network, images), strict=True):
        cells = methods.target_named(trial.target).decode(prediction, params)
        counts.append(frame_counts(dataset.labels(ref), cells))
    found = score(counts)
    return {"dataset_iou": float(found["dataset_iou"]), "pq": float(found["pq_50"])}


def hand_over(
    best: Candidate, trial_folder: Path, folder: Path, dataset: Dataset, config: Config, rivals: Sequence[Candidate]
) -> dict[str, Any]:
    """Write the winner's model folder and return its facts."""
    from data_io.provenance import provenance

    trial = best.trial
    facts = {
        "target": trial.target,
        "architecture": trial.architecture,
        "encoder": trial.encoder,
        "loss": trial.loss,
        "encoder_weights": trial.encoder_weights or "none",
        "in_channels": dataset.channels,
        "channels": list(next(iter(dataset.fields.values())).channels),
        "encoder_depth": trial.train.encoder_depth,
        "decoder_width": trial.train.decoder_width,
        "output_stride": trial.output_stride,
        "output": _output(trial.target),
        "pad_to": 32,
        "crop": trial.crop,
        "normalisation": dataset.normalisation,
        "pixel_size_um": next(iter(dataset.fields.values())).pixel_size_um,
        "decode": asdict(best.fit.params),
        "decode_fit": {
            "score": "iou" if config.objective == "iou" else "pq",
            "value": best.fit.value,
            "curve": best.fit.curve,
        },
        "parameters": best.parameters,
        "trial": trial.id,
        "epoch": best.epoch,
        "objective": config.objective,
        "validation": {c.trial.id: c.value for c in rivals},
        "data_hash": dataset.content_hash,
        "synthetic_data": dataset.synthetic,
        "provenance": provenance(),
    }
    network, _ = load_best(trial, trial_folder, dataset.channels)
    return handover.save(folder, network, facts)


def _output(target: str) -> str:
    """Return what the network's channels mean, in words, for whoever uses the model elsewhere."""
    return {
        "two_class": "1 channel: logit of foreground, per pixel",
        "three_class": "3 channels: logits of background, cell core, cell boundary, per pixel",
        "star": "33 channels at every second pixel: logit of object probability, then 32 ray lengths in pixels",
    }[target]


@dataclass(frozen=True)
class Selection:
    """What was chosen, and how everything that could have been chosen does on the test frames.

    Attributes
    ----------
    models
        Facts of the chosen model by target.
    standings
        `top_set.standing` by target.
    candidates
        Validation objective with interval, tie mark and speed by trial.
    test
        ``dataset_iou`` and ``pq`` by trial, scored once after the choice.
    """

    models: dict[str, dict[str, Any]]
    standings: dict[str, dict[str, Any]]
    candidates: dict[str, dict[str, Any]]
    test: dict[str, dict[str, float]]


def choose(
    config: Config, chosen: list[TrialConfig], dataset: Dataset, run_dir: Path, say: Callable[[str], None]
) -> Selection:
    """Choose and hand over one model per target on the validation frames; then score every candidate once on test.

    The choice is written to ``best/selection.json`` before a test frame is read. One already made from the same trials
    by the same objective is kept.
    """
    frozen = _frozen(config, chosen, dataset, run_dir, say)
    file = run_dir / "best" / "test_scores.json"
    test = json.loads(file.read_text()) if file.is_file() else {}
    if test.get("question") != frozen["question"]:
        refs, scores = dataset.frames("test"), {}
        for trial in chosen:
            decode = frozen["candidates"][trial.id]["decode"]
            scores[trial.id] = scores_of(trial, decode, run_dir / "trials" / trial.id, dataset, refs)
        test = {"question": frozen["question"], "scores": scores}
        files.write_json(file, test)
    models = {target: handover.read_facts(run_dir / "best" / target) for target in frozen["standings"]}
    return Selection(models, frozen["standings"], frozen["candidates"], test["scores"])


def _best(
    objective: str, rivals: Sequence[Candidate], clusters: Sequence[Hashable]
) -> tuple[Candidate, dict[str, Any]]:
    """Return the chosen candidate of one target and how all stand to it."""
    if objective.startswith("pareto:"):
        points = [rival.point for rival in rivals if rival.point is not None]
        found = pareto.standing(objective, points, len(set(clusters)), FEWEST_CLUSTERS)
        return next(rival for rival in rivals if rival.trial.id == found["chosen"]), found
    best = winner(rivals)
    values = {rival.trial.id: rival.value for rival in rivals}
    counts = {rival.trial.id: rival.counts for rival in rivals}
    fidelity = {rival.trial.id: rival.fidelity for rival in rivals if rival.fidelity is not None}
    return best, standing(objective, values, counts, clusters, best.trial.id, fidelity or None)


def _frozen(
    config: Config, chosen: list[TrialConfig], dataset: Dataset, run_dir: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Return the choice of selection.json, made now where it is missing or answers another question."""
    kept = run_dir / "best" / "selection.json"
    trials = sorted(trial.id for trial in chosen)
    question = {"objective": config.objective, "trials": trials, "data": dataset.content_hash}
    if kept.is_file():
        before: dict[str, Any] = json.loads(kept.read_text())
        if before["question"] == question and "candidates" in before:
            return before
    clusters = clusters_of([(ref.field, ref.frame) for ref in dataset.frames("val")])
    standings, candidates = {}, {}
    for target in dict.fromkeys(trial.target for trial in chosen):
        rivals = []
        for trial in (trial for trial in chosen if trial.target == target):
            rivals.append(examine(trial, run_dir / "trials" / trial.id, dataset, config.objective))
            say(f"  {trial.id}: {config.objective} {rivals[-1].value:.4f} on the validation frames")
        best, found = _best(config.objective, rivals, clusters)
        hand_over(best, run_dir / "trials" / best.trial.id, run_dir / "best" / target, dataset, config, rivals)
        say(f"{target}: {found['sentence']}")
        standings[target] = found
        for rival, row in ((r, row) for r in rivals for row in found["candidates"] if row["trial"] == r.trial.id):
            candidates[rival.trial.id] = row | {"decode": asdict(rival.fit.params), "speed": rival.speed}
    answer = {"question": question, "standings": standings, "candidates": candidates}
    files.write_json(kept, answer)
    return answer
