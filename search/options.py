"""The command line of ``python -m search.run``: every option becomes an override of the configuration."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from data_io.command_line import Parser
from data_io.errors import BadInput
from search import reading_options
from search.brought import place_of
from search.config import TRAITS, Config, dump, load, schema
from search.ledger import LEDGER
from search.presets import PRESETS
from search.single_settings import overrides as single_overrides

CONFIG_OF_A_RUN = "config.yaml"

DESCRIPTION = """\
From annotated microscope frames to the segmentation model that measures your cells best, and a report that says why:
data -> Zarr -> search (Ray Tune) -> best model per target -> predictions -> instances -> cells table -> report.
Without --data it makes synthetic movies of cells and searches them.
"""

EXAMPLES = """\
examples:
  python -m search.run                                       synthetic movies, minutes on two CPU cores
  python -m search.run --data movie --out results            movie/frames/*.tif and movie/masks/*.tif
  python -m search.run --data movie --preset search          the whole feasible grid with early stopping
  python -m search.run --data movie --minutes 30 --objective trait:area
  python -m search.run --data movie train.crop=256 'space.targets=[three_class, star]'
  python -m search.run --data movie --config my.yaml --dry-run    what would run, nothing is started
  python -m search.run --print-config > my.yaml              every setting with its meaning
  python -m search.run --resume results                      go on where it was stopped
  python -m search.run --one-trial --data movie target=star architecture=fpn encoder=resnet34 loss=stardist
  python -m search.run --replay results/trials/ID            the same numbers again?

exit codes: 0 done, 1 unexpected error, 2 bad input, 3 no usable trial, 4 finished with failed items,
5 report failed (numbers saved), 75 pre-empted and resumable, 130 interrupted and resumable,
141 nobody reads the output
"""


@dataclass(frozen=True)
class Options:
    """What was asked for.

    Attributes
    ----------
    preset, file, overrides
        The three layers of the configuration; options such as --data are among the overrides.
    out
        Folder of a new run, or its s3:// place; None takes a numbered one.
    resume
        Folder of the run to go on with, or its s3:// place.
    accept_change
        Go on with a run although its configuration, data or code have changed.
    one_trial, replay
        Train a single trial without Ray; train that of a folder ``RUN/trials/ID`` again.
    allow_insecure_cluster
        Join a Ray cluster that asks for no token although it reaches beyond this machine.
    dry_run, print_config, print_schema
        Say what would be done, show the configuration, show its JSON schema; nothing is run.
    """

    preset: str | None = None
    file: Path | None = None
    overrides: tuple[str, ...] = ()
    out: Path | str | None = None
    resume: Path | str | None = None
    one_trial: bool = False
    replay: Path | None = None
    accept_change: bool = False
    dry_run: bool = False
    allow_insecure_cluster: bool = False
    print_config: bool = False
    print_schema: bool = False

    def config(self, folder: Path | None = None) -> Config:
        """Return the configuration: of the run to resume, else of preset and file, the overrides over it.

        The settings of a run in an object store have been brought to `folder`.
        """
        if self.resume is None:
            return load(self.preset, self.file, list(self.overrides))
        file = (folder or Path(self.resume)) / CONFIG_OF_A_RUN
        if not file.is_file():
            if folder is not None or file.with_name(LEDGER).is_file():
                raise BadInput(
                    f"{self.resume}/{CONFIG_OF_A_RUN}: missing; give the options of the run again with --out "
                    f"{self.resume} instead of --resume: its ledger tells whether they are the same"
                )
            raise BadInput(f"{self.resume}: no run to resume ({CONFIG_OF_A_RUN} is missing); give the folder of a run")
        return load(None, file, list(self.overrides))

    def printed(self) -> str | None:
        """Return what --print-config or --print-schema show, None when neither was asked for."""
        if self.print_schema:
            return json.dumps(schema(), indent=2) + "\n"
        return dump(self.config()) if self.print_config else None


def parse(arguments: list[str] | None = None) -> Options:
    """Return the options of a command line (None: the process's own); a wrong one ends with exit code 2."""
    parser = build_parser()
    reading_options.refuse(sys.argv[1:] if arguments is None else arguments)
    given = parser.parse_intermixed_args(arguments)
    if given.resume and (given.preset or given.config or given.data or given.out):
        parser.error("--resume goes on with the run's own configuration; drop --preset, --config, --data and --out")
    others = (given.preset, given.config, given.data, given.resume, given.overrides, given.one_trial, given.dry_run)
    if given.replay and any((*others, given.minutes, given.objective, given.folds, given.seeds, given.wandb)):
        parser.error("--replay trains a recorded trial as it was; only --out goes with it")
    settings = [*_overrides(given), *given.overrides]
    return Options(
        preset=given.preset,
        file=given.config,
        overrides=tuple(single_overrides(settings, resumed=bool(given.resume)) if given.one_trial else settings),
        out=given.out,
        resume=given.resume,
        one_trial=given.one_trial,
        replay=given.replay,
        accept_change=given.accept_change,
        dry_run=given.dry_run,
        allow_insecure_cluster=given.allow_insecure_cluster,
        print_config=given.print_config,
        print_schema=given.print_schema,
    )


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="python -m search.run",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    presets = "|".join(PRESETS)
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="settings, such as train.max_epochs=10")
    where = parser.add_argument_group("input and output")
    where.add_argument(
        "--data", metavar="PATH", help="folder of frames and masks or a dataset.zarr (default: synthetic)"
    )
    where.add_argument(
        "--out",
        type=place_of,
        metavar="RUN",
        help="folder of the run, or s3://bucket/run (default: a new numbered folder)",
    )
    where.add_argument("--resume", type=place_of, metavar="RUN", help="go on with this run: its folder or s3:// place")
    where.add_argument(
        "--accept-change", action="store_true", help="go on although configuration, data or code have changed"
    )
    where.add_argument(
        "--allow-insecure-cluster", action="store_true", help="use a Ray cluster of several machines without a token"
    )
    single = parser.add_argument_group("a single trial, without Ray")
    single.add_argument(
        "--one-trial", action="store_true", help="train one: architecture=unet encoder=... target=... loss=..."
    )
    single.add_argument("--replay", type=Path, metavar="RUN/trials/ID", help="train a trial again, compare its metrics")
    what = parser.add_argument_group("configuration")
    what.add_argument("--preset", metavar=presets, help="where the settings start from (default: demo)")
    what.add_argument("--config", type=Path, metavar="FILE.yaml", help="settings over the preset")
    what.add_argument("--minutes", metavar="N", help="wall-clock limit of the search in minutes")
    what.add_argument(
        "--objective", metavar="pq|iou|trait:NAME|pareto:NAME", help=f"what the winner is best at ({', '.join(TRAITS)})"
    )
    what.add_argument("--wandb", metavar="offline|online|disabled", help="Weights & Biases (default: offline)")
    what.add_argument("--wandb-images", action="store_true", help="let W&B have pictures of your frames too")
    what.add_argument("--folds", metavar="K", help="train the top set again on K folds, after the choice")
    what.add_argument("--seeds", metavar="S", help="train the top set again with S more seeds, after the choice")
    show = parser.add_argument_group("look before you run")
    show.add_argument("--dry-run", action="store_true", help="show the trials, the infeasible cells and the cost")
    show.add_argument("--print-config", action="store_true", help="show the resolved configuration as YAML")
    show.add_argument("--print-schema", action="store_true", help="show the JSON schema of the configuration")
    return parser


def _overrides(given: argparse.Namespace) -> list[str]:
    """Return the overrides that the options stand for; texts are quoted so that a folder named 1e3 stays a name."""
    overrides = []
    if given.data is not None:
        overrides.append(f"data.path={json.dumps(given.data, ensure_ascii=False)}")
    if given.minutes is not None:
        overrides.append(f"budget.minutes={given.minutes}")
    if given.objective is not None:
        overrides.append(f"objective={json.dumps(given.objective)}")
    if given.folds is not None:
        overrides += [f"data.folds={given.folds}", f"confirm.folds={given.folds}"]
    if given.seeds is not None:
        overrides.append(f"confirm.seeds={given.seeds}")
    if given.wandb is not None:
        overrides.append(f"tracking.wandb={json.dumps(given.wandb)}")
    if given.wandb_images:
        overrides.append("tracking.images=true")
    return overrides
