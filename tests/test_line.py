"""The whole line, small: one command from synthetic movies to the report, the stages alone, new images, a rerun,
refusals.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import tifffile

from tests.faults import planted

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    "data.synthetic.frames=2",
    "data.synthetic.height=128",
    "data.synthetic.width=128",
    "data.synthetic.preset=easy",
    "space.architectures=[unet, linknet]",
    "space.encoders=[tu-regnety_002]",
    "train.max_epochs=3",
    "train.crops_per_epoch=8",
    "train.crop=64",
    "train.validation_crops=4",
    "train.encoder_depth=3",
    "schedule.grace_epochs=1",
]


WRITTEN = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+([+-]\d\d:\d\d)?|\b[0-9a-f]{40}\b")
"""What tells two reports of equal results apart: when, and by which commit, they were written."""


def command(
    module: str, *arguments: object, ok: int = 0, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a stage as a user does, from a folder that is not the repository, with secrets in the environment."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=cwd or tempfile.gettempdir(),
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "160"} | planted.ENVIRONMENT | environment,
    )
    assert done.returncode == ok, f"exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("line") / "run"
    settings = folder.parent / "settings.yaml"
    settings.write_text(planted.YAML_COMMENT)
    with tempfile.TemporaryDirectory(prefix="ray-") as ray:  # the names of Ray's sockets have room for a short path
        (folder.parent / "ray").symlink_to(ray)
        done = command("search.run", "--config", settings, "--out", "run", *SMALL, cwd=folder.parent, RAY_TMPDIR=ray)
        (folder.parent / "output.txt").write_text(done.stdout)
        (folder.parent / "errors.txt").write_text(done.stderr)
        yield folder


def test_it_says_what_it_will_do_how_it_goes_and_where_the_report_is(run: Path) -> None:
    said = (run.parent / "output.txt").read_text()
    assert "plan: 6 trials (1 references that nothing stops)" in said
    assert "estimated: about" in said
    assert "completed: " in said
    assert f"report: {run / 'report.html'}" in said
    assert "dataset IoU" in said
    assert "synthetic" in said


def test_no_secret_is_in_what_a_complete_run_leaves(run: Path) -> None:
    ray = (run.parent / "ray").resolve()
    assert list(ray.glob("ray/session_*/logs/*"))
    assert list(run.glob("wandb/**/*.wandb"))
    assert planted.found_in(run.parent, ray, but=run.parent / "settings.yaml") == []


def test_every_file_of_the_contract_is_there(run: Path) -> None:
    for name in (
        "config.yaml", "run.json", "ledger.jsonl", "summary.json", "trials.parquet", "dataset.zarr/manifest.json",
        "predictions.zarr/zarr.json", "labels.zarr", "labels/three_class.tif", "labels/truth.tif",
        "labels/classical.tif", "cells.parquet", "cells.csv", "comparisons.csv", "agreement.csv", "report.html",
    ):  # fmt: skip
        assert (run / name).exists(), name
    for target in ("two_class", "three_class", "star"):
        assert (run / "best" / target / "model.safetensors").stat().st_size > 0
        assert json.loads((run / "best" / target / "model.json").read_text())["target"] == target
    assert not (run / "cache").exists()


def test_the_trials_table_and_the_ledger_agree(run: Path) -> None:
    table = pd.read_parquet(run / "trials.parquet").set_index("trial")
    events = [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]
    for trial, row in table.iterrows():
        epochs = [e["epoch"] for e in events if e["event"] == "epoch" and e["trial"] == trial]
        assert epochs == list(range(1, row.epochs + 1))
        written = pd.read_csv(run / "trials" / str(trial) / "metrics.csv")
        assert list(written.epoch) == epochs
        assert set(written.columns) >= {
            "epoch",
            "train_loss",
            "val_loss",
            "val_dataset_iou",
            "val_per_image_iou",
            "seconds",
        }
    assert (table[table.reference].epochs == 3).all()
    assert set(table.status) <= {"completed", "stopped"}


def test_the_summary_holds_the_scores_of_the_labels_that_were_written(run: Path) -> None:
    from analysis.scores import frame_counts, score
    from data_io.store import Dataset
    from postprocess.export import read_labels

    summary = json.loads((run / "summary.json").read_text())
    dataset = Dataset.open(run / "dataset.zarr")
    assert summary["dataset"]["synthetic"] is True
    for target in ("two_class", "three_class", "star"):
        refs = dataset.frames("test")
        counted = score([frame_counts(dataset.labels(ref), read_labels(run, target, ref)) for ref in refs])
        for key in ("dataset_iou", "f1_50", "pq_50", "n_truth", "n_pred"):
            assert summary["targets"][target]["test"][key] == pytest.approx(counted[key])
    assert summary["baseline"]["classical"]["test"]["n_truth"] > 0
    assert summary["winner"]["target"] in summary["targets"]


def test_the_cells_table_has_keys_methods_and_units(run: Path) -> None:
    cells = pd.read_parquet(run / "cells.parquet")
    assert {
        "image",
        "field",
        "split",
        "frame",
        "track",
        "label",
        "method",
        "area_px2",
        "circularity",
        "area_trackmate",
    } <= set(cells)
    assert set(cells.method) >= {"truth", "classical"}
    assert set(cells[cells.method == "star"].split) <= {"val", "test"}
    assert {"val", "test"} <= set(cells[cells.method == "truth"].split)


def test_the_report_is_one_page_that_loads_nothing(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert "Content-Security-Policy" in page
    assert 'src="http' not in page
    assert "ynthetic" in page


def test_wandb_files_are_there_for_every_trial(run: Path) -> None:
    assert len(wandb_runs(run)) == len(pd.read_parquet(run / "trials.parquet")) + 1
    assert sum(name.startswith("run-report-") for name in wandb_runs(run)) == 1
    assert not list((run / "wandb").rglob("*.png"))  # pictures of the data only with --wandb-images


def wandb_runs(run: Path) -> list[str]:
    return [file.name for file in (run / "wandb").rglob("*.wandb")]


def test_the_same_command_again_trains_nothing_and_gives_the_same_numbers(run: Path) -> None:
    before = (run / "ledger.jsonl").read_bytes()
    summary = json.loads((run / "summary.json").read_text())
    sent = wandb_runs(run)
    report = WRITTEN.sub("", (run / "report.html").read_text())
    done = command("search.run", "--out", run, *SMALL)
    assert "nothing to train" in done.stdout
    assert wandb_runs(run) == sent
    assert (run / "ledger.jsonl").read_bytes() == before
    assert json.loads((run / "summary.json").read_text())["targets"] == summary["targets"]
    assert WRITTEN.sub("", (run / "report.html").read_text()) == report


def test_another_configuration_on_the_same_run_is_refused_with_the_difference(run: Path) -> None:
    done = command("search.run", "--out", run, *SMALL, "train.batch_size=8", ok=2)
    assert "train.batch_size: 4 -> 8" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_stages_run_alone_and_do_only_what_is_missing(run: Path) -> None:
    assert "nothing to do" in command("search.predict", run).stdout
    stack = run / "labels" / "star.tif"
    before = tifffile.imread(stack)
    stack.unlink()
    command("postprocess.run", run)
    np.testing.assert_array_equal(tifffile.imread(stack), before)
    (run / "report.html").unlink()
    command("analysis.compare", run)
    assert (run / "report.html").exists()


def test_new_images_are_measured_with_every_model(run: Path, tmp_path: Path) -> None:
    images = tmp_path / "new"
    images.mkdir()
    for path in sorted((run / "synthetic").glob("*/frames/*.tif"))[:2]:
        shutil.copy(path, images / f"{path.parts[-3]}_{path.name}")
    out = tmp_path / "out"
    command("search.predict", run, "--images", images, "--out", out)
    cells = pd.read_parquet(out / "cells.parquet")
    assert set(cells.method) <= {"two_class", "three_class", "star"}
    assert (out / "labels" / "three_class.tif").exists()
    assert not (run / "dataset.zarr" / "new").exists()


def test_a_dry_run_lists_trials_and_cost_and_writes_nothing(tmp_path: Path) -> None:
    done = command("search.run", "--out", tmp_path / "none", "--dry-run", *SMALL)
    assert "6 feasible and 0 infeasible cells of the grid" in done.stdout
    assert "6 trials; " in done.stdout
    assert "estimated: about" in done.stdout
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "{tmp}/nowhere"], "nowhere"),
        (["--data", "{tmp}/empty"], "empty"),
        (["train.max_epoch=3"], "did you mean train.max_epochs"),
        (["space.encoders=[resnet19]"], "did you mean resnet1"),
        (["space.encoders=[tu-resnet18x]"], "tu-resnet18x"),
        (["--preset", "demmo"], "did you mean demo"),
    ],
)
def test_bad_input_is_one_line_exit_2_and_nothing_left_behind(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    given = [a.format(tmp=tmp_path) for a in arguments]
    done = command("search.run", "--out", tmp_path / "run", *SMALL, *given, ok=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
