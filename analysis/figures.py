"""Line figures of a report as SVG: Okabe-Ito colours, each method with a marker and a dash of its own, alt text, data.

matplotlib stays in this file and is imported only when a figure is drawn. Text stays text, so that a figure can be
edited; ink and paper change places where the reader's screen is dark.
"""

from __future__ import annotations

import base64
import io
import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, YELLOW = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442",
)  # fmt: skip
"""Okabe & Ito (2008): told apart by people with any common colour vision."""
INK, SOFT, PAPER = "#1b1b1b", "#8a8a8a", "#ffffff"
"""Text and axes, lines in the background, the ground; ink and paper change on a dark screen."""
CYCLE = (BLUE, VERMILION, GREEN, ORANGE, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
MOST_POINTS = 3000
"""A scatter plot shows at most this many cells, drawn at random with a fixed seed."""
MOST_VECTORS = 400
"""More points than this are drawn as pixels inside the figure."""
MOST_EPOCHS, MOST_LINES = 150, 40
"""A learning curve is drawn with at most so many epochs; more curves than this are pixels inside the figure."""
WIDTH, HEIGHT = 3.5, 2.8
"""Of a figure that stands beside others, inches at 96 px."""


@dataclass(frozen=True)
class Picture:
    """An image ready for an `<img>`.

    `src` is a data URI, `alt` says what a reader without it misses; `name` is the stem of the file it is saved as, and
    `data` the numbers drawn, as CSV text.
    """

    src: str
    alt: str
    caption: str = ""
    width: int = 0
    height: int = 0
    name: str = ""
    data: str = ""


@dataclass(frozen=True)
class Look:
    """How a method is drawn everywhere: told by colour, and without colour by marker and dash."""

    colour: str
    marker: str
    dash: Any = "-"


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """Give each method its own look, the truth ink and the classical baseline purple."""
    fixed = {"truth": Look(INK, "o"), "classical": Look(PURPLE, "*", (0, (2, 2)))}
    others = [name for name in methods if name not in fixed]
    own = {
        name: Look(CYCLE[i % len(CYCLE)], MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)])
        for i, name in enumerate(others)
    }
    return own | fixed


MARKS = {
    "o": "M5 1a4 4 0 1 1 0 8a4 4 0 1 1 0-8z",
    "s": "M1 1h8v8h-8z",
    "^": "M5 1L9.4 9H.6z",
    "D": "M5 .5L9.5 5L5 9.5L.5 5z",
    "v": "M.6 1h8.8L5 9z",
    "P": "M3.5 1h3v2.5H9v3H6.5V9h-3V6.5H1v-3h2.5z",
    "X": "M1 2.5L2.5 1L5 3.5L7.5 1L9 2.5L6.5 5L9 7.5L7.5 9L5 6.5L2.5 9L1 7.5L3.5 5z",
    "*": "M5 .5L6.2 3.8L9.6 3.9L6.9 6L7.9 9.4L5 7.4L2.1 9.4L3.1 6L.4 3.9L3.8 3.8z",
}
"""Outlines of the markers in a box of 10 by 10, for a legend beside the figures."""
SQUARE = MARKS["s"]


def legend(names: Sequence[str], looks: Mapping[str, Look]) -> tuple[tuple[str, str, str], ...]:
    """Return name, colour and mark of each method, for `report.Gallery`."""
    drawn = [(name, looks.get(name, NOBODY)) for name in names]
    return tuple(
        (name, "currentColor" if look.colour == INK else look.colour, MARKS[look.marker]) for name, look in drawn
    )


NOBODY = Look(BLUE, "o")
"""The look of what has none of its own."""


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


LEARNING_LEGEND = (
    "Thick and coloured: the chosen model; dashed: reference runs that nothing stops; grey: other trials; a cross "
    "where early stopping ended one."
)


def learning(curves: Sequence[Curve], target: str, column: str, label: str, look: Look) -> Picture | None:
    """Draw one line per trial of a target, as `LEARNING_LEGEND` says; None where no trial has the column."""
    own = [c for c in curves if c.target == target and column in c.table and c.table[column].notna().any()]
    if not own:
        return None
    many = len(own) > MOST_LINES
    with canvas() as (figure, axis):
        for curve in sorted(own, key=lambda c: (c.best, c.reference)):
            tint = look.colour if curve.best else INK if curve.reference else SOFT
            width = 2.4 if curve.best else 1.2 if curve.reference else 0.8
            style: Any = (0, (4, 2)) if curve.reference else "-"
            line = _thinned(curve.table, column)
            x, y = line["epoch"], line[column]
            flat = (many and not (curve.best or curve.reference)) or None
            axis.plot(x, y, color=tint, linewidth=width, linestyle=style, rasterized=flat)
            if len(x) == 1 or curve.stopped:
                mark = "x" if curve.stopped else "o"
                axis.plot(x.iloc[-1:], y.iloc[-1:], mark, color=tint, markersize=5, mew=1.5, rasterized=flat)
        if "loss" in column and min(c.table[column].min() for c in own) > 0:
            _log_scale(axis)
        axis.set(title=short(target), xlabel="epoch", ylabel=label)
        whole_numbers(axis.xaxis)
        lines = {c.trial: _thinned(c.table, column).set_index("epoch")[column] for c in own}
        data = pd.DataFrame(lines).rename_axis("epoch").reset_index()
        ends = pd.Series([line.iloc[-1] for line in lines.values()])
        told = f"{len(own)} trial{'' if len(own) == 1 else 's'} of {target}; at their last epochs {_range(ends)}"
        alt = f"{label} by epoch for {told}."
        return svg(figure, alt, name=f"{column}_{target}", data=data)


def _thinned(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the epochs that have a value, at most `MOST_EPOCHS` of them, the first and the last among these."""
    known = table.dropna(subset=column).drop_duplicates("epoch", keep="last")
    if len(known) <= MOST_EPOCHS:
        return known
    return known.iloc[np.unique(np.linspace(0, len(known) - 1, MOST_EPOCHS).round().astype(int))]


def decode_curve(
    target: str, name: str, profile: Sequence[tuple[float, float]], chosen: Any, score: str, look: Look, y: Any
) -> Picture:
    """Draw the best score at each value tried of one decode parameter within the limits `y`, the choice marked."""
    values, best = zip(*profile, strict=True)
    with canvas(2.7, 2.2) as (figure, axis):
        axis.plot(values, best, marker=look.marker, color=look.colour, linewidth=1.4, markersize=3)
        if chosen is not None:
            axis.axvline(float(chosen), color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
        axis.set(title=f"{short(target)}: {short(name)}", ylabel=score, ylim=y)
        data = pd.DataFrame({name: values, score: best})
        alt = f"Best validation {score} of {target} along {name}: {_range(pd.Series(best))}; chosen {chosen}."
        return svg(figure, alt, name=f"decode_{target}_{name}", data=data)


def heat_map(
    values: NDArray[np.floating[Any]],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    label: str,
    ends: tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]] | None = None,
) -> Picture:
    """Draw `(rows, columns)` values as a heat map with the numbers written in; NaN cells stay blank.

    `ends` are the lower and the upper ends of the intervals, of the same shape, NaN where there is none.
    """
    longest = min(LONGEST, max(map(len, columns)))
    size = 1.2 + 1.05 * len(columns), 0.6 + 0.035 * longest + (0.46 if ends else 0.34) * len(rows)
    with canvas(*size) as (figure, axis):
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        axis.imshow(np.ma.masked_invalid(values), cmap="cividis", aspect="auto")
        for (y, x), value in np.ndenumerate(values):
            if not np.isfinite(value):
                continue
            tint = "#fefefe" if value < (low + high) / 2 else "#010101"
            known = ends is not None and bool(np.isfinite([end[y, x] for end in ends]).all())
            at: dict[str, Any] = {"ha": "center", "va": "center", "color": tint}
            axis.text(x, y - (0.15 if known else 0), f"{value:.3f}", fontsize=8, **at)
            if ends is not None and known:
                axis.text(x, y + 0.2, f"{ends[0][y, x]:.3f} to {ends[1][y, x]:.3f}", fontsize=6, **at)
        axis.set_xticks(range(len(columns)), map(short, columns), rotation=30, ha="right")
        axis.set_yticks(range(len(rows)), map(short, rows))
        axis.set_title(f"{short(title)}: {label}")
        axis.spines[:].set_visible(False)
        top, left = divmod(int(np.nanargmax(values)), len(columns))
        cells = [(r, c) for r in range(len(rows)) for c in range(len(columns))]
        data = pd.DataFrame({"row": [rows[r] for r, _ in cells], "column": [columns[c] for _, c in cells]})
        data[label] = values.ravel()
        if ends is not None:
            data["ci_low"], data["ci_high"] = ends[0].ravel(), ends[1].ravel()
        alt = (
            f"Heat map of {label}, {title}: {len(rows)} architectures by {len(columns)} encoders, from "
            f"{np.nanmin(values):.3f} to {np.nanmax(values):.3f}; highest {rows[top]} with {columns[left]}."
        )
        return svg(figure, alt, name=f"{label}_{title}", data=data)


def whole_numbers(*axes: Axis) -> None:
    """Mark whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    for axis in axes:
        axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))


def _log_scale(axis: Axes) -> None:
    """Use a logarithmic y axis with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


# --- traits -------------------------------------------------------------------------------------------------------


def superplot(
    cells: Mapping[str, pd.DataFrame],
    trait: str,
    column: str,
    unit: str,
    looks: Mapping[str, Look],
    replicate: str = "",
) -> Picture:
    """Draw the distribution of all cells per method, the mean of each frame and, large, of each replicate over it.

    `replicate` is the column of the replicate (patient, well, field); without one the frame means stand alone.
    """
    names = [name for name, rows in cells.items() if rows[column].notna().sum() > 1]
    means = [_means(cells[name], column, replicate).assign(method=name) for name in names]
    with canvas(3.7, 3.0) as (figure, axis):
        for at, (name, own) in enumerate(zip(names, means, strict=True)):
            look = looks.get(name, NOBODY)
            values = cells[name][column].dropna().to_numpy(float)
            low, high = np.percentile(values, [0.5, 99.5])
            shown = values[(values >= low) & (values <= high)] if np.ptp(values) else values
            if len(shown) > 1 and np.ptp(shown) > 0:
                bodies: Any = axis.violinplot([shown], [at], widths=0.85, showextrema=False)["bodies"]
                for body in bodies:
                    body.set(facecolor=look.colour, alpha=0.3)
            frames = own[own["what"] == "frame"]["mean"].to_numpy(float)
            spread = np.linspace(-0.26, 0.26, len(frames)) if len(frames) > 1 else np.zeros(len(frames))
            axis.plot(at + spread, frames, look.marker, color=look.colour, markersize=2.6, linestyle="none")
            axis.hlines(np.median(values), at - 0.36, at + 0.36, color=look.colour, linewidth=1.6)
        _replicates(axis, means, [looks.get(name, NOBODY) for name in names])
        axis.set_xticks(range(len(names)), map(short, names), rotation=20, ha="right")
        axis.set_ylabel(f"{trait}{f' ({unit})' if unit else ''}")
        medians = ", ".join(f"{name} {cells[name][column].median():.3g}" for name in names)
        data = pd.concat(means, ignore_index=True) if means else pd.DataFrame()
        return svg(figure, f"Distribution of {trait} per method; medians: {medians}.", name=f"{trait}", data=data)


def _means(cells: pd.DataFrame, column: str, replicate: str) -> pd.DataFrame:
    """Return count, mean and median of all cells, of each replicate and of each frame."""
    wanted = {"all": [], "replicate": [replicate] if replicate else [], "frame": ["field", "frame"]}
    parts = []
    for what, keys in wanted.items():
        if keys:
            found = cells.groupby(keys, sort=True)[column].agg(["count", "mean", "median"]).reset_index()
            found["of"] = found[keys].astype(str).agg(" / ".join, axis=1)
        elif what == "all":
            found = pd.DataFrame([cells[column].agg(["count", "mean", "median"])]).assign(of="")
        else:
            continue
        parts.append(found.assign(what=what)[["what", "of", "count", "mean", "median"]])
    table = pd.concat(parts, ignore_index=True)
    return table[table["count"] > 0]


def _replicates(axis: Axes, means: Sequence[pd.DataFrame], drawn: Sequence[Look]) -> None:
    """Draw the mean of each replicate large, and join those of the same replicate by a line."""
    of = [own[own["what"] == "replicate"].set_index("of")["mean"] for own in means]
    everyone = list(dict.fromkeys(name for own in of for name in own.index))
    apart = sum(map(len, of)) == len(everyone)
    places = [_spread(list(own.index) if apart else everyone) for own in of]
    for name in everyone:
        at = [(k + places[k][name], own[name], drawn[k]) for k, own in enumerate(of) if name in own.index]
        axis.plot([x for x, _, _ in at], [y for _, y, _ in at], "-", color=SOFT, linewidth=0.7, zorder=2.5)
        for x, y, look in at:
            axis.plot([x], [y], look.marker, color=look.colour, markersize=7, mec=INK, mew=0.9, zorder=3)


def _spread(names: Sequence[str]) -> dict[str, float]:
    """Return a place beside the middle for each name."""
    if len(names) < 2:
        return dict.fromkeys(names, 0.0)
    return dict(zip(names, np.linspace(-0.22, 0.22, len(names)).tolist(), strict=True))


@dataclass(frozen=True)
class Frame:
    """Limits shared by the plots that are to be compared by eye."""

    x: tuple[float, float]
    y: tuple[float, float]


def shared_frame(pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]], margin: float = 0.05) -> Frame | None:
    """Return limits that hold all `(x, y)` clouds, None without a finite point."""
    ends = []
    for clouds in zip(*pairs, strict=True) if pairs else ():
        values = np.concatenate([np.asarray(cloud, dtype=float) for cloud in clouds])
        values = values[np.isfinite(values)]
        if not len(values):
            return None
        reach = margin * (float(np.ptp(values)) or abs(float(values[0])) or 1.0)
        ends.append((float(values.min()) - reach, float(values.max()) + reach))
    return Frame(ends[0], ends[1]) if len(ends) == 2 else None


def bland_altman(
    true: NDArray[Any],
    predicted: NDArray[Any],
    trait: str,
    unit: str,
    method: str,
    look: Look,
    frame: Frame | None = None,
    bands: Sequence[tuple[float, float]] = (),
) -> Picture:
    """Bland-Altman plot: difference to the truth against the mean of both, bias and 95 % limits as lines.

    `bands` are the intervals of bias and limits; those that are not finite are left out.
    """
    both = np.isfinite(true) & np.isfinite(predicted)
    mean, d = (true[both] + predicted[both]) / 2, predicted[both] - true[both]
    bias, reach = float(d.mean()), 1.96 * float(d.std(ddof=1))
    shown = sample(len(d))
    with canvas() as (figure, axis):
        scatter(axis, mean[shown], d[shown], look)
        axis.axhline(0, color=INK, linewidth=0.8)
        axis.axhline(bias, color=look.colour, linewidth=2)
        for low, high in bands:
            if np.isfinite([low, high]).all():
                axis.axhspan(low, high, color=look.colour, alpha=0.15, linewidth=0)
        for limit in (bias - reach, bias + reach):
            axis.axhline(limit, color=look.colour, linewidth=1.2, linestyle=(0, (4, 2)))
        unit = f" ({unit})" if unit else ""
        axis.locator_params(axis="x", nbins=5)
        axis.set(title=short(method), xlabel=f"mean of both, {trait}{unit}", ylabel=f"method - truth{unit}")
        if frame:
            axis.set(xlim=frame.x, ylim=frame.y)
        alt = f"Bland-Altman plot of {trait}, {method} against truth: bias {bias:.3g}, limits {bias - reach:.3g} to "
        data = pd.DataFrame({"truth": true[both][shown], "method": predicted[both][shown]})
        alt = f"{alt}{bias + reach:.3g}, {len(d)} matched cells."
        return svg(figure, alt, name=f"bland_altman_{trait}_{method}", data=data)


def front(
    points: Mapping[str, tuple[float, float]], trait: str, on_front: Sequence[str], looks: Mapping[str, Look]
) -> Picture:
    """Draw PQ against the trait fidelity error; methods on the Pareto front have a ring."""
    with canvas(WIDTH, 2.7) as (figure, axis):
        for name, (quality, error) in points.items():
            look = looks.get(name, NOBODY)
            axis.plot([quality], [error], look.marker, color=look.colour, markersize=8)
            if name in on_front:
                axis.plot([quality], [error], "o", mfc="none", color=INK, markersize=15, mew=0.9)
        axis.margins(0.28)
        axis.set(xlabel="PQ (higher is better)", ylabel=f"TFE of {trait} (lower is better)")
        told = "; ".join(f"{name} PQ {q:.3f}, TFE {e:.3f}" for name, (q, e) in points.items())
        rows = [(name, *point, name in on_front) for name, point in points.items()]
        data = pd.DataFrame(rows, columns=["method", "pq", "tfe", "on_front"])
        alt = f"Trait fidelity error of {trait} against PQ: {told}."
        return svg(figure, alt, name=f"pareto_{trait}", data=data)


# --- for every figure ---------------------------------------------------------------------------------------------


CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
"""Bytes that XML does not know."""
LONGEST = 22
"""Letters of a name that fit at an axis; captions and data have it whole."""


def short(name: str) -> str:
    """Cut a name to what fits at an axis.

    >>> short("a" * 30)
    'aaaaaaaaaaaaaaaaaaaaa\u2026'
    """
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"


def captioned(picture: Picture, caption: str) -> Picture:
    """Put a line of text under a picture."""
    return replace(picture, caption=caption)


def with_data(picture: Picture, data: pd.DataFrame) -> Picture:
    """Put the numbers behind a picture beside it."""
    return replace(picture, data=csv(data))


def sample(n: int) -> NDArray[np.intp]:
    """Return which of `n` points a scatter plot shows: all, or `MOST_POINTS` drawn with a fixed seed."""
    return np.sort(np.random.default_rng(0).permutation(n)[:MOST_POINTS])


def scatter(axis: Axes, x: NDArray[Any], y: NDArray[Any], look: Look) -> None:
    """Draw points; many as pixels inside the figure."""
    many = len(x) > MOST_VECTORS
    axis.plot(
        x, y, look.marker, color=look.colour, alpha=0.4 if many else 0.6, markersize=3, mew=0, rasterized=many or None
    )


_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": False,
    "svg.hashsalt": "report",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name with dollar signs is a name
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.titlecolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    ),
}
_DARK = (
    "@media screen and (prefers-color-scheme: dark) {"
    + "".join(
        f'[style*="{what}: {light}"] {{ {what}: {dark} !important }}'
        for light, dark in ((INK, "#ececec"), (PAPER, "#16181b"))
        for what in ("fill", "stroke")
    )
    + "}"
)


@contextmanager
def canvas(width: float = WIDTH, height: float = HEIGHT) -> Iterator[tuple[Figure, Axes]]:
    """Yield a figure without a window, `width` x `height` inches, and its axes; no global state is touched."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained", dpi=150)
        yield figure, figure.subplots()


def svg(figure: Figure, alt: str, caption: str = "", name: str = "", data: pd.DataFrame | None = None) -> Picture:
    """Return a figure as a picture, with the numbers drawn."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    from data_io.files import slug

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's fonts draw the text, not ours
        warnings.filterwarnings("ignore", "constrained_layout not applied")  # names that leave the axes no room
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # type: ignore[no-untyped-call] # savefig draws twice
    drawn = CONTROL.sub(b"", buffer.getvalue()).replace(b"</style>", _DARK.encode() + b"</style>", 1)
    width, height = (int(96 * side) for side in figure.get_size_inches())
    return Picture(uri("image/svg+xml", drawn), alt, caption, width, height, slug(name or "figure"), csv(data))


def csv(data: pd.DataFrame | None) -> str:
    """Return a table as CSV text with 6 significant digits, in which no text is taken for a formula."""
    from postprocess.export import harmless

    if data is None or not len(data.columns):
        return ""
    return str(harmless(data).to_csv(index=False, lineterminator="\n", float_format="%.6g"))


def uri(kind: str, data: bytes) -> str:
    """Return bytes as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _range(values: pd.Series[float]) -> str:
    known = values.dropna()
    return f"{known.min():.3g} to {known.max():.3g}" if len(known) else "none"
