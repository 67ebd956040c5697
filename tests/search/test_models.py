"""The networks: the study's parameter counts, output shapes, StarDist's own U-Net, what cannot run and why."""

from __future__ import annotations

import pytest
import torch

from data_io.errors import BadInput
from search import models
from search.feasibility import Cache, examine

TABLE_1 = {
    "unet": 67.2,
    "unetplusplus": 83.6,
    "manet": 182,
    "linknet": 65.8,
    "fpn": 60.8,
    "deeplabv3": 74.3,
    "deeplabv3plus": 61.3,
    "pan": 58.9,
}
"""Millions of parameters with ResNet-152, Vašinková et al. 2024, Table 1."""

STUDY_ENCODERS = ("inceptionresnetv2", "tu-resnest269e", "resnet152", "resnext101_32x32d", "vgg19")


@pytest.mark.parametrize(("architecture", "millions"), TABLE_1.items())
def test_parameter_counts_of_the_study(architecture: str, millions: float) -> None:
    count = models.parameters_on_meta(architecture, "resnet152", "two_class", 3, 5, 1.0, None) / 1e6
    assert round(count, 0 if millions == 182 else 1) == millions


@pytest.mark.parametrize("target", models.OUTPUTS)
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_output_shape_for_any_channel_count(target: str, channels: int) -> None:
    network = models.build("unet", "tu-regnetx_002", target, channels, depth=4, width=0.5).eval()
    scores = network(torch.zeros(1, channels, 64, 96))
    grid = models.GRID[target]
    assert scores.shape == (1, models.OUTPUTS[target], 64 // grid, 96 // grid)


def test_stardists_own_u_net() -> None:
    network = models.build("stardist_unet", "", "star", 1)
    assert network(torch.zeros(1, 1, 64, 64)).shape == (1, 33, 32, 32)
    # Config2D, grid (2, 2), one channel: stem, three levels down, middle, three levels up, features; then two 1x1 heads
    pairs = [(1, 32), (32, 32), (32, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 128)]
    pairs += [(256, 128), (128, 64), (128, 64), (64, 32), (64, 32), (32, 32), (32, 128)]
    assert models.parameter_count(network) == sum(9 * i * o + o for i, o in pairs) + 129 + 128 * 32 + 32


def test_stardists_u_net_is_for_the_star_target_only() -> None:
    with pytest.raises(BadInput, match="only for the target star"):
        models.build("stardist_unet", "", "two_class")


def test_an_unknown_encoder_is_named_with_the_nearest() -> None:
    with pytest.raises(BadInput, match=r"encoder 'resnet19': unknown; did you mean resnet1"):
        examine("unet", "resnet19", 128)
    with pytest.raises(BadInput, match="encoder 'tu-nosuchnet': unknown"):
        examine("unet", "tu-nosuchnet", 128)


def test_dilation_decides_what_vgg_can_do() -> None:
    assert examine("unet", "vgg19", 224).ok
    deeplab = examine("deeplabv3", "vgg19", 224)
    assert not deeplab.ok
    assert "dilated" in deeplab.reason
    pan = examine("pan", "vgg19", 224)
    assert (pan.ok, pan.crop, pan.output_stride) == (True, 256, 32)
    assert "256-px crops" in pan.reason


def test_a_crop_that_pan_cannot_pool_is_infeasible_at_that_size() -> None:
    assert examine("pan", "resnet18", 128).output_stride == 16
    small = examine("pan", "resnet18", 96)
    assert small.output_stride == 32
    assert small.crop == 256


def test_examined_cells_are_remembered(tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "cells.json"
    cells = [("unet", "resnet18")]
    first = Cache(path).examine(cells, 128, 1, depth=5, width=1.0)
    assert path.exists()
    assert Cache(path).examine(cells, 128, 1, depth=5, width=1.0) == first


@pytest.mark.slow
def test_the_studys_grid_at_224_px() -> None:
    cells = [(a, e) for e in STUDY_ENCODERS for a in TABLE_1]
    found = {cell: examine(*cell, 224, 3) for cell in cells}
    infeasible = {cell for cell, f in found.items() if not f.ok}
    assert infeasible == {(a, e) for a in ("deeplabv3", "deeplabv3plus") for e in ("vgg19", "inceptionresnetv2")}
    changed = {cell for cell, f in found.items() if f.ok and f.crop == 256}
    assert changed == {("pan", "vgg19"), ("pan", "inceptionresnetv2")}


@pytest.mark.slow
@pytest.mark.parametrize("encoder", STUDY_ENCODERS)
@pytest.mark.parametrize("architecture", TABLE_1)
def test_each_feasible_cell_takes_a_training_step(architecture: str, encoder: str) -> None:
    cell = examine(architecture, encoder, 224, 1)
    if not cell.ok:
        pytest.skip(f"infeasible: {cell.reason}")
    from search.losses import dice

    network = models.build(architecture, encoder, "two_class", 1, output_stride=cell.output_stride).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3)
    crop = max(64, cell.crop if architecture == "pan" else 64)
    before = network.body.segmentation_head[0].weight.detach().clone()
    loss = dice(network(torch.randn(2, 1, crop, crop)), torch.randint(0, 2, (2, crop, crop)))
    loss.backward()
    optimiser.step()
    assert torch.isfinite(loss)
    assert not torch.equal(before, network.body.segmentation_head[0].weight)


@pytest.mark.parametrize("depth", [3, 4, 5])
@pytest.mark.parametrize("architecture", sorted(models.ARCHITECTURES))
def test_scores_have_the_size_of_the_crop_at_every_depth(architecture: str, depth: int) -> None:
    with torch.device("meta"):
        network = models.build(architecture, "resnet18", "two_class", depth=depth, width=0.5)
        assert network.train()(torch.empty(2, 1, 256, 256)).shape == (2, 1, 256, 256)
