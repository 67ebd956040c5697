"""From finished trials to one model per target: validation frames decide, then every candidate is tested once."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.scores import clusters_of, frame_counts, score
from analysis.statistics import FEWEST_CLUSTERS
from data_io import sealed
from data_io.errors import BadInput
from postprocess import methods
from search import handover, inference, models, pareto
from search.candidates import Candidate, examine, pooled, winner
from search.top_set import standing
from search.trial import load_best

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence
    from pathlib import Path

    from data_io.store import Dataset, FrameRef
    from search.config import Config
    from search.ledger import TrialState
    from search.space import TrialConfig

    Epochs = Mapping[TrialConfig, int]
    """Trials, each with the number of epochs for which it was trained."""

ELIGIBLE = ("completed", "budget")
"""States of a trial whose best checkpoint may win: it ran to the end, or the budget ended the search before it did."""


def eligible(trials: Sequence[TrialConfig], states: dict[str, TrialState], folder: Callable[[str], Path]) -> Epochs:
    """Trials that may win: those that ran to the end and those the budget cut short, grouped by target.

    One that was cut short before its first checkpoint is none of them.
    """
    ended = [t for t in trials if t.id in states and states[t.id].status in ELIGIBLE]

    def has_checkpoint(trial: TrialConfig) -> bool:
        return any((folder(trial.id) / "checkpoints").glob("epoch_*/manifest.json"))

    kept = [t for t in ended if states[t.id].status == "completed" or has_checkpoint(t)]
    targets = list(dict.fromkeys(trial.target for trial in trials))
    ordered = sorted(kept, key=lambda trial: targets.index(trial.target))
    return {trial: max(states[trial.id].rows, default=0) for trial in ordered}


def scores_of(
    trial: TrialConfig, decode: dict[str, Any], folder: Path, dataset: Dataset, refs: Sequence[FrameRef]
) -> dict[str, float]:
    """``dataset_iou`` and ``pq`` of a trial's best checkpoint on annotated frames; NaN without frames.

    Where the frames are enough for an interval its ends are ``dataset_iou_low`` and ``dataset_iou_high``.
    """
    if not refs:
        return {"dataset_iou": float("nan"), "pq": float("nan")}
    network, _ = load_best(trial, folder, dataset.channels)
    params, counts = methods.params_from(trial.target, decode), []
    images = (dataset.normalised(ref) for ref in refs)
    for ref, prediction in zip(refs, inference.predict_frames(network, images), strict=True):
        cells = methods.target_named(trial.target).decode(prediction, params)
        counts.append(frame_counts(dataset.labels(ref), cells))
    found = score(counts, clusters_of([(ref.field, ref.frame) for ref in refs]))
    ends = dict(zip(("dataset_iou_low", "dataset_iou_high"), found["dataset_iou_ci"] or (), strict=False))
    return {"dataset_iou": float(found["dataset_iou"]), "pq": float(found["pq_50"]), **ends}


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
        "grid": models.GRID[trial.target],
        "rays": {"count": models.N_RAYS, "first": "+x", "turning": "to +y"} if trial.target == "star" else None,
        "pad_to": models.DIVISOR,
        "smallest_px": models.smallest_side(trial.architecture, trial.output_stride),
        "padding": "mirrored at the lower and the right edge",
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
        `top_set.standing` by target, one row per configuration.
    candidates
        By trial: validation objective, interval and tie mark of its configuration, decode parameters, speed.
    test
        ``dataset_iou`` with the ends of its interval and ``pq`` by trial, scored once after the choice.
    across
        `top_set.standing` of the targets' chosen models to each other; None for one target or a Pareto objective.
    left_out
        By trial: why it could not be scored.
    """

    models: dict[str, dict[str, Any]]
    standings: dict[str, dict[str, Any]]
    candidates: dict[str, dict[str, Any]]
    test: dict[str, dict[str, float]]
    across: dict[str, Any] | None = None
    left_out: dict[str, str] = field(default_factory=dict)


def choose(config: Config, chosen: Epochs, dataset: Dataset, run_dir: Path, say: Callable[[str], None]) -> Selection:
    """Choose and hand over one model per target on the validation frames; then score every candidate once on test.

    The choice is written to ``best/selection.json`` before a test frame is read. One already made from the same trials
    after as many epochs by the same objective is kept, unless it or a model of it was damaged since: then it is made
    again, and is the same. A trial whose checkpoint cannot be applied is left out, and said.
    """
    frozen = made_before(config, chosen, dataset, run_dir, say) or _made(config, chosen, dataset, run_dir, say)
    file = run_dir / "best" / "test_scores.json"
    test = sealed.read(file) or {}
    if test.get("question") != frozen["question"]:
        refs, scores = dataset.frames("test"), {}
        for trial in (trial for trial in chosen if trial.id in frozen["candidates"]):
            decode = frozen["candidates"][trial.id]["decode"]
            scores[trial.id] = scores_of(trial, decode, run_dir / "trials" / trial.id, dataset, refs)
        test = {"question": frozen["question"], "scores": scores}
        sealed.write(file, test)
    facts = {target: handover.read_facts(run_dir / "best" / target) for target in frozen["standings"]}
    return Selection(
        facts, frozen["standings"], frozen["candidates"], test["scores"], frozen["across"], frozen["left_out"]
    )


def _best(
    objective: str, rivals: Sequence[Candidate], clusters: Sequence[Hashable]
) -> tuple[Candidate, dict[str, Any]]:
    """Return the chosen candidate of one target and how all stand to it."""
    if objective.startswith("pareto:"):
        points = [rival.point for rival in rivals if rival.point is not None]
        found = pareto.standing(objective, points, len(set(clusters)), FEWEST_CLUSTERS)
        best = next(rival for rival in rivals if rival.trial.id == found["chosen"])
    else:
        best = winner(rivals)
        found = _standing(objective, {rival.trial.id: rival for rival in rivals}, clusters, best.trial.id)
    for row in found["candidates"]:
        rival = next(rival for rival in rivals if rival.trial.id == row["trial"])
        if rival.seeds:
            row["seeds"] = dict(rival.seeds)
            row["sd"] = float(np.std([value for _, value in rival.seeds], ddof=1))
    if best.seeds:
        deviation = float(np.std([value for _, value in best.seeds], ddof=1))
        found["sentence"] += f" Values are means over seeds; of the choice over {len(best.seeds)}, SD {deviation:.4f}."
    return best, found


def _standing(
    objective: str, rivals: dict[str, Candidate], clusters: Sequence[Hashable], chosen: str
) -> dict[str, Any]:
    values = {name: rival.value for name, rival in rivals.items()}
    counts = {name: rival.counts for name, rival in rivals.items()}
    fidelity = {name: rival.fidelity for name, rival in rivals.items() if rival.fidelity is not None}
    return standing(objective, values, counts, clusters, chosen, fidelity or None)


def _across(objective: str, best: dict[str, Candidate], clusters: Sequence[Hashable]) -> dict[str, Any] | None:
    """Return how the targets' chosen models stand to the best of them."""
    if len(best) < 2 or objective.startswith("pareto:"):
        return None
    first = max(best, key=lambda target: -np.inf if np.isnan(best[target].value) else best[target].value)
    return _standing(objective, best, clusters, first)


def _question(config: Config, chosen: Epochs, dataset: Dataset) -> dict[str, Any]:
    """Return what a choice answers: a trial that was trained for longer is another question."""
    epochs = {trial.id: epochs for trial, epochs in chosen.items()}
    return {"objective": config.objective, "trials": epochs, "data": dataset.content_hash}


def made_before(
    config: Config, chosen: Epochs, dataset: Dataset, run_dir: Path, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """Return the choice of selection.json, None where there is none of the same question or anything is damaged."""
    kept = run_dir / "best" / "selection.json"
    before = sealed.read(kept)
    if before is None:
        if kept.is_file():
            say(f"note: {kept}: damaged; the choice is made again")
        return None
    if before.get("question") != _question(config, chosen, dataset) or "across" not in before:
        return None
    for target in before["standings"]:
        try:
            handover.check(run_dir / "best" / target)
        except BadInput as fault:
            say(f"note: {fault}; the choice is made again")
            return None
    return before


def _made(
    config: Config, chosen: Epochs, dataset: Dataset, run_dir: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Choose, hand the chosen models over and write the choice down."""
    kept, question = run_dir / "best" / "selection.json", _question(config, chosen, dataset)
    clusters = clusters_of([(ref.field, ref.frame) for ref in dataset.frames("val")])
    standings: dict[str, dict[str, Any]] = {}
    candidates: dict[str, dict[str, Any]] = {}
    best: dict[str, Candidate] = {}
    left_out: dict[str, str] = {}
    for target in dict.fromkeys(trial.target for trial in chosen):
        rivals = []
        for trial in (trial for trial in chosen if trial.target == target):
            try:
                rivals.append(examine(trial, run_dir / "trials" / trial.id, dataset, config.objective))
            except Exception as fault:
                left_out[trial.id] = f"{type(fault).__name__}: {fault}".splitlines()[0][:300]
                say(f"  {trial.id}: left out, cannot be scored: {left_out[trial.id]}")
                continue
            say(f"  {trial.id}: {config.objective} {rivals[-1].value:.4f} on the validation frames")
        if not rivals:
            continue
        configurations = pooled(rivals, clusters)
        best[target], standings[target] = _best(config.objective, configurations, clusters)
        own = best[target].trial.id
        hand_over(best[target], run_dir / "trials" / own, run_dir / "best" / target, dataset, config, rivals)
        say(f"{target}: {standings[target]['sentence']}")
        for rival in rivals:
            row = _row_of(rival, standings[target]["candidates"])
            shown = {key: value for key, value in row.items() if key not in ("seeds", "sd")}
            several = {"mean": row["value"], "sd": row["sd"]} if "seeds" in row else {}
            facts = {"trial": rival.trial.id, "value": rival.value, "decode": asdict(rival.fit.params)}
            candidates[rival.trial.id] = shown | several | facts | {"speed": rival.speed, "configuration": row["trial"]}
    answer = {
        "question": question,
        "standings": standings,
        "candidates": candidates,
        "across": _across(config.objective, best, clusters),
        "left_out": left_out,
    }
    sealed.write(kept, answer)
    return answer


def _row_of(rival: Candidate, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the standing of a candidate's configuration."""
    return next(row for row in rows if rival.trial.id in (row["trial"], *row.get("seeds", ())))
