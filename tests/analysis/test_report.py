"""The page: every chapter, alt texts, files to take away, nothing remote, nothing run, nothing secret, any name."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from analysis.answer import answer
from analysis.chapters import groups, replicate
from analysis.compare import analyse, compare_run
from analysis.contents import page
from analysis.definitions import provenance
from analysis.differences import difference_chapter
from analysis.examples import example_chapter, overlay_chapter
from analysis.figures import looks, superplot
from analysis.limits import limit_chapter
from analysis.methods_text import methods_chapter
from analysis.record import read_record
from analysis.report import Page, Passage, Section, Table, render
from analysis.samples import TRUTH, Study, from_run, tidy
from analysis.search_chapters import history_chapter, leaderboard_chapter, table_1_chapter
from analysis.verdict import verdict, warnings
from data_io import convert, splits, synthetic
from postprocess import run as stage
from postprocess.morphology import measure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from analysis.results import Results

CHAPTERS = (
    "scores", "examples", "overlays", "worst", "agreement", "traits", "density", "rounding", "conventions",
    "comparisons", "table-1", "architectures", "curves", "stopping", "search", "methods", "limits", "definitions",
    "provenance",
)  # fmt: skip
HOSTILE = ("<img src=x onerror=alert(1)>", '"><script>alert(2)</script>', "$\\frac{1}$ & </svg>", "=cmd|' /C calc'!A1")
SECRET = "hunter2-do-not-print"  # noqa: S105 - planted to be looked for


class Seen(HTMLParser):
    """Tags with their attributes, the text of the page and of each tag of interest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        """Return the attributes of every tag of a name."""
        return [attributes for name, attributes in self.tags if name == tag]


def decoded(uri: str) -> str:
    """Return the text of a data URI."""
    return base64.b64decode(uri.partition("base64,")[2]).decode()


@pytest.fixture(scope="module")
def results(run_folder: Path) -> Results:
    """Return the results of a small run whose Table 1 is filled in."""
    record = read_record(run_folder)
    trials = record.trials.assign(test_dataset_iou=0.8, validation=0.7, seed=0, encoder_weights="none")
    return analyse(from_run(run_folder), replace(record, trials=trials))


@pytest.fixture(scope="module")
def html(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the page of a small run with secrets in every file of its configuration."""
    run = tmp_path_factory.mktemp("secret") / "run"
    shutil.copytree(run_folder, run, symlinks=True)
    (run / "config.yaml").write_text(f"tracking:\n  api_key: {SECRET}\n")
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | {"api_key": SECRET, "configuration": {"token": SECRET}}))
    summary = json.loads((run / "summary.json").read_text())
    summary["provenance"] |= {"api_key": SECRET, "command": f"search.run --token {SECRET}"}
    summary["dataset"] |= {"path": f"s3://me:{SECRET}@host/data?secret_key={SECRET}", "token": SECRET}
    summary["config"] = {"password": SECRET}
    summary["warnings"] = [f"could not reach https://me:{SECRET}@host/x", f"the key was {SECRET}-environment"]
    (run / "summary.json").write_text(json.dumps(summary))
    trials = pd.read_parquet(run / "trials.parquet")
    trials = trials.assign(test_dataset_iou=0.8, validation=0.7, seed=0, encoder_weights="none", api_key=SECRET)
    trials.to_parquet(run / "trials.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_API_KEY", f"{SECRET}-environment")
        report = compare_run(run)
    assert not [file for file in run.glob("*.csv") if SECRET in file.read_text(encoding="utf-8")]
    return report.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def seen(html: str) -> Seen:
    """Return the page of a small run, parsed."""
    return Seen(html)


def stacks(*methods: str, frames: int = 2, cells: int = 4, truth: bool = True) -> Results:
    """Compare label stacks without a run: the truth has `cells` squares a frame, each method lost a row of pixels."""
    drawn = np.zeros((frames, 60, 60), np.int32)
    for k in range(cells):
        y, x = divmod(k, 3)
        drawn[:, 3 + 18 * y : 15 + 18 * y, 3 + 18 * x : 16 + 18 * x] = k + 1
    everyone = {**dict.fromkeys(methods, np.roll(drawn, 1, axis=1) * (drawn > 0)), **({TRUTH: drawn} if truth else {})}
    tables = [
        measure(frame).assign(field="1", frame=t, method=name)
        for name, stack in everyone.items()
        for t, frame in enumerate(stack)
    ]
    table = tidy(pd.concat(tables, ignore_index=True))
    keys = tuple(("1", t) for t in range(frames))
    labels = {name: (lambda _, frame, own=stack: own[frame]) for name, stack in everyone.items()}
    return analyse(Study(table, methods, has_truth=truth, frames=keys, labels=labels))


# --- what is there ------------------------------------------------------------------------------------------------


def test_every_chapter_is_there_once_in_order_and_in_the_contents(seen: Seen) -> None:
    anchors = [a["id"] for a in seen.all("section") if "id" in a]
    assert anchors[:2] == ["verdict", "warnings"]
    assert [anchor for anchor in anchors if anchor in CHAPTERS] == list(CHAPTERS)
    assert len(set(anchors)) == len(anchors)
    linked = [a["href"].removeprefix("#") for a in seen.all("a") if a.get("href", "").startswith("#")]
    assert set(anchors) <= set(linked)


def test_every_picture_has_an_alternative_text_and_can_be_taken_away(seen: Seen) -> None:
    assert len(seen.all("img")) > 30
    assert all(len(image["alt"]) > 15 for image in seen.all("img"))
    images = [a for a in seen.all("a") if "data-image" in a]
    assert len(images) == len(seen.all("img"))
    assert all(a["download"].endswith((".svg", ".png")) for a in images)
    names = [a["download"] for a in seen.all("a") if "download" in a]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in names)


def test_every_line_figure_is_a_drawing_with_its_numbers(html: str) -> None:
    figures = re.findall(r"<figure>.*?</figure>", html, re.DOTALL)
    drawn = [figure for figure in figures if "data:image/svg+xml" in figure]
    assert len(drawn) > 20
    for figure in drawn:
        svg = decoded(re.findall(r'<img src="([^"]+)"', figure)[0])
        assert svg.rstrip().endswith("</svg>")
        assert "<script" not in svg
        assert "prefers-color-scheme: dark" in svg
        table = pd.read_csv(io.StringIO(decoded(re.findall(r'href="(data:text/csv[^"]+)"', figure)[0])))
        assert len(table)
        assert len(table.columns) > 1


def test_numbers_behind_a_figure_are_those_drawn(results: Results) -> None:
    cells = {name: results.study.of(name) for name in (TRUTH, "two_class")}
    picture = superplot(cells, "area", "area_px2", "px2", looks(list(cells)), "field")
    table = pd.read_csv(io.StringIO(picture.data)).sort_values(["method", "what", "of"])
    means = {(m, w, o): value for m, w, o, value in table.fillna("")[["method", "what", "of", "mean"]].to_numpy()}
    own = cells["two_class"]
    assert means["two_class", "all", ""] == pytest.approx(own["area_px2"].mean(), rel=1e-5)
    field, frame = results.study.frames[0]
    here = own[(own["field"] == field) & (own["frame"] == frame)]["area_px2"].mean()
    assert means["two_class", "frame", f"{field} / {frame}"] == pytest.approx(here, rel=1e-5)
    there = own[own["field"] == field]["area_px2"].mean()
    assert means["two_class", "replicate", field] == pytest.approx(there, rel=1e-5)


def test_the_page_is_small(html: str) -> None:
    assert len(html) < 6_000_000


# --- what is not there --------------------------------------------------------------------------------------------


def closed(seen: Seen, html: str) -> None:
    """Check that a page runs only our script, loads nothing and has no attribute that runs or styles."""
    assert len(seen.all("script")) == 1
    for tag, attributes in seen.tags:
        assert tag not in {"iframe", "object", "embed", "link", "base", "form", "audio", "video"}
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href", "srcset", "action"):
            assert attributes.get(name, "#").startswith(("data:image/png", "data:image/svg+xml", "data:text/csv", "#"))
    sheet, script = (re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)[0] for tag in ("style", "script"))
    assert "url(" not in sheet
    assert "@import" not in sheet
    policy = next(m["content"] for m in seen.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for kind, text in (("style-src", sheet), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[kind] == f"'sha256-{digest}'"


def test_the_page_loads_nothing_and_runs_only_our_script(seen: Seen, html: str) -> None:
    closed(seen, html)


def test_hostile_names_of_methods_are_text() -> None:
    html = render(page(stacks(*HOSTILE, frames=1)))
    seen = Seen(html)
    closed(seen, html)
    assert all(name in seen.text for name in HOSTILE)
    for uri in re.findall(r'src="(data:image/svg[^"]+)"', html):
        assert not re.search(r"<(script|img|foreignObject)", decoded(uri))
    tables = [decoded(uri) for uri in re.findall(r'href="(data:text/csv[^"]+)"', html)]
    cells = [cell for table in tables for row in pd.read_csv(io.StringIO(table), dtype=str).to_numpy() for cell in row]
    assert not [cell for cell in cells if isinstance(cell, str) and cell.startswith("=")], "a spreadsheet would run it"


def test_a_name_does_not_turn_the_numbers_behind_it_round() -> None:
    html = render(Page("a\u202eb", "", ("PQ: a\u202eb 0.898, c\u2067d 0.1",), (), ()))
    assert "PQ: a\\u202eb 0.898, c\\u2067d 0.1" in Seen(html).text
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", html)


def test_hostile_names_of_trials_and_data_sets_are_text(results: Results) -> None:
    record = results.record
    assert record is not None
    trials = record.trials.assign(architecture=HOSTILE[0], encoder=HOSTILE[1], reason=HOSTILE[2])
    summary = record.summary | {"dataset": record.summary["dataset"] | {"name": HOSTILE[1], "warnings": [HOSTILE[0]]}}
    summary |= {"provenance": {"version": HOSTILE[0], "libraries": {HOSTILE[1]: HOSTILE[2]}}}
    odd = replace(record, trials=trials, summary=summary)
    found = replace(results, record=odd)
    chapters = [table_1_chapter(odd), leaderboard_chapter(odd), history_chapter(odd), methods_chapter(found)]
    sections = tuple(chapter for chapter in chapters if chapter)
    told = provenance(found, {"version": HOSTILE[0]})
    html = render(Page(HOSTILE[1], HOSTILE[0], verdict(found), warnings(found), sections, provenance=told))
    closed(Seen(html), html)
    assert all(name in Seen(html).text for name in HOSTILE[:3])


def test_a_secret_of_the_configuration_never_reaches_the_page(html: str) -> None:
    assert SECRET not in html
    shown = Seen(html).text.lower()
    assert "could not reach https://(hidden)@host/x" in shown
    assert "the key was (hidden)" in shown


# --- other data ---------------------------------------------------------------------------------------------------


def test_label_stacks_without_a_run_have_their_pictures_and_no_search() -> None:
    found = page(stacks("a", "b"))
    anchors = [section.anchor for section in found.sections]
    assert {"scores", "examples", "overlays", "worst", "agreement", "conventions", "methods", "limits"} <= set(anchors)
    assert not {"leaderboard", "curves", "stopping", "search"} & set(anchors)
    assert Seen(render(found)).all("img")


@pytest.mark.parametrize(
    ("cells", "methods", "truth"),
    [(0, ("a",), True), (0, ("a", "b"), False), (1, ("a", "b"), True), (2, ("a",), True), (2, ("a", "b"), False)],
)
def test_few_cells_one_method_or_no_annotation_make_a_page(cells: int, methods: tuple[str, ...], truth: bool) -> None:
    html = render(page(stacks(*methods, frames=1, cells=cells, truth=truth)))
    closed(Seen(html), html)
    text = Seen(html).text
    assert "nan" not in re.findall(r"[\w.]+", text[: text.index('"use strict"')].lower())


def test_a_method_given_as_a_table_beside_label_images_is_compared_as_far_as_it_goes() -> None:
    found = stacks("a", "b")
    labels = {name: read for name, read in found.study.labels.items() if name != "b"}
    mixed = analyse(replace(found.study, labels=labels))
    drawn = example_chapter(mixed, looks(["a", "b"]))
    pixels = overlay_chapter(mixed)
    assert drawn is not None
    assert pixels is not None
    assert [p.caption for p in drawn.blocks[0].pictures] == ["a"]  # type: ignore[union-attr]
    assert len(pixels.blocks[0].pictures) == 1  # type: ignore[union-attr]
    assert "tables of b" in " ".join(passage(methods_chapter(mixed)).paragraphs)


# --- words --------------------------------------------------------------------------------------------------------


def passage(section: Section) -> Passage:
    """Return the passage of a section."""
    return next(block for block in section.blocks if isinstance(block, Passage))


def test_the_methods_text_has_the_numbers_and_a_reference_for_each_mark(results: Results) -> None:
    text = passage(methods_chapter(results))
    told = " ".join(text.paragraphs)
    scored = results.scored["three_class"]
    assert f"PQ {scored['pq_50']:.3f}" in told
    assert "they are not micrographs" in told
    assert "6 networks were planned: U-Net [1], FPN" in told
    assert "2 were stopped early by asynchronous successive halving" in told
    marks = {int(n) for group in re.findall(r"\[([\d, ]+)\]", told) for n in group.split(",")}
    assert marks == set(range(1, len(text.references) + 1))
    assert text.references[0].startswith("Ronneberger")
    assert all("doi:" in line or "arXiv:" in line or "github.com" in line or "Holm" in line for line in text.references)
    assert "too narrow for new samples" in told, "all frames come from one field"


def test_the_methods_text_claims_nothing_that_was_not_tested() -> None:
    text = " ".join(passage(methods_chapter(stacks("a", "b"))).paragraphs)
    assert "None could be tested" in text
    assert "No intervals are given" in text
    assert "networks" not in text
    assert "stopped early" not in text


def test_conditions_stand_apart_in_the_superplots_and_are_counted_once(rng: np.random.Generator) -> None:
    cells = pd.DataFrame({"patient": np.repeat([f"p{k}" for k in range(12)], 20)})
    cells["condition"] = np.where(cells["patient"].str[1:].astype(int) < 6, "control", "treated")
    cells["area_px2"] = 400 + 50 * (cells["condition"] == "treated") + rng.normal(0, 10, len(cells))
    cells = cells.assign(field=cells["patient"], frame=0, label=range(1, 241), method="star", radius_px=11.0)
    keys = tuple((f"p{k}", 0) for k in range(12))
    found = analyse(Study(tidy(cells), ("star",), has_truth=False, frames=keys, by="condition"), by="condition")
    assert {name: len(own) for name, own in groups(found).items()} == {"control: star": 120, "treated: star": 120}
    assert replicate(found) == "patient"
    section = difference_chapter(found)
    assert section is not None
    assert section.title == "Do the conditions differ?"
    assert "Of 1 comparison of independent traits that could be tested, 1 shows" in section.paragraphs[0]
    table = section.blocks[0]
    assert isinstance(table, Table)
    assert table.rows[0][:2] == ["area", "star: control - star: treated"]
    told = " ".join(passage(methods_chapter(found)).paragraphs)
    assert "means of replicates (patient) by Welch's t test" in told
    assert "1 comparison was tested at 0.05; 1 showed a difference" in told


def test_limits_are_those_of_the_data(results: Results) -> None:
    def told(found: Results) -> str:
        return " ".join(lead for lead, _ in limit_chapter(found).blocks[0].points)  # type: ignore[union-attr]

    assert "Synthetic images. Patients unknown. One field of view. One split. One seed." in told(results)
    assert "Few clusters." in told(stacks("a"))
    assert "The annotation counts as the truth." in told(stacks("a"))
    assert "No annotation." in told(stacks("a", "b", truth=False))
    study = results.study
    several = study.cells.assign(patient=study.cells["frame"].map(lambda t: f"p{t % 3}"))
    assert "Patients" not in told(replace(results, study=replace(study, cells=several)))
    one = study.cells.assign(patient="p1")
    assert "One patient." in told(replace(results, study=replace(study, cells=one)))


def test_the_answer_names_a_method_per_trait_and_how_sure_that_is(results: Results) -> None:
    table = answer(results)
    assert table is not None
    rows = {str(row[0]): row for row in table.rows}
    choices = results.choices.set_index("trait")
    for trait in ("area", "circularity"):
        row = rows[trait]
        assert row[1].text == choices.loc[trait, "use"]  # type: ignore[union-attr]
        sure = str(row[2])
        assert sure.startswith(
            "smaller than" if choices.loc[trait, "certain"] else ("not told apart", "point estimate")
        )
    assert answer(stacks("a")) is None, "a single method is no choice"


def test_parts_keep_the_order_of_sections() -> None:
    sections = (Section("a", "A", part="x"), Section("b", "B", part="x"), Section("c", "C", part="y"))
    assert [(name, len(own)) for name, own in Page("t", "s", (), (), sections).parts] == [("x", 2), ("y", 1)]
    assert "<tbody>" in render(Page("t", "s", (), (), (Section("a", "A", blocks=(Table("c", ("x",), []),)),)))


def test_a_movie_that_was_split_by_time_says_in_the_report_that_the_same_cells_are_in_several_parts(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    movie = synthetic.write(tmp_path / "movie", fields=1, frames=3, size=(96, 96), preset="easy", seed=1)
    convert.convert(movie, run / "dataset.zarr")
    (run / "run.json").write_text(json.dumps({"dataset": "dataset.zarr", "kind": "search", "synthetic": True}))
    stage.run(run, scheduler="sync")
    told = warnings(analyse(from_run(run)))
    assert any(splits.SHARED in line.lower() for line in told), told
