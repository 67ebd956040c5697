"""The findings of `check` as one HTML page: nothing is loaded from anywhere, nothing runs in it, all text is escaped.

The lines over time are SVG drawn by the template, so that they follow the light or dark of the page.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_io.store import PARTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from data_io.check import Checked

HERE = Path(__file__).parent
WIDTH, HEIGHT, MARGIN = 360, 120, 8
"""A plot in SVG units; the margin is kept free above and below the line."""
LEAST = 0.03
"""A plot spans at least this fraction above and below the middle: smaller wobbles shall look small."""
MOST_MOVIES = 12
"""Movies that get plots of their own."""
MOVIE_FROM = 3
"""Frames from which on a field is a movie; shorter fields share one plot, in their order."""
MOST_ROWS = 20


@dataclass(frozen=True)
class Plot:
    """One number over the frames of a movie, in SVG units."""

    label: str
    low: str
    high: str
    line: tuple[str, ...]
    """Points of each stretch without a gap."""
    dots: tuple[tuple[float, float], ...]
    odd: tuple[tuple[float, float], ...]
    """Frames that stand out."""
    alt: str


@dataclass(frozen=True)
class Movie:
    """The plots of a movie and the strip below that tells each frame's part."""

    name: str
    frames: int
    plots: tuple[Plot, ...]
    strip: tuple[tuple[float, float, str], ...]
    """x, width and part of each stretch of frames."""


def render(checked: Checked, numbers: Mapping[str, str]) -> str:
    """Return the page; `numbers` are the key numbers by name."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from data_io.provenance import provenance

    style = (HERE / "check.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found = checked.facts.get("fingerprint", {})
    return environment.get_template("check.html").render(
        checked=checked,
        numbers=numbers,
        found=found,
        advice=_advice(checked.facts.get("recommended", {})),
        movies=_movies(checked),
        more_fields=max(0, len(checked.fields) - len(checked.shots)),
        pairs=_pairs(found),
        parts=PARTS,
        most=MOST_ROWS,
        provenance=provenance(),
        width=WIDTH,
        height=HEIGHT,
        style=Markup(style),  # noqa: S704 - our own file, hashed into the policy
        policy=f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
    )


def _advice(advice: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return what is recommended, as rows of name, value and reason."""
    if not advice:
        return []
    why = advice.get("why", {})
    return [
        ("crop", f"{advice['crop']} px", why.get("crop", "")),
        ("padding", f"sides to multiples of {advice['pad_to']} px", why.get("pad_to", "")),
        ("batch", f"{advice['batch']} crops", why.get("batch", "")),
        ("split", f"by {advice['split']}" if advice.get("split", "none") != "none" else "none", why.get("split", "")),
    ]


def _pairs(found: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return pairs of frames that are the same or leak, each once, with what they are in words."""
    kinds = {
        "duplicate": "the same pixels, in two parts",
        "near duplicate": "nearly the same picture, in two parts",
        "neighbours": "neighbours in time, in two parts",
    }
    leaks = [(kinds[one["kind"]], one) for one in found.get("leakage", [])]
    told = [(one["a"], one["b"]) for _, one in leaks]
    others = [("the same pixels", one) for one in found.get("duplicates", [])]
    others += [(f"nearly the same picture ({one['correlation']:.2f})", one) for one in found.get("near_duplicates", [])]
    return leaks + [(text, one) for text, one in others if (one["a"], one["b"]) not in told]


# --- over time ----------------------------------------------------------------------------------------------------


def _movies(checked: Checked) -> list[Movie]:
    """Return the plots of each movie, and one of all shorter fields together."""
    if checked.fault:
        return []
    part = {(ref[0], i): name for name in PARTS for ref in _refs(checked, name) for i in ref[1]}
    long = [f.name for f in checked.fields if f.n_frames >= MOVIE_FROM]
    short = [f.name for f in checked.fields if f.n_frames < MOVIE_FROM]
    groups = [(name, [name]) for name in long[:MOST_MOVIES]]
    if len(short) > 1:
        groups.append((f"{len(short)} short fields, in their order", short))
    return [_movie(title, names, checked, part) for title, names in groups]


def _refs(checked: Checked, part: str) -> list[tuple[str, list[int]]]:
    """Return the frames of a part by field, from the ranges of the fingerprint."""
    fields = checked.facts["fingerprint"]["parts"][part]["fields"]
    return [(name, [i for run in text.split(", ") for i in _run(run)]) for name, text in fields.items()]


def _run(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def _movie(title: str, names: Sequence[str], checked: Checked, part: Mapping[tuple[str, int], str]) -> Movie:
    by_field = checked.facts["fingerprint"]["by_field"]
    own = [by_field[name] for name in names]
    odd: set[int] = set()
    start = 0
    for one in own:
        odd |= {start + outlier["frame"] for outlier in one["focus_outliers"]}
        start += len(one["cells"])
    plots = []
    for channel in range(len(own[0]["focus"])):
        of = f", channel {channel + 1}" if len(own[0]["focus"]) > 1 else ""
        plots.append(_plot(f"focus{of}", [v for one in own for v in one["focus"][channel]], odd))
        plots.append(_plot(f"mean grey value{of}", [v for one in own for v in one["mean"][channel]]))
    cells = [v for one in own for v in one["cells"]]
    if any(value is not None for value in cells):
        plots.append(_plot("annotated cells", cells))
    parts = [
        part.get((name, i), "none") for name, one in zip(names, own, strict=True) for i in range(len(one["cells"]))
    ]
    return Movie(title, len(parts), tuple(plots), _strip(parts))


def _plot(label: str, values: Sequence[float | None], odd: set[int] | None = None) -> Plot:
    known = [value for value in values if value is not None]
    middle = (min(known) + max(known)) / 2
    low, high = min(min(known), middle - LEAST * abs(middle)), max(max(known), middle + LEAST * abs(middle))
    step = WIDTH / len(values)
    points = [
        None
        if value is None
        else (round((i + 0.5) * step, 1), round(MARGIN + (HEIGHT - 2 * MARGIN) * _down(value, low, high), 1))
        for i, value in enumerate(values)
    ]
    stretches: list[list[str]] = [[]]
    for point in points:
        if point is None:
            stretches.append([])
        else:
            stretches[-1].append(f"{point[0]},{point[1]}")
    present = tuple(point for point in points if point is not None)
    marked = tuple(point for i, point in enumerate(points) if point is not None and i in (odd or ()))
    alt = f"{label} over {len(values)} frames, from {_short(min(known))} to {_short(max(known))}"
    dots = present if len(values) <= 60 else ()
    lines = tuple(" ".join(one) for one in stretches if len(one) > 1)
    return Plot(label, _short(min(known)), _short(max(known)), lines, dots, marked, alt)


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1e4 else f"{value:.3g}"


def _down(value: float, low: float, high: float) -> float:
    """Return where a value lies from the top (0) to the bottom (1)."""
    return (high - value) / (high - low) if high > low else 0.5


def _strip(parts: Sequence[str]) -> tuple[tuple[float, float, str], ...]:
    """Return the stretches of equal parts."""
    step = WIDTH / len(parts)
    starts = [i for i, part in enumerate(parts) if i == 0 or part != parts[i - 1]]
    ends = [*starts[1:], len(parts)]
    return tuple((round(a * step, 1), round((b - a) * step, 1), parts[a]) for a, b in zip(starts, ends, strict=True))
