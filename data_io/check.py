"""Check a folder or a store: whether it can be used, what it is like, and what is recommended for it.

    python -m data_io.check ../shared/data/yeast_phase_movie

A folder is looked at as `convert` would, without writing a store; of a store every byte is compared with its manifest
first. The findings are printed, and written beside it as NAME.check.json and NAME.check.html. Exit code 0: usable;
2: not, with what is wrong.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_io import check_page, facts, fingerprint, progress
from data_io.command_line import Parser
from data_io.convert import add_options, settings_of
from data_io.errors import DONE, REFUSED, BadInput, entry_point, printable, tell
from data_io.files import write_json, write_text
from data_io.intake import measure_field, take_in
from data_io.integrity import Damaged, load, preflight
from data_io.job_folder import refuse_lost
from data_io.location import is_remote, located, reaching, sizes
from data_io.provenance import provenance
from data_io.recommendation import recommend
from data_io.shots import Album
from data_io.store import Dataset, is_store, store_around

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from data_io.intake import Settings
    from data_io.shots import Shot
    from data_io.store import Field
    from data_io.survey import Frame

    Progress = Callable[[str, int, int, str], None]

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Checked:
    """What was found; `facts` has `warnings`, `recommended` and `fingerprint`, as a store has them."""

    path: str
    name: str
    kind: str
    """How it was read, in words."""
    synthetic: bool = False
    fields: tuple[Field, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    shots: dict[str, list[Shot]] = field(default_factory=dict)
    """Pictures of the frames of some fields."""
    fault: str = ""
    """Why it cannot be used; then nothing else is known."""

    def as_json(self) -> dict[str, Any]:
        """Return the findings without pictures, ready for JSON."""
        head = {"usable": not self.fault, "path": self.path, "name": self.name, "kind": self.kind}
        if self.fault:
            return head | {"faults": self.fault.splitlines(), "provenance": provenance()}
        fields = {
            f.name: {"pixel_size_um": f.pixel_size_um, "groups": f.groups, "files": f.sources} for f in self.fields
        }
        told = {name: self.facts[name] for name in ("warnings", "recommended", "fingerprint")}
        return head | {"synthetic": self.synthetic, **told, "fields": fields, "provenance": provenance()}


def check(place: Path | str, settings: Settings, show: Progress = progress.show) -> Checked:
    """Return what is found at `place`, a store or anything `convert` reads.

    Parameters
    ----------
    place
        Folder, file or store; a store may be at s3://bucket/name.
    settings
        What is said about a folder, as for `convert`; nothing else than a store knows is asked of it.
    show
        Called as (doing, done, total, of what).

    Raises
    ------
    BadInput
        It cannot be used.
    """
    source = located(place)
    if is_remote(source) or is_store(source):
        return _store(source, show)
    return _folder(source, settings, show)


def _whole(source: Path, show: Progress) -> Dataset:
    """Open a store after its preflight: all that is wrong with it is named, not what shows first."""

    def progress_of(done: int, total: int) -> None:
        show("comparing", done, total, "files")

    try:
        dataset = Dataset.open(source)
    except Damaged:
        with reaching(source):
            preflight(source, load(source, sizes(source)), progress_of)
        raise
    dataset.preflight(progress_of)
    return dataset


def _store(source: Path, show: Progress) -> Checked:
    dataset = _whole(source, show)
    fields = tuple(dataset.fields.values())
    known = dataset.facts if dataset.fingerprint else dataset.facts | _measured(dataset, show)
    album = Album(fields)
    for name, frames in album.wanted.items():
        refs = dataset.fields[name].refs()
        for ref in (refs[frame] for frame in frames):
            annotated = dataset.fields[name].annotated[ref.frame]
            album.take(name, ref.frame, dataset.image(ref), dataset.labels(ref) if annotated else None)
    kind = f"data set in OME-Zarr {dataset.ome_zarr}, every byte as written"
    checked = Checked(str(source), dataset.name, kind, dataset.synthetic, fields, known, album.shots)
    try:
        check_page.render(checked, key_numbers(checked))
    except Exception as fault:  # a page stumbles over anything that is not as it was written
        told = "its fingerprint is not as this version writes it"
        raise BadInput(f"{source}: {told} ({fault!r}); convert the source again into a new store") from fault
    return checked


def _measured(dataset: Dataset, show: Progress) -> dict[str, Any]:
    """Measure the frames of a store that has no fingerprint."""
    measures: dict[str, list[fingerprint.FrameMeasures]] = {name: [] for name in dataset.fields}
    refs = dataset.frames()
    for done, ref in enumerate(refs, start=1):
        labels = dataset.labels(ref) if dataset.fields[ref.field].annotated[ref.frame] else None
        measures[ref.field].append(fingerprint.measure(dataset.image(ref), labels))
        show("measuring", done, len(refs), "frames")
    fields = list(dataset.fields.values())
    found = fingerprint.summarise(fields, measures, dataset.splits)
    warnings = [*dataset.warnings, *fingerprint.warnings(found)]
    advice = recommend(fields, measures, dataset.splits)
    return {"fingerprint": found, "recommended": advice, "warnings": warnings}


def _folder(source: Path, settings: Settings, show: Progress) -> Checked:
    """Do what `convert` would, and keep pictures instead of frames."""
    intake = take_in(source, settings)
    album, done = Album(intake.fields), 0
    measured = []
    for survey, described in zip(intake.surveys, intake.fields, strict=True):

        def keep(at: int, frame: Frame, name: str = described.name) -> None:
            nonlocal done
            done += 1
            album.take(name, at, frame.image, frame.labels)
            show("reading", done, intake.n_frames, "frames")

        measured.append(measure_field(survey, described, keep))
    source = source.resolve()
    return Checked(
        path=str(source),
        name=source.stem if source.is_file() else source.name,
        kind=f"not converted yet, read as {intake.found.reader}",
        synthetic=bool(intake.found.facts.get("synthetic")),
        fields=tuple(one.field for one in measured),
        facts=facts.of_set(intake, measured),
        shots=album.shots,
    )


# --- in words -----------------------------------------------------------------------------------------------------


def summary(checked: Checked) -> str:
    """Return the findings in lines: what it is, its numbers, warnings, recommendation, and whether it is usable."""
    lines = [f"{checked.path}: {checked.kind}"]
    if checked.synthetic:
        lines.append("SYNTHETIC DATA: made by a computer, not by a microscope")
    if checked.fault:
        return "\n".join([*lines, "usable: no"])
    numbers = key_numbers(checked)
    width = max(map(len, numbers))
    lines += [f"  {name:<{width}}  {value}" for name, value in numbers.items()]
    lines += [f"warning: {text}" for text in checked.facts["warnings"]]
    advice = checked.facts["recommended"]
    crop = f"crop {advice['crop']} px, batch {advice['batch']}, sides padded to multiples of {advice['pad_to']} px"
    split = "no split" if advice["split"] == "none" else f"split by {advice['split']}"
    lines.append(f"recommended: {crop}, {split}")
    return "\n".join([*lines, "usable: yes"])


def key_numbers(checked: Checked) -> dict[str, str]:
    """Return the numbers a user looks for first, by name, in words with their unit."""
    found = checked.facts["fingerprint"]
    sizes = ", ".join(f"{n} of {size} px" for size, n in found["sizes"].items())
    several = f", {found['channels']} channels" if found["channels"] > 1 else ""
    numbers = {
        "fields": str(found["fields"]),
        "frames": f"{sizes}{several}; {found['annotated_frames']} annotated",
        "pixel size": _told({f.pixel_size_um for f in checked.fields}, "µm"),
        "frame interval": _told({f.frame_interval_s for f in checked.fields}, "s"),
        "grey values": "; ".join(_depth(dtype, one) for dtype, one in found["bit_depth"].items()),
        "saturated": f"{_percent(found['saturated']['mean'])} of the pixels, "
        f"at most {_percent(found['saturated']['max'])} of a frame",
        "intensity drift": _drift(found["by_field"]),
        "focus": _focus(found["by_field"]),
    }
    if found["cells"]:
        numbers |= _cells(found)
    numbers["duplicates"] = (
        f"exact: {len(found['duplicates'])} frames; near: {len(found['near_duplicates'])} pairs of fields"
    )
    if found["split"]["unit"] != "none":
        parts = ", ".join(f"{part} {one['frames']}" for part, one in found["parts"].items())
        numbers["split"] = f"by {found['split']['unit']}: {parts} frames"
        leaks = [one["kind"] for one in found["leakage"]]
        kinds = [f"{leaks.count(kind)} {kind}" for kind in dict.fromkeys(leaks)]
        numbers["leakage suspected"] = f"frames in two parts: {', '.join(kinds)}" if kinds else "none found"
    return numbers


def _cells(found: dict[str, Any]) -> dict[str, str]:
    per, radius, um = found["cells_per_frame"], found["radius_px"], found["radius_um"]
    in_um = f"; {um['median']:.3g} µm" if um else ""
    empty = f"; {len(found['empty'])} frames annotated as empty" if found["empty"] else ""
    return {
        "cells": f"{found['cells']}; per frame {per['median']:g} ({per['min']} to {per['max']}){empty}",
        "equivalent radius": f"{radius['median']:.3g} px (5 to 95 %: {radius['p5']:.3g} to {radius['p95']:.3g}){in_um}",
        "touching another": f"{_percent(found['touching_share'])} of the cells",
        "on the border": f"{_percent(found['border_share'])} of the cells",
        "labels in pieces": str(found["pieces"]["labels"]),
    }


def _depth(dtype: str, one: dict[str, Any]) -> str:
    if one["bits"] is None:
        return f"{dtype}, fractions from {one['low']:g} to {one['high']:g}"
    step = f" in steps of {one['step']}" if one["step"] > 1 else ""
    return f"{dtype}, {one['bits']} bits used: {one['low']:g} to {one['high']:g}{step}"


def _drift(fields: dict[str, Any]) -> str:
    every = [one for f in fields.values() if len(f["cells"]) > 1 for one in f["drift"]]
    slopes = [one["slope_percent"] for one in every if one["slope_percent"] is not None]
    if not slopes:
        return "no movie to see it in" if not every else UNKNOWN
    most = max(one["max_deviation_percent"] for one in every if one["max_deviation_percent"] is not None)
    return f"{max(slopes, key=abs):+.2g} % over the movie, at most {most:.2g} % off its median"


def _focus(fields: dict[str, Any]) -> str:
    values = [value for f in fields.values() for channel in f["focus"] for value in channel]
    odd = sum(len({one["frame"] for one in f["focus_outliers"]}) for f in fields.values())
    return f"{min(values):.3g} to {max(values):.3g}; {odd} frames stand out"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _told(values: set[float | None], unit: str) -> str:
    known = sorted(value for value in values if value is not None)
    if not known:
        return UNKNOWN
    span = f"{known[0]:g} {unit}" if len(known) == 1 else f"{known[0]:g} to {known[-1]:g} {unit}"
    return span + f", {UNKNOWN} in some fields" * (None in values)


# --- the command --------------------------------------------------------------------------------------------------


def write(checked: Checked, out: Path) -> list[Path]:
    """Write NAME.check.json and NAME.check.html into a folder and return their paths; say so where that is refused."""
    stem = Path(checked.path.rstrip("/")).name
    files = [out / f"{stem}.check.{suffix}" for suffix in ("json", "html")]
    inside = store_around(out)
    if inside is not None:
        print(f"warning: {out}: lies in the data set {inside}, nothing is written there; use --out", file=sys.stderr)
        return []
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(files[0], checked.as_json())
        write_text(files[1], check_page.render(checked, {} if checked.fault else key_numbers(checked)))
    except OSError as fault:
        print(f"warning: {out}: cannot write there ({fault.strerror}); use --out FOLDER", file=sys.stderr)
        return []
    return files


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    text = "Check a folder of microscope images or a converted data set; exit code 0: usable, 2: not."
    example = "example: python -m data_io.check ../shared/data/yeast_phase_movie --out reports"
    parser = Parser("python -m data_io.check", description=text, epilog=example)
    parser.add_argument("place", metavar="STORE_OR_FOLDER", help="what convert reads, or what it wrote (also s3://)")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where NAME.check.json and .html go (default: beside)"
    )
    parser.add_argument("--no-files", action="store_true", help="only print")
    add_options(parser)
    given = parser.parse_args(argv)
    settings, source = settings_of(given), located(given.place)
    folder = given.out or (Path() if is_remote(source) else source.resolve().parent)
    if not given.no_files:
        refuse_lost(folder, "--out")
    refusal = None
    try:
        checked = check(source, settings)
    except BadInput as fault:
        refusal = fault
        checked = Checked(str(source), source.name, "refused", fault=str(fault))
    print("\n".join(map(printable, summary(checked).split("\n"))))
    if not given.no_files and (is_remote(source) or source.exists()):
        for file in write(checked, folder):
            print(f"wrote {file}")
    if refusal is None:
        return DONE
    tell(refusal)
    return REFUSED


if __name__ == "__main__":
    entry_point(main)
