"""Inside a Ray job a command works in a temporary copy of the submitter's folder: outputs need a place that stays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from data_io.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping

IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Variable that Ray's job manager sets for the command that was submitted."""


def refuse_lost(place: Path | str, option: str = "", environment: Mapping[str, str] = os.environ) -> None:
    """Raise BadInput where this command was submitted as a Ray job and would write to a relative `place`.

    `option` is what the place was given with, empty for an argument without a name.
    """
    if environment.get(IN_A_JOB):
        refuse_relative(place, option)


def refuse_relative(place: Path | str, option: str = "", *, stores: bool = False) -> None:
    """Raise BadInput for a relative place of an output; `stores` says that it may be in an object store as well."""
    if is_object(place) or Path(place).is_absolute():
        return
    name = Path(place).name or "results"
    told = f"{option} {place}: a Ray job works in a temporary copy of your folder, gone when it ends".lstrip()
    store = f", or s3://bucket/{name}" if stores else ""
    raise BadInput(f"{told}; give a path from the root that every node sees, such as /shared/{name}{store}")


def is_object(place: Path | str) -> bool:
    """Tell whether a place is in an object store."""
    return not isinstance(place, Path | str) or str(place).startswith("s3:/")
