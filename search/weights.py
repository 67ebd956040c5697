"""Encoder pretraining, resolved once before any trial starts and the same for all trials of one encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_io.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterable

OFFLINE = "pretrained weights cannot be fetched here, so every encoder starts from random weights"


def offered(encoder: str) -> tuple[str, ...]:
    """Names of the pretrainings that exist for an encoder; timm encoders (``tu-``) have imagenet."""
    import segmentation_models_pytorch as smp

    if encoder.startswith("tu-"):
        return ("imagenet",)
    return tuple(smp.encoders.encoders.get(encoder, {}).get("pretrained_settings", {}))


def resolve(encoders: Iterable[str], mode: str) -> tuple[dict[str, str | None], list[str]]:
    """Pretraining per encoder, and what the user must be told.

    ``auto`` takes imagenet, else the encoder's only weights; where one cannot be fetched, none for all.

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
    except Exception as fault:
        return f"{encoder}: {type(fault).__name__}"
    return None
