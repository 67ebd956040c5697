"""Presentation only: sections of text, tables and pictures to one HTML file.

Everything is escaped by jinja2, nothing is loaded from anywhere, and the content security policy of the page allows
neither scripts nor remote files: only its own style sheet (by hash) and images inside the page.
"""

from __future__ import annotations

import base64
import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, SupportsFloat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analysis.figures import Picture

HERE = Path(__file__).parent
MISSING = "\N{EN DASH}"


@dataclass(frozen=True)
class Cell:
    """One table cell; `shade` 0..9 colours it low to high, `strong` sets it bold, `below` is a small second line."""

    text: str
    shade: int | None = None
    strong: bool = False
    below: str = ""


@dataclass(frozen=True)
class Table:
    """A table; columns whose name is in `words` are left-aligned text, the others numbers.

    A `folded` block opens on a click; tables `beside` each other share a row on a wide page.
    """

    caption: str
    columns: tuple[str, ...]
    rows: list[list[Cell | str]]
    words: tuple[str, ...] = ()
    note: str = ""
    folded: bool = False
    beside: bool = False


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side, two a row when `wide`, many when `small`; they wrap on a narrow page."""

    pictures: list[Picture]
    caption: str = ""
    legend: tuple[tuple[str, str], ...] = ()
    folded: bool = False
    small: bool = False
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """A heading with paragraphs, then blocks in order."""

    anchor: str
    title: str
    paragraphs: tuple[str, ...] = ()
    blocks: tuple[Table | Gallery, ...] = ()


@dataclass(frozen=True)
class Page:
    """The whole report; `synthetic` puts a banner on top."""

    title: str
    subtitle: str
    verdict: tuple[str, ...]
    warnings: tuple[str, ...]
    sections: tuple[Section, ...]
    synthetic: bool = False
    provenance: dict[str, str] = field(default_factory=dict)


def render(page: Page) -> str:
    """Return the page as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    style = (HERE / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.tests["table"] = lambda block: isinstance(block, Table)
    environment.filters["cell"] = lambda value: value if isinstance(value, Cell) else Cell(str(value))
    return environment.get_template("page.html").render(
        page=page,
        style=Markup(style),  # noqa: S704 - our own file, hashed into the policy
        policy=f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
    )


def number(value: object, digits: int = 3) -> str:
    """Write a number with `digits` decimals, or a dash where there is none."""
    x = _float(value)
    return _unsigned_zero(f"{x:.{digits}f}") if math.isfinite(x) else MISSING


def significant(value: object, digits: int = 3) -> str:
    """Write a number with `digits` significant digits and without an exponent for everyday sizes."""
    x = _float(value)
    if not math.isfinite(x):
        return MISSING
    if 0 < abs(x) < 1e-3:
        return _unsigned_zero(f"{x:.5f}")
    return f"{x:,.0f}" if 1000 <= abs(x) < 1e9 else _unsigned_zero(f"{x:#.{digits}g}".rstrip("."))


def interval(ci: Sequence[float] | None, digits: int = 3) -> str:
    """Write an interval as "low to high", or a dash."""
    if ci is None or any(not math.isfinite(float(end)) for end in ci):
        return MISSING
    return f"{float(ci[0]):.{digits}f} to {float(ci[1]):.{digits}f}"


def _float(value: object) -> float:
    return float(value) if isinstance(value, SupportsFloat) else math.nan


def _unsigned_zero(text: str) -> str:
    return text.lstrip("-") if float(text) == 0 else text


def shade(value: float, low: float, high: float) -> int | None:
    """Place a value on the ten-step colour scale from `low` to `high`."""
    if not math.isfinite(value):
        return None
    if value >= high:
        return 9
    return min(9, max(0, int(10 * (value - low) / (high - low)))) if high > low else 0
