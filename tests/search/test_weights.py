"""Pretraining is chosen and fetched once for all trials of an encoder; without a network none is used, said once.

The hub is a stand-in on this machine; what asks it and loads the files is the real code of smp, timm and hub client.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import segmentation_models_pytorch as smp
import torch

from data_io.errors import BadInput
from search import models, weights

from .hub_stand_in import Hub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def filled() -> Iterator[Hub]:
    with Hub() as hub:
        hub.add_smp("mobilenet_v2", "imagenet")
        hub.add_smp("resnet18", "imagenet")
        hub.add_smp("dpn68b", "imagenet+5k")
        hub.add_timm("resnest14d")
        hub.add_timm("regnetx_002")
        yield hub


@pytest.fixture
def hub(filled: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    filled.connect(monkeypatch, tmp_path / "cache of this machine")
    monkeypatch.setattr(filled, "asked", [])
    yield filled
    filled.answers.set()


@pytest.fixture
def unplugged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with Hub() as gone:
        gone.connect(monkeypatch, tmp_path / "another cache")


def test_none_is_none_for_every_encoder() -> None:
    assert weights.resolve(["resnet18", "vgg19"], "none") == ({"resnet18": None, "vgg19": None}, [])


def test_auto_takes_imagenet_else_the_only_weights_of_the_studys_encoders() -> None:
    study = ["resnet152", "vgg19", "inceptionresnetv2", "tu-resnest269e", "resnext101_32x32d"]
    assert weights.choose(study, "auto") == dict.fromkeys(study[:4], "imagenet") | {study[4]: "instagram"}


def test_timm_is_asked_which_pretraining_it_has() -> None:
    assert weights.offered("tu-resnet18.fb_swsl_ig1b_ft_in1k") == ("imagenet",)
    assert weights.offered("timm-mobilenetv3_small_075") == ("imagenet",)
    assert weights.offered("tu-vit_small_patch14_dinov2") == ("lvd142m",)
    untrained, outside_the_hub, no_such_tag, no_such_model = (
        "tu-darknet17",
        "tu-gcvit_tiny",
        "tu-resnet18.nosuch",
        "tu-nosuch",
    )
    for encoder in (untrained, outside_the_hub, no_such_tag, no_such_model):
        assert weights.choose([encoder], "auto") == {encoder: None}


def test_a_pretraining_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(BadInput, match="vgg19: has no instagram weights; it has imagenet"):
        weights.resolve(["vgg19"], "instagram")


def test_a_plan_names_the_weights_and_fetches_nothing(hub: Hub, tmp_path: Path) -> None:
    chosen, told = weights.resolve(["resnet18", "dpn68b"], "auto", tmp_path / "run", fetch=False)
    assert chosen == {"resnet18": "imagenet", "dpn68b": "imagenet+5k"}
    assert len(told) == 1
    assert not hub.asked
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("architecture", "encoder", "channels", "depth", "stride"),
    [
        ("unet", "resnet18", 1, 5, None),
        ("unet", "resnet18", 2, 4, None),
        ("fpn", "resnet18", 3, 5, None),
        ("deeplabv3", "resnet18", 4, 5, 8),
        ("pan", "mobilenet_v2", 1, 5, 16),
        ("unet", "dpn68b", 1, 5, None),
        ("manet", "tu-resnest14d", 1, 4, None),
        ("pan", "tu-resnest14d", 4, 5, 16),
        ("unet", "tu-regnetx_002", 2, 5, None),
        ("deeplabv3", "tu-regnetx_002", 3, 5, 8),
    ],
)
@pytest.mark.filterwarnings("ignore:For 'tu-':UserWarning")
def test_a_trial_starts_from_the_very_encoder_that_the_library_makes_from_the_hub(
    architecture: str,
    encoder: str,
    channels: int,
    depth: int,
    stride: int | None,
    hub: Hub,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    (name,) = weights.choose([encoder], "auto").values()
    dilated = {} if stride is None else {"encoder_output_stride": stride}
    if architecture in {"unet", "unetplusplus", "manet"}:
        dilated["decoder_channels"] = (64, 32, 16, 8, 8)[:depth]
    constructor = getattr(smp, models.ARCHITECTURES[architecture])
    expected = constructor(encoder, encoder_weights=name, in_channels=channels, encoder_depth=depth, **dilated)

    chosen, told = weights.resolve([encoder], "auto", tmp_path / "run")
    assert (chosen, told) == ({encoder: name}, [])
    request.getfixturevalue("unplugged")
    kept = weights.stored(tmp_path / "run", encoder, name)
    made = models.build(
        architecture, encoder, "two_class", channels, weights=kept, depth=depth, output_stride=stride
    ).body.encoder
    theirs, ours = expected.encoder.state_dict(), made.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[key], ours[key]) for key in theirs)
    image = torch.rand(1, channels, 64, 64)
    features = zip(expected.encoder.eval()(image), made.eval()(image), strict=True)
    assert all(torch.equal(a, b) for a, b in features)


def test_an_old_timm_name_gets_the_weights_of_the_model_it_stands_for(hub: Hub, tmp_path: Path) -> None:
    both = ["timm-regnetx_002", "tu-regnetx_002"]
    assert weights.resolve(both, "auto", tmp_path) == (dict.fromkeys(both, "imagenet"), [])
    old, new = (weights.stored(tmp_path, encoder, "imagenet") for encoder in both)
    assert old is not None
    assert new is not None
    assert old.read_bytes() == new.read_bytes()


def test_weights_are_fetched_once_and_a_resumed_run_needs_no_network(
    hub: Hub, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    first = weights.resolve(["resnet18", "tu-regnetx_002", "resnet18"], "auto", tmp_path / "run")
    assert sorted(path.split("/")[-4] for path in hub.asked if path.endswith("model.safetensors")) == [
        "regnetx_002.pycls_in1k",
        "resnet18.imagenet",
    ]
    request.getfixturevalue("unplugged")
    assert weights.resolve(["resnet18", "tu-regnetx_002"], "auto", tmp_path / "run") == first
    facts = json.loads((tmp_path / "run" / weights.MANIFEST).read_text())["encoders"]
    settings = smp.encoders.encoders["resnet18"]["pretrained_settings"]["imagenet"]
    assert facts["resnet18"]["source"] == f"{settings['repo_id']}@{settings['revision']}"
    assert facts["tu-regnetx_002"]["source"] == "timm/regnetx_002.pycls_in1k"


@pytest.mark.parametrize("encoder", ["mobilenet_v2", "tu-regnetx_002"])
def test_a_silent_hub_does_not_matter_where_the_machine_has_the_weights(
    encoder: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights.resolve([encoder], "imagenet", tmp_path / "run")
    monkeypatch.setattr(weights, "ANSWER_SECONDS", 0.2)
    hub.answers.clear()
    assert weights.resolve([encoder], "imagenet", tmp_path / "other") == ({encoder: "imagenet"}, [])
    assert weights.stored(tmp_path / "other", encoder, "imagenet")


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("no file", "RemoteEntryNotFoundError"),
        ("no repository", "RepositoryNotFoundError"),
        ("truncated", "OSError"),
        ("silent", "LocalEntryNotFoundError"),
        ("gone", "LocalEntryNotFoundError"),
        ("another network's file", "timm leaves a part of it random"),
    ],
)
@pytest.mark.parametrize("mode", ["auto", "imagenet"])
def test_where_one_encoder_cannot_be_fetched_auto_uses_none_for_all_and_a_name_is_refused(
    fault: str, kind: str, mode: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = "timm/resnest14d.gluon_in1k"
    changed = dict(hub.files)
    if fault == "no file":
        changed[last] = {"config.json": b"{}"}
    elif fault == "no repository":
        del changed[last]
    elif fault == "another network's file":
        changed[last] = hub.files["timm/regnetx_002.pycls_in1k"]
    elif fault == "truncated":
        monkeypatch.setattr(hub, "truncates", True)
    elif fault == "silent":
        monkeypatch.setattr(weights, "ANSWER_SECONDS", 0.2)
        hub.answers.clear()
    else:
        with Hub() as gone:
            gone.connect(monkeypatch, tmp_path / "another cache")
    monkeypatch.setattr(hub, "files", changed)
    run, encoders = tmp_path / "run", ["mobilenet_v2", "tu-resnest14d"]
    if mode == "imagenet":
        with pytest.raises(
            BadInput, match=rf"imagenet weights: (mobilenet_v2|tu-resnest14d): ({kind}); connect to the network or set"
        ):
            weights.resolve(encoders, mode, run)
        return
    chosen, told = weights.resolve(encoders, mode, run)
    assert chosen == dict.fromkeys(encoders)
    assert len(told) == 1
    assert weights.OFFLINE in told[0]
    assert not list(run.glob("*.safetensors"))

    monkeypatch.undo()  # the network is back: a run that began without weights goes on without them
    hub.answers.set()
    hub.connect(monkeypatch, tmp_path / "cache")
    assert weights.resolve(encoders, mode, run) == (chosen, told)


def test_a_full_disk_is_not_taken_for_a_missing_network(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights.files, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        weights.resolve(["mobilenet_v2"], "auto", tmp_path / "run")


@pytest.mark.parametrize("text", ["{", "[]", '{"mode": "auto", "encoders": {"resnet18": 3}}', '{"encoders": {}}'])
def test_a_damaged_list_of_weights_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / weights.MANIFEST).write_text(text)
    with pytest.raises(BadInput, match=r"encoders\.json: damaged; restore it, or run the search in a new folder"):
        weights.stored(tmp_path, "resnet18", "imagenet")


def test_weights_that_are_damaged_missing_or_others_are_refused(hub: Hub, tmp_path: Path) -> None:
    assert weights.stored(None, "mobilenet_v2", None) is None
    weights.resolve(["mobilenet_v2"], "auto", tmp_path)
    for folder, encoder, name in [
        (tmp_path, "resnet18", "imagenet"),
        (tmp_path, "mobilenet_v2", "instagram"),
        (None, "mobilenet_v2", "imagenet"),
    ]:
        with pytest.raises(BadInput, match=f"{encoder}: its {name} weights are not in this run"):
            weights.stored(folder, encoder, name)
    file = weights.stored(tmp_path, "mobilenet_v2", "imagenet")
    assert file is not None
    with pytest.raises(BadInput, match="does not fit this encoder"):
        models.build("unet", "resnet18", "two_class", weights=file)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(BadInput, match="not as fetched"):
        weights.resolve(["mobilenet_v2"], "auto", tmp_path)
    file.unlink()
    with pytest.raises(BadInput, match="missing or not as fetched"):
        weights.stored(tmp_path, "mobilenet_v2", "imagenet")
