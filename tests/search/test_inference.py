"""Networks applied to whole frames: tiles without seams, batches, the eight symmetries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from skimage.draw import disk

from search import inference, models, targets
from search.speed import megapixels_per_second

if TYPE_CHECKING:
    from numpy.typing import NDArray


@pytest.fixture(scope="module")
def network() -> models.Network:
    torch.manual_seed(0)
    made = models.build("unet", "resnet18", "three_class", 1, depth=3, width=0.25).eval()
    with torch.no_grad():  # random weights give nearly the same score everywhere; make differences visible
        for parameter in made.body.segmentation_head.parameters():  # type: ignore[union-attr]
            parameter.mul_(30)
    return made


def frame(height: int, width: int, channels: int = 1, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((channels, height, width), dtype=np.float32)


def levels(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


@pytest.mark.parametrize(("height", "width"), [(700, 500), (417, 1031), (450, 450)])
def test_tiles_give_what_the_whole_frame_gives_and_would_not_without_their_margin(
    network: models.Network, height: int, width: int
) -> None:
    image = frame(height, width)
    whole = inference.predict(network, image).probability
    tiled = inference.predict(network, image, tile=128, margin=96).probability
    assert whole.std() > 5
    assert levels(whole, tiled) <= 1
    assert levels(whole, inference.predict(network, image, tile=128, margin=0).probability) > 10


class Same(torch.nn.Module):
    """Scores that are the labels it sees, as a perfect network of a target would give them."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target
        self.smallest = 32
        self.anything = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(images.shape))
        labels = images[:, 0].round().int().numpy()
        encoded = torch.from_numpy(targets.encode(self.target, labels))
        if self.target == "star":
            return torch.cat([encoded[:, :1].logit(1e-4), encoded[:, 1:]], dim=1)
        classes = 3 if self.target == "three_class" else 2
        scores = 20.0 * torch.nn.functional.one_hot(encoded.long(), classes).permute(0, 3, 1, 2).float()
        return scores if self.target == "three_class" else scores[:, 1:] - 10


def cells(height: int, width: int) -> NDArray[np.float32]:
    labels = np.zeros((1, height, width), np.float32)
    for number, (y, x, radius) in enumerate(((40, 50, 13), (75, 30, 9), (60, 110, 17), (30, 85, 11)), start=1):
        labels[0][disk((y, x), radius, shape=(height, width))] = number
    return labels


@pytest.mark.parametrize("target", ["two_class", "three_class", "star"])
@pytest.mark.parametrize("size", [(96, 128), (101, 143)])
def test_the_mean_over_the_symmetries_of_a_perfect_network_is_its_answer(target: str, size: tuple[int, int]) -> None:
    image = cells(*size)
    network: Any = Same(target)
    plain, mean = (inference.predict(network, image, tta=tta) for tta in (False, True))
    assert len(network.seen) == 1 + 8
    if target != "star":
        assert np.array_equal(plain.probability, mean.probability)
        return
    assert plain.distance is not None
    assert mean.distance is not None
    inside = plain.probability[0] > 100
    assert inside.sum() > 150
    assert levels(plain.probability, mean.probability) <= 1
    assert np.abs(plain.distance.astype(float) - mean.distance.astype(float))[:, inside].max() < 0.02


def test_small_frames_of_one_size_go_through_together_in_their_order() -> None:
    network: Any = Same("two_class")
    images = [cells(64, 96) * (number % 2) for number in range(5)] + [cells(96, 96)]
    found = list(inference.predict_frames(network, images))
    assert [seen[0] for seen in network.seen] == [5, 1]
    for image, prediction in zip(images, found, strict=True):
        assert np.array_equal(prediction.probability[0] > 127, image[0] > 0)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 700), (3, 33, 31), (1, 64, 64)])
@pytest.mark.parametrize("target", ["two_class", "star"])
def test_any_size_gives_a_prediction_of_that_size(shape: tuple[int, int, int], target: str) -> None:
    network = models.build("unet", "resnet18", target, shape[0], depth=3, width=0.1).eval()
    for tta in (False, True):
        prediction = inference.predict(network, frame(*shape[1:], channels=shape[0]), tile=128, margin=32, tta=tta)
        assert prediction.shape == shape[1:]


def test_tiles_that_leave_the_networks_grid_are_refused(network: models.Network) -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        inference.predict(network, frame(64, 64), tile=100, margin=32)


def test_speed_is_megapixels_of_the_frame_over_seconds(
    network: models.Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 2.0, 10.0, 10.5, 20.0, 23.0])
    monkeypatch.setattr("search.speed.time.perf_counter", lambda: next(clock))
    assert megapixels_per_second(network, (1, 100, 200)) == pytest.approx(0.02 / 0.5)


@pytest.mark.parametrize(("output_stride", "size"), [(32, (64, 100)), (16, (40, 130))])
@pytest.mark.parametrize("tta", [False, True])
def test_a_frame_smaller_than_a_network_takes_is_predicted_all_the_same(
    output_stride: int, size: tuple[int, int], tta: bool
) -> None:
    network = models.build("pan", "resnet18", "star", output_stride=output_stride).eval()
    image = np.random.default_rng(0).random((1, *size), dtype=np.float32)
    with pytest.raises((RuntimeError, ValueError)):
        network(torch.from_numpy(np.pad(image, ((0, 0), (0, -size[0] % 32), (0, -size[1] % 32)))[None]))
    prediction = inference.predict(network, image, tta=tta)
    assert prediction.shape == size
    assert prediction.probability.shape == (1, size[0] // 2, size[1] // 2)


def test_the_last_tiles_of_a_frame_may_be_smaller_than_a_network_takes() -> None:
    network = models.build("pan", "resnet18", "two_class", output_stride=32).eval()
    image = np.random.default_rng(0).random((1, 520, 340), dtype=np.float32)
    assert inference.predict(network, image, tile=256, margin=32).probability.shape == (1, 520, 340)
