"""Figures are drawn from whatever a run holds, down to two cells."""

from __future__ import annotations

import base64
import io
from xml.parsers import expat

import numpy as np
import pandas as pd
import pytest

from analysis.figures import NOBODY, Curve, csv, front, learning, looks, shared_frame, superplot


@pytest.mark.parametrize("areas", [[10.0, 20.0], [10.0, 10.0], [10.0, 20.0, 30.0]])
def test_a_superplot_of_very_few_cells(areas: list[float]) -> None:
    cells = pd.DataFrame({"field": "a", "frame": range(len(areas)), "area_px2": areas})
    picture = superplot({"star": cells}, "area", "area_px2", "px²", looks(["star"]))
    assert "area" in picture.alt


def test_long_learning_curves_are_thinned_and_keep_their_ends() -> None:
    epoch = np.arange(1, 1001)
    table = pd.DataFrame({"epoch": epoch, "val_loss": 1 / epoch})
    made = [Curve(f"t{k}", f"model {k}", "star", table, k == 0, k == 1, k == 2) for k in range(60)]
    picture = learning(made, "star", "val_loss", "validation loss", NOBODY)
    assert picture is not None
    data = pd.read_csv(io.StringIO(picture.data))
    assert list(data.columns) == ["epoch", *(f"t{k}" for k in range(60))]
    assert len(data) <= 200
    assert {1, 1000} <= set(data["epoch"])
    assert len(picture.src) < 200_000, "60 curves of 1000 epochs"
    assert learning(made, "star", "val_dataset_iou", "IoU", NOBODY) is None
    assert learning(made, "two_class", "val_loss", "loss", NOBODY) is None


def test_a_broken_epoch_leaves_the_curve_whole() -> None:
    table = pd.DataFrame({"epoch": [1, 2, 2, 3], "train_loss": [1.0, np.nan, 0.5, 0.2]})
    picture = learning([Curve("a", "a", "star", table, True, False, False)], "star", "train_loss", "loss", NOBODY)
    assert picture is not None
    assert picture.data.splitlines() == ["epoch,a", "1,1", "2,0.5", "3,0.2"]


@pytest.mark.parametrize("name", ["a$b$", "\\frac{", "细胞", "x" * 300, "a\x07b", "<&>\"'"])
def test_any_name_can_be_drawn(name: str) -> None:
    picture = front({name: (0.5, 0.5), "b": (0.6, 0.4)}, "area", ["b"], looks([name, "b"]))
    drawn = base64.b64decode(picture.src.partition("base64,")[2]).decode()
    parser = expat.ParserCreate()
    parser.Parse(drawn, True)
    assert name in picture.alt


def test_plots_that_are_compared_share_their_axes() -> None:
    frame = shared_frame(
        [(np.array([1.0, 2.0]), np.array([0.0, 0.0])), (np.array([5.0, np.nan]), np.array([-1.0, 1.0]))]
    )
    assert frame is not None
    assert frame.x == pytest.approx((0.8, 5.2))
    assert frame.y == pytest.approx((-1.1, 1.1))
    assert shared_frame([]) is None
    assert shared_frame([(np.array([np.nan]), np.array([np.nan]))]) is None


def test_data_behind_a_figure_hold_no_formula() -> None:
    assert csv(pd.DataFrame({"name": ["=cmd()", "b"], "x": [-1.0, 0.123456789]})) == "name,x\n'=cmd(),-1\nb,0.123457\n"
    assert csv(None) == ""
