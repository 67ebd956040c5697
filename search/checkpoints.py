"""Checkpoints of a trial: complete or not there at all.

A checkpoint is a folder ``epoch_000012`` with Lightning's ``state.ckpt``, the ``metrics.csv`` up to its epoch and a
``manifest.json`` of sizes and SHA-256 that is written last; a folder without it, or whose files differ from it, is
never used. A trial keeps its best and its newest one.
"""

from __future__ import annotations

import json
import shutil
import stat
import zipfile
from pathlib import Path
from typing import Any

from data_io import files
from data_io.damage import one_line
from data_io.errors import BadInput

STATE = "state.ckpt"
METRICS = "metrics.csv"
MANIFEST = "manifest.json"


def seal(folder: Path, epoch: int, value: float) -> None:
    """Write the manifest of a checkpoint whose files are complete; `value` is its rung metric."""
    parts = {
        p.name: {"bytes": p.stat().st_size, "sha256": files.sha256(p)}
        for p in sorted(folder.iterdir())
        if p.name != MANIFEST
    }
    files.write_json(folder / MANIFEST, {"epoch": epoch, "value": value, "files": parts})


def manifest(folder: Path) -> dict[str, object] | None:
    """Return the manifest of a complete checkpoint, None for a partial, cut or changed one."""
    try:
        facts = json.loads((folder / MANIFEST).read_text())
        intact = all(_is_as_sealed(folder, name, part) for name, part in facts["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return facts if intact and STATE in facts["files"] else None


def _is_as_sealed(folder: Path, name: str, part: dict[str, Any]) -> bool:
    """Whether a file of a manifest is a plain one in the folder, of its size and SHA-256."""
    facts = (folder / name).lstat()
    if Path(name).name != name or not stat.S_ISREG(facts.st_mode) or facts.st_size != part["bytes"]:
        return False
    return bool(files.sha256(folder / name) == part["sha256"])


def read_state(file: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Return what a state holds: tensors and plain values.

    Raises
    ------
    BadInput
        It cannot be read, or holds anything else, which could run code; nothing of it is run.
    """
    import torch

    remedy = f"delete {file.parent}, and the trial goes on from an earlier checkpoint"
    if (fault := _no_archive(file)) is not None:
        raise BadInput(f"{file}: cannot be read ({fault}); {remedy}")
    try:
        state: dict[str, Any] = torch.load(file, map_location=map_location, weights_only=True)
    except torch.OutOfMemoryError:
        raise
    except Exception as fault:  # the unpickler raises whatever a foreign file makes it stumble over
        held = "holds more than weights" if type(fault).__name__ == "UnpicklingError" else "cannot be read"
        raise BadInput(f"{file}: {held} ({one_line(fault)}); {remedy}") from fault
    if not isinstance(state, dict) or not isinstance(state.get("state_dict"), dict):
        raise BadInput(f"{file}: cannot be read (it holds no state of a network); {remedy}")
    return state


def _no_archive(file: Path) -> str | None:
    """Return why a file is not what PyTorch writes: an archive of members that are stored, so as large as they say."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as fault:
        return one_line(fault)
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        return "packed, which PyTorch never does"
    return "too large" if sum(member.file_size for member in members) > file.stat().st_size else None


def folder_of(root: Path, epoch: int) -> Path:
    """Folder of the checkpoint of `epoch` (1 is the first)."""
    return root / f"epoch_{epoch:06d}"


def newest(root: Path) -> Path | None:
    """Newest complete checkpoint under `root`."""
    return next((folder for folder in sorted(root.glob("epoch_*"), reverse=True) if manifest(folder)), None)


def begin(root: Path, epoch: int) -> Path:
    """Make the empty folder of the checkpoint of `epoch`; what an interrupted process left of it or after it goes."""
    drop_from(root, epoch)
    folder = folder_of(root, epoch)
    folder.mkdir(parents=True)
    return folder


def drop_from(root: Path, epoch: int) -> None:
    """Delete the checkpoints of `epoch` and of all later ones."""
    for folder in root.glob("epoch_*"):
        if epoch_of(folder) >= epoch:
            shutil.rmtree(folder)


def epoch_of(folder: Path) -> int:
    """Epoch of a checkpoint, by the name of its folder."""
    return int(folder.name.removeprefix("epoch_"))


def prune(root: Path, keep: set[int]) -> None:
    """Delete every checkpoint whose epoch is not in `keep`."""
    for folder in root.glob("epoch_*"):
        if epoch_of(folder) not in keep:
            shutil.rmtree(folder)
