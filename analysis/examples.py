"""Pictures of cells: the same crop with every method's outlines, right and wrong pixels, every network's output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis import figures, pixels, scores
from analysis.record import examples, trial_name
from analysis.report import Block, Gallery, Section, number
from analysis.results import Results, ordered
from analysis.samples import TRUTH, Study

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from analysis.figures import Look
    from analysis.record import Record

CROP = 128
"""Side of the example crops, px."""


MOST_NETWORKS = 40
"""Network outputs shown, the best by validation IoU."""


FACTS = ("trial", "target", "architecture", "encoder", "loss", "status", "epochs", "val_dataset_iou")
"""What is known of a network whose output is shown."""


def example_chapter(results: Results, looks: Mapping[str, Look]) -> Section | None:
    """Show the same crops with the outlines of each method and of the truth."""
    study = results.study
    blocks: list[Block] = []
    if study.frames and set(study.labels) & set(study.methods):
        blocks.append(_outlines(results, looks))
    if results.record:
        blocks += network_gallery(results.record)
    return Section("examples", "Examples", (), tuple(blocks), "The cells", "Examples") if blocks else None


def _outlines(results: Results, looks: Mapping[str, Look]) -> Gallery:
    study = results.study
    key, methods = study.frames[-1], [method for method in ordered(results) if method in study.labels]
    image, known = frame_image(study, key), study.has_truth and TRUTH in study.labels
    reference = study.labels[TRUTH if known else methods[0]](*key)
    window = pixels.busiest(reference, CROP)
    where = f"{key[0]}, frame {key[1]}"
    pictures = []
    for method in methods:
        drawn = [(study.labels[method](*key)[window], looks[method].colour)]
        if known:
            drawn.insert(0, (reference[window], figures.YELLOW))
        alt = f"Crop of {where} with the outlines drawn by {method}{' over those of the truth' if known else ''}"
        picture = pixels.outlines(image[window], drawn, alt, name=f"outlines_{method}")
        shown = pd.DataFrame([(method, *key, *(end for side in window for end in (side.start, side.stop)))])
        shown.columns = pd.Index(["method", "field", "frame", "y0", "y1", "x0", "x1"])
        pictures.append(figures.captioned(figures.with_data(picture, shown), method))
    legend = [(method, looks[method].colour, figures.SQUARE) for method in methods]
    if known:
        legend.append(("truth (visible where the method's outline differs)", figures.YELLOW, figures.SQUARE))
    at = f"rows {window[0].start} to {window[0].stop}, columns {window[1].start} to {window[1].stop}"
    caption = f"The crop of {where} with most outline in the reference ({at}); the same for every method."
    return Gallery(pictures, caption, tuple(legend), wide=True)


def overlay_chapter(results: Results) -> Section | None:
    """Tint found, missed and invented pixels on a whole compared frame, one picture per method."""
    study = results.study
    if not results.counted or not study.frames:
        return None
    key = study.frames[-1]
    image, truth = frame_image(study, key), study.labels[TRUTH](*key)
    pictures = []
    for method in (m for m in ordered(results) if m in results.counted):
        pred = study.labels[method](*key)
        found = scores.score([scores.frame_counts(truth, pred)])
        told = f"dataset IoU {number(found['dataset_iou'])}, PQ {number(found['pq_50'])}"
        alt = f"{method} on {key[0]}, frame {key[1]}: {told}"
        caption = f"{method}: {told} on this frame"
        picture = pixels.confusion(image, truth, pred, alt, name=f"pixels_{method}")
        pictures.append(figures.captioned(figures.with_data(picture, _right_and_wrong(results, method)), caption))
    legend = (
        ("found (true positive)", pixels.FOUND, figures.SQUARE),
        ("missed (false negative)", pixels.MISSED, figures.SQUARE),
        ("invented (false positive)", pixels.INVENTED, figures.SQUARE),
    )
    caption = f"{key[0]}, frame {key[1]}. Pixels, not cells: two cells drawn as one look right here and cost F1 and PQ."
    gallery = Gallery(pictures, caption, legend, wide=True)
    return Section("overlays", "Right and wrong pixels", (), (gallery,), "The cells", "Right and wrong pixels")


def _right_and_wrong(results: Results, method: str) -> pd.DataFrame:
    """Count found, missed and invented pixels of a method in every compared frame."""
    rows = [
        (*key, c.shared, c.truth_px - c.shared, c.pred_px - c.shared)
        for key, c in zip(results.study.frames, results.counted[method], strict=True)
    ]
    return pd.DataFrame(rows, columns=["field", "frame", "found_px", "missed_px", "invented_px"])


def network_gallery(record: Record) -> list[Block]:
    """Show one validation crop of every trial: its foreground probability and the true outlines."""
    shown = examples(record, MOST_NETWORKS)
    if not shown:
        return []
    pictures = []
    for example in shown:
        name = f"{example.row['target']}: {trial_name(example.row)}"
        iou = number(example.row.get("val_dataset_iou"))
        alt = f"Foreground probability of {name} on a validation crop, truth outlined"
        zoom = max(1, 256 // max(example.truth.shape))
        picture = pixels.probability(
            example.image, example.foreground, example.truth, alt, zoom, f"network_{example.row['trial']}"
        )
        facts = {key: example.row.get(key) for key in FACTS}
        picture = figures.with_data(picture, pd.DataFrame([facts]))
        pictures.append(figures.captioned(picture, f"{name}, {example.row.get('status', '')}, IoU {iou}"))
    left_out = f" (the best {MOST_NETWORKS})" if len(shown) == MOST_NETWORKS else ""
    title = (
        f"Every network's output on a validation crop{left_out}: white is cell; orange the true outline, light blue "
        "the network's own at probability 0.5"
    )
    return [Gallery(pictures, title, folded=True, small=True)]


def frame_image(study: Study, key: tuple[str, int]) -> NDArray[Any]:
    """Return the first channel of a frame, `(Y, X)`; one even grey where only label images are at hand."""
    if study.image is None:
        labels = next(iter(study.labels.values()))(*key)
        return np.zeros(labels.shape, np.uint8)
    image = np.asarray(study.image(*key))
    return image[0] if image.ndim == 3 else image
