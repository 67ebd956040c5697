"""Pretraining is chosen once for all trials of an encoder; without a network none is used for any, said once."""

from __future__ import annotations

import pytest

from data_io.errors import BadInput
from search import weights


def test_none_is_none_for_every_encoder() -> None:
    assert weights.resolve(["resnet18", "vgg19"], "none") == ({"resnet18": None, "vgg19": None}, [])


def test_auto_takes_imagenet_else_the_only_weights_there_are() -> None:
    chosen, _ = weights.resolve(["resnet152", "resnext101_32x32d", "tu-resnest269e"], "auto", fetch=False)
    assert chosen == {"resnet152": "imagenet", "resnext101_32x32d": "instagram", "tu-resnest269e": "imagenet"}


def test_a_pretraining_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(BadInput, match="vgg19: has no instagram weights; it has imagenet"):
        weights.resolve(["vgg19"], "instagram")


@pytest.fixture
def unplugged(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", "/nonexistent")


@pytest.mark.usefixtures("unplugged")
def test_offline_auto_uses_none_for_all_and_says_so_once() -> None:
    chosen, told = weights.resolve(["resnet18", "tu-resnet10t"], "auto")
    assert chosen == {"resnet18": None, "tu-resnet10t": None}
    assert len(told) == 1
    assert "cannot be fetched" in told[0]


@pytest.mark.usefixtures("unplugged")
def test_offline_a_pretraining_asked_for_by_name_is_refused() -> None:
    with pytest.raises(BadInput, match=r"imagenet weights: resnet18: .*; connect to the network or set"):
        weights.resolve(["resnet18"], "imagenet")
