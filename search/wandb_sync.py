"""Send the runs of a search to Weights & Biases, as one sweep: ``python -m search.wandb_sync RUN``.

What was sent before is not sent again. What W&B's files lack - its service was killed, its server did not answer - is
written anew from the trials' own tables. Images are among what is sent only where the search was run with
``--wandb-images``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_io import errors, sealed
from data_io.command_line import Parser
from data_io.damage import one_line
from data_io.errors import BadInput
from data_io.location import refuse_remote
from data_io.secrecy import hidden, without_secrets
from search import strict_yaml
from search.sweep import FILE, REPORT_FILE, SearchOnWandb

if TYPE_CHECKING:
    from collections.abc import Sequence

UNREACHABLE = 1
CONFIRMED = "confirm.json"
"""What `search.confirm` writes."""
ANSWER_SECONDS = 15.0
WAIT_SECONDS = 5.0
"""How long a search that is just ending is waited for."""


def main(arguments: list[str] | None = None) -> int:
    """Send every offline run that was not sent yet, then show them as a sweep; returns the exit code."""
    parser = Parser("python -m search.wandb_sync", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a search")
    run: Path = parser.parse_args(arguments).run
    refuse_remote(run)
    folder = run / "wandb"
    if not (folder / FILE).is_file():
        raise BadInput(f"{run}: no W&B runs; give the folder of a search that was not run with --wandb disabled")
    return sync(folder)


def sync(folder: Path) -> int:
    """Send the runs under ``RUN/wandb``; 0 when all were sent and stand in a sweep, else 1, which is said."""
    from search.wandb_writer import held

    try:
        with held(folder, WAIT_SECONDS):
            return _sync(folder)
    except TimeoutError:
        raise BadInput(f"{folder.parent}: a search still writes to it; wait for its end, then repeat") from None


def _sync(folder: Path) -> int:
    from search.wandb_writer import REPORT

    search = complete(folder)
    runs = sorted(path for path in folder.glob("offline-run-*") if path.is_dir())
    unsent = [path for path in runs if not _sent(path)]
    cut = set(_cut_short(unsent))
    whole = {search.run_id(name) for name in (*search.finished, *([REPORT] if search.report else []))}
    written_again = {path for path in cut if _id(path) in whole}
    if wanted := [path for path in unsent if path not in written_again]:
        if fault := out_of_reach():
            print(f"error: {fault}; nothing was sent, repeat when it answers", file=sys.stderr)
            return UNREACHABLE
        command = [sys.executable, "-m", "wandb", "sync", *map(str, wanted)]
        code = subprocess.run(command, check=False).returncode
        if code or not all(_sent(path) for path in wanted if path not in cut):
            print(f"error: not all runs of {folder} were sent; log in with `wandb login` and repeat", file=sys.stderr)
            return UNREACHABLE
    print(f"{len(wanted)} run files sent, {len(runs) - len(unsent)} had been sent before")
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


def out_of_reach() -> str:
    """Return why the server cannot be asked, empty where it answers: W&B's own sync would try for hours."""
    import wandb

    address = wandb.setup().settings.base_url
    try:
        with urllib.request.urlopen(address, timeout=ANSWER_SECONDS):  # noqa: S310 - an address that W&B was given
            return ""
    except urllib.error.HTTPError:  # which is an answer
        return ""
    except OSError as fault:
        return f"the W&B server {hidden(address)} does not answer ({one_line(fault)})"


def complete(folder: Path) -> SearchOnWandb:
    """Write, as offline runs, the epochs and the report that W&B's files lack; returns what W&B knows of the search.

    W&B is told of the trials of the search, not of the runs that confirm its choice.
    """
    from search.wandb_writer import Writer

    writer = Writer("offline", *_project_and_name(folder), folder, print)
    confirming = {row["trial"] for row in (sealed.read(folder.parent / CONFIRMED) or {"runs": []})["runs"]}
    for trial in sorted(path for path in (folder.parent / "trials").glob("*") if path.is_dir()):
        if trial.name in confirming:
            continue
        if lacking := writer.complete(trial.name, _configuration(trial)):
            print(f"{trial.name}: {lacking} epochs were taken from {trial / 'metrics.csv'}")
    try:
        writer.report(json.loads((folder / REPORT_FILE).read_text(encoding="utf-8")))
    except FileNotFoundError as fault:
        if fault.filename != str(folder / REPORT_FILE):
            print(f"note: the report is not sent: {fault.filename} is missing", file=sys.stderr)
    except (OSError, ValueError, KeyError, TypeError) as fault:
        print(f"note: the report is not sent ({one_line(fault)})", file=sys.stderr)
    return writer.search


def _configuration(trial: Path) -> dict[str, Any]:
    """Return what a trial was told, nothing where that cannot be read."""
    file = trial / "config.yaml"
    try:
        tree, _ = strict_yaml.read(file.read_text(encoding="utf-8"), str(file))
    except (OSError, ValueError):
        return {}
    return dict(without_secrets(tree)) if isinstance(tree, dict) else {}


def _id(folder: Path) -> str:
    """Id of the run in a run folder, empty where there is none."""
    return next((file.stem.removeprefix("run-") for file in folder.glob("run-*.wandb")), "")


def _sent(folder: Path) -> bool:
    return any(folder.glob("*.synced"))


def _cut_short(folders: Sequence[Path]) -> list[Path]:
    """Return the folders whose run was never finished: W&B's sync sends what it can read and does not mark them."""
    from search.wandb_writer import read_run

    def whole(folder: Path) -> bool:
        return all(read_run(file)[1] for file in folder.glob("run-*.wandb"))

    with ThreadPoolExecutor() as threads:  # a process each
        return [folder for folder, is_whole in zip(folders, threads.map(whole, folders), strict=True) if not is_whole]


def register(search: SearchOnWandb, prior: Sequence[str] = ()) -> str:
    """Make the sweep of a search on the server and return its id; runs sent before, by their ids, join it."""
    import wandb

    return str(wandb.sweep(search.description, project=search.project, prior_runs=list(prior) or None))


def run_ids(folders: Sequence[Path]) -> list[str]:
    """Ids of the runs of trials in run folders, each once; the run that holds the report is none."""
    from search.wandb_writer import REPORT

    ids = dict.fromkeys(filter(None, map(_id, folders)))
    return [name for name in ids if not name.startswith(f"{REPORT}-")]


def _project_and_name(folder: Path) -> tuple[str, str]:
    try:
        kept = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return str(kept["project"]), str(kept["name"])
    except (ValueError, KeyError, TypeError) as fault:
        raise BadInput(
            f"{folder / FILE}: damaged ({fault!r}); restore it, or sync the runs with `wandb sync`"
        ) from fault


if __name__ == "__main__":
    sys.exit(errors.entry_point(main))
