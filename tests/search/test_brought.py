"""Models of a run in an object store are used where they are wanted; what works in folders alone says so."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest

from analysis import compare
from data_io import synthetic
from data_io.errors import BadInput
from postprocess import run as postprocess
from postprocess.methods import TARGETS
from search import export, predict, run, wandb_sync
from search.storage import Storage
from tests.s3_stand_in import S3
from tests.search.test_export import saved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytest.importorskip("moto.server")
PLACE = "s3://runs/lab/one"


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """Give a server with a run that holds one model."""
    s3, folder = S3(), tmp_path_factory.mktemp("model") / "two_class"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        s3.make_bucket("runs")
        store = Storage.at(PLACE, 5)
        saved(folder, "two_class", trial="t", decode=asdict(TARGETS["two_class"].Params()))
        for file in folder.iterdir():
            store.put(file, f"best/two_class/{file.name}")
        store.write("run.json", b'{"dataset": "dataset.zarr", "synthetic": true}')
    yield s3
    s3.unplug()


@pytest.fixture(autouse=True)
def reached(bucket: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()


def test_new_images_are_predicted_with_the_models_of_a_stored_run(tmp_path: Path) -> None:
    synthetic.write(tmp_path / "raw", fields=1, frames=1, size=(96, 96), preset="easy", seed=1)
    images, out = next((tmp_path / "raw").rglob("*.tif")).parent, tmp_path / "out"
    assert predict.main([PLACE, "--images", str(images), "--out", str(out)]) == 0
    facts = json.loads((out / "run.json").read_text())
    assert (facts["models"], facts["trained_on_synthetic"]) == (PLACE, True)
    assert (out / "cells.csv").is_file()
    assert not list((tmp_path / "temporary").iterdir()), "what was brought is taken away"


def test_a_stored_model_is_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[set[str]] = []

    def packed(folder: Path, out: Path) -> Path:
        names.append({file.name for file in folder.iterdir()})
        return out

    monkeypatch.setattr(export, "export", packed)
    assert export.main([f"{PLACE}/best/two_class", "--out", str(tmp_path / "cells.zip")]) == 0
    assert names == [{"model.json", "model.safetensors"}]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            (predict.main, PLACE),
            rf"^{PLACE}: the frames of .* predicted by python -m search\.run --resume {PLACE}; give",
        ),
        (
            (predict.main, PLACE, "--images", "i", "--out", "s3://runs/out"),
            r"^--out s3://runs/out: this command writes",
        ),
        ((predict.main, "s3://runs/none", "--images", "i", "--out", "o"), r"^s3://runs/none: nothing is there; give"),
        ((predict.main, f"{PLACE}/best", "--images", "i", "--out", "o"), r"^s3://runs/lab/one/best: nothing is there"),
        ((predict.main, "s3://nobucket/r", "--images", "i", "--out", "o"), r"^s3://nobucket/r: no such bucket"),
        ((export.main, f"{PLACE}/best/two_class"), r"/best/two_class: .* name it with --out FILE\.zip$"),
        ((export.main, f"{PLACE}/best/star", "--out", "star.zip"), r"^s3://runs/lab/one/best/star: nothing is there"),
        (
            (compare.main, PLACE),
            rf"^{PLACE}: this command works in a folder; `aws s3 sync {PLACE} one` brings",
        ),
        ((compare.main, "a", "--out", "s3://runs/out"), r"^--out s3://runs/out: this command writes to a folder; give"),
        ((postprocess.main, PLACE), rf"^{PLACE}: this command works in a folder"),
        ((run.main, "--replay", f"{PLACE}/trials/t"), rf"^{PLACE}/trials/t: this command works in a folder"),
        ((predict.main, "s3://me:key@b/r"), r"^s3://\(hidden\)@b/r: the frames of a run"),
        (
            (predict.main, "s3://me:key@b/r", "--images", "i", "--out", "o"),
            r"^s3://\(hidden\)@b/r: an address with keys",
        ),
        ((export.main, "s3://me:key@b/r/best/star"), r"^s3://\(hidden\)@b/r/best/star: the package"),
        ((compare.main, "s3://me:key@b/r"), r"^s3://\(hidden\)@b/r: this command works in a folder"),
        ((wandb_sync.main, PLACE), rf"^{PLACE}: this command works in a folder"),
    ],
)
def test_what_cannot_be_done_there_is_one_line_and_leaves_nothing(
    command: tuple[Callable[[list[str]], int], str], said: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    main, *arguments = command
    with pytest.raises(BadInput, match=said) as refused:
        main([*arguments])
    assert len(str(refused.value).splitlines()) == 1
    assert not list((tmp_path / "here").iterdir())
