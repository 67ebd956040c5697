"""The hand-over model: ``model.safetensors`` (weights) and ``model.json`` (everything needed to use them), bound by
SHA-256.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import BaseModel, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from data_io import files, sealed
from data_io.damage import one_line
from data_io.errors import BadInput
from search import models

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS = "model.safetensors"
FACTS = "model.json"
FORMAT = 2
BUILD = ("architecture", "encoder", "target", "in_channels", "encoder_depth", "decoder_width", "output_stride")
"""Facts that rebuild the network."""


class Described(BaseModel):
    """What facts have to say of a network before it is built: names that are known, sizes that fit a machine."""

    architecture: Literal[*models.ARCHITECTURES, "stardist_unet"]  # type: ignore[valid-type]
    encoder: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]*$", max_length=100)]
    target: Literal[*models.OUTPUTS]  # type: ignore[valid-type]
    in_channels: Annotated[int, Field(ge=1, le=1024)]
    encoder_depth: Annotated[int, Field(ge=3, le=5)]
    decoder_width: Annotated[float, Field(gt=0, le=1)]
    output_stride: Literal[8, 16, 32] | None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    normalisation: dict[str, Any]
    decode: dict[str, Any]


def save(folder: Path, network: models.Network, facts: dict[str, Any]) -> dict[str, Any]:
    """Write a model folder; the facts come last, so that a folder with ``model.json`` is complete.

    Parameters
    ----------
    folder
        Made if missing.
    network
        The trained network.
    facts
        JSON facts; those named in `BUILD`, ``normalisation`` and ``decode`` are required.

    Returns
    -------
    dict
        The facts as written, with format and checksum.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FACTS).unlink(missing_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    files.write_bytes(folder / WEIGHTS, save_tensors(state))
    written = sealed.sealed({"format": FORMAT, **facts, "sha256": files.sha256(folder / WEIGHTS)})
    files.write_json(folder / FACTS, written)
    return written


def read_facts(folder: Path) -> dict[str, Any]:
    """Facts of a model folder; BadInput where they are missing, changed, of another format or of no network of ours."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{folder}: no {FACTS}; give a folder RUN/best/<target> of a finished search") from None
    except (ValueError, OSError, RecursionError) as fault:
        told = "nested too deep" if isinstance(fault, RecursionError) else one_line(fault)
        raise BadInput(f"{folder / FACTS}: not JSON ({told}); run the search again to write it anew") from fault
    facts = facts if isinstance(facts, dict) else {}
    missing = [name for name in (*BUILD, "sha256", "normalisation", "decode") if name not in facts]
    if facts.get("format") != FORMAT or missing:
        raise BadInput(
            f"{folder / FACTS}: lacks {', '.join(missing) or 'the format'}; it was not written by this version"
        )
    try:
        Described.model_validate(facts)
    except ValidationError as fault:
        first = fault.errors()[0]
        what = f"{'.'.join(map(str, first['loc']))}: {one_line(first['msg'])}"
        raise BadInput(f"{folder / FACTS}: {what}; restore it or run the search again") from fault
    if not sealed.is_intact(facts):
        raise BadInput(f"{folder / FACTS}: differs from its checksum; restore it or run the search again")
    return facts


def check(folder: Path) -> tuple[dict[str, Any], Path]:
    """Return the facts of a model folder and the file of its weights.

    Raises
    ------
    BadInput
        When a file is missing, or differs from its checksum.
    """
    facts, weights = read_facts(folder), folder / WEIGHTS
    if not weights.is_file():
        raise BadInput(f"{weights}: missing; run the search again to write it anew")
    if files.sha256(weights) != facts["sha256"]:
        raise BadInput(f"{weights}: differs from the checksum in {FACTS}; restore it or run the search again")
    return facts, weights


def load(folder: Path, device: str = "cpu") -> tuple[models.Network, dict[str, Any]]:
    """Network in evaluation mode and its facts.

    Raises
    ------
    BadInput
        When a file is missing, the weights differ from their checksum, or they do not fit the network described.
    """
    facts, weights = check(folder)
    data = weights.read_bytes()
    try:
        network = models.build(
            facts["architecture"],
            facts["encoder"],
            facts["target"],
            facts["in_channels"],
            depth=facts["encoder_depth"],
            width=facts["decoder_width"],
            output_stride=facts["output_stride"],
        )
    except (RuntimeError, KeyError, ValueError) as fault:  # what timm and smp raise for a name they do not know
        told = f"no network {facts['architecture']} on {facts['encoder']} can be built ({one_line(fault)})"
        raise BadInput(f"{folder / FACTS}: {told}; restore it or run the search again") from fault
    try:
        tensors = load_tensors(data)
    except SafetensorError as fault:
        raise BadInput(f"{weights}: no safetensors file ({one_line(fault)}); run the search again") from fault
    try:
        network.load_state_dict(tensors)
    except RuntimeError as fault:
        raise BadInput(
            f"{weights}: does not fit {facts['architecture']} on {facts['encoder']} ({one_line(fault)}); "
            "restore both files from one run, or run the search again"
        ) from fault
    return network.eval().to(device=device, memory_format=torch.channels_last), facts  # type: ignore[call-overload]
