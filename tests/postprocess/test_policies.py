"""Edge, holes, pieces and sizes: counted in any case, changed only as the policy says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from data_io.errors import BadInput
from postprocess.morphology import measure
from postprocess.policies import AS_FOUND, Policy, apply
from postprocess.run import main, open_stage, plan, run


@pytest.fixture
def odd():
    """Return labels: 1 at the edge, 2 with a hole that holds cell 5, 3 in two pieces, 4 tiny, 6 large."""
    labels = np.zeros((60, 80), np.int32)
    labels[0:8, 10:20] = 1
    labels[12:30, 10:30] = 2
    labels[16:26, 14:26] = 0
    labels[19:22, 18:21] = 5
    labels[35:45, 10:20] = 3
    labels[50:52, 12:14] = 3
    labels[50, 40] = 4
    labels[10:40, 40:75] = 6
    return labels


def after(labels, **what):
    changed = labels.copy()
    told = apply(changed, measure(labels), Policy(**what))
    return changed, told


def test_everything_is_counted_and_nothing_changed_unless_asked(odd):
    same, told = after(odd)
    np.testing.assert_array_equal(same, odd)
    assert told == {
        "cells": 6, "border": 1, "with_holes": 1, "in_pieces": 1, "below_min_area": 0, "above_max_area": 0,
        "dropped": 0, "changed": 0,
    }  # fmt: skip


def test_each_policy_changes_what_it_names(odd):
    kept, told = after(odd, border="drop")
    assert (set(np.unique(kept)), told["dropped"]) == ({0, 2, 3, 4, 5, 6}, 1)
    filled, told = after(odd, holes="fill")
    assert told["changed"] == 1
    assert (filled[12:30, 10:30] > 0).all()
    np.testing.assert_array_equal(filled == 5, odd == 5)
    whole, told = after(odd, pieces="largest")
    assert (told["changed"], (whole == 3).sum()) == (1, 100)
    sized, told = after(odd, min_area=9, max_area=400)
    assert (set(np.unique(sized)), told["dropped"]) == ({0, 1, 2, 3, 5}, 2)
    assert (told["below_min_area"], told["above_max_area"]) == (1, 1)
    both, told = after(odd, pieces="largest", min_area=102)
    assert 3 not in both, "of 104 pixels 100 are left, then it is too small"
    everything, told = after(odd, border="drop", holes="fill", pieces="largest", min_area=9, max_area=400)
    assert set(np.unique(everything)) == {0, 2, 3, 5}
    assert (told["dropped"], told["changed"]) == (3, 2)


def test_a_policy_that_makes_no_sense_is_refused():
    for what in ({"border": "burn"}, {"min_area": -1}, {"min_area": 5, "max_area": 4}, {"max_area": 0}):
        with pytest.raises(BadInput):
            Policy(**what)


def test_a_run_keeps_its_policy_counts_it_and_leaves_the_annotation_alone(make_run):
    run_dir = make_run()
    before = run(run_dir, "sync")
    whole = pd.read_parquet(before.cells)
    counts = pd.read_csv(run_dir / "cells" / "counts.csv")
    per_frame = whole.groupby(["method", "frame"], as_index=False)["border"].agg(["size", "sum"])
    merged = counts.merge(per_frame, on=["method", "frame"])
    assert (merged["cells"] == merged["size"]).all()
    assert (merged["border"] == merged["sum"]).all()
    assert whole["border"].any()

    assert main([str(run_dir), "--border", "drop", "--scheduler", "sync"]) == 0
    table = pd.read_parquet(before.cells)
    assert not table.loc[table["method"] != "truth", "border"].any()
    one, other = (each[each["method"] == "truth"].reset_index(drop=True) for each in (whole, table))
    pd.testing.assert_frame_equal(one, other)
    counts = pd.read_csv(run_dir / "cells" / "counts.csv")
    assert (
        counts.loc[counts["method"] != "truth", "dropped"] == counts.loc[counts["method"] != "truth", "border"]
    ).all()
    assert run(run_dir, "sync").computed == 0, "the policy is kept"
    assert run(run_dir, "sync", policy=AS_FOUND).computed > 0
    pd.testing.assert_frame_equal(pd.read_parquet(before.cells), whole)
    stage = open_stage(run_dir)
    (run_dir / "policy.json").write_text('{"border": "burn"}')
    with pytest.raises(BadInput, match="burn"):
        run(run_dir, "sync")
    assert plan(stage)
