"""The configuration of a search: strict, frozen, every fault told at once with its place and the nearest name.

Three layers make a configuration: a preset (`search.presets`), then a YAML file, then ``key.path=value`` overrides.
Mappings are merged key by key, every other value (lists too) replaces the one below.

    >>> load("demo", None, ["train.max_epochs=3", "schedule.grace_epochs=1"]).train.max_epochs
    3
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from data_io.errors import BadInput
from data_io.location import KEYS_IN_ADDRESS
from data_io.secrecy import has_password
from search import config_text, strict_yaml
from search.layers import Layers
from search.presets import PRESETS
from search.refusals import choices, shown

if TYPE_CHECKING:
    from pathlib import Path

    from search.strict_yaml import KeyPath

Architecture = Literal["unet", "unetplusplus", "manet", "linknet", "fpn", "deeplabv3", "deeplabv3plus", "pan"]
ReferenceArchitecture = Literal[Architecture, "stardist_unet", "winner"]
Target = Literal["two_class", "three_class", "star"]

LOSSES: dict[str, tuple[str, ...]] = {
    "two_class": ("dice", "bce_dice", "focal_dice", "lovasz", "tversky"),
    "three_class": ("dice", "ce_dice", "focal_dice", "lovasz", "tversky", "boundary_ce_dice"),
    "star": ("stardist",),
}
TRAITS = ("area", "perimeter", "circularity", "solidity", "radius", "shape_index")

# What may differ between two runs that must give the same results.
NOT_HASHED = (("tracking",), ("budget",), ("resources",), ("confirm",), ("train", "workers"))

Positive = Annotated[float, Field(gt=0)]
Duration = Annotated[float, Field(gt=0, le=1e9)]
Gigabytes = Annotated[float, Field(gt=0, le=1e6)]
Scale = Annotated[float, Field(ge=1e-9, le=1e9)]
Epochs = Annotated[int, Field(ge=1, le=1_000_000)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$", max_length=100)]


class Section(BaseModel):
    """A part of the configuration: frozen, strict types, no unknown key, finite numbers."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class SyntheticConfig(Section):
    """The synthetic movies made when no data are given."""

    fields: int = Field(default=3, ge=1, le=1000)
    """Number of independent fields of view."""
    frames: int = Field(default=8, ge=1, le=10_000)
    """Frames of each field."""
    height: int = Field(default=384, ge=64, le=8192)
    """Height of a frame in pixels."""
    width: int = Field(default=384, ge=64, le=8192)
    """Width of a frame in pixels."""
    preset: Literal["easy", "paper", "hard"] = "paper"
    """How crowded and how faint the cells are."""
    seed: Seed = 0
    """Seed of the movies; the same seed gives the same pixels."""


class DataConfig(Section):
    """The images, their annotations and how they are split."""

    path: str | None = Field(default=None, min_length=1)
    """Folder of frames and masks, or a dataset.zarr (s3:// too); null makes synthetic movies."""
    reader: str = Field(default="auto", pattern=r"^[a-z0-9-]+$")
    """Reader of the folder, as data_io.convert --help lists them; auto takes the first that knows it."""
    z: str | None = Field(default=None, pattern=r"^(max|mean|focus|[0-9]+)$")
    """How a stack in depth becomes one plane: max, mean, focus or the number of the plane, from 0."""
    channels: tuple[Name, ...] = ()
    """Names or numbers (from 0) of the channels to use; all when empty."""
    truth: Literal["auto", "gold", "silver"] = "auto"
    """Which truth of a Cell Tracking Challenge sequence is learned from."""
    labels: str | None = Field(default=None, min_length=1)
    """Which of several label images of an OME-Zarr is the annotation."""
    tiles: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None
    """Rows and columns of tiles where each image is a mosaic; each tile becomes a field."""
    split_touching: bool = False
    """Whether cells drawn as one foreground are told apart by a watershed."""
    normalise: Literal["frame", "dataset"] = "frame"
    """Whether grey values are scaled by the percentiles of each frame or by those of the data set."""
    folds: int = Field(default=0, ge=0, le=1000)
    """Folds over groups that are stored with the data set; 0 stores none."""
    fold: int | None = Field(default=None, ge=0)
    """Which stored fold, from 0, is trained and tested; null takes the plain split."""
    memory_gb: Gigabytes | None = None
    """Decoded training frames larger than this many gigabytes are streamed; null takes a quarter of the free memory."""
    split_by: str = Field(default="auto", pattern=r"^[A-Za-z0-9_.\-]+$")
    """What keeps train, validation and test apart: auto, field, time or the name of a group (patient, well)."""
    pixel_size_um: Scale | None = None
    """Edge of a pixel in micrometres; null takes it from the files where they say it."""
    frame_interval_s: Scale | None = None
    """Seconds between two frames; null takes it from the files where they say it."""
    synthetic: SyntheticConfig = SyntheticConfig()
    """The synthetic movies, used when path is null."""

    @field_validator("path")
    @classmethod
    def _no_keys_in_the_address(cls, path: str | None) -> str | None:
        if path is not None and has_password(path):
            raise ValueError(KEYS_IN_ADDRESS)
        return path


class SpaceConfig(Section):
    """The search space: what is varied; every list is one axis of the grid."""

    mode: Literal["grid", "random", "optuna"]
    """grid tries every feasible combination; random draws `trials` of them; optuna proposes each by those before."""
    trials: int | None = Field(default=None, ge=1, le=100_000)
    """Combinations drawn in random or optuna mode, each trained with every seed; null in grid mode."""
    continuous: bool = False
    """Whether draws take rates, decays and strengths between the smallest and the largest one listed."""
    architectures: tuple[Architecture, ...]
    """Decoders of segmentation-models-pytorch."""
    encoders: tuple[Name, ...]
    """Encoders by their segmentation-models-pytorch name, or any timm encoder as tu-NAME."""
    targets: tuple[Target, ...] = Field(min_length=1)
    """What is learned: foreground, foreground with boundaries, or star-convex polygons."""
    losses: dict[Target, tuple[str, ...]]
    """Losses to try for each target."""
    learning_rate: tuple[Positive, ...] = Field(min_length=1)
    """Peak learning rates of AdamW."""
    weight_decay: tuple[NotNegative, ...] = Field(min_length=1)
    """Weight decays of AdamW."""
    augmentation: tuple[Fraction, ...] = Field(min_length=1)
    """Strengths of augmentation, 0 (none) to 1."""
    seeds: tuple[Seed, ...] = Field(min_length=1)
    """Seeds of weights, crops and augmentation; several give the spread between equal trials."""
    stardist_unet: bool
    """Whether the star target also tries StarDist's own light U-Net (Config2D)."""
    encoder_weights: Literal["none", "imagenet", "instagram", "auto"]
    """Pretraining of the encoders; auto is imagenet, else the encoder's only weights, offline none for all."""

    @field_validator(
        "architectures", "encoders", "targets", "learning_rate", "weight_decay", "augmentation", "seeds", mode="after"
    )
    @classmethod
    def _no_repetition(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return _unique(values)

    @field_validator("losses")
    @classmethod
    def _losses_fit_their_target(cls, losses: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for target, names in losses.items():
            for name in _unique(names):
                if name not in LOSSES[target]:
                    raise ValueError(f"{target} has no loss {name!r}{choices(name, LOSSES[target])}")
        return losses

    @model_validator(mode="after")
    def _grid_is_not_empty(self) -> Self:
        no_smp_model = not self.architectures or not self.encoders
        for target in self.targets:
            if no_smp_model and not (target == "star" and self.stardist_unet):
                raise ValueError(f"empty grid: no model for {target}; name at least one architecture and one encoder")
            if not self.losses.get(target):
                raise ValueError(f"empty grid: no loss for {target}; add losses.{target}{choices('', LOSSES[target])}")
        return self

    @model_validator(mode="after")
    def _draws_belong_to_a_mode_that_draws(self) -> Self:
        if self.mode != "grid" and self.trials is None:
            raise ValueError(f"mode {self.mode} needs the number of trials; add space.trials=N")
        if self.mode == "grid" and self.trials is not None:
            raise ValueError("trials is for modes that draw; add space.mode=random or set trials to null")
        if self.continuous and max(map(len, (self.learning_rate, self.weight_decay, self.augmentation))) < 2:
            raise ValueError(
                "continuous draws between values, and each of learning_rate, weight_decay and augmentation lists one "
                "only; list two of one of them"
            )
        if self.mode == "grid" and self.continuous:
            raise ValueError("continuous is for modes that draw; add space.mode=random or set continuous to false")
        return self


class TrainConfig(Section):
    """The training of one trial."""

    max_epochs: Epochs
    """Epochs of a trial that nothing stops."""
    crops_per_epoch: int | None = Field(default=None, ge=2, le=100_000_000)
    """Random crops of an epoch; null cuts as many as cover the area of the training frames once."""
    crop: int | None = Field(default=None, ge=32, le=4096, multiple_of=32)
    """Edge of a training crop in pixels, a multiple of 32; null takes what suits the size of the cells."""
    batch_size: int | None = Field(default=None, ge=2, le=4096)
    """Crops of one optimiser step; batch normalisation needs at least 2; null takes what the data set recommends."""
    encoder_depth: int = Field(default=5, ge=3, le=5)
    """Stages of the encoder; each halves the resolution."""
    decoder_width: float = Field(default=1.0, gt=0, le=1)
    """Decoder channels as a fraction of the library's default."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of training; auto takes what measures faster on the device."""
    channels_last: Literal["auto"] | bool = "auto"
    """Whether the channels of a pixel lie side by side in memory; auto takes what measures faster on the device."""
    schedule: Literal["one_cycle", "warmup_stable_decay", "constant"] = "one_cycle"
    """Course of the learning rate; warmup_stable_decay is flat until its last fifth, fair to trials stopped early."""
    deterministic: bool = False
    """Whether operations that give the same bits every time are taken; slower on a GPU, a log names what has none."""
    gradient_clip: Positive | None = 1.0
    """Largest norm of the gradient; null does not clip."""
    checkpoint_every: Epochs
    """Epochs between two checkpoints; a better validation score writes one as well."""
    validation_crops: int = Field(ge=1, le=1_000_000)
    """Crops on which each epoch is validated, the same in all trials."""
    calibrate_batchnorm: bool = True
    """Whether the statistics of batch normalisation are taken anew from unaugmented crops before each validation."""
    foreground: Fraction = 0.7
    """Fraction of the training crops that hold a cell's middle; the others lie anywhere."""
    rotation: Fraction = 0.0
    """Fraction of the training crops turned by any angle, where the augmentation strength is above 0."""
    elastic: Fraction = 0.0
    """Fraction of the training crops bent elastically, likewise."""
    defocus: Fraction = 0.0
    """Fraction of the training crops blurred as out of focus, likewise."""
    workers: int = Field(default=0, ge=0, le=256)
    """Processes that cut and encode crops beside the training (2 give a GPU 500 a second of any target); 0: none."""

    @property
    def batch(self) -> int:
        """Crops of one optimiser step, once the configuration is resolved against a data set."""
        if self.batch_size is None:
            raise ValueError("batch_size is null until it is taken from a data set; see prepare.resolve")
        return self.batch_size

    @model_validator(mode="after")
    def _an_epoch_has_a_batch(self) -> Self:
        if self.crops_per_epoch is not None and self.batch_size and self.crops_per_epoch < self.batch_size:
            raise ValueError(
                f"crops_per_epoch {self.crops_per_epoch} is less than batch_size {self.batch_size}, so an epoch would "
                "have no batch; raise the one or lower the other"
            )
        return self


class ReferenceConfig(Section):
    """A configuration that no scheduler may stop."""

    architecture: ReferenceArchitecture
    """Decoder, stardist_unet for StarDist's own light U-Net, or winner for the best cell of the first target."""
    encoder: Name | Literal[""] = ""
    """Encoder; empty for stardist_unet and winner."""
    target: Target
    """What it learns."""
    loss: str
    """Its loss."""
    crop: int | None = Field(default=None, ge=32, le=4096, multiple_of=32)
    """Edge of its training crops in pixels; null takes train.crop."""
    gap: bool = False
    """Whether three_class draws a background gap of one pixel between touching cells, as the study did."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.gap and self.target != "three_class":
            raise ValueError("gap is for the target three_class; set it to false")
        if self.loss not in LOSSES[self.target]:
            raise ValueError(f"{self.target} has no loss {self.loss!r}{choices(self.loss, LOSSES[self.target])}")
        is_stardist = self.architecture == "stardist_unet"
        if is_stardist and self.target != "star":
            raise ValueError("stardist_unet learns the target star only; change the architecture or the target")
        if (is_stardist or self.architecture == "winner") != (self.encoder == ""):
            raise ValueError(
                "stardist_unet and winner bring their encoder (write encoder: ''), every other architecture names one"
            )
        return self


class ScheduleConfig(Section):
    """Early stopping and the runs it spares."""

    asha: bool
    """Whether weak trials are stopped early (ASHA), within one target only."""
    grace_epochs: Epochs
    """Epochs before a trial may be stopped."""
    reduction_factor: float = Field(default=3, gt=1, le=100)
    """One trial in so many goes on at each rung."""
    references: tuple[ReferenceConfig, ...] = ()
    """Configurations that run to the end beside the search, in no rung."""
    reference_epochs: Epochs | None = None
    """Epochs of the references; null is train.max_epochs."""
    references_placed: Literal["first", "last", "beside"] = "first"
    """When the references start: before the other trials, after them, or spread among them."""

    @field_validator("references")
    @classmethod
    def _no_repetition(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return _unique(values)


class BudgetConfig(Section):
    """Limits of the whole search, whichever comes first; the best so far is handed on."""

    minutes: Duration | None = None
    """Wall-clock minutes of the search; null is no limit."""
    epochs: int | None = Field(default=None, ge=1, le=10**12)
    """Epochs of all trials together; null is no limit."""
    trials: int | None = Field(default=None, ge=1, le=10**9)
    """Trials that are started; null is no limit."""
    gpu_hours: Duration | None = None
    """GPU hours of all trials together, a trial counted by its share of the GPU; null is no limit."""


class ResourceConfig(Section):
    """What one trial may use of the machine."""

    cpus_per_trial: Annotated[float, Field(gt=0, le=1024)] | Literal["auto"] = 1.0
    """Cores of a trial, below 1 several share one; auto is 1, more where memory holds fewer trials than cores."""
    gpus_per_trial: float | Literal["auto"] = "auto"
    """GPUs of a trial: a share up to 1 or a whole number; auto is the share that its measured peak of memory needs."""
    gpu_memory_gb: Gigabytes | None = None
    """Memory of one GPU in gigabytes, where it cannot be asked (another node's); null asks."""
    reference_processes: int = Field(default=1, ge=1, le=64)
    """Processes that train one reference together (DDP), each with a GPU of its own where there are GPUs."""
    hang_minutes: Duration | None = 180.0
    """Minutes without a completed epoch after which a trial counts as hung and is started again, once; null never."""

    @field_validator("gpus_per_trial")
    @classmethod
    def _share_or_whole(cls, value: float | str) -> float | str:
        if isinstance(value, str):
            return value
        if not 0 <= value <= 1024 or (value > 1 and value != int(value)):
            raise ValueError(f"a trial takes a share of one GPU (0 to 1) or whole GPUs, not {value}; write 0.5, 1 or 2")
        return value


class TrackingConfig(Section):
    """Weights & Biases."""

    wandb: Literal["offline", "online", "disabled"] = "offline"
    """offline writes run files into the run folder only; online sends them as well."""
    project: Name = "cellsearch"
    """Project the runs belong to."""
    images: bool = False
    """Whether pictures of your data may be sent: outlines on validation frames, and the pictures in the report."""


class ConfirmConfig(Section):
    """The top set trained again on other folds and seeds, after the selection."""

    folds: int = Field(default=0, ge=0, le=1000)
    """Folds, as stored by data.folds, on which the top set is trained and tested again; 0 is none."""
    seeds: int = Field(default=0, ge=0, le=100)
    """Further seeds with which the top set is trained again; 0 is none."""
    top: int = Field(default=3, ge=1, le=100)
    """Configurations of each target's top set that are trained again, at most."""


class Config(Section):
    """Everything that decides what a search does."""

    preset: Literal["demo", "search", "paper"]
    """The preset the configuration was made from."""
    data: DataConfig = DataConfig()
    """The images, their annotations and how they are split."""
    space: SpaceConfig
    """The search space."""
    train: TrainConfig
    """The training of one trial."""
    schedule: ScheduleConfig
    """Early stopping and the runs it spares."""
    budget: BudgetConfig = BudgetConfig()
    """Limits of the whole search."""
    resources: ResourceConfig = ResourceConfig()
    """What one trial may use of the machine."""
    tracking: TrackingConfig = TrackingConfig()
    """Weights & Biases."""
    confirm: ConfirmConfig = ConfirmConfig()
    """The top set trained again on other folds and seeds."""
    objective: str = "pq"
    """How the winner is chosen on the validation frames: pq, iou, trait:NAME, or pareto:NAME for PQ, trait and size."""
    seed: Seed = 0
    """Seed of everything that is drawn in the driver."""

    @field_validator("objective")
    @classmethod
    def _objective_exists(cls, value: str) -> str:
        objectives = ("pq", "iou", *(f"{kind}:{trait}" for kind in ("trait", "pareto") for trait in TRAITS))
        if value not in objectives:
            raise ValueError(f"unknown objective {shown(value)}{choices(value, objectives)}")
        return value

    @model_validator(mode="after")
    def _grace_within_training(self) -> Self:
        grace, most = self.schedule.grace_epochs, self.train.max_epochs
        if self.schedule.asha and grace > most:
            raise ValueError(
                f"schedule.grace_epochs {grace} is more than train.max_epochs {most}, so nothing could be stopped; "
                "lower the grace or set schedule.asha=false"
            )
        return self

    @model_validator(mode="after")
    def _folds_are_stored(self) -> Self:
        if self.confirm.folds and self.confirm.folds != self.data.folds:
            raise ValueError(
                f"confirm.folds is {self.confirm.folds}, but the data set is stored with {self.data.folds}; "
                f"set data.folds={self.confirm.folds} (--folds sets both)"
            )
        return self


def load(preset: str | None, file: Path | None, overrides: list[str]) -> Config:
    """Return the configuration of a preset, a YAML file over it and ``key.path=value`` overrides over both.

    `preset` None takes the file's preset, else demo. Raises BadInput naming every fault with its place (file and line,
    or the override) and the nearest name.
    """
    layers = Layers(Config)
    tree, lines = _read_file(file, layers)
    layers.start(PRESETS[_preset_name(preset, tree, lines, file, layers)])
    layers.lay(tree, {path: f"{file}:{line}" for path, line in lines.items()})
    for override in overrides:
        layers.override(override)
    config: Config = layers.validated()
    return config


def dump(config: Config) -> str:
    """Return the configuration as YAML, a comment with the meaning beside each value; `load` reads it back."""
    return config_text.write(config)


def config_hash(config: Config) -> str:
    """Return the SHA-256 of what changes results: everything but `NOT_HASHED`."""
    tree = config.model_dump(mode="json")
    for *parents, last in NOT_HASHED:
        branch = tree
        for parent in parents:
            branch = branch[parent]
        del branch[last]
    return hashlib.sha256(json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def schema() -> dict[str, Any]:
    """Return the JSON schema of the configuration."""
    return Config.model_json_schema()


def _read_file(file: Path | None, layers: Layers) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    if file is None:
        return {}, {}
    try:
        with file.open("rb") as opened:
            text = opened.read(4 * strict_yaml.MAX_CHARACTERS + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise BadInput(f"{file}: cannot be read ({reason}); give a YAML file") from None
    tree, lines = strict_yaml.read(text, str(file))
    if tree is None:
        return {}, {}
    if not isinstance(tree, dict):
        layers.faults.append(f"{file}:1: holds no keys; write key: value lines")
        return {}, {}
    return tree, lines


def _preset_name(
    preset: str | None, tree: dict[str, Any], lines: dict[KeyPath, int], file: Path | None, layers: Layers
) -> str:
    """Return the preset asked for, else the file's, else demo; record an unknown one or two that contradict."""
    in_file = tree.pop("preset", None)
    name = preset if preset is not None else in_file if in_file is not None else "demo"
    place = "--preset" if preset is not None else f"{file}:{lines.get(('preset',), 1)}"
    if not isinstance(name, str) or name not in PRESETS:
        layers.faults.append(f"{place}: unknown preset {shown(name)}{choices(str(name), PRESETS)}")
        return "demo"
    if preset is not None and in_file is not None and in_file != preset:
        where = f"{file}:{lines[('preset',)]}"
        layers.faults.append(f"{where}: preset {shown(in_file)}, but --preset {preset} was asked for; drop one of them")
    return name


def _unique(values: tuple[Any, ...]) -> tuple[Any, ...]:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ValueError(f"{shown(value)} stands twice; keep one of them")
    return values
