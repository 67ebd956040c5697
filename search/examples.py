"""Example pictures of the chosen models: a validation frame with the true outlines and the predicted ones."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from analysis import pixels
from data_io import files
from postprocess.export import read_labels

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from data_io.store import Dataset

SIZE = 256
"""Edge of a picture's window in pixels of the frame."""
ZOOM = 2
TRUE, PREDICTED = "#E69F00", "#0072B2"
"""Outlines: orange the annotation, blue the model."""
WITHHELD = "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACH5BAEAAAAALAAAAAABAAEAAAICRAEAOw=="
"""One white pixel in place of a picture of the data."""


def draw(run_dir: Path, dataset: Dataset, targets: Iterable[str], folder: Path) -> list[tuple[str, Path]]:
    """Draw one picture per target into `folder`; returns captions and PNG files.

    The window is the busiest of the first validation frame that has cells; none is drawn where no frame has.
    """
    folder.mkdir(parents=True, exist_ok=True)
    annotated = [ref for ref in dataset.frames("val") if dataset.labels(ref).any()]
    drawn = []
    for target in targets if annotated else ():
        ref = annotated[0]
        truth, found = dataset.labels(ref), read_labels(run_dir, target, ref)
        window = pixels.busiest(truth, SIZE)
        caption = f"{target}: field {ref.field}, frame {ref.frame}; orange annotated, blue predicted"
        lines = [(truth[window], TRUE), (found[window], PREDICTED)]
        picture = pixels.outlines(dataset.image(ref)[0][window], lines, caption, ZOOM)
        file = folder / f"{target}.png"
        files.write_bytes(file, base64.b64decode(picture.src.split(",", 1)[1]))
        drawn.append((caption, file))
    return drawn


def without_pictures(report: str) -> str:
    """Return a report's HTML with every picture of the data replaced; diagrams (SVG) and words stay.

    >>> without_pictures('<img src="data:image/png;base64,iVBO" alt="cells">') == f'<img src="{WITHHELD}" alt="cells">'
    True
    """
    return re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]*", WITHHELD, report)
