"""The colours cells are shown in."""

from __future__ import annotations

from typing import Any

COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
"""Okabe and Ito 2008: told apart by the colour-blind too."""
MOST = 20_000
"""Of more labels none gets a colour, and the viewer chooses: a viewer hides labels that are left out of a list."""


def of_labels(highest: int) -> list[dict[str, Any]]:
    """Return the ``colors`` of an OME-Zarr label image with labels 1 to the highest; none where there are too many."""
    labels = range(1, highest + 1) if highest <= MOST else ()
    return [{"label-value": label, "rgba": [*COLOURS[label % len(COLOURS)], 255]} for label in labels]
