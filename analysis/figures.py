"""Pictures of a report as data URIs: SVG for lines, PNG for pixels; Okabe-Ito colours, each with alt text.

matplotlib stays in this file; it and skimage are imported only when a picture is drawn.
"""

from __future__ import annotations

import base64
import io
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, YELLOW, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000",
)  # fmt: skip
"""Okabe & Ito (2008): told apart by people with any common colour vision."""
CYCLE = (BLUE, VERMILION, GREEN, ORANGE, SKY)
MOST_POINTS = 3000
"""A scatter plot shows at most this many cells, drawn at random with a fixed seed."""


@dataclass(frozen=True)
class Picture:
    """An image ready for an `<img>`: `src` is a data URI, `alt` says what a reader without it misses."""

    src: str
    alt: str
    caption: str = ""
    width: int = 0
    height: int = 0


def colours(methods: Sequence[str]) -> dict[str, str]:
    """Give each method its own colour, the truth black and the classical baseline purple."""
    fixed = {"truth": BLACK, "classical": PURPLE}
    others = [name for name in methods if name not in fixed]
    return {name: CYCLE[i % len(CYCLE)] for i, name in enumerate(others)} | fixed


# --- curves -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """One trial's record: `table` has epoch, train_loss, val_loss, val_dataset_iou."""

    trial: str
    name: str
    target: str
    table: pd.DataFrame
    best: bool
    reference: bool
    stopped: bool


def learning(curves: Sequence[Curve], column: str, label: str, colour: Mapping[str, str]) -> Picture:
    """Draw one line per trial, a panel per target: winners coloured, references dashed, others grey, stops a cross."""
    targets = list(dict.fromkeys(curve.target for curve in curves))
    with _figure(3.1 * len(targets), 2.7, 1, len(targets)) as (figure, axes):
        for axis, target in zip(axes, targets, strict=True):
            own = [c for c in curves if c.target == target and column in c.table and c.table[column].notna().any()]
            for curve in sorted(own, key=lambda c: c.best):
                tint = colour.get(target, BLUE) if curve.best else BLACK if curve.reference else "#9A9A9A"
                width = 2.2 if curve.best else 1.2 if curve.reference else 0.9
                style = (0, (4, 2)) if curve.reference else "-"
                x, y = curve.table["epoch"], curve.table[column]
                axis.plot(x, y, color=tint, linewidth=width, linestyle=style)
                if len(x) == 1 or curve.stopped:
                    axis.plot(
                        x.iloc[-1:], y.iloc[-1:], "x" if curve.stopped else "o", color=tint, markersize=5, mew=1.5
                    )
            if "loss" in column and own and min(c.table[column].min() for c in own) > 0:
                _log_scale(axis)
            axis.set(title=target, xlabel="epoch")
            axis.xaxis.get_major_locator().set_params(integer=True)
        axes[0].set_ylabel(label)
        return _svg(
            figure,
            f"{label} by epoch for {len(curves)} trials in {len(targets)} panels: {', '.join(targets)}.",
            f"{label[:1].upper()}{label[1:]}. Coloured: the chosen model; dashed: reference runs that nothing stops; "
            "grey: other trials; a cross where early stopping ended one.",
        )


def decode_curves(
    target: str,
    along: Mapping[str, Sequence[tuple[float, float]]],
    chosen: Mapping[str, Any],
    score: str,
    tint: str,
) -> Picture:
    """Draw the best score at each value tried of each decode parameter, a panel each, the choice marked."""
    with _figure(2.2 * len(along), 2.3, 1, len(along)) as (figure, axes):
        for axis, (name, profile) in zip(axes, along.items(), strict=True):
            values, best = zip(*profile, strict=True)
            axis.plot(values, best, "o-", color=tint or BLUE, linewidth=1.4, markersize=3)
            if chosen.get(name) is not None:
                axis.axvline(float(chosen[name]), color=BLACK, linewidth=0.9, linestyle=(0, (4, 2)))
            axis.set(title=name)
        low = min(best for profile in along.values() for _, best in profile)
        high = max(best for profile in along.values() for _, best in profile)
        for axis in axes:
            margin = max(0.05 * (high - low), 0.002)
            axis.set_ylim(low - margin, high + margin)
        axes[0].set_ylabel(score)
        return _svg(
            figure,
            f"Best validation {score} of {target} along {', '.join(along)}.",
            f"{target}: best validation {score} at each value tried; dashed: chosen.",
        )


def heat_map(
    values: NDArray[np.floating], rows: Sequence[str], columns: Sequence[str], title: str, label: str
) -> Picture:
    """Draw `(rows, columns)` values as a heat map with the numbers written in; NaN cells stay blank."""
    with _figure(1.6 + 0.95 * len(columns), 1.3 + 0.34 * len(rows)) as (figure, (axis,)):
        image = axis.imshow(np.ma.masked_invalid(values), cmap="cividis", aspect="auto")
        for (y, x), value in np.ndenumerate(values):
            if np.isfinite(value):
                dark = image.norm(value) < 0.5
                axis.text(x, y, f"{value:.3f}", ha="center", va="center", color="white" if dark else BLACK, fontsize=8)
        axis.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
        axis.set_yticks(range(len(rows)), rows)
        axis.set_title(title)
        axis.spines[:].set_visible(False)
        figure.colorbar(image, ax=axis, label=label, format="%.2f")
        top, left = divmod(int(np.nanargmax(values)), len(columns))
        return _svg(
            figure,
            f"Heat map of {label}, {title}: {len(rows)} architectures by {len(columns)} encoders, from "
            f"{np.nanmin(values):.3f} to {np.nanmax(values):.3f}; highest {rows[top]} with {columns[left]}.",
        )


def _log_scale(axis: Any) -> None:
    """Use a logarithmic y axis with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


# --- traits -------------------------------------------------------------------------------------------------------


def superplot(
    cells: Mapping[str, pd.DataFrame], trait: str, column: str, unit: str, colour: Mapping[str, str]
) -> Picture:
    """Draw the distribution of all cells per method, with the mean of each frame as a dot over it."""
    names = [name for name, rows in cells.items() if rows[column].notna().sum() > 1]
    with _figure(3.4, 2.9) as (figure, (axis,)):
        for at, name in enumerate(names):
            values = cells[name][column].dropna().to_numpy(float)
            low, high = np.percentile(values, [0.5, 99.5])
            shown = values[(values >= low) & (values <= high)] if np.ptp(values) else values
            if len(shown) > 1 and np.ptp(shown) > 0:
                for body in axis.violinplot([shown], [at], widths=0.85, showextrema=False)["bodies"]:
                    body.set(facecolor=colour[name], alpha=0.3)
            means = cells[name].groupby(["field", "frame"])[column].mean().to_numpy(float)
            spread = np.linspace(-0.2, 0.2, len(means)) if len(means) > 1 else np.zeros(1)
            axis.plot(at + spread, means, "o", color=colour[name], markersize=4, markeredgecolor="white")
            axis.hlines(np.median(values), at - 0.35, at + 0.35, color=colour[name], linewidth=1.6)
        axis.set_xticks(range(len(names)), names, rotation=20, ha="right")
        axis.set_ylabel(f"{trait}{f' ({unit})' if unit else ''}")
        medians = ", ".join(f"{name} {cells[name][column].median():.3g}" for name in names)
        return _svg(figure, f"Distribution of {trait} per method; medians: {medians}.")


def agreement(true: NDArray[Any], predicted: NDArray[Any], trait: str, unit: str, method: str, tint: str) -> Picture:
    """Bland-Altman plot: difference to the truth against the mean of both, bias and 95 % limits as lines."""
    both = np.isfinite(true) & np.isfinite(predicted)
    mean, d = (true[both] + predicted[both]) / 2, predicted[both] - true[both]
    bias, reach = float(d.mean()), 1.96 * float(d.std(ddof=1))
    shown = np.sort(np.random.default_rng(0).permutation(len(d))[:MOST_POINTS])
    with _figure(3.4, 2.8) as (figure, (axis,)):
        axis.plot(mean[shown], d[shown], ".", color=tint, alpha=0.45, markersize=4, rasterized=True)
        axis.axhline(0, color=BLACK, linewidth=0.8)
        axis.axhline(bias, color=tint, linewidth=1.8)
        for limit in (bias - reach, bias + reach):
            axis.axhline(limit, color=tint, linewidth=1.2, linestyle=(0, (4, 2)))
        unit = f" ({unit})" if unit else ""
        axis.locator_params(axis="x", nbins=5)
        axis.set(title=method, xlabel=f"mean {trait}{unit}", ylabel=f"{method} - truth{unit}")
        alt = f"Bland-Altman plot of {trait}, {method} against truth: bias {bias:.3g}, limits {bias - reach:.3g} to "
        return _svg(figure, f"{alt}{bias + reach:.3g}, {len(d)} matched cells.")


def front(
    points: Mapping[str, tuple[float, float]], trait: str, on_front: Sequence[str], colour: Mapping[str, str]
) -> Picture:
    """Draw PQ against the trait fidelity error; methods on the Pareto front have a ring."""
    with _figure(3.4, 2.7) as (figure, (axis,)):
        for name, (quality, error) in points.items():
            axis.plot([quality], [error], "o", color=colour[name], markersize=8)
            if name in on_front:
                axis.plot([quality], [error], "o", mfc="none", color=colour[name], markersize=14)
            axis.plot([], [], "o", color=colour[name], label=name)
        axis.legend(fontsize=8, frameon=False)
        axis.margins(0.2)
        axis.set(xlabel="PQ (higher is better)", ylabel=f"TFE of {trait} (lower is better)")
        told = "; ".join(f"{name} PQ {q:.3f}, TFE {e:.3f}" for name, (q, e) in points.items())
        return _svg(figure, f"Trait fidelity error of {trait} against PQ: {told}.")


# --- pixels -------------------------------------------------------------------------------------------------------


def captioned(picture: Picture, caption: str) -> Picture:
    """Put a line of text under a picture."""
    return replace(picture, caption=caption)


def grey(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Stretch a `(Y, X)` image from its 0.5 % to its 99.5 % grey value onto 0..255."""
    values = np.asarray(image, dtype=float)
    low, high = np.percentile(values[np.isfinite(values)], [0.5, 99.5]) if values.size else (0.0, 1.0)
    scaled = (np.nan_to_num(values) - low) / ((high - low) or 1.0)
    return np.asarray(np.clip(scaled, 0, 1) * 255, dtype=np.uint8)


def outlines(image: NDArray[Any], drawn: Sequence[tuple[NDArray[Any], str]], alt: str, zoom: int = 4) -> Picture:
    """Draw outlines of label images, each in its colour, over a `(Y, X)` image enlarged `zoom` times."""
    big = np.repeat(np.repeat(grey(image), zoom, axis=0), zoom, axis=1)
    canvas = np.repeat(big[:, :, None], 3, axis=2)
    for labels, tint in drawn:
        enlarged = np.repeat(np.repeat(labels, zoom, axis=0), zoom, axis=1)
        canvas[_edges(enlarged, "thick")] = _rgb(tint)
    return _png(canvas, alt)


def confusion(image: NDArray[Any], truth: NDArray[Any], pred: NDArray[Any], alt: str, most: int = 900) -> Picture:
    """Tint the foreground: found blue, missed yellow, invented vermilion; large frames are thinned to `most` px."""
    step = max(1, -(-max(image.shape) // most))
    shade, t, p = grey(image)[::step, ::step], truth[::step, ::step] > 0, pred[::step, ::step] > 0
    canvas = np.repeat(shade[:, :, None], 3, axis=2).astype(float)
    for where, tint, strength in ((t & p, BLUE, 0.35), (t & ~p, YELLOW, 0.85), (~t & p, VERMILION, 0.85)):
        canvas[where] = (1 - strength) * canvas[where] + strength * np.array(_rgb(tint), dtype=float)
    return _png(canvas.astype(np.uint8), alt)


def probability(image: NDArray[Any], foreground: NDArray[Any], truth: NDArray[Any], alt: str, zoom: int = 2) -> Picture:
    """Show a network's foreground probability (0 black, 1 white) with the truth outlined in orange."""
    shade = np.asarray(np.clip(np.nan_to_num(foreground), 0, 1) * 255, dtype=np.uint8)
    shade = shade if shade.shape == image.shape else grey(image)
    canvas = np.repeat(np.repeat(np.repeat(shade, zoom, 0), zoom, 1)[:, :, None], 3, axis=2)
    enlarged = np.repeat(np.repeat(truth, zoom, 0), zoom, 1)
    canvas[_edges(enlarged, "inner")] = _rgb(ORANGE)
    return _png(canvas, alt)


def busiest(truth: NDArray[Any], size: int) -> tuple[slice, slice]:
    """Return the `size` px window, on a coarse grid, that holds most outline pixels."""
    edges = _edges(truth, "inner").astype(np.int64)
    height, width = (min(size, side) for side in truth.shape)
    total = np.pad(edges.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    step = max(1, size // 4)
    ys, xs = (np.arange(0, side - window + 1, step) for side, window in zip(truth.shape, (height, width), strict=True))
    inside = (
        total[np.ix_(ys + height, xs + width)]
        - total[np.ix_(ys, xs + width)]
        - total[np.ix_(ys + height, xs)]
        + total[np.ix_(ys, xs)]
    )
    row, column = np.unravel_index(int(inside.argmax()), inside.shape)
    return slice(int(ys[row]), int(ys[row]) + height), slice(int(xs[column]), int(xs[column]) + width)


def _edges(labels: NDArray[Any], mode: str) -> NDArray[np.bool_]:
    from skimage.segmentation import find_boundaries

    return np.asarray(find_boundaries(labels, mode=mode, connectivity=1))


def _rgb(tint: str) -> tuple[int, int, int]:
    return int(tint[1:3], 16), int(tint[3:5], 16), int(tint[5:7], 16)


def _png(canvas: NDArray[np.uint8], alt: str) -> Picture:
    from matplotlib import image

    buffer = io.BytesIO()
    image.imsave(buffer, canvas, format="png", metadata={"Software": ""})
    return Picture(_uri("image/png", buffer.getvalue()), alt, width=canvas.shape[1], height=canvas.shape[0])


# --- matplotlib ---------------------------------------------------------------------------------------------------

_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "svg.hashsalt": "report",
    "figure.facecolor": "white",
}


@contextmanager
def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> Iterator[tuple[Figure, list[Any]]]:
    """Yield a figure without a window, `width` x `height` inches, and its axes; no global state is touched."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained", dpi=150)
        FigureCanvasSVG(figure)
        yield figure, list(np.ravel(figure.subplots(rows, columns, squeeze=False)))


def _svg(figure: Figure, alt: str, caption: str = "") -> Picture:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    width, height = (int(96 * side) for side in figure.get_size_inches())
    return Picture(_uri("image/svg+xml", buffer.getvalue()), alt, caption, width, height)


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
