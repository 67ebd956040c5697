"""Presentation only: sections of text, tables and pictures to one HTML file.

Everything is escaped by jinja2 and nothing is loaded from anywhere: the content security policy of the page allows its
own style sheet and its own script (each by hash) and images inside the page, no more. The script sorts tables and hands
out figures and tables as files; without it the page says the same.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from dataclasses import dataclass, field
from itertools import groupby
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
    """Pictures side by side, two a row when `wide`, four when `medium`, many when `small`; they wrap on a narrow page.

    An entry of the `legend` is a name, a colour and the outline of its mark in a box of 10 by 10.
    """

    pictures: list[Picture]
    caption: str = ""
    legend: tuple[tuple[str, str, str], ...] = ()
    folded: bool = False
    small: bool = False
    wide: bool = False
    medium: bool = False


@dataclass(frozen=True)
class Points:
    """A list of remarks, each a few bold words and what they mean."""

    points: tuple[tuple[str, str], ...]
    caption: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Passage:
    """Text to be copied into a paper: paragraphs, then its references."""

    paragraphs: tuple[str, ...]
    references: tuple[str, ...] = ()
    caption: str = ""
    folded: bool = False


Block = Table | Gallery | Points | Passage
KINDS = {"table": Table, "gallery": Gallery, "points": Points, "passage": Passage}
"""What the template calls each kind of block."""


@dataclass(frozen=True)
class Section:
    """A heading with paragraphs, then blocks in order; `part` groups sections, `short` is its name in the contents."""

    anchor: str
    title: str
    paragraphs: tuple[str, ...] = ()
    blocks: tuple[Block, ...] = ()
    part: str = ""
    short: str = ""


@dataclass(frozen=True)
class Page:
    """The whole report; `answer` stands under the verdict; `synthetic` puts a banner on top."""

    title: str
    subtitle: str
    verdict: tuple[str, ...]
    warnings: tuple[str, ...]
    sections: tuple[Section, ...]
    synthetic: bool = False
    provenance: dict[str, str] = field(default_factory=dict)
    answer: Table | None = None

    @property
    def parts(self) -> list[tuple[str, list[Section]]]:
        """Sections by part, in their order."""
        return [(name, list(own)) for name, own in groupby(self.sections, lambda section: section.part)]


_TURNING = {code: f"\\u{code:04x}" for code in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
"""Characters that turn the direction of writing, written out: a name must not turn the numbers behind it round."""


def render(page: Page) -> str:
    """Return the page as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from data_io.files import slug
    from data_io.secrecy import HIDDEN, veiled

    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["cell"] = lambda value: value if isinstance(value, Cell) else Cell(str(value))
    environment.filters["kind"] = lambda block: next(name for name, kind in KINDS.items() if isinstance(block, kind))
    environment.filters["slug"] = slug
    environment.filters["csv_uri"] = lambda text: f"data:text/csv;base64,{base64.b64encode(text.encode()).decode()}"
    html = environment.get_template("page.html").render(
        page=page,
        style=Markup(style),  # noqa: S704 - our own file, hashed into the policy
        script=Markup(script),  # noqa: S704 - the same
        policy=f"default-src 'none'; img-src data:; style-src {_hashed(style)}; script-src {_hashed(script)}; "
        "base-uri 'none'; form-action 'none'",
    )
    return veiled(IN_ADDRESS.sub(rf"\1{HIDDEN}", html.translate(_TURNING)))


IN_ADDRESS = re.compile(r"(?i)([?&;](?:[\w-]*(?:key|secret|token|password|signature))=)[^&;\s\"<>]+")
"""What an address may carry behind its path; passwords before it are taken out by `veiled`."""


def _hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


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


def with_ci(value: float, ci: Sequence[float]) -> Cell:
    """Write a number with its interval below it, where there is one."""
    known = all(math.isfinite(_float(end)) for end in ci)
    return Cell(significant(value), below=f"{significant(ci[0])} to {significant(ci[1])}" if known else "")


def p_value(value: object) -> str:
    """Write a p-value: "< 0.001", three decimals, or a dash where nothing was tested."""
    p = _float(value)
    return MISSING if not math.isfinite(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def many(n: int, noun: str) -> str:
    """Write a number of things.

    >>> many(1, "trial"), many(1200, "cell")
    ('1 trial', '1,200 cells')
    """
    return f"1 {noun}" if n == 1 else f"{n:,} {noun}s"


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
