"""Apply the chosen models to frames: the GPU stage that writes predictions.zarr.

python -m search.predict RUN                            what is missing of the run's own held-out frames
python -m search.predict RUN --images FOLDER --out DIR  frames without annotation, on to instances and the cells table
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_io import errors, files
from data_io.command_line import Parser
from data_io.errors import BadInput
from data_io.job_folder import refuse_lost
from data_io.location import refuse_remote
from data_io.normalise import for_new_images, frame_limits, hits_floor, normalise
from data_io.provenance import provenance
from data_io.secrecy import hidden
from postprocess.predictions import PredictionStore
from search import console, handover, inference, models, trust
from search.brought import brought, place_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from data_io.store import Dataset, FrameRef

RUN_FACTS = "run.json"
KIND = "predict"
"""What run.json calls frames that were predicted with the models of a run."""
PREDICTIONS = "predictions.zarr"
EXAMPLES = """\
examples:
  python -m search.predict results --images new_movie --out measured
  python -m search.predict s3://bucket/run --images new_movie --out measured
  python -m search.predict results
"""
Progress = Callable[[str], None]


def model_folders(run_dir: Path) -> dict[str, Path]:
    """Model folders of a run by target; BadInput where the search has not chosen any."""
    found = {
        folder.name: folder for folder in sorted((run_dir / "best").glob("*")) if (folder / handover.FACTS).is_file()
    }
    if not found:
        raise BadInput(
            f"{run_dir}: no chosen model under best/; finish the search first: python -m search.run --resume {run_dir}"
        )
    return {target: found[target] for target in models.OUTPUTS if target in found}


def predict(
    run_dir: Path,
    out: Path,
    dataset: Dataset,
    refs: Sequence[FrameRef],
    *,
    rule_of_model: bool,
    say: Progress = console.say,
    tta: bool = False,
) -> int:
    """Write the predictions that are missing of every chosen model of `run_dir` on `refs` to ``out/predictions.zarr``.

    Parameters
    ----------
    run_dir
        The run whose models are applied.
    out
        Folder with (or for) predictions.zarr.
    dataset, refs
        The frames.
    rule_of_model
        True normalises by the rule stored with the model (new images), False as the data set itself does.
    say
        Called with a line per target.
    tta
        Whether predictions are means over the symmetries of a frame (`inference.predict`).

    Returns
    -------
    int
        Number of frames predicted.
    """
    folders = model_folders(run_dir)
    store = PredictionStore.open_or_create(out / PREDICTIONS)
    done = 0
    for target, folder in folders.items():
        facts = handover.read_facts(folder)
        register(store, target, facts, dataset, tta=tta)
        missing = [ref for ref in refs if not store.has(target, ref)]
        if not missing:
            continue
        network, facts = handover.load(folder, models.device())
        _check_channels(folder, facts, dataset)
        encoder = facts["encoder"] or "its own encoder"
        say(f"{target}: predicting {len(missing)} frames with {facts['architecture']} on {encoder}")
        rule = for_new_images(facts["normalisation"], dataset.normalisation) if rule_of_model else None
        faint = 0
        images = (dataset.normalised(ref) if rule is None else _by_rule(dataset, ref, rule) for ref in missing)
        for ref, prediction in zip(missing, inference.predict_frames(network, images, tta=tta), strict=True):
            faint += rule is not None and hits_floor(dataset.image(ref), rule)
            store.write(target, ref, prediction)
        if 2 * faint > len(missing):
            say(f"note: {faint} of {len(missing)} frames have far less contrast than those the model was trained on")
        done += len(missing)
    return done


def register(
    store: PredictionStore, target: str, facts: dict[str, Any], dataset: Dataset, *, tta: bool = False
) -> None:
    """Make room for a model's predictions; those of another model, or made in another way, are thrown away."""
    store.add_method(
        target,
        target,
        models.GRID[target],
        3 if target == "three_class" else 1,
        models.N_RAYS if target == "star" else 0,
        dataset.fields.values(),
        {"decode": facts["decode"], "model_sha256": facts["sha256"], "trial": facts["trial"], "tta": tta},
    )


def _by_rule(dataset: Dataset, ref: FrameRef, rule: dict[str, Any]) -> NDArray[np.float32]:
    image = dataset.image(ref)
    return normalise(image, frame_limits(image, rule))


def _check_channels(folder: Path, facts: dict[str, Any], dataset: Dataset) -> None:
    for field in dataset.fields.values():
        if len(field.channels) != facts["in_channels"]:
            raise BadInput(
                f"{field.name}: {len(field.channels)} channels, but the model in {folder} was trained on "
                f"{facts['in_channels']}; give images with the same channels"
            )


def predict_images(
    run_dir: Path, images: Path, out: Path, say: Progress = console.say, *, tta: bool = False, name: str | None = None
) -> int:
    """Convert a folder of frames, predict it with every chosen model, and go on to instances and the cells table.

    `name` is where the models are from, by default `run_dir`. Returns an exit code: 4 when frames failed in
    post-processing.
    """
    from data_io.convert import convert
    from data_io.intake import Settings
    from postprocess.export import read_facts
    from postprocess.run import print_progress
    from postprocess.run import run as postprocess

    for folder in model_folders(run_dir).values():
        handover.load(folder)  # what is wrong with a model is said before anything is written
    known = read_facts(run_dir) if (run_dir / RUN_FACTS).is_file() else {}
    _refuse_taken(out)
    made = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        dataset = convert(images, out / "dataset.zarr", Settings(annotations=False))
    except BadInput:
        if made and not any(out.iterdir()):
            out.rmdir()
        raise
    for warning in dataset.warnings:
        say(f"note: {warning}")
    facts = {
        "kind": KIND,
        "dataset": str(dataset.path.resolve()),
        "synthetic": dataset.synthetic,
        "models": name or str(run_dir.resolve()),
        "trained_on_synthetic": bool(known.get("synthetic", False)),
        "provenance": provenance(),
    }
    files.write_json(out / RUN_FACTS, facts)
    refs = dataset.frames("all")
    count = predict(run_dir, out, dataset, refs, rule_of_model=True, say=say, tta=tta)
    say(f"{count} predictions written, {len(refs)} frames")
    result = postprocess(out, progress=print_progress)
    say(f"cells table: {out / 'cells.parquet'} and cells.csv; label images: {out / 'labels'}")
    return errors.PARTIAL if result.failed else errors.DONE


def _refuse_taken(out: Path) -> None:
    """Refuse a folder of something else: a search's would lose its run.json, another would not be found again."""
    from postprocess.export import read_facts

    if (out / RUN_FACTS).is_file():
        if read_facts(out).get("kind") != KIND:
            raise BadInput(f"{out}: holds the run of a search; give another folder with --out")
    elif out.is_dir() and any(path.name != "dataset.zarr" and path.name[:1] != "." for path in out.iterdir()):
        raise BadInput(f"{out}: holds files that are no predictions; give a new folder with --out")


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = Parser(
        prog="python -m search.predict",
        description="Apply the best model of each target of a finished run.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=place_of, metavar="RUN", help="folder of a finished search, or s3://bucket/run")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="frames without annotation")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (needed with --images)")
    parser.add_argument(
        "--tta", action="store_true", help="mean over the frame's eight rotations and reflections; eight times as long"
    )
    given = parser.parse_args(arguments)
    if given.out is None:
        refuse_lost(given.run)
    else:
        refuse_lost(given.out, "--out")
        refuse_remote(given.out, "--out")
    trust.refuse_forced_pickles()
    stored = hidden(given.run) if isinstance(given.run, str) else None
    if stored is None and not given.run.is_dir():
        raise BadInput(f"{given.run}: no such folder; give the folder of a finished search")
    if given.images is not None:
        if given.out is None:
            parser.error("--images needs --out DIR")
        with brought(given.run, "best", RUN_FACTS) as run_dir:
            if not (run_dir / "best").is_dir() and stored is not None:
                raise BadInput(
                    f"{stored}: no chosen model; finish the search first: python -m search.run --resume {stored}"
                )
            return predict_images(run_dir, given.images, given.out, tta=given.tta, name=stored)
    if given.out is not None:
        parser.error("--out goes with --images")
    if stored is not None:
        raise BadInput(
            f"{stored}: the frames of a run in an object store are predicted by python -m search.run --resume {stored}"
            "; give --images FOLDER --out DIR for others"
        )
    dataset = dataset_of(given.run)
    count = predict(given.run, given.run, dataset, held_out(dataset), rule_of_model=False, tta=given.tta)
    print(f"{count} predictions written" if count else "nothing to do: every frame is predicted")
    return errors.DONE


def dataset_of(run_dir: Path) -> Dataset:
    """Open the data set a run was made on."""
    from postprocess.export import open_dataset

    if not (run_dir / RUN_FACTS).is_file():
        raise BadInput(f"{run_dir}: no run ({RUN_FACTS} is missing); give the folder of a search")
    return open_dataset(run_dir)


def held_out(dataset: Dataset) -> list[FrameRef]:
    """Frames a run predicts: validation, test and those without annotation; training frames would flatter the model."""
    return [*dataset.frames("val"), *dataset.frames("test"), *dataset.frames("unannotated")]


if __name__ == "__main__":
    sys.exit(errors.entry_point(main))
