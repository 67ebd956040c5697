"""The hand-over model: ``model.safetensors`` (weights) and ``model.json`` (everything needed to use them), bound by
SHA-256.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from data_io import files
from data_io.errors import BadInput
from search import models

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS = "model.safetensors"
FACTS = "model.json"
FORMAT = 2
BUILD = ("architecture", "encoder", "target", "in_channels", "encoder_depth", "decoder_width", "output_stride")
"""Facts that rebuild the network."""


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
    written = {"format": FORMAT, **facts, "sha256": files.sha256(folder / WEIGHTS)}
    files.write_json(folder / FACTS, written)
    return written


def read_facts(folder: Path) -> dict[str, Any]:
    """Facts of a model folder; BadInput where they are missing or of another format."""
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text())
    except FileNotFoundError:
        raise BadInput(f"{folder}: no {FACTS}; give a folder RUN/best/<target> of a finished search") from None
    except ValueError as fault:
        raise BadInput(f"{folder / FACTS}: not JSON ({fault}); run the search again to write it anew") from fault
    missing = [name for name in (*BUILD, "sha256", "normalisation", "decode") if name not in facts]
    if facts.get("format") != FORMAT or missing:
        raise BadInput(
            f"{folder / FACTS}: lacks {', '.join(missing) or 'the format'}; it was not written by this version"
        )
    return facts


def load(folder: Path, device: str = "cpu") -> tuple[models.Network, dict[str, Any]]:
    """Network in evaluation mode and its facts.

    Raises
    ------
    BadInput
        When a file is missing, the weights differ from their checksum, or they do not fit the network described.
    """
    facts = read_facts(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise BadInput(f"{weights}: missing; run the search again to write it anew")
    data = weights.read_bytes()
    if files.sha256(weights) != facts["sha256"]:
        raise BadInput(f"{weights}: differs from the checksum in {FACTS}; restore it or run the search again")
    network = models.build(
        facts["architecture"],
        facts["encoder"],
        facts["target"],
        facts["in_channels"],
        depth=facts["encoder_depth"],
        width=facts["decoder_width"],
        output_stride=facts["output_stride"],
    )
    try:
        network.load_state_dict(load_tensors(data))
    except RuntimeError as fault:
        raise BadInput(
            f"{weights}: does not fit {facts['architecture']} on {facts['encoder']} ({str(fault)[:200]})"
        ) from fault
    return network.eval().to(device=device, memory_format=torch.channels_last), facts  # type: ignore[call-overload]
