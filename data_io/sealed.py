"""JSON files that tell whether they are as they were written: a checksum of everything else stands in them."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any

from data_io.files import write_json

if TYPE_CHECKING:
    from pathlib import Path

CHECK = "check"
"""Key of the checksum."""


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """Return an object with its checksum."""
    return {**value, CHECK: _checksum(value)}


def is_intact(value: dict[str, Any]) -> bool:
    """Whether an object is as it was sealed; one that never was counts as intact."""
    return CHECK not in value or value[CHECK] == _checksum({k: v for k, v in value.items() if k != CHECK})


def write(path: Path, value: dict[str, Any]) -> None:
    """Write an object with its checksum, whole and atomically."""
    write_json(path, sealed(value))


def read(path: Path) -> dict[str, Any] | None:
    """Return the object of a file without its checksum, None where the file is missing, damaged or was not sealed."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or CHECK not in value or not is_intact(value):
        return None
    return {k: v for k, v in value.items() if k != CHECK}


def _checksum(value: dict[str, Any]) -> str:
    value = json.loads(json.dumps(value))  # numbers as keys are texts in the file
    return f"{zlib.crc32(json.dumps(value, sort_keys=True).encode()):08x}"
