"""A trial of the tests: a small U-Net on crops of 64 px. A test names only what it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from search.space import TrialConfig

if TYPE_CHECKING:
    from search.config import TrainConfig


def a_trial(train: TrainConfig, **changes: Any) -> TrialConfig:
    """Return a trial of two epochs that is trained as `train` says, with `changes` of its other settings."""
    usual: dict[str, Any] = {
        "id": "t",
        "target": "two_class",
        "architecture": "unet",
        "encoder": "tu-regnetx_002",
        "loss": "bce_dice",
        "learning_rate": 0.003,
        "weight_decay": 1e-4,
        "augmentation": 0.5,
        "seed": 3,
        "crop": 64,
        "output_stride": None,
        "encoder_weights": None,
        "reference": False,
        "epochs": 2,
        "cpus": 1.0,
        "train": train,
    }
    return TrialConfig(**(usual | changes))
