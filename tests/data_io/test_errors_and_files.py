"""Exit codes, atomic files, safe names, provenance."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_io import errors, files
from data_io.provenance import provenance


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (errors.BadInput("x.tif: cut; copy it again"), 2, "error: x.tif: cut; copy it again\n"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (RuntimeError("bug"), 1, "Traceback"),
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
