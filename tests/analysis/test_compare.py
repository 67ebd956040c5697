"""The comparison of a real (small) run and of loose files, and the page that comes of it."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy import ndimage

from analysis import comparisons, verdict
from analysis.agreement import agree_with_truth
from analysis.compare import analyse, compare_run, main
from analysis.conditions import compare_conditions
from analysis.fidelity import natural_spread
from analysis.loose_files import from_paths
from analysis.record import read_record
from analysis.results import ONE_FIELD, Results
from analysis.samples import TRUTH, from_run, pair
from data_io import convert
from data_io.errors import REFUSED, REPORT_FAILED, BadInput, entry_point
from data_io.intake import Settings
from data_io.synthetic import movie
from postprocess import methods
from postprocess import run as stage
from postprocess.predictions import PredictionStore


@pytest.fixture(scope="module")
def page(run_folder: Path) -> str:
    """Return the report of the run as text."""
    return compare_run(run_folder).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with truth.tif and two label stacks, six frames of 160 x 160 px."""
    folder = tmp_path_factory.mktemp("stacks")
    labels = movie(5, 6, (160, 160)).labels.astype(np.uint16)
    tifffile.imwrite(folder / "truth.tif", labels)
    tifffile.imwrite(folder / "same.tif", labels)
    eroded = np.stack([np.where(np.roll(frame, 1, 0) == frame, frame, 0) for frame in labels])
    tifffile.imwrite(folder / "thin.tif", eroded)
    return folder


def test_verdict_comes_first_and_names_model_and_doubt(page: str) -> None:
    body = page[page.index("<main>") :]
    verdict = body[: body.index("</section>")]
    assert "Use three_class (unet / resnet18 / dice)" in verdict
    assert "How sure" in verdict
    assert "classical" in verdict


@pytest.fixture(scope="module")
def results(run_folder: Path) -> Results:
    """Return all results of the run."""
    return analyse(from_run(run_folder), read_record(run_folder))


def test_one_field_is_cautioned_and_several_fields_are_the_clusters(results: Results) -> None:
    alone = " ".join(verdict.verdict(results))
    assert "excludes 0" in alone
    assert ONE_FIELD in alone
    assert ONE_FIELD in verdict.warnings(results)
    keys = tuple((f"f{i % 2}", i) for i in range(6))
    study = replace(results.study, frames=keys)
    several = replace(results, study=study, agreement=results.agreement.iloc[:0])
    assert several.scored["two_class"]["n_clusters"] == 2
    assert several.scored["two_class"]["pq_50_ci"] is None
    told = " ".join(verdict.verdict(several))
    assert "cannot rank. 2 clusters; below 5" in told
    assert "excludes 0" not in told
    assert ONE_FIELD not in verdict.warnings(several)
    assert any("6 frames of 2 fields" in line for line in verdict.warnings(several))


def test_a_target_that_does_not_beat_the_classical_method_is_named(results: Results) -> None:
    def told(baseline: str) -> str:
        counted = {**results.counted, "classical": results.counted[baseline]}
        return " ".join(verdict.verdict(replace(results, counted=counted)))

    assert re.search(r"\. two_class \(0\.\d+\) does not beat the classical method in dataset IoU", told("two_class"))
    assert re.search(r"two_class \(0\.\d+\), three_class \(0\.\d+\) do not beat the classical", told("three_class"))
    counted = {name: found for name, found in results.counted.items() if name != "classical"}
    assert "not beat" not in " ".join(verdict.verdict(replace(results, counted=counted)))


@pytest.mark.parametrize(
    ("weights", "column", "said"),
    [(["none"], None, False), (["imagenet", "none"], None, True), (None, "imagenet", True), (None, None, False)],
)
def test_pretraining_is_spoken_of_where_there_is_any(
    results: Results, weights: list[str] | None, column: str | None, said: bool
) -> None:
    record = results.record
    assert record is not None
    searched = record.summary["search"] | ({"encoder_weights": weights} if weights else {})
    trials = record.trials.assign(encoder_weights=column) if column else record.trials
    record = replace(record, summary=record.summary | {"search": searched}, trials=trials)
    told = verdict.warnings(replace(results, record=record))
    assert any("confounded" in line for line in told) == said


def test_the_spread_leaves_out_cells_at_the_frame_border(results: Results) -> None:
    study = results.study
    assert study.training_truth is not None
    assert study.training_truth["border"].any()
    for source in (study, replace(study, training_truth=None)):
        truth = study.of(TRUTH) if source.training_truth is None else source.training_truth
        table = agree_with_truth(source, ["area"]).set_index("method")
        inside, whole = (natural_spread("area", t["area_px2"]) for t in (truth[~truth["border"]], truth))
        assert table.loc["two_class", "sigma"] == pytest.approx(inside)
        assert inside != pytest.approx(whole)


def test_every_target_and_the_baseline_stand_in_the_report(page: str) -> None:
    for words in ("two_class", "three_class", "classical", "no learning", "stopped after epoch 2", "never stopped"):
        assert words in page


def test_synthetic_data_is_labelled(page: str, run_folder: Path) -> None:
    assert 'class="banner"' in page
    for name in ("comparisons.csv", "agreement.csv"):
        assert set(pd.read_csv(run_folder / name)["note"]) == {"synthetic data"}


def test_page_is_closed_and_escaped(page: str) -> None:
    assert "default-src 'none'" in page.replace("&#39;", "'")
    assert page.count("<script") == 1  # our own
    assert "&lt;script&gt;" in page
    assert "<b>movies</b>" not in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert len(re.findall(r"<img ", page)) == len(re.findall(r'<img src="[^"]+" alt="[^"]{10,}"', page))
    assert page.count("style=") == 0


def test_scores_of_the_page_are_those_of_the_labels(run_folder: Path) -> None:
    study = from_run(run_folder)
    results = analyse(study)
    assert results.scored["two_class"]["dataset_iou"] < results.scored["three_class"]["dataset_iou"]
    assert results.scored["three_class"]["n_truth"] == len(study.of(TRUTH))
    assert study.has_truth
    assert len(study.frames) == 6


def test_a_shrunken_method_is_shown_to_measure_smaller_cells(run_folder: Path) -> None:
    table = comparisons.compare_methods(from_run(run_folder), ["area", "perimeter", "circularity", "solidity"])
    row = table[(table["trait"] == "area") & (table["test"] == comparisons.SAME_CELLS)]
    row = row[(row["a"] == "two_class") & (row["b"] == "three_class")].iloc[0]
    assert row["estimate"] < 0
    assert row["p_holm"] < 0.05
    assert row["verdict"].startswith("area is smaller in two_class than in three_class")
    assert row["clustered_by"] == "track x frame"
    assert row["p_holm"] >= row["p"]
    assert table.loc[table["test"] == comparisons.POOLED, "p_holm"].isna().all()


def test_agreement_finds_the_bias_and_the_perfect_method(stacks: Path) -> None:
    study = from_paths({name: stacks / f"{name}.tif" for name in ("same", "thin")}, stacks / "truth.tif")
    table = agree_with_truth(study).set_index(["method", "trait"])
    assert table.loc[("same", "area"), "tfe"] == 0
    assert table.loc[("same", "area"), "bias"] == 0
    assert table.loc[("thin", "area"), "bias_percent"] < -2
    assert table.loc[("thin", "area"), "sigma_source"] == "this truth"
    assert (table["missed"] >= 0).all()
    assert table["verdict"].str.len().min() > 0


def test_loose_files_from_the_command_line(stacks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"same={stacks / 'same.tif'}", f"thin={stacks / 'thin.tif'}", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--truth", str(stacks / "truth.tif")]) == 0
    assert "report:" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "out" / "comparisons.csv")
    assert set(table["trait"]) == {"area", "perimeter", "circularity", "solidity", "radius", "shape_index"}
    assert main(arguments) == 0
    assert "no annotation" in (tmp_path / "out" / "report.html").read_text()


def test_tables_are_matched_by_centroid(stacks: Path, tmp_path: Path) -> None:
    whole = from_paths({"same": stacks / "same.tif"}, stacks / "truth.tif")
    for name in ("same", TRUTH):
        whole.of(name).drop(columns="method").to_csv(tmp_path / f"{name}.csv", index=False)
    study = from_paths({"same": tmp_path / "same.csv"}, tmp_path / "truth.csv")
    assert "centroid" in study.matched_by
    found = pair(study, TRUTH, "same")
    assert len(found) == len(study.of(TRUTH))
    assert (found["label_a"] == found["label_b"]).all()


def test_conditions_are_compared_on_replicates(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = [
        {"field": f"{c}{f}", "frame": 0, "label": i, "condition": c, "area_px2": v, "patient": None}
        for c, shift in (("drug", 30.0), ("control", 0.0))
        for f in range(4)
        for i, v in enumerate(rng.normal(400 + shift + f, 5, 20))
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "cells.csv", index=False)
    table = compare_conditions(from_paths({"m": tmp_path / "cells.csv"}), "condition")
    assert table.loc[0, "estimate"] == pytest.approx(-30, abs=4)
    assert table.loc[0, "clustered_by"] == "field"
    assert table.loc[0, "p_holm"] < 0.05
    with pytest.raises(BadInput, match="no such column"):
        compare_conditions(from_paths({"m": tmp_path / "cells.csv"}), "dose")


def test_empty_and_tiny_inputs_are_reported_not_tested(tmp_path: Path) -> None:
    empty, one = np.zeros((2, 40, 40), np.uint16), np.zeros((2, 40, 40), np.uint16)
    one[0, 5:15, 5:15] = 1
    for name, labels in (("empty", empty), ("one", one)):
        tifffile.imwrite(tmp_path / f"{name}.tif", labels)
    paths = {name: tmp_path / f"{name}.tif" for name in ("empty", "one")}
    results = analyse(from_paths(paths, tmp_path / "one.tif"))
    assert results.comparisons["p_holm"].isna().all()
    assert results.comparisons["reason"].str.startswith("not tested").any()
    assert results.comparisons["verdict"].str.contains("cannot rank|caution|not tested").all()
    assert main([f"{n}={p}" for n, p in paths.items()] + ["--truth", str(paths["one"]), "--out", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "no such run folder"),
        (["a=missing.tif", "--out", "x"], "no such file"),
        (["truth={same}", "--out", "x"], "the name is taken"),
        (["a={same}"], "--out"),
        (["a={same}", "b={bad}", "--out", "x"], "frames of"),
        (["a={text}", "--out", "x"], "cells table needs"),
        (["a={same}", "a={same}", "--out", "x"], "twice"),
        (["a={same}", "b={same}", "--out", "x", "--traits", "volume"], "not measured here"),
    ],
)
def test_bad_input_is_refused_in_one_line(stacks: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    tifffile.imwrite(tmp_path / "bad.tif", np.zeros((2, 50, 50), np.uint16))
    (tmp_path / "t.csv").write_text("x,y\n1,2\n")
    places = {"same": stacks / "same.tif", "bad": tmp_path / "bad.tif", "text": tmp_path / "t.csv"}
    with pytest.raises(BadInput, match=words) as caught:
        main([a.format(**places) for a in arguments])
    assert "\n" not in str(caught.value)
    assert not Path("x").exists()


def test_a_failing_report_keeps_the_numbers(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("no paper")

    monkeypatch.setattr("analysis.compare.page", fail)
    assert main([str(run_folder), "--out", str(tmp_path)]) == REPORT_FAILED
    assert (tmp_path / "comparisons.csv").is_file()
    assert not (tmp_path / "report.html").exists()


def test_a_run_without_cells_names_the_stage_that_makes_them(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text((run_folder / "run.json").read_text())
    (tmp_path / "dataset.zarr").symlink_to(run_folder / "dataset.zarr")
    with pytest.raises(BadInput, match=r"postprocess\.run"):
        compare_run(tmp_path)


def test_new_images_without_annotation_are_compared_with_each_other_only(run_folder: Path, tmp_path: Path) -> None:
    images = tmp_path / "frames"
    shutil.copytree(run_folder / "movies" / "field_3" / "frames", images)
    dataset = convert.convert(images, tmp_path / "dataset.zarr", Settings(annotations=False))
    (tmp_path / "run.json").write_text('{"dataset": "dataset.zarr", "kind": "predict", "synthetic": true}')
    masks = sorted((run_folder / "movies" / "field_3" / "masks").glob("*.tif"))
    store = PredictionStore.open_or_create(tmp_path / "predictions.zarr")
    for name in ("two_class", "wide"):
        decode = asdict(methods.params_from("two_class", {}))
        store.add_method(name, "two_class", 1, 1, 0, dataset.fields.values(), {"decode": decode})
        for ref, mask in zip(dataset.frames("all"), masks, strict=True):
            labels = tifffile.imread(mask).astype(np.int32)
            grown = labels if name == "two_class" else ndimage.maximum_filter(labels, 3)
            store.write(name, ref, methods.target_named("two_class").perfect(grown))
    stage.run(tmp_path, scheduler="sync")
    page = compare_run(tmp_path).read_text(encoding="utf-8")
    assert "no annotation" in page
    assert "Agreement with the annotation" not in page
    table = pd.read_csv(tmp_path / "comparisons.csv")
    row = table[(table["trait"] == "area") & (table["test"] == comparisons.SAME_CELLS)].iloc[0]
    assert row["estimate"] < 0
    assert set(table["a"]) | set(table["b"]) == {"two_class", "wide"}


WRONG_SUMMARIES = {
    "winner": ["two_class"],
    "winner.value": "0.9",
    "winner.target": "star",
    "targets.two_class": 3,
    "targets.two_class.validation.pq_50": "0.9",
    "targets": None,
    "dataset": [],
    "dataset.train": "8",
    "search.stops": {"trial_1": 2},
    "search.stops.0.epoch": None,
    "provenance.libraries": ["numpy"],
    "warnings": "one",
    "selection": {"two_class": ["trial_0"]},
    "confirm": {"two_class": 0.9},
}


@pytest.mark.parametrize("place", WRONG_SUMMARIES)
def test_a_summary_of_another_shape_is_refused_in_one_line(place: str, run_folder: Path, tmp_path: Path) -> None:
    summary = json.loads((run_folder / "summary.json").read_text())
    found, (*above, last) = summary, place.split(".")
    for key in above:
        found = found[int(key)] if key.isdigit() else found[key]
    found[last] = WRONG_SUMMARIES[place]
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    shutil.copy(run_folder / "run.json", tmp_path)
    remedy = re.escape(f"; `python -m search.run --resume {tmp_path}` writes it anew")
    with pytest.raises(BadInput, match=rf"^{re.escape(str(tmp_path))}/summary\.json: [^\n]+{remedy}$"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("target", None, "no column target"),
        ("status", 3, "column status holds something else than text"),
        ("architecture", [["unet"]] * 6, "column architecture holds something else than text"),
        ("loss", [None, *["dice"] * 5], "column loss holds something else than text"),
        ("epochs", [np.nan] * 6, "column epochs holds something else than whole numbers"),
        ("epochs", "two", "column epochs holds something else than numbers"),
        ("reference", "no", "column reference holds something else than true and false"),
    ],
)
def test_a_table_of_trials_of_another_shape_is_refused_in_one_line(
    column: str, value: Any, said: str, run_folder: Path, tmp_path: Path
) -> None:
    trials = pd.read_parquet(run_folder / "trials.parquet")
    trials = trials.drop(columns=column) if value is None else trials.assign(**{column: value})
    trials.to_parquet(tmp_path / "trials.parquet")
    shutil.copy(run_folder / "run.json", tmp_path)
    with pytest.raises(BadInput, match=rf"trials\.parquet: {said}; `python -m search\.run --resume [^\n]+$"):
        read_record(tmp_path)


def test_a_run_with_a_wrong_summary_ends_with_code_2_and_writes_nothing(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run_folder, tmp_path / "run", dirs_exist_ok=True)
    (tmp_path / "run" / "summary.json").write_text('{"winner": []}')
    with pytest.raises(SystemExit) as end:
        entry_point(lambda _: main([str(tmp_path / "run"), "--out", str(tmp_path / "out")]))
    assert end.value.code == REFUSED
    assert "summary.json: winner should be" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
