"""The presets: what a search is when nothing else is said.

A preset is a tree with the shape of `search.config.Config`; the configuration file and the ``key.path=value``
overrides are laid over it. demo = minutes on two CPU cores; search = early stopping over the whole feasible grid with
reference runs beside it; paper = the study (Vašinková et al. 2024): two_class with Dice, 1000 epochs, nothing stopped,
then the best of them as three_class, and StarDist's own network.
"""

from __future__ import annotations

from typing import Any

STUDY_ARCHITECTURES = ["unet", "unetplusplus", "manet", "linknet", "fpn", "deeplabv3", "deeplabv3plus", "pan"]
STUDY_ENCODERS = ["inceptionresnetv2", "tu-resnest269e", "resnet152", "resnext101_32x32d", "vgg19"]

PRESETS: dict[str, dict[str, Any]] = {
    "demo": {
        "preset": "demo",
        "space": {
            "mode": "grid",
            "architectures": ["unet", "unetplusplus", "linknet"],
            "encoders": ["tu-regnety_002", "timm-mobilenetv3_small_075"],
            "targets": ["three_class", "two_class", "star"],
            "losses": {"two_class": ["bce_dice"], "three_class": ["ce_dice"], "star": ["stardist"]},
            "learning_rate": [0.004],
            "weight_decay": [0.0001],
            "augmentation": [0.3],
            "seeds": [0],
            "stardist_unet": False,
            "encoder_weights": "none",
        },
        "train": {
            "max_epochs": 18,
            "crops_per_epoch": 80,
            "crop": None,
            "batch_size": 4,
            "encoder_depth": 4,
            "decoder_width": 0.5,
            "schedule": "warmup_stable_decay",
            "checkpoint_every": 6,
            "validation_crops": 12,
        },
        "schedule": {
            "asha": True,
            "grace_epochs": 2,
            "reduction_factor": 3,
            "references": [
                {"architecture": "unet", "encoder": "tu-regnety_002", "target": "three_class", "loss": "ce_dice"},
            ],
        },
        "budget": {"minutes": 9.0},
    },
    "search": {
        "preset": "search",
        "space": {
            "mode": "grid",
            "architectures": STUDY_ARCHITECTURES,
            "encoders": STUDY_ENCODERS,
            "targets": ["two_class", "three_class", "star"],
            "losses": {
                "two_class": ["dice", "bce_dice", "focal_dice", "lovasz", "tversky"],
                "three_class": ["dice", "ce_dice", "focal_dice", "lovasz", "tversky", "boundary_ce_dice"],
                "star": ["stardist"],
            },
            "learning_rate": [0.0003],
            "weight_decay": [0.0001],
            "augmentation": [0.5],
            "seeds": [0],
            "stardist_unet": True,
            "encoder_weights": "auto",
        },
        "train": {
            "max_epochs": 1000,
            "crops_per_epoch": None,
            "crop": 224,
            "batch_size": None,
            "encoder_depth": 5,
            "decoder_width": 1.0,
            "schedule": "warmup_stable_decay",
            "checkpoint_every": 10,
            "validation_crops": 64,
        },
        "schedule": {
            "asha": True,
            "grace_epochs": 38,
            "reduction_factor": 3,
            "references": [
                {"architecture": "unet", "encoder": "resnet152", "target": "two_class", "loss": "dice"},
                {"architecture": "unet", "encoder": "resnet152", "target": "three_class", "loss": "ce_dice"},
                {"architecture": "stardist_unet", "encoder": "", "target": "star", "loss": "stardist"},
            ],
        },
    },
    "paper": {
        "preset": "paper",
        "space": {
            "mode": "grid",
            "architectures": STUDY_ARCHITECTURES,
            "encoders": STUDY_ENCODERS,
            "targets": ["two_class"],
            "losses": {"two_class": ["dice"]},
            "learning_rate": [0.0001],
            "weight_decay": [0.0],
            "augmentation": [0.0],
            "seeds": [0],
            "stardist_unet": False,
            "encoder_weights": "auto",
        },
        "train": {
            "max_epochs": 1000,
            "crops_per_epoch": None,
            "crop": 224,
            "batch_size": 16,
            "encoder_depth": 5,
            "decoder_width": 1.0,
            "schedule": "constant",
            "calibrate_batchnorm": False,
            "checkpoint_every": 10,
            "validation_crops": 64,
        },
        "schedule": {
            "asha": False,
            "grace_epochs": 1000,
            "reduction_factor": 3,
            "references": [
                {"architecture": "stardist_unet", "target": "star", "loss": "stardist", "crop": 256},
                {"architecture": "winner", "target": "three_class", "loss": "dice", "gap": True},
                {"architecture": "winner", "target": "three_class", "loss": "dice"},
            ],
            "references_placed": "last",
        },
        "objective": "iou",
    },
}
