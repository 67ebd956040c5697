"""Pixel size and frame interval as a TIFF tells them: only what ImageJ or OME wrote with a unit, never a guess.

The bare resolution tags are not read: programs fill them with the dots per inch of a screen or printer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import tifffile

MICROMETRES = {
    "µm": 1.0, "\u03bcm": 1.0, "\\u00b5m": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0,
    "nm": 1e-3, "nanometer": 1e-3, "mm": 1e3, "millimeter": 1e3,
}  # fmt: skip
SECONDS = {"ms": 1e-3, "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "min": 60.0, "minute": 60.0, "h": 3600.0}


def is_possible(value: float) -> bool:
    """Say whether a number may be micrometres of a pixel or seconds between frames: 1e-9 to 1e9, so not NaN."""
    return 1e-9 <= value <= 1e9


def of_tiff(path: Path) -> tuple[float | None, float | None]:
    """Return micrometres per pixel and seconds per frame; None where the file does not say it without doubt."""
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        if tiff.is_ome and tiff.ome_metadata:
            return _ome(tiff.ome_metadata)
        return _imagej(tiff) if tiff.is_imagej and tiff.imagej_metadata else (None, None)


def _imagej(tiff: tifffile.TiffFile) -> tuple[float | None, float | None]:
    found, tags = tiff.imagej_metadata or {}, tiff.pages.first.tags
    sides = []
    for axis, unit in (("X", "unit"), ("Y", "yunit")):
        over, under = tags[f"{axis}Resolution"].value if f"{axis}Resolution" in tags else (0, 1)
        sides.append(_in(MICROMETRES, under / over if over else None, found.get(unit, found.get("unit"))))
    return _same(sides), _in(SECONDS, found.get("finterval"), found.get("tunit", "s"))


def _ome(text: str) -> tuple[float | None, float | None]:
    import tifffile

    images = tifffile.xml2dict(text).get("OME", {}).get("Image", [])
    planes = [image.get("Pixels", {}) for image in (images if isinstance(images, list) else [images])]
    sizes = [
        _in(MICROMETRES, plane.get(f"PhysicalSize{axis}"), plane.get(f"PhysicalSize{axis}Unit", "µm"))
        for plane in planes
        for axis in "XY"
    ]
    times = [_in(SECONDS, plane.get("TimeIncrement"), plane.get("TimeIncrementUnit", "s")) for plane in planes]
    return _same(sizes), _same(times)


def _in(units: dict[str, float], value: Any, unit: Any) -> float | None:
    """Return a value in the base unit, None for what is no number or cannot be."""
    factor = units.get(str(unit).strip().lower())
    if factor is None or not isinstance(value, int | float) or not is_possible(value * factor):
        return None
    return float(f"{value * factor:.6g}")


def _same(values: list[float | None]) -> float | None:
    """Return the value they agree on to a part in a thousand."""
    known = [value for value in values if value is not None]
    return known[0] if known and len(known) == len(values) and max(known) <= 1.001 * min(known) else None
