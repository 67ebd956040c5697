"""Encoder pretraining: chosen and fetched once before any trial starts, kept in the run, the same for all its trials.

    RUN/encoders/encoders.json                      what each encoder starts from, where that came from, its checksum
    RUN/encoders/resnet152-imagenet.safetensors     the encoder as its library loads it, for three input channels

Trials, resumed runs and replays read these files and never ask the model hub.
"""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_io import files
from data_io.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FOLDER = "encoders"
"""Where a run keeps the weights."""
MANIFEST = "encoders.json"
ANSWER_SECONDS = 10.0
"""How long the model hub may take to answer its first question."""
OFFLINE = "pretrained weights cannot be fetched here, so every encoder starts from random weights"


class NotFetched(OSError):
    """An encoder's weights could not be fetched: which encoder, and the kind of fault."""


def offered(encoder: str) -> tuple[str, ...]:
    """Names of the pretrainings that the model hub has for an encoder, without asking it.

    A timm encoder has the one of its tag: imagenet when the tag says so (``in1k``, ``in22k_ft_in1k``), else
    the tag itself. Weights that timm only knows by an address outside the hub do not count.
    """
    import segmentation_models_pytorch as smp

    model = _timm_model(encoder)
    if model is None:
        return tuple(smp.encoders.encoders.get(encoder, {}).get("pretrained_settings", {}))
    known = _timm(model)
    if known is None or not known.hf_hub_id:
        return ()
    return ("imagenet" if re.search(r"in\d+k", known.tag) else known.tag,)


def _timm_model(encoder: str) -> str | None:
    """Name in timm of a ``tu-`` encoder, or of an old ``timm-`` name that smp takes for one; None for smp's own."""
    from segmentation_models_pytorch.encoders import is_equivalent_to_timm_universal

    if encoder.startswith("tu-"):
        return encoder.removeprefix("tu-")
    if is_equivalent_to_timm_universal(encoder):
        model = encoder.removeprefix("timm-")
        return f"tf_{model}" if "mobilenetv3" in model else model
    return None


def _timm(model: str) -> Any:
    """Return what timm knows of the pretraining of a model; None for a model or tag it does not know."""
    from timm.models import get_pretrained_cfg

    try:
        return get_pretrained_cfg(model)
    except RuntimeError:  # no such tag
        return None


def choose(encoders: Iterable[str], mode: str) -> dict[str, str | None]:
    """Name of the pretraining of each encoder; ``auto`` takes imagenet, else the only (or first) weights there are.

    Raises
    ------
    BadInput
        When an encoder does not have the pretraining asked for by name.
    """
    chosen: dict[str, str | None] = {}
    for encoder in dict.fromkeys(filter(None, encoders)):
        names = () if mode == "none" else offered(encoder)
        if mode not in {"none", "auto", *names}:
            raise BadInput(f"encoder {encoder}: has no {mode} weights; it has {', '.join(names) or 'none'}")
        chosen[encoder] = mode if mode in names else "imagenet" if "imagenet" in names else next(iter(names), None)
    return chosen


def resolve(
    encoders: Iterable[str], mode: str, folder: Path | None = None, *, fetch: bool = True
) -> tuple[dict[str, str | None], list[str]]:
    """Pretraining per encoder, fetched into `folder`, and what the user must be told.

    With ``auto``, where one cannot be fetched none is used for any encoder. What was decided stands in `folder`, and
    a later call with the same encoders and mode returns it without asking the hub.

    Parameters
    ----------
    encoders, mode
        Encoder names; none, imagenet, instagram or auto.
    folder
        ``RUN/encoders``, which every node reads; None chooses the names only.
    fetch
        False chooses the names only (to show a plan).

    Raises
    ------
    BadInput
        When a pretraining asked for by name does not exist or cannot be fetched, or a file kept in `folder` is damaged.
    """
    chosen = choose(encoders, mode)
    if not any(chosen.values()):
        return chosen, []
    kept = _read(folder) if folder else None
    if folder and kept and kept["mode"] == mode and chosen.keys() <= kept["encoders"].keys():
        decided = {encoder: kept["encoders"][encoder]["weights"] for encoder in chosen}
        for encoder, name in decided.items():
            stored(folder, encoder, name)
        return decided, kept["notes"]
    if folder is None or not fetch:
        return chosen, ["encoder weights are fetched when the search starts; offline none are used for any encoder"]
    facts: dict[str, Any] = {encoder: {"weights": None} for encoder in chosen}
    notes = []
    with _hub(*next((encoder, name) for encoder, name in chosen.items() if name)):
        for encoder, name in chosen.items():
            try:
                if name:
                    facts[encoder] = store(folder, encoder, name)
            except NotFetched as fault:
                if mode != "auto":
                    raise BadInput(
                        f"{mode} weights: {fault}; connect to the network or set space.encoder_weights=none"
                    ) from fault
                facts, notes = {encoder: {"weights": None} for encoder in chosen}, [f"{OFFLINE} ({fault})"]
                break
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / MANIFEST, {"mode": mode, "encoders": facts, "notes": notes})
    for file in {path.name for path in folder.glob("*.safetensors")} - {fact.get("file") for fact in facts.values()}:
        (folder / file).unlink()
    return {encoder: fact["weights"] for encoder, fact in facts.items()}, notes


def store(folder: Path, encoder: str, name: str) -> dict[str, str]:
    """Fetch an encoder's weights through its own library and write them into `folder`.

    Returns
    -------
    dict
        weights (`name`), file, sha256, and source: the hub's repository and, where the library pins one, its revision.

    Raises
    ------
    NotFetched
        When the library could not load them, or not all of them.
    """
    import safetensors.torch
    import torch

    state = _load(encoder, name)
    if _timm_model(encoder):  # timm loads what fits, leaves the rest random and does not fail
        again = _load(encoder, name)
        if not all(torch.equal(value, again[key]) for key, value in state.items()):
            raise NotFetched(f"{encoder}: timm leaves a part of it random")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{files.slug(f'{encoder}-{name}')}.safetensors"
    files.write_bytes(path, safetensors.torch.save({k: v.contiguous() for k, v in state.items()}))
    repository, revision = _source(encoder, name)
    source = f"{repository}@{revision}" if revision else repository
    return {"weights": name, "file": path.name, "sha256": files.sha256(path), "source": source}


def _load(encoder: str, name: str) -> dict[str, Any]:
    """Tensors of an encoder that its library made and filled from the hub or its own cache."""
    import segmentation_models_pytorch as smp

    model = _timm_model(encoder)
    try:
        made = smp.encoders.get_encoder(f"tu-{model}" if model else encoder, weights=True if model else name)
    except Exception as fault:  # hub clients and loaders raise their own kinds; any of them means: not fetched
        raise NotFetched(f"{encoder}: {type(fault).__name__}") from fault
    state: dict[str, Any] = made.state_dict()
    return state


def stored(folder: Path | None, encoder: str, name: str | None) -> Path | None:
    """File with the weights `name` of an encoder in ``RUN/encoders``, checked; None for `name` None.

    Raises
    ------
    BadInput
        When they were not fetched into `folder`, or the file is missing or damaged.
    """
    if name is None:
        return None
    kept = _read(folder) if folder else None
    facts = kept["encoders"].get(encoder) if kept else None
    if folder is None or facts is None or facts["weights"] != name:
        raise BadInput(f"encoder {encoder}: its {name} weights are not in this run; run the search in a new folder")
    path = folder / Path(facts["file"]).name
    if not path.is_file() or files.sha256(path) != facts["sha256"]:
        raise BadInput(f"{path}: missing or not as fetched; restore it, or run the search in a new folder")
    return path


def _read(folder: Path) -> dict[str, Any] | None:
    """Return what `resolve` decided for a run."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        chosen = [facts["weights"] for facts in kept["encoders"].values()]
        if all(isinstance(one, str | None) for one in chosen) and kept["mode"] and isinstance(kept["notes"], list):
            return kept
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise BadInput(f"{path}: damaged; restore it, or run the search in a new folder")


def _source(encoder: str, name: str) -> tuple[str, str | None]:
    """Repository on the hub and pinned revision of an encoder's weights."""
    import segmentation_models_pytorch as smp

    if model := _timm_model(encoder):
        repository, _, revision = str(_timm(model).hf_hub_id).partition("@")
        return repository, revision or None
    settings = smp.encoders.encoders[encoder]["pretrained_settings"][name]
    return settings["repo_id"], settings["revision"]


@contextmanager
def _hub(encoder: str, name: str) -> Iterator[None]:
    """Ask the model hub once whether it answers; if not, use what is cached and do not try again for minutes."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    before = constants.HF_HUB_OFFLINE
    repository, revision = _source(encoder, name)
    try:
        get_hf_file_metadata(hf_hub_url(repository, "config.json", revision=revision), timeout=ANSWER_SECONDS)
    except HfHubHTTPError:
        pass  # an answer; the loading code deals with what is missing
    except Exception:  # refused, silent, offline by setting: each client and proxy has its own kind
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
