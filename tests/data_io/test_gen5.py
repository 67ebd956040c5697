"""What the names of a Gen5 export mean, as far as they leave a choice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from data_io.errors import BadInput
from data_io.readers import Options, find

if TYPE_CHECKING:
    from pathlib import Path


def _write(folder: Path, discs, grey, names: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for at, name in enumerate(names):
        tifffile.imwrite(folder / f"{name}.tif", grey(discs(at), at))
    return folder


def test_steps_that_run_by_channel_are_channels_of_one_field(tmp_path, discs, grey):
    names = [f"B1_04_{step}_1_{c}_{t:03d}" for t in (1, 2, 3) for step, c in ((1, "Bright Field"), (2, "GFP 469,525"))]
    (field,) = find(_write(tmp_path / "x", discs, grey, names)).fields
    assert (len(field.files), field.channels) == (3, ("Bright Field", "GFP 469,525"))
    assert field.groups["well"] == "B1"


def test_masks_are_those_of_the_channel_that_is_kept(tmp_path, discs, grey):
    names = [f"B1_04_1_1_{c}_{t:03d}" for t in (1, 2) for c in ("Bright Field", "GFP")]
    source = _write(tmp_path / "x", discs, grey, names)
    (source / "masks").mkdir()
    for name in names:
        cells = np.where(discs(0) <= (3 if "GFP" in name else 6), discs(0), 0)
        tifffile.imwrite(source / "masks" / f"{name}.tif", cells)
    (field,) = find(source, Options(channels=("GFP",))).fields
    assert all(file.drawing is not None and "GFP" in file.drawing.path.name for file in field.files)
    found = find(source)
    assert any("Bright Field" in warning or "GFP" in warning for warning in found.warnings)


def test_a_time_point_that_is_missing_is_named(tmp_path, discs, grey):
    names = [f"B1_04_1_1_Bright Field_{t:03d}" for t in (1, 2, 4)]
    found = find(_write(tmp_path / "x", discs, grey, names))
    assert len(found.fields[0].files) == 3
    assert any("3" in warning and "B1" in warning for warning in found.warnings)


@pytest.mark.parametrize("folders", ["exp", "exp/plate 1/2024-01-02"])
def test_exports_deep_down_and_channels_named_like_masks_are_known(folders, tmp_path, discs, grey):
    names = [f"{well}_-1_1_1_Label Free_{t:03d}" for well in ("B1", "B2") for t in (1, 2)]
    _write(tmp_path / "x" / folders, discs, grey, names)
    found = find(tmp_path / "x")
    assert found.reader == "gen5"
    assert len(found.fields) == 2
    assert {field.groups["well"] for field in found.fields} == {"B1", "B2"}


def test_fields_with_other_channels_are_refused(tmp_path, discs, grey):
    names = [f"B1_04_1_1_Bright Field_{t:03d}" for t in (1, 2)] + [f"B2_04_1_1_GFP_{t:03d}" for t in (1, 2)]
    with pytest.raises(BadInput, match="channel"):
        find(_write(tmp_path / "x", discs, grey, names))
