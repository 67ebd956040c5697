"""Exit codes, atomic files, safe names, provenance."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_io import errors, files
from data_io.provenance import provenance

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (errors.BadInput("x.tif: cut; copy it again"), 2, "error: x.tif: cut; copy it again\n"),
        (
            PermissionError(13, "Permission denied", "masks"),
            2,
            "error: masks: permission denied; change its permissions or name another place\n",
        ),
        (OSError(36, "File name too long", "x"), 2, "error: x: file name too long; choose a shorter name\n"),
        (FileNotFoundError(2, "No such file or directory", "x"), 1, "Traceback"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (RuntimeError("bug"), 1, "Traceback"),
        (BrokenPipeError(32, "Broken pipe"), 1, "Traceback"),  # of another pipe
        (None, 4, ""),
    ],
)
def test_entry_point_ends_with_the_code_of_the_table(fault, code, said, capsys):
    def main(argv: list[str] | None) -> int:
        if fault is not None:
            raise fault
        return errors.PARTIAL

    with pytest.raises(SystemExit) as end:
        errors.entry_point(main)
    assert end.value.code == code
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize(
    "main",
    [
        "print('x' * 10**6)",
        "print('short')",  # flushed at the end only
        "argparse.ArgumentParser().parse_args(['--help'])",
        "rich.console.Console().print('short')",  # turns the output away and ends with code 1
    ],
)
def test_output_that_nobody_reads_ends_a_command_in_silence(main):
    script = (
        f"import argparse, rich.console; from data_io.errors import entry_point; entry_point(lambda _: ({main}, 0)[1])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as unread:
        result = subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env=environment,
            stdout=unread,
            stderr=subprocess.PIPE,
            timeout=120,
            check=False,
        )
    assert (result.returncode, result.stderr) == (errors.UNREAD, b"")


def test_a_command_may_have_no_output_at_all():
    script = "from data_io.errors import entry_point; entry_point(lambda _: (print('x'), 4)[1])"
    shell = ["sh", "-c", f'exec "{sys.executable}" -c "{script}" >&- 2>&-']
    assert subprocess.run(shell, cwd=ROOT, check=False).returncode == 4


def test_files_are_whole_or_absent(tmp_path):
    files.write_json(tmp_path / "a.json", {"x": [1, 2]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [1, 2]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert files.sha256(tmp_path / "a.json") == files.sha256(tmp_path / "a.json")


@given(st.text(max_size=200))
def test_a_slug_is_a_safe_name(text):
    name = files.slug(text)
    assert name
    assert name.isascii()
    assert len(name) < 90
    assert name[0] not in ".-"
    assert not set(name) & set("/\\ :;*?\"'<>|\n\0")


def test_slugs_of_names_without_ascii_letters_differ():
    assert files.slug("細胞一") != files.slug("細胞二")
    assert files.slug("B1 / Bright Field") == "B1-Bright-Field"


def test_provenance_is_ready_for_json():
    facts = provenance(seed=3)
    assert facts["seed"] == 3
    assert "numpy" in facts["libraries"]
    json.dumps(facts)
