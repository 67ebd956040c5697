"""Independent conditions: replicates decide, the highest known; cells never do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind, ttest_rel

from analysis.compare import analyse, main
from analysis.comparisons import PAIRED_REPLICATES, PERMUTED, REPLICATES
from analysis.conditions import compare_conditions, replicate_level
from analysis.loose_files import from_paths
from analysis.verdict import verdict
from data_io.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path


def made(rng: np.random.Generator, condition: str, patients: int, shift: float = 0.0, **keys: Any) -> pd.DataFrame:
    """Return cells of some patients, two wells each, two fields a well, twelve cells a field."""
    rows = []
    for p in range(patients):
        own = rng.normal(0, 10)
        for w in range(2):
            for f in range(2):
                area = 400 + shift + own + rng.normal(0, 3) + rng.normal(0, 5, 12)
                where = {"patient": f"{condition}{p}", "well": f"{condition}{p}{w}", "field": f"{condition}{p}{w}{f}"}
                rows += [where | {"frame": 0, "label": i + 1, "condition": condition, "area_px2": a} | keys
                         for i, a in enumerate(area)]  # fmt: skip
    return pd.DataFrame(rows)


def compared(tmp_path: Path, table: pd.DataFrame, by: str = "condition") -> pd.DataFrame:
    """Compare the conditions of one table."""
    table.to_csv(tmp_path / "cells.csv", index=False)
    return compare_conditions(from_paths({"m": tmp_path / "cells.csv"}, by=by), by)


def area_of(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of one trait by test."""
    return table[table["trait"] == "area"].set_index("test")


def test_patients_count_and_not_their_fields(tmp_path: Path, rng: np.random.Generator) -> None:
    cells = pd.concat([made(rng, "drug", 5, 40), made(rng, "control", 4)])
    table = area_of(compared(tmp_path, cells))
    means = [rows.groupby("patient")["area_px2"].mean() for _, rows in cells.groupby("condition")]
    row, expected = table.loc[REPLICATES], ttest_ind(*means, equal_var=False)
    assert (row["a"], row["b"]) == ("m: control", "m: drug")
    assert (row["clustered_by"], row["n_clusters"], row["n_cells"]) == ("patient", "4 + 5", len(cells))
    assert (row["statistic"], row["df"], row["p"]) == pytest.approx((expected.statistic, expected.df, expected.pvalue))
    low, high = expected.confidence_interval()
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((low, high))
    by = f"{abs(row['relative_percent']):.2g} %"
    assert row["verdict"] == f"area is smaller in m: control than in m: drug, by {by} on average over replicates"
    permuted = table.loc[PERMUTED]
    assert permuted["p"] == pytest.approx(2 / 126, abs=0.02)
    assert np.isnan(permuted["ci_low"])


@pytest.mark.parametrize(("level", "dropped"), [("well", ["patient"]), ("field", ["patient", "well"])])
def test_the_next_level_counts_where_the_higher_is_unknown(
    tmp_path: Path, rng: np.random.Generator, level: str, dropped: list[str]
) -> None:
    cells = pd.concat([made(rng, "drug", 3), made(rng, "control", 3)]).drop(columns=dropped)
    assert set(compared(tmp_path, cells)["clustered_by"]) == {level}


def test_patients_on_both_sides_are_compared_with_themselves(tmp_path: Path, rng: np.random.Generator) -> None:
    before = made(rng, "p", 6).assign(condition="before")
    after = before.assign(condition="after", field="x" + before["field"])
    after["area_px2"] += 4 + rng.normal(0, 5, len(after))
    cells = pd.concat([before, after])
    table = area_of(compared(tmp_path, cells))
    means = [rows.groupby("patient")["area_px2"].mean() for _, rows in cells.groupby("condition")]
    row, expected = table.loc[PAIRED_REPLICATES], ttest_rel(*means)
    assert (row["p"], row["statistic"], row["df"]) == pytest.approx((expected.pvalue, expected.statistic, 5))
    assert row["n_clusters"] == "6"
    assert table.loc[PERMUTED, "p"] == pytest.approx(2 / 64)
    assert "larger in m: after" in row["verdict"]


def test_conditions_in_separate_files(tmp_path: Path, rng: np.random.Generator) -> None:
    for name, shift in (("small", 0), ("large", 60)):
        cells = made(rng, name, 4, shift).drop(columns=["condition", "patient", "label", "frame"])
        cells.assign(well=cells["well"].str.removeprefix(name)).to_csv(tmp_path / f"{name}.csv", index=False)
    arguments = [f"{name}={tmp_path / name}.csv" for name in ("small", "large")]
    assert main([*arguments, "--by", "condition", "--out", str(tmp_path / "out")]) == 0
    table = pd.read_csv(tmp_path / "out" / "comparisons.csv")
    assert set(table["test"]) == {REPLICATES, PERMUTED}
    row = table[table["test"] == REPLICATES].iloc[0]
    assert (row["a"], row["b"], row["clustered_by"], row["n_clusters"]) == ("small", "large", "well", "8 + 8")
    assert row["estimate"] < -30
    assert "smaller in small than in large" in row["verdict"]


def test_one_patient_speaks_for_no_other(tmp_path: Path, rng: np.random.Generator) -> None:
    table = compared(tmp_path, pd.concat([made(rng, "drug", 1), made(rng, "control", 1)]))
    assert table["p"].isna().all()
    assert table[["ci_low", "ci_high", "p_holm"]].isna().all(axis=None)
    assert table["reason"].str.contains("one patient cannot speak for others, so there is no population p-value").all()
    assert table["verdict"].str.startswith("cannot rank").all()
    same = made(rng, "p", 1)
    both = pd.concat([same.assign(condition="a"), same.assign(condition="b", field=same["field"] + "b")])
    assert compared(tmp_path, both)["reason"].str.contains("one patient").all()


@pytest.mark.parametrize(("n", "smallest"), [(3, 0.10), (4, 2 / 70), (5, 2 / 252)])
def test_few_replicates_cannot_reach_a_small_p(
    tmp_path: Path, rng: np.random.Generator, n: int, smallest: float
) -> None:
    table = area_of(compared(tmp_path, pd.concat([made(rng, "drug", n, 500), made(rng, "control", n)])))
    assert table.loc[PERMUTED, "p"] == pytest.approx(smallest)
    if n == 3:
        assert "no difference in area shown by permutation" in table.loc[PERMUTED, "verdict"]


def test_two_against_two_is_described_only(tmp_path: Path, rng: np.random.Generator) -> None:
    table = compared(tmp_path, pd.concat([made(rng, "drug", 2), made(rng, "control", 2)]))
    assert table["reason"].str.contains("2 and 2 patients; below 3 on a side").all()
    assert table["p"].isna().all()


def test_two_against_many_is_described_only_and_unequal_sides_are_cautioned(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """With two against ten, Welch's test rejects a true null in a tenth of studies."""
    many = made(rng, "control", 10)
    table = area_of(compared(tmp_path, pd.concat([made(rng, "drug", 2), many])))
    assert table["p"].isna().all()
    assert table["reason"].str.contains("10 and 2 patients; below 3 on a side").all()
    table = area_of(compared(tmp_path, pd.concat([made(rng, "drug", 3), many])))
    assert table["p"].notna().all()
    assert "scatter alike" in table.loc[PERMUTED, "caution"]
    assert table.loc[REPLICATES, "caution"] == ""


def test_small_differences_keep_their_digits(tmp_path: Path, rng: np.random.Generator) -> None:
    cells = pd.concat([made(rng, "a", 4), made(rng, "b", 4)])
    cells = cells.assign(circularity=0.9 + 4e-5 * (cells["condition"] == "a") + rng.normal(0, 1e-5, len(cells)))
    cells.to_csv(tmp_path / "c.csv", index=False)
    told = " ".join(verdict(analyse(from_paths({"m": tmp_path / "c.csv"}, by="condition"), by="condition")))
    assert "(difference 0.00004, 95 % interval 0.0000" in told


def test_a_patient_on_both_sides_is_told(tmp_path: Path, rng: np.random.Generator) -> None:
    cells = pd.concat([made(rng, "drug", 4), made(rng, "control", 4)]).replace({"patient": {"drug0": "control0"}})
    table = area_of(compared(tmp_path, cells))
    assert table["caution"].tolist() == ["1 patient on both sides: the sides are not independent"] * 2


def test_the_verdict_of_one_method_compares_conditions_and_not_methods(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    one, two = made(rng, "p", 1), made(rng, "q", 1).assign(patient="p0")
    pd.concat([one, two]).to_csv(tmp_path / "c.csv", index=False)
    told = verdict(analyse(from_paths({"m": tmp_path / "c.csv"}, by="condition"), by="condition"))
    assert told[:2] == (
        "Conditions compared by condition, as measured by m on 8 frames.",
        "There is no annotation, so nothing here says how right m is.",
    )
    assert "(1 patient)" in told[2]


def test_holm_counts_independent_traits_and_pairs(tmp_path: Path, rng: np.random.Generator) -> None:
    cells = pd.concat([made(rng, name, 4) for name in "xyz"])
    cells = cells.assign(circularity=rng.normal(0.9, 0.01, len(cells)), solidity=0.9)
    table = compared(tmp_path, cells)
    tests = table[table["test"] == REPLICATES]
    assert set(tests["n_family"].dropna()) == {6}
    assert tests.loc[tests["trait"] == "radius", "p_holm"].isna().all()
    assert tests.loc[tests["trait"] == "radius", "verdict"].str.contains("follows another trait").all()
    constant = tests[tests["trait"] == "solidity"]
    assert constant["reason"].str.contains("do not vary").all()
    assert constant["p_holm"].isna().all()
    least = tests["p"].min()
    assert tests["p_holm"].min() == pytest.approx(min(1, 6 * least))


def test_cells_without_a_condition_are_counted(tmp_path: Path, rng: np.random.Generator) -> None:
    cells = pd.concat([made(rng, "drug", 3), made(rng, "control", 3)])
    cells.iloc[:7, cells.columns.get_loc("condition")] = None
    table = compared(tmp_path, cells)
    assert table["caution"].str.contains("7 cells without condition are left out").all()


def test_cells_are_no_replicates(tmp_path: Path, rng: np.random.Generator) -> None:
    cells = pd.concat([made(rng, "drug", 3), made(rng, "control", 3)]).drop(columns=["patient", "well"])
    cells = cells.assign(field=[f"cell {i}" for i in range(len(cells))])
    with pytest.raises(BadInput, match="cells are no replicates of a condition"):
        compared(tmp_path, cells)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"condition": "drug"}, "drug alone; two conditions are needed"),
        ({"patient": None}, ""),
        ({"dose": 1}, "1 alone"),
    ],
)
def test_what_cannot_be_compared_is_said(
    tmp_path: Path, rng: np.random.Generator, change: dict[str, Any], words: str
) -> None:
    cells = pd.concat([made(rng, "drug", 3), made(rng, "control", 3)]).assign(**change)
    if not words:
        assert set(compared(tmp_path, cells)["clustered_by"]) == {"well"}
        return
    with pytest.raises(BadInput, match=words):
        compared(tmp_path, cells, "dose" if "dose" in change else "condition")


def test_a_patient_known_for_some_cells_only_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    cells = pd.concat([made(rng, "drug", 3), made(rng, "control", 3)])
    cells.iloc[:5, cells.columns.get_loc("patient")] = None
    with pytest.raises(BadInput, match="column patient: empty for 5 of"):
        compared(tmp_path, cells)
    assert replicate_level(cells.assign(method="m").drop(columns="patient")) == "well"


def test_equal_conditions_are_told_apart_in_one_of_twenty_only(tmp_path: Path) -> None:
    """Field means hold the level where the cells of all fields, pooled, find a difference in two of three studies."""
    from analysis import statistics as st

    rng = np.random.default_rng(3)
    runs, found = 60, np.zeros(2)
    for _ in range(runs):
        cells = pd.concat([made(rng, "drug", 4), made(rng, "control", 4)])
        sides = [rows for _, rows in cells.groupby("condition")]
        means = [rows.groupby("patient")["area_px2"].mean() for rows in sides]
        found += st.independent(*means).p < 0.05, st.mann_whitney(*(rows["area_px2"] for rows in sides)).p < 0.05
    assert found[0] <= 7
    assert found[1] >= 30


def test_methods_of_one_study_have_their_conditions_compared_too(tmp_path: Path, rng: np.random.Generator) -> None:
    cells = pd.concat([made(rng, "drug", 4, 80), made(rng, "control", 4)])
    cells = cells.assign(centroid_y_px=0.0, centroid_x_px=cells["label"] * 40.0, label=cells["label"])
    for name in ("a", "b"):
        cells.to_csv(tmp_path / f"{name}.csv", index=False)
    study = from_paths({name: tmp_path / f"{name}.csv" for name in "ab"}, by="condition")
    table = analyse(study, by="condition").comparisons
    assert not study.independent
    assert set(table.loc[table["test"] == REPLICATES, "a"]) == {"a: control", "b: control"}
    assert set(table.loc[table["test"].str.startswith("same cells"), "clustered_by"]) == {"patient"}
