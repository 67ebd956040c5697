"""A JSON file that was sealed tells every change, and comes back as it was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from data_io import sealed

if TYPE_CHECKING:
    from pathlib import Path

VALUE = {"b": [1, 2.5, None, (3,)], "a": {10: "ten", 9: "nine"}, "text": "\u00e4"}


def test_what_was_sealed_comes_back(tmp_path: Path) -> None:
    sealed.write(tmp_path / "a.json", VALUE)
    assert sealed.read(tmp_path / "a.json") == json.loads(json.dumps(VALUE))
    assert sealed.is_intact(json.loads((tmp_path / "a.json").read_text()))


def test_every_changed_byte_is_told(tmp_path: Path) -> None:
    sealed.write(tmp_path / "a.json", VALUE)
    whole = (tmp_path / "a.json").read_bytes()
    meant = sealed.read(tmp_path / "a.json")
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        (tmp_path / "a.json").write_bytes(changed)
        assert sealed.read(tmp_path / "a.json") in (None, meant)


def test_what_was_not_sealed_is_not_read_but_counts_as_intact(tmp_path: Path) -> None:
    for content in ("", "[]", "null", "{}", "[" * 100_000, '{"a": 1}'):
        (tmp_path / "a.json").write_text(content)
        assert sealed.read(tmp_path / "a.json") is None
    assert sealed.read(tmp_path / "nothing.json") is None
    assert sealed.is_intact({"a": 1})
