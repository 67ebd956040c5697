"""Packages for bioimage.io: they pass its own test, and run on other batches and sizes than the example."""

from __future__ import annotations

import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from data_io.errors import BadInput
from data_io.normalise import frame_limits, normalise, percentiles, rule
from search import handover, models
from search.export import Answer, _normalised, export, main

if TYPE_CHECKING:
    from pathlib import Path

RULE = rule({"uint16": [np.array([[100.0, 500.0, 2000.0]])]})
DATASET_RULE = rule({"uint16": [np.array([[100.0, 500.0, 2000.0], [50.0, 60.0, 900.0]])]}, "dataset")


def saved(folder: Path, target: str, architecture: str = "unet", channels: int = 1, **more: Any) -> models.Network:
    """Write the folder of a small model with random weights."""
    torch.manual_seed(1)
    encoder = "" if architecture == "stardist_unet" else "resnet18"
    network = models.build(architecture, encoder, target, channels, depth=4, width=0.25).eval()
    facts = {
        "target": target,
        "architecture": architecture,
        "encoder": encoder,
        "loss": "dice",
        "in_channels": channels,
        "channels": ["class", "GFP", "gfp"][:channels],
        "encoder_depth": 4,
        "decoder_width": 0.25,
        "output_stride": None,
        "crop": 96,
        "pixel_size_um": 0.65,
        "normalisation": RULE,
        "decode": {"threshold": 0.5},
    }
    handover.save(folder, network, facts | more)
    return network


@pytest.mark.parametrize(
    ("target", "architecture", "channels", "normalisation"),
    [
        ("two_class", "fpn", 1, RULE),
        ("three_class", "unet", 2, DATASET_RULE),
        ("star", "stardist_unet", 3, RULE),
    ],
)
def test_a_package_passes_the_test_of_bioimageio_and_runs_on_other_sizes(
    target: str, architecture: str, channels: int, normalisation: dict[str, Any], tmp_path: Path
) -> None:
    import onnxruntime

    network = saved(tmp_path / "best", target, architecture, channels, normalisation=normalisation)
    package = export(tmp_path / "best", tmp_path / "model.zip")
    with zipfile.ZipFile(package) as inside:
        assert {"weights.pt", "weights.onnx", "README.md"} <= set(inside.namelist())
        inside.extractall(tmp_path / "inside")
    images = torch.rand(3, channels, 160, 224)
    with torch.inference_mode():
        expected = Answer(network)(images).numpy()
    session = onnxruntime.InferenceSession(tmp_path / "inside" / "weights.onnx")
    [by_onnx] = session.run(None, {"images": images.numpy()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit announces its end
        by_script = torch.jit.load(str(tmp_path / "inside" / "weights.pt"))(images).detach().numpy()
    for found in (by_onnx, by_script):
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < 1e-3


@pytest.mark.parametrize("made", [RULE, DATASET_RULE])
def test_the_preprocessing_is_that_of_the_project(made: dict[str, Any]) -> None:
    channels = len(made["background"])
    frame = np.random.default_rng(0).integers(100, 3000, (channels, 64, 80)).astype(np.uint16)
    assert percentiles(frame).shape == (channels, 3)
    ours = normalise(frame, frame_limits(frame, made))
    assert np.abs(_normalised(frame[None].astype(np.float32), made)[0] - ours).max() < 1e-5


def test_what_is_no_model_or_would_overwrite_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(BadInput, match=r"no model\.json"):
        main([str(tmp_path / "nothing")])
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(BadInput, match="no such folder"):
        main([str(tmp_path / "model.json")])
    (tmp_path / "model.json").unlink()
    (tmp_path / "there.zip").write_text("mine")
    with pytest.raises(BadInput, match="exists"):
        main([str(tmp_path), "--out", str(tmp_path / "there.zip")])
    assert (tmp_path / "there.zip").read_text() == "mine"
