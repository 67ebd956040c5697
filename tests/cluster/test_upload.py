"""What a submitted job takes along, by Ray's own reading of .rayignore."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package

ROOT = Path(__file__).resolve().parents[2]


def uploaded(folder: Path, package: Path) -> set[str]:
    create_package(str(folder), package, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    with zipfile.ZipFile(package) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the project's folder as a user has it, with data, stores, runs and secrets beside the code."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in (".rayignore", ".gitignore", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name in (
        "search/run.py",
        "data_io/readers/tiff.py",
        "analysis/page.html",
        "search/__pycache__/run.pyc",
        "my.yaml",
        "movie/frames/t000.tif",
        "movie/masks/t000.tif",
        "dataset.zarr/zarr.json",
        "runs/0001/report.html",
        "results/summary.json",
        "wandb/run.wandb",
        "frame.tif",
        ".env",
        ".ray/auth_token",
        ".venv/bin/python",
        "tests/test_line.py",
    ):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("text")
    return folder


def test_code_and_settings_are_uploaded_and_nothing_else(project: Path, tmp_path: Path) -> None:
    assert uploaded(project, tmp_path / "package.zip") == {
        "search/run.py",
        "data_io/readers/tiff.py",
        "analysis/page.html",
        "pyproject.toml",
        "my.yaml",
    }


def test_every_package_of_the_project_is_uploaded(tmp_path: Path) -> None:
    names = uploaded(ROOT, tmp_path / "package.zip")
    code = {
        str(file.relative_to(ROOT))
        for name in ("analysis", "cluster", "data_io", "postprocess", "search")
        for file in (ROOT / name).rglob("*.py")
    }
    assert code <= names
    code |= {name for name in names if "/" not in name and name.endswith((".toml", ".yaml", ".yml"))}
    assert {name.split("/")[0] for name in names} == {name.split("/")[0] for name in code}
    assert (tmp_path / "package.zip").stat().st_size < 10e6
