"""The hand-over model and whole-frame inference: equal scores after a round trip, damage refused, no seams."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from data_io import sealed
from data_io.errors import BadInput
from search import handover, inference, models

if TYPE_CHECKING:
    from pathlib import Path

FACTS: dict[str, Any] = {
    "architecture": "unet",
    "encoder": "tu-regnetx_002",
    "target": "three_class",
    "in_channels": 1,
    "encoder_depth": 3,
    "decoder_width": 0.5,
    "output_stride": None,
    "normalisation": {},
    "decode": {},
}


def network() -> models.Network:
    torch.manual_seed(0)
    made = models.build("unet", "tu-regnetx_002", "three_class", 1, depth=3, width=0.5).eval()
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def test_a_model_comes_back_with_the_same_scores(tmp_path: Path) -> None:
    made = network()
    handover.save(tmp_path, made, FACTS)
    again, facts = handover.load(tmp_path)
    images = torch.randn(1, 1, 64, 64)
    assert torch.equal(made(images), again(images))
    assert facts["architecture"] == "unet"


def test_a_flipped_bit_in_the_weights_is_refused(tmp_path: Path) -> None:
    handover.save(tmp_path, network(), FACTS)
    weights = tmp_path / handover.WEIGHTS
    data = bytearray(weights.read_bytes())
    data[-5] ^= 4
    weights.write_bytes(bytes(data))
    with pytest.raises(BadInput, match="differs from the checksum"):
        handover.load(tmp_path)


def test_a_changed_digit_in_the_facts_is_refused(tmp_path: Path) -> None:
    handover.save(tmp_path, network(), FACTS | {"decode": {"min_area": 40}})
    file = tmp_path / handover.FACTS
    file.write_text(file.read_text().replace("40", "41"))
    with pytest.raises(BadInput, match=r"model\.json: differs from its checksum; restore it or run the search again"):
        handover.check(tmp_path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    handover.save(tmp_path, network(), FACTS)
    facts = json.loads((tmp_path / handover.FACTS).read_text()) | {"architecture": "linknet"}
    (tmp_path / handover.FACTS).write_text(json.dumps({k: v for k, v in facts.items() if k != sealed.CHECK}))
    with pytest.raises(BadInput, match="does not fit linknet"):
        handover.load(tmp_path)


def test_facts_without_what_is_needed_are_refused(tmp_path: Path) -> None:
    (tmp_path / handover.FACTS).write_text('{"format": 2}')
    with pytest.raises(BadInput, match="lacks architecture"):
        handover.read_facts(tmp_path)
    with pytest.raises(BadInput, match=r"no model\.json"):
        handover.read_facts(tmp_path / "nowhere")


@pytest.mark.parametrize("shape", [(1, 50, 70), (1, 64, 64), (1, 33, 129)])
def test_any_frame_size_keeps_its_size(shape: tuple[int, int, int]) -> None:
    prediction = inference.predict(network(), np.random.default_rng(0).random(shape, np.float32))
    assert prediction.shape == shape[1:]
    assert prediction.probability.shape == (3, *shape[1:])


def test_tiles_join_without_a_seam() -> None:
    image = np.random.default_rng(1).random((1, 300, 420), np.float32)
    made = network()
    whole = inference.predict(made, image, tile=1024)
    tiled = inference.predict(made, image, tile=64, margin=96)
    difference = np.abs(whole.probability.astype(int) - tiled.probability.astype(int))
    assert difference.max() <= 1


def test_star_tiles_lie_on_the_same_grid() -> None:
    torch.manual_seed(0)
    made = models.build("unet", "tu-regnetx_002", "star", 1, depth=3, width=0.5).eval()
    image = np.random.default_rng(1).random((1, 201, 259), np.float32)
    whole, tiled = inference.predict(made, image, tile=1024), inference.predict(made, image, tile=64, margin=96)
    assert whole.probability.shape == tiled.probability.shape == (1, 101, 130)
    assert np.abs(whole.probability.astype(int) - tiled.probability.astype(int)).max() <= 1
