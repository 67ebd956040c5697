"""A search as a Weights & Biases sweep: what it varies, under which name the runs of its trials are known.

``RUN/wandb/search.json`` keeps what W&B knows of a search: the key in the ids of its runs (two searches in one project
never share a run), the sweep, once a server gave it an id, the checksum of the report that was sent, and what was
finished.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from data_io import files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from search.space import TrialConfig

FILE = "search.json"
REPORT_FILE = "report.json"
"""Beside it: which report was to be sent last."""
METRIC = "val_dataset_iou"
VARIED = ("target", "architecture", "encoder", "loss", "learning_rate", "weight_decay", "augmentation", "seed")
"""Keys of a run's configuration that a sweep shows as axes of its parallel coordinates."""
COMMAND = ("${env}", "python", "-m", "search.run", "--one-trial", "${args_no_hyphens}")


def description(name: str, trials: Sequence[TrialConfig], *, continuous: bool = False) -> dict[str, Any]:
    """Return the configuration of the sweep that a search is: its parameters are what its trials differ in.

    The method is custom: the trials are proposed here, not by W&B. `continuous` numbers are a range, the others a list.
    """
    parameters: dict[str, Any] = {}
    for key in VARIED:
        values = sorted({getattr(trial, key) for trial in trials})
        if continuous and len(values) > 1 and key in {"learning_rate", "weight_decay", "augmentation"}:
            parameters[key] = {"min": float(values[0]), "max": float(values[-1])}
        else:
            parameters[key] = {"values": values}
    return {
        "method": "custom",
        "name": name,
        "metric": {"name": METRIC, "goal": "maximize"},
        "parameters": parameters,
        "program": "search.run",
        "command": list(COMMAND),
    }


@dataclass
class SearchOnWandb:
    """What ``RUN/wandb/search.json`` keeps.

    Attributes
    ----------
    folder
        ``RUN/wandb``.
    project, name
        Project and group of the runs.
    key
        Eight hexadecimal digits, drawn once, at the end of every run id.
    description
        Configuration of the sweep; empty for a single trial.
    sweep
        Its id on the server; None before there is one.
    report
        SHA-256 of the report that was sent last, its times left out; None before.
    finished
        Trials whose runs were finished, and how many epochs these hold.
    """

    folder: Path
    project: str
    name: str
    key: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    description: dict[str, Any] = field(default_factory=dict)
    sweep: str | None = None
    report: str | None = None
    finished: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, project: str, name: str) -> SearchOnWandb:
        """Read the file under `folder`, or begin one; another project is another sweep."""
        try:
            kept = cls(folder, **json.loads((folder / FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return cls(folder, project, name)
        if kept.project != project:
            kept.project, kept.sweep = project, None
        return kept

    def run_id(self, trial: str) -> str:
        """Id of a trial's run, its own among all runs of the project."""
        return f"{trial}-{self.key}"

    def save(self) -> None:
        """Write the file, whole and atomically."""
        files.write_json(self.folder / FILE, {k: v for k, v in asdict(self).items() if k != "folder"})
