"""Encoder pretraining, resolved once before any trial starts and the same for all trials of one encoder."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from data_io.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ANSWER_SECONDS = 3.0
"""How long the model hub may take to accept a connection."""
OFFLINE = "pretrained weights cannot be fetched here, so every encoder starts from random weights"


def offered(encoder: str) -> tuple[str, ...]:
    """Names of the pretrainings that exist for an encoder; timm encoders (``tu-``) have imagenet."""
    import segmentation_models_pytorch as smp

    if encoder.startswith("tu-"):
        return ("imagenet",)
    return tuple(smp.encoders.encoders.get(encoder, {}).get("pretrained_settings", {}))


def resolve(encoders: Iterable[str], mode: str, *, fetch: bool = True) -> tuple[dict[str, str | None], list[str]]:
    """Pretraining per encoder, and what the user must be told.

    ``auto`` takes imagenet, else the encoder's only weights; where one cannot be fetched, none for all.

    Parameters
    ----------
    encoders, mode
        Encoder names; none, imagenet, instagram or auto.
    fetch
        False chooses the names only (to show a plan); nothing is loaded.

    Raises
    ------
    BadInput
        When a pretraining asked for by name does not exist or cannot be fetched.
    """
    encoders = [encoder for encoder in dict.fromkeys(encoders) if encoder]
    if mode == "none":
        return dict.fromkeys(encoders), []
    chosen: dict[str, str | None] = {}
    for encoder in encoders:
        names = offered(encoder)
        name = ("imagenet" if "imagenet" in names else names[0] if names else None) if mode == "auto" else mode
        if mode != "auto" and mode not in names:
            raise BadInput(f"encoder {encoder}: has no {mode} weights; it has {', '.join(names) or 'none'}")
        chosen[encoder] = name
    if not fetch:
        return chosen, ["encoder weights are fetched when the search starts; offline none are used for any encoder"]
    with _hub():
        failed = next((fault for encoder, name in chosen.items() if name and (fault := _fetch(encoder, name))), None)
    if failed is None:
        return chosen, []
    if mode != "auto":
        raise BadInput(f"{mode} weights: {failed}; connect to the network or set space.encoder_weights=none")
    return dict.fromkeys(encoders), [f"{OFFLINE} ({failed})"]


def _fetch(encoder: str, name: str) -> str | None:
    """Load an encoder once, which puts its weights into the libraries' cache; return why that failed."""
    import segmentation_models_pytorch as smp

    try:
        smp.encoders.get_encoder(encoder, weights=name)
    except Exception as fault:  # hub clients raise their own kinds; any of them means: not fetched
        return f"{encoder}: {type(fault).__name__}"
    return None


@contextmanager
def _hub() -> Iterator[None]:
    """Ask the model hub once whether it answers; if not, use what is cached and do not try again for minutes."""
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT)
    before = constants.HF_HUB_OFFLINE
    try:
        socket.create_connection((host.hostname or "", host.port or 443), timeout=ANSWER_SECONDS).close()
    except OSError:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
