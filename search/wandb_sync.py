"""Send the runs of an offline search to Weights & Biases, as one sweep: ``python -m search.wandb_sync RUN``.

What was sent before is not sent again. Images are among what is sent only where the search was run with
``--wandb-images``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from data_io import errors
from data_io.command_line import Parser
from data_io.errors import BadInput
from search.sweep import FILE, SearchOnWandb

if TYPE_CHECKING:
    from collections.abc import Sequence

UNREACHABLE = 1


def main(arguments: list[str] | None = None) -> int:
    """Send every offline run that was not sent yet, then show them as a sweep; returns the exit code."""
    parser = Parser("python -m search.wandb_sync", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a search")
    run: Path = parser.parse_args(arguments).run
    folder = run / "wandb"
    if not (folder / FILE).is_file():
        raise BadInput(f"{run}: no W&B runs; give the folder of a search that was not run with --wandb disabled")
    return sync(folder)


def sync(folder: Path) -> int:
    """Send the runs under ``RUN/wandb``; 0 when all were sent and stand in a sweep, else 1, which is said."""
    search = SearchOnWandb.of(folder, *_project_and_name(folder))
    runs = sorted(path for path in folder.glob("offline-run-*") if path.is_dir())
    unsent = [path for path in runs if not list(path.glob("*.synced"))]
    if unsent:
        command = [sys.executable, "-m", "wandb", "sync", *map(str, unsent)]
        code = subprocess.run(command, check=False).returncode
        if code or any(not list(path.glob("*.synced")) for path in unsent):
            print(f"error: not all runs of {folder} were sent; log in with `wandb login` and repeat", file=sys.stderr)
            return UNREACHABLE
    print(f"{len(unsent)} run files sent, {len(runs) - len(unsent)} had been sent before")
    if search.sweep is not None or not search.description:
        return errors.DONE
    try:
        search.sweep = register(search, prior=run_ids(runs))
    except Exception as fault:
        print(f"error: no sweep could be made ({fault}); the runs stand as the group {search.name}", file=sys.stderr)
        return UNREACHABLE
    search.save()
    print(f"the search is the sweep {search.sweep}")
    return errors.DONE


def register(search: SearchOnWandb, prior: Sequence[str] = ()) -> str:
    """Make the sweep of a search on the server and return its id; runs sent before, by their ids, join it."""
    import wandb

    return str(wandb.sweep(search.description, project=search.project, prior_runs=list(prior) or None))


def run_ids(folders: Sequence[Path]) -> list[str]:
    """Ids of the runs of trials in run folders, each once; the run that holds the report is none."""
    from search.wandb_writer import REPORT

    ids = [file.stem.removeprefix("run-") for folder in folders for file in folder.glob("run-*.wandb")]
    return [name for name in dict.fromkeys(ids) if not name.startswith(f"{REPORT}-")]


def _project_and_name(folder: Path) -> tuple[str, str]:
    import json

    try:
        kept = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return str(kept["project"]), str(kept["name"])
    except (ValueError, KeyError, TypeError) as fault:
        raise BadInput(
            f"{folder / FILE}: damaged ({fault!r}); restore it, or sync the runs with `wandb sync`"
        ) from fault


if __name__ == "__main__":
    sys.exit(errors.entry_point(main))
