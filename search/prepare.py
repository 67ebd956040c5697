"""What a run needs before its first trial: its folder, its data set, its configuration filled in, its plan."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from data_io import files
from data_io.errors import BadInput, of_a_place
from data_io.location import is_remote
from data_io.provenance import provenance
from search.changes import differences, refusal
from search.config import Config, config_hash, load
from search.console import say
from search.ledger import LEDGER
from search.options import CONFIG_OF_A_RUN

if TYPE_CHECKING:
    from pathlib import Path

    from data_io.store import Dataset
    from search.frames import Banks
    from search.space import Plan

MEMORY = "memory.json"
RUNS = "runs"
"""Where runs without a name go."""
HALF_WRITTEN = (
    ".*.tmp",
    ".*.partial",
    "trials/*/.*.tmp",
    "trials/*/checkpoints/*/.*.tmp",
    "best/.*.tmp",
    "best/*/.*.tmp",
    "cells/.*.tmp",
    "cells/*/.*.tmp",
    "labels/.*.tmp",
    "predictions.zarr/**/*.partial",
    "labels.zarr/**/*.partial",
)
"""How what a process of a run had not finished writing is called, the chunks of Zarr's stores among it."""


def settled_config(config: Config, run_dir: Path, *, accept_change: bool = False) -> Config:
    """Return the configuration to run with; BadInput when the folder holds a run of another one, or something else."""
    stored = run_dir / CONFIG_OF_A_RUN
    if not stored.is_file():
        kept = (run_dir / LEDGER).is_file()  # then it knows the configuration
        if not kept and run_dir.is_dir() and any(not _is_ours(path) for path in run_dir.iterdir()):
            raise BadInput(f"{run_dir}: holds files that are no run; give a new folder with --out")
        return config
    before = load(None, stored, [])
    changed = differences(before, config)
    if changed and not accept_change:
        raise BadInput(refusal(run_dir, changed))
    if changed:
        return config
    return before.model_copy(
        update={"tracking": config.tracking, "budget": config.budget, "resources": config.resources}
        | {"confirm": config.confirm}
    )


def _is_ours(path: Path) -> bool:
    """Whether a run leaves such a path before its configuration is written, half-written ones of a kill included."""
    half_written = path.name.startswith(".") and path.suffix in {".partial", ".tmp"}
    return half_written or path.name in {"lock", "cache", "dataset.zarr", "synthetic", "encoders"}


def make_folder(run_dir: Path) -> bool:
    """Make the folder of a run; return whether it was not there before, which of several at once only one is told."""
    try:
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            run_dir.mkdir()
            return True
        run_dir.mkdir(exist_ok=True)
    except OSError as fault:
        raise BadInput(f"{run_dir}: cannot be made a folder ({fault.strerror}); give another with --out") from fault
    return False


def prepare_data(config: Config, run_dir: Path) -> Dataset:
    """Make synthetic movies where no data are given, convert what is not a store yet, open it."""
    from data_io.location import located

    data = config.data
    source = located(data.path) if data.path is not None else run_dir / "synthetic"
    own = run_dir / "dataset.zarr"
    try:
        return _dataset(config, source, own)
    except PermissionError as fault:
        refusal = of_a_place(fault)
        if refusal is None:
            raise
        raise refusal from fault


def _dataset(config: Config, source: Path, own: Path) -> Dataset:
    """Return the data set at `source`, or the one at `own` that is made from it."""
    from data_io import synthetic
    from data_io.convert import convert
    from data_io.intake import Settings
    from data_io.readers import Options
    from data_io.store import is_store

    data = config.data
    if not is_remote(source) and not source.exists() and is_store(own):
        source = own  # the run goes on on another machine, which has what was converted but not the images
    if data.path is None and not own.exists():
        made = data.synthetic
        say(f"making {made.fields} synthetic movies of {made.frames} frames, {made.height} x {made.width} px")
        synthetic.write(
            source,
            fields=made.fields,
            frames=made.frames,
            size=(made.height, made.width),
            preset=made.preset,
            seed=made.seed,
        )
    settings = Settings(
        pixel_size_um=data.pixel_size_um,
        frame_interval_s=data.frame_interval_s,
        split_by=data.split_by,
        folds=data.folds,
        split_touching=data.split_touching,
        normalise=data.normalise,
        reading=Options(data.reader, data.z, data.channels, data.truth, data.labels, data.tiles),
    )
    was_there = own.exists()
    try:
        dataset = convert(source, own, settings)
        if was_there or dataset.path != own:
            dataset.preflight()  # someone else wrote it, or long ago
    except BadInput as fault:
        first, *each = map(str, fault.args)
        if source == own or not was_there or not (first.startswith(f"{own}/") or each):
            raise
        raise BadInput(f"{first}, or delete {own}: this run then converts it anew", *each) from fault
    wanted = max(data.folds, config.confirm.folds)
    if wanted and dataset.n_folds != wanted:
        held = f"{dataset.n_folds} folds" if dataset.n_folds else "no folds"
        raise BadInput(
            f"{dataset.path}: holds {held}, but {wanted} are asked for; convert the images with --folds {wanted}, or "
            "give their folder"
        )
    if data.fold is not None:
        if data.fold >= dataset.n_folds:
            held = f"{dataset.n_folds} folds" if dataset.n_folds else "no folds"
            raise BadInput(
                f"data.fold={data.fold}: {source} is split into {held}; set data.folds=K, 3 or more, and a fold below K"
            )
        dataset = dataset.in_fold(data.fold)
    if not dataset.frames("test"):
        raise BadInput(f"{source}: no annotated frames to train and test on; add masks beside the frames")
    return dataset


def resolve(config: Config, dataset: Dataset) -> Config:
    """Fill in what depends on data and machine: crop and batch that the data set recommends, the arithmetic."""
    from search.precision import channels_last_is_faster, faster

    train = config.train
    fill: dict[str, Any] = {}
    if train.crop is None:
        fill["crop"] = dataset.recommended["crop"]
    if train.batch_size is None:
        wanted = int(dataset.recommended["batch"])
        fill["batch_size"] = min(wanted, train.crops_per_epoch or wanted)
    if train.precision == "auto":
        fill["precision"] = faster()
    if train.channels_last == "auto":
        fill["channels_last"] = channels_last_is_faster(fill.get("precision", train.precision))
    train = train.model_copy(update=fill)
    processes = config.resources.reference_processes
    if processes > 1 and (train.batch % processes or train.batch < 2 * processes):
        raise BadInput(
            f"resources.reference_processes={processes} does not divide a batch of {train.batch} into parts of at "
            "least 2 crops; change it or train.batch_size"
        )
    return config.model_copy(update={"train": train})


def make_plan(config: Config, dataset: Dataset, run_dir: Path, *, fetch: bool = True) -> tuple[Plan, list[str]]:
    """Plan of the trials, and what to say about pretraining; `fetch` loads pretrained weights into the run."""
    from search import weights
    from search.space import plan

    encoders = [*config.space.encoders, *(reference.encoder for reference in config.schedule.references)]
    pretraining, notes = weights.resolve(encoders, config.space.encoder_weights, run_dir / weights.FOLDER, fetch=fetch)
    return plan(config, dataset.channels, weights=pretraining), notes


def decode_frames(
    config: Config, dataset: Dataset, run_dir: Path, part: str = "", into: Path | None = None, place: str | None = None
) -> Banks:
    """Decode training and validation frames once into memory maps that all trials share; `part` keeps folds apart.

    Training frames that are larger than the memory given to them are streamed instead; see `data_io.stream`. They go
    into the cache of the run, or into another folder. Nodes that do not see it decode the data set at `place`, by
    default where it lies.
    """
    from data_io import stream
    from search import nodes
    from search.frames import Banks, Source, decode

    memory = _memory_for_frames(config, run_dir)
    train, val = decode(dataset, memory, (into or run_dir) / "cache" / part)
    opened = stream.reopen(train)
    if isinstance(opened, stream.FrameStream):
        size = stream.bank_bytes(dataset, dataset.frames("train")) / 1e9
        say(f"training frames need {size:.3g} GB decoded: streamed, {opened.window} frames of each lane at a time")
    place = place or str(dataset.path if is_remote(dataset.path) else dataset.path.resolve())
    return Banks(train, val, Source(nodes.name_of(run_dir), place, dataset.content_hash, config.data.fold, memory))


def _memory_for_frames(config: Config, run_dir: Path) -> int:
    """Bytes that decoded training frames may take: as configured, else what was found free when the run began.

    It decides the order of streamed crops, so a run keeps to it, on whatever day and machine it goes on or is replayed.
    """
    from data_io import stream

    if config.data.memory_gb is not None:
        return int(config.data.memory_gb * 1e9)
    kept = run_dir / MEMORY
    if not kept.is_file():
        files.write_json(kept, {"bytes_for_decoded_frames": int(stream.SHARE * stream.free_bytes())})
    try:
        return int(json.loads(kept.read_text())["bytes_for_decoded_frames"])
    except (ValueError, KeyError, TypeError):
        raise BadInput(
            f"{kept}: damaged; delete it (the memory that is free now then decides whether frames are streamed, which "
            "may change the order of crops), or set data.memory_gb"
        ) from None


def count_parameters(plan: Plan, dataset: Dataset) -> dict[str, int]:
    """Trainable parameters per trial, counted on the meta device."""
    from search.models import parameters_on_meta

    return {
        t.id: parameters_on_meta(
            t.architecture,
            t.encoder,
            t.target,
            dataset.channels,
            t.train.encoder_depth,
            t.train.decoder_width,
            t.output_stride,
        )
        for t in plan.trials
    }


def run_facts(config: Config, dataset: Dataset, run_dir: Path) -> dict[str, Any]:
    """Return run.json: where the data are, what kind of run this is, and what made it."""
    return {
        "kind": "search",
        "dataset": _place(dataset.path, run_dir),
        "fold": config.data.fold,
        "synthetic": dataset.synthetic,
        "config_hash": config_hash(config),
        "data_hash": dataset.content_hash,
        "provenance": provenance(seed=config.seed),
    }


def _place(path: Path, run_dir: Path) -> str:
    """Return where a data set lies: relative to the run if it is inside, so that the run can be moved."""
    if is_remote(path):
        return str(path)
    path = path.resolve()
    return str(path.relative_to(run_dir.resolve()) if path.is_relative_to(run_dir.resolve()) else path)


def remove_unstarted(run_dir: Path) -> None:
    """Take away the folder of a run that was refused before a trial was recorded in it."""
    if not (run_dir / "ledger.jsonl").exists():
        shutil.rmtree(run_dir, ignore_errors=True)
        if run_dir.parent.name == RUNS and not any(run_dir.parent.iterdir()):
            run_dir.parent.rmdir()


def remove_half_written(run_dir: Path) -> None:
    """Take away what a killed process was writing; only for the one driver that holds the run."""
    for pattern in HALF_WRITTEN:
        for path in run_dir.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def numbered(parent: Path) -> Path:
    """Return the first free ``runs/0001``, ``runs/0002``, ..."""
    taken = [int(path.name) for path in parent.glob("[0-9]*") if path.name.isdigit()]
    return parent / f"{max(taken, default=0) + 1:04d}"
