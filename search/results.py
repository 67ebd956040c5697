"""The tables a search leaves: trials.parquet and summary.json, from the ledger and from the labels written."""

from __future__ import annotations

import math
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.scores import clusters_of, frame_counts, pq_score, score
from analysis.statistics import FEWEST_CLUSTERS
from data_io import files
from data_io.provenance import provenance
from postprocess import methods
from search import pareto
from search.asha import Bracket
from search.config import config_hash
from search.confirm import spread
from search.metrics import best_row
from search.tuning import elapsed_before

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from data_io.store import Dataset, FrameRef
    from search.config import Config
    from search.ledger import Ledger
    from search.select import Selection
    from search.space import Plan

    ReadLabels = Callable[[str, FrameRef], NDArray[np.int32]]

CLASSICAL = "classical"
REPORTED = (
    "architecture",
    "encoder",
    "loss",
    "learning_rate",
    "weight_decay",
    "augmentation",
    "seed",
    "encoder_weights",
    "crop",
)


def trials_table(plan: Plan, ledger: Ledger, parameters: Mapping[str, int], selection: Selection) -> pd.DataFrame:
    """One row per trial of the plan, started or not.

    Parameters
    ----------
    plan, ledger
        What was planned and what happened.
    parameters
        Trainable parameters per trial id.
    selection
        The candidates' standing on validation, and their scores on test, taken after the choice.
    """
    states = ledger.trials()
    rows = []
    for trial in plan.trials:
        state = states.get(trial.id)
        history = [state.rows[epoch] for epoch in sorted(state.rows)] if state else []
        finite = [row for row in history if isinstance(row["rung_metric"], float) and math.isfinite(row["rung_metric"])]
        best: dict[str, Any] = best_row(finite) if finite else {}
        candidate, test = selection.candidates.get(trial.id, {}), selection.test.get(trial.id, {})
        rows.append(
            {
                "trial": trial.id,
                "target": trial.target,
                "architecture": trial.architecture,
                "encoder": trial.encoder,
                "encoder_weights": trial.encoder_weights or "none",
                "loss": trial.loss,
                "seed": trial.seed,
                "learning_rate": trial.learning_rate,
                "weight_decay": trial.weight_decay,
                "augmentation": trial.augmentation,
                "batch_size": trial.train.batch,
                "crop": trial.crop,
                "reference": trial.reference,
                "status": (state.status if state else None) or "waiting",
                "epochs": len(history),
                "max_epochs": trial.epochs,
                "rung_metric": best.get("rung_metric", math.nan),
                "val_dataset_iou": best.get("val_dataset_iou", math.nan),
                "val_per_image_iou": best.get("val_per_image_iou", math.nan),
                "val_loss": _number(best.get("val_loss")),
                "train_loss": _number(best.get("train_loss")),
                "best_epoch": best.get("epoch", 0),
                "seconds": sum(_number(row["seconds"]) for row in history),
                "gpus": history[-1].get("gpus", math.nan) if history else math.nan,
                "gpu_hours": sum(_number(row["seconds"]) * row.get("gpus", 0.0) for row in history) / 3600,
                "peak_memory_mb": max((_number(row.get("memory_mb")) for row in history), default=math.nan),
                "megapixels_per_second": _number(candidate.get("speed")),
                "parameters": parameters[trial.id],
                "reason": str(state.ending.get("reason", "")) if state else "",
                "validation": _number(candidate.get("value")),
                "configuration": str(candidate.get("configuration", trial.id)),
                "validation_mean": _number(candidate.get("mean")),
                "validation_sd": _number(candidate.get("sd")),
                "validation_low": _number(candidate.get("low")),
                "validation_high": _number(candidate.get("high")),
                "top_set": bool(candidate.get("tie", False)) and selection.standings[trial.target]["ranked"],
                "test_dataset_iou": test.get("dataset_iou", math.nan),
                "test_dataset_iou_low": test.get("dataset_iou_low", math.nan),
                "test_dataset_iou_high": test.get("dataset_iou_high", math.nan),
                "test_pq": test.get("pq", math.nan),
            }
        )
    return pd.DataFrame(rows)


def write_trials(run_dir: Path, table: pd.DataFrame) -> None:
    """Write trials.parquet, whole and atomically."""
    files.write_bytes(run_dir / "trials.parquet", table.to_parquet(index=False, write_page_checksum=True))


def scores_of(method: str, refs: list[FrameRef], dataset: Dataset, read: ReadLabels) -> dict[str, Any]:
    """Scores of a method's written labels on annotated frames, with frame-clustered intervals; JSON-ready."""
    counts = [frame_counts(dataset.labels(ref), read(method, ref)) for ref in refs]
    return as_json(score(counts, clusters_of([(ref.field, ref.frame) for ref in refs])))


def summary(
    config: Config,
    plan: Plan,
    ledger: Ledger,
    dataset: Dataset,
    selection: Selection,
    confirmed: list[dict[str, Any]],
    read: ReadLabels,
    trials: pd.DataFrame,
    notes: list[str],
) -> dict[str, Any]:
    """Return summary.json: data, every target's winner and scores, the classical baseline, the search, warnings."""
    val, test = dataset.frames("val"), dataset.frames("test")
    targets = {}
    for target, facts in selection.models.items():
        trial = next(t for t in plan.trials if t.id == facts["trial"])
        targets[target] = {
            "trial": trial.id,
            "configuration": {name: getattr(trial, name) for name in REPORTED},
            "parameters": facts["parameters"],
            "epoch": facts["epoch"],
            "decode": facts["decode"],
            "decode_fit": facts["decode_fit"],
            "objective": next(
                row["value"] for row in selection.standings[target]["candidates"] if row["trial"] == trial.id
            ),
            "validation": scores_of(target, val, dataset, read),
            "test": scores_of(target, test, dataset, read),
            "ceiling": ceiling(target, test, dataset),
        }
    parts = {"validation": val, "test": test}
    baseline = {CLASSICAL: {part: scores_of(CLASSICAL, refs, dataset, read) for part, refs in parts.items()}}
    status = trials["status"].value_counts()
    schedule = Bracket(config.schedule.grace_epochs, config.train.max_epochs, config.schedule.reduction_factor)
    stopped = [state.ending for state in ledger.trials().values() if state.status == "stopped"]
    return {
        "dataset": {
            "path": str(dataset.path),
            "name": dataset.name,
            "synthetic": dataset.synthetic,
            "fields": len(dataset.fields),
            "frames": len(dataset.frames("all")),
            "split_unit": dataset.splits.unit,
            "train": len(dataset.frames("train")),
            "val": len(val),
            "test": len(test),
            "hash": dataset.content_hash,
            "warnings": list(dataset.warnings),
        },
        "targets": targets,
        "baseline": baseline,
        "selection": selection.standings,
        "confirm": {target: said for target in targets if (said := spread(confirmed, target))},
        "winner": winner_of(
            targets,
            config.objective,
            len(set(clusters_of([(r.field, r.frame) for r in val]))),
            selection.standings,
            selection.across,
        ),
        "search": {
            "trials": len(plan.trials),
            **{
                name: int(status.get(name, 0))
                for name in ("completed", "stopped", "failed", "diverged", "budget", "waiting")
            },
            "references": int(trials["reference"].sum()),
            "epochs": ledger.epochs,
            "seconds": round(elapsed_before(ledger), 1),
            "preset": config.preset,
            "objective": config.objective,
            "rungs": list(schedule.rungs) if config.schedule.asha else [],
            "reduction_factor": config.schedule.reduction_factor,
            "encoder_weights": sorted({str(t.encoder_weights or "none") for t in plan.trials}),
            "stops": [
                {k: event.get(k) for k in ("trial", "epoch", "rung", "value", "cutoff")}
                for event in sorted(stopped, key=itemgetter("time"))
            ],
            "infeasible": [vars(cell) for cell in plan.infeasible],
        },
        "warnings": list(dict.fromkeys([*dataset.warnings, *plan.notes, *notes])),
        "provenance": provenance(seed=config.seed, config_hash=config_hash(config), data_hash=dataset.content_hash),
    }


def winner_of(
    targets: Mapping[str, Mapping[str, Any]],
    objective: str,
    clusters: int,
    standings: Mapping[str, Mapping[str, Any]] | None = None,
    across: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the target whose model is best on the validation frames, and a sentence that says how sure.

    A Pareto objective needs the `standings` by target (`pareto.standing`); another is told from its rivals by how the
    targets stand `across` (`top_set.standing`).
    """
    kind, _, trait = objective.partition(":")
    if kind == "pareto" and standings is not None:
        best = pareto.balanced({target: standings[target]["candidates"][0] for target in targets})
    else:
        best = max(targets, key=lambda name: _or_worst(targets[name]["objective"]))
    chosen = targets[best]
    measured = {
        "pq": "panoptic quality (PQ)",
        "iou": "dataset IoU",
        "trait": f"trait fidelity of {trait}",
        "pareto": f"balance of PQ and trait fidelity of {trait}",
    }[kind]
    encoder = chosen["configuration"]["encoder"] or "its own encoder"
    model = f"{best} with {chosen['configuration']['architecture']} on {encoder}"
    rivals = [row["trial"] for row in across["top"] if row["trial"] != best] if across else []
    if clusters < FEWEST_CLUSTERS:
        sentence = (
            f"{model} has the best {measured} on validation. With {clusters} validation clusters this is a choice by "
            "point estimate: methods cannot be ranked."
        )
    elif rivals:
        sentence = (
            f"{model} is the choice by point estimate of {measured} on validation; the 95 % interval of its lead over "
            f"{' and '.join(rivals)} includes 0, so that this is a tie."
        )
    elif across:
        sentence = (
            f"{model} has the best {measured} on validation; the 95 % interval of its lead over the other targets "
            "excludes 0 for these validation images."
        )
    else:
        sentence = f"{model} has the best {measured} on validation."
    return {
        "target": best,
        "objective": objective,
        "value": chosen["objective"],
        "ties": rivals,
        "sentence": sentence,
    }


def _or_worst(value: float | None) -> float:
    return -math.inf if value is None or math.isnan(value) else value


def ceiling(target: str, refs: list[FrameRef], dataset: Dataset) -> dict[str, Any]:
    """Scores a perfect prediction of this target reaches on these frames: what its way of separating cells allows."""
    truth = [dataset.labels(ref) for ref in refs]
    best = methods.ceiling(target, truth, pq_score)
    module = methods.target_named(target)
    counts = [frame_counts(labels, module.decode(module.perfect(labels), best.params)) for labels in truth]
    return as_json(score(counts))


def as_json(scores: dict[str, Any]) -> dict[str, Any]:
    """Return scores with plain numbers, and None where there is no finite one."""
    return {key: _plain(value) for key, value in scores.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: Any) -> float:
    return float(value) if value is not None else math.nan
