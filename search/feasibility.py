"""Which cells of the grid can run, found by building each network on the meta device and pushing a crop through it.

No memory is claimed and no weight is made: the libraries' own constructors and shape rules decide. The study's grid
at 224 px: 34 cells run, the two PAN cells on VGG19 and InceptionResNetV2 need output stride 32 and 256-px crops, 4
DeepLab cells cannot.
"""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from data_io import files
from data_io.errors import BadInput
from search import models

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Feasibility:
    """Whether a cell runs; with which crop (px) and dilated output stride, and why not or what had to change."""

    ok: bool
    crop: int
    output_stride: int | None = None
    reason: str = ""


def examine(
    architecture: str, encoder: str, crop: int, in_channels: int = 1, *, depth: int = 5, width: float = 1.0
) -> Feasibility:
    """Feasibility of one architecture on one encoder at `crop` pixels, without memory and without a GPU.

    Raises BadInput when no library knows the encoder.
    """
    if architecture == "stardist_unet":
        return Feasibility(ok=True, crop=crop)
    attempts: list[tuple[int | None, int]] = [(None, crop)]
    if architecture == "pan":
        attempts = [(16, crop), (32, crop), (32, max(crop, models.smallest_side("pan", 32)))]
    reason = ""
    for output_stride, size in attempts:
        fault = _fault(architecture, encoder, size, in_channels, depth, width, output_stride)
        if fault is None:
            changed = (["output stride 32"] if output_stride == 32 else []) + (
                [f"{size}-px crops"] if size != crop else []
            )
            return Feasibility(True, size, output_stride, f"{', '.join(changed)}: {reason}" if changed else "")
        reason = reason or fault
    return Feasibility(ok=False, crop=crop, reason=reason)


def _fault(
    architecture: str, encoder: str, crop: int, in_channels: int, depth: int, width: float, output_stride: int | None
) -> str | None:
    """Return why this network cannot train on such crops in the library's words, None where it can."""
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network = models.build(
                architecture, encoder, "two_class", in_channels, depth=depth, width=width, output_stride=output_stride
            )
            scores = network.train()(torch.empty(2, in_channels, crop, crop))
    except (BadInput, KeyError) as error:
        raise BadInput(unknown_encoder(encoder)) from error
    except (ValueError, RuntimeError, NotImplementedError) as error:
        if "nknown model" in str(error) or ("is not supported" in str(error) and encoder in str(error)):
            raise BadInput(unknown_encoder(encoder)) from error
        return str(error).strip().splitlines()[0]
    side = int(scores.shape[-1])
    return None if side == crop else f"gives {side}-px scores for {crop}-px crops"


def unknown_encoder(encoder: str) -> str:
    """Return the message for an encoder no library knows, with the nearest names."""
    import difflib

    near = difflib.get_close_matches(encoder, models.known_encoders(), n=3)
    hint = (
        f"did you mean {' or '.join(near)}?"
        if near
        else "use a segmentation-models-pytorch name or tu- and a timm name"
    )
    return f"encoder {encoder!r}: unknown; {hint}"


class Cache:
    """Examined cells kept between runs, by library versions: the study's grid takes minutes the first time."""

    def __init__(self, path: Path | None = None) -> None:
        home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        self.path = path or home / "cellsearch" / "feasibility.json"
        self._cells: dict[str, dict[str, object]] = {}
        if self.path.exists():
            try:
                known = json.loads(self.path.read_text())
            except ValueError:
                known = {}
            self._cells = known if isinstance(known, dict) else {}

    def examine(
        self, cells: Iterable[tuple[str, str]], crop: int, in_channels: int, *, depth: int, width: float
    ) -> dict[tuple[str, str], Feasibility]:
        """`examine` for many (architecture, encoder) cells; what is known is not examined again."""
        libraries = f"torch {version('torch')} smp {version('segmentation-models-pytorch')} timm {version('timm')}"
        found, new = {}, False
        for architecture, encoder in cells:
            key = f"{libraries} {architecture} {encoder} {crop} {in_channels} {depth} {width}"
            if key not in self._cells:
                self._cells[key] = asdict(examine(architecture, encoder, crop, in_channels, depth=depth, width=width))
                new = True
            found[architecture, encoder] = Feasibility(**self._cells[key])  # type: ignore[arg-type]
        if new:
            self._save()
        return found

    def _save(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            files.write_json(self.path, self._cells)
        except OSError:
            return  # a cache that cannot be written only costs time
