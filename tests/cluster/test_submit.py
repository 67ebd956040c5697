"""The commands of cluster/README.md against a head that was just started."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.heads import SMALLEST

if TYPE_CHECKING:
    from tests.cluster.heads import Head


def in_job(arguments: tuple[str, ...]) -> tuple[str, ...]:
    return ("--working-dir", ".", "--", "python", "-m", "search.run", *arguments)


def search_lines(output: str) -> list[str]:
    """Return what the search itself printed."""
    lines = output.splitlines()
    start = next(i for i, line in enumerate(lines) if "Tailing logs" in line or line.startswith("run folder"))
    return [line for line in lines[start:] if line.startswith(("run folder", "error", "report", "making"))]


def test_a_search_is_submitted_followed_and_finished(with_token: Head, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = with_token.submit(*in_job(("--out", str(run), *SMALLEST)))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = search_lines(done.stdout)
    assert lines[0] == f"run folder: {run} (as asked for)"
    assert f"report: {run / 'report.html'}" in done.stdout
    assert json.loads((run / "summary.json").read_text())["winner"]["target"] == "two_class"
    assert (run / "cells.parquet").is_file()
    uploads = list(
        Path(with_token.environment["RAY_TMPDIR"]).glob("ray/session_*/runtime_resources/working_dir_files/*")
    )
    names = {path.name for folder in uploads if folder.is_dir() for path in folder.iterdir()}
    assert {"search", "data_io", "analysis", "postprocess", "cluster", "pyproject.toml"} <= names
    assert not names & {"tests", ".git", ".ci", ".venv", "runs", "wandb", "cellsearch.egg-info"}


def test_a_relative_folder_is_refused_inside_a_job(with_token: Head) -> None:
    done = with_token.submit(*in_job(("--out", "results", *SMALLEST)))
    assert done.returncode != 0
    assert "error: --out results: a Ray job works in a temporary copy of your folder" in done.stdout
    assert "exit code 2" in done.stdout


def test_a_command_without_the_token_is_turned_away(with_token: Head) -> None:
    done = with_token.ray("job", "list", RAY_AUTH_MODE="disabled")
    assert done.returncode != 0
    assert "token" in (done.stdout + done.stderr).lower()
    token = with_token.home / ".ray" / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
