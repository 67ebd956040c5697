"""Networks of the search: the study's eight architectures on any smp or timm encoder, and StarDist's own light U-Net.

Every network maps ``(N, C, Y, X)`` float32 images to ``(N, K, Y / grid, X / grid)`` raw scores (logits, ray lengths
in pixels).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from data_io.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ARCHITECTURES: dict[str, str] = {
    "unet": "Unet",
    "unetplusplus": "UnetPlusPlus",
    "manet": "MAnet",
    "linknet": "Linknet",
    "fpn": "FPN",
    "deeplabv3": "DeepLabV3",
    "deeplabv3plus": "DeepLabV3Plus",
    "pan": "PAN",
}
"""Our name of an architecture and its class in segmentation-models-pytorch."""

N_RAYS = 32
OUTPUTS: dict[str, int] = {"two_class": 1, "three_class": 3, "star": 1 + N_RAYS}
"""Output channels per target: foreground; background, core, boundary; object probability and ray lengths."""
GRID: dict[str, int] = {"two_class": 1, "three_class": 1, "star": 2}
"""Pixels per output sample and axis: StarDist predicts every second pixel."""
DIVISOR = 32
"""Image sides are padded to a multiple of this many pixels, the deepest encoder stride."""

PAN_STRIDES = 8
"""PAN's attention pools its deepest map three times: an image has at least this many output strides."""

_DECODER = (256, 128, 64, 32, 16)


def _widths(depth: int, width: float) -> tuple[int, ...]:
    """Return decoder channels from the deepest of `depth` levels up, `width` times the smp defaults, at least 8."""
    return tuple(max(8, round(channels * width)) for channels in _DECODER[-depth:])


def _options(architecture: str, depth: int, width: float, output_stride: int | None) -> dict[str, Any]:
    """Keyword arguments that give this architecture its depth, decoder width and output stride."""
    options: dict[str, Any] = {"encoder_depth": depth}
    if architecture in {"unet", "unetplusplus", "manet"}:
        options["decoder_channels"] = _widths(depth, width)
    if architecture == "fpn":
        options |= {
            "decoder_pyramid_channels": max(32, round(256 * width)),
            "decoder_segmentation_channels": max(32, round(128 * width)),
            "upsampling": 2 ** (depth - 3),  # its finest level is the fourth from below
        }
    if architecture in {"deeplabv3", "deeplabv3plus"}:
        options["decoder_channels"] = max(32, round(256 * width))
    if output_stride is not None:
        options["encoder_output_stride"] = output_stride
    return options


class Network(nn.Module):
    """A segmentation network with one output channel per quantity of its target.

    `forward` takes ``(N, C, Y, X)`` float32 with sides divisible by 32 and at least `smallest`, and returns
    ``(N, K, Y / grid, X / grid)``.
    """

    def __init__(self, body: nn.Module, target: str, stride: int, smallest: int = DIVISOR) -> None:
        super().__init__()
        self.body = body
        self.target = target
        self.stride = stride
        self.smallest = smallest

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Raw scores of `images`, one sample per grid point."""
        scores: torch.Tensor = self.body(images)
        if self.stride > 1:
            scores = scores[..., :: self.stride, :: self.stride]
        return scores


class StarDistUNet(nn.Module):
    """The light U-Net of StarDist's ``Config2D``: grid (2, 2), three levels, 32 base filters, 128 features after it.

    Source: Schmidt et al. 2018 and the defaults of stardist's ``Config2D`` and csbdeep's ``unet_block``.
    """

    def __init__(self, in_channels: int, out_channels: int, base: int = 32, depth: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(_pair(in_channels, base, base), nn.MaxPool2d(2))
        self.down = nn.ModuleList()
        channels = base
        for level in range(depth):
            self.down.append(_pair(channels, base * 2**level, base * 2**level))
            channels = base * 2**level
        self.middle = _pair(channels, base * 2**depth, base * 2 ** (depth - 1))
        self.up = nn.ModuleList(
            _pair(2 * base * 2**level, base * 2**level, base * 2 ** max(0, level - 1))
            for level in reversed(range(depth))
        )
        self.features = nn.Sequential(nn.Conv2d(base, 128, 3, padding=1), nn.ReLU(inplace=True))
        self.head = nn.Conv2d(128, out_channels, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores ``(N, 1 + rays, Y / 2, X / 2)``."""
        x = self.stem(images)
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.middle(x)
        for block, skip in zip(self.up, reversed(skips), strict=True):
            x = block(torch.cat([nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"), skip], dim=1))
        scores: torch.Tensor = self.head(self.features(x))
        return scores


def _pair(inputs: int, middle: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, middle, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(middle, outputs, 3, padding=1),
        nn.ReLU(inplace=True),
    )


def build(
    architecture: str,
    encoder: str,
    target: str,
    in_channels: int = 1,
    *,
    weights: Path | None = None,
    depth: int = 5,
    width: float = 1.0,
    output_stride: int | None = None,
) -> Network:
    """Network of `architecture` on `encoder` for `target`, randomly initialised but for the encoder's `weights`.

    Parameters
    ----------
    architecture
        A key of `ARCHITECTURES`, or ``stardist_unet`` (StarDist's Config2D; `encoder` is ignored, target must be star).
    encoder
        Any encoder name of segmentation-models-pytorch, ``tu-`` names of timm included.
    weights
        File with the encoder's weights that `search.weights.resolve` fetched; nothing is asked of the network.
    depth, width
        Encoder levels used (3 to 5) and the factor on the decoder's default channels.
    output_stride
        Dilated encoder stride for PAN and the DeepLabs; None is the library's default.

    Raises
    ------
    BadInput
        For an unknown architecture, encoder or target (the message lists the nearest names) or weights that do not fit.
    """
    if target not in OUTPUTS:
        raise BadInput(f"target {target!r}: unknown; choose one of {', '.join(OUTPUTS)}")
    classes = OUTPUTS[target]
    if architecture == "stardist_unet":
        if target != "star":
            raise BadInput(f"stardist_unet: only for the target star, not {target}; choose another architecture")
        return Network(StarDistUNet(in_channels, classes), target, stride=1)
    if architecture not in ARCHITECTURES:
        raise BadInput(f"architecture {architecture!r}: unknown; choose one of {', '.join(ARCHITECTURES)}")
    import segmentation_models_pytorch as smp

    constructor: Callable[..., nn.Module] = getattr(smp, ARCHITECTURES[architecture])
    body = constructor(
        encoder_name=encoder,
        encoder_weights=None,
        in_channels=in_channels,
        classes=classes,
        **_options(architecture, depth, width, output_stride),
    )
    if weights is not None:
        _load_encoder(body.encoder, weights)  # type: ignore[arg-type]
    if target == "star":
        _start_rays(body)
    return Network(body, target, GRID[target], smallest_side(architecture, output_stride))


def smallest_side(architecture: str, output_stride: int | None = None) -> int:
    """Return the smallest side of an image, in pixels, that an architecture takes.

    >>> smallest_side("pan", 32), smallest_side("unet")
    (256, 32)
    """
    return PAN_STRIDES * (output_stride or 16) if architecture == "pan" else DIVISOR


def _load_encoder(encoder: nn.Module, file: Path) -> None:
    """Load an encoder from `file`, where it takes three channels and has all its levels.

    The first convolution is adapted to the encoder's channels with timm's rule, which is that of smp to the last bit:
    one channel gets the sum of the kernels, more get them in turn, scaled by 3 / channels.
    """
    from safetensors.torch import load_file
    from timm.models import adapt_input_conv

    saved = load_file(file)
    own = encoder.state_dict()
    try:
        fitting = {
            key: saved[key] if saved[key].shape == value.shape else adapt_input_conv(value.shape[1], saved[key])
            for key, value in own.items()
        }
        encoder.load_state_dict(fitting)
    except (KeyError, IndexError, ValueError, NotImplementedError, RuntimeError) as fault:
        raise BadInput(
            f"{file}: does not fit this encoder ({str(fault)[:200]}); run the search in a new folder"
        ) from fault


def _start_rays(body: nn.Module, length: float = 8.0) -> None:
    """Start the ray lengths at a plausible radius (px), so that the first epochs are not spent growing from zero."""
    head: Any = body.segmentation_head
    with torch.no_grad():
        head[0].bias[1:] = length


def parameter_count(network: nn.Module) -> int:
    """Count the trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


@cache
def parameters_on_meta(
    architecture: str, encoder: str, target: str, in_channels: int, depth: int, width: float, output_stride: int | None
) -> int:
    """`parameter_count` of a network that is described but never made."""
    with torch.device("meta"):
        return parameter_count(
            build(architecture, encoder, target, in_channels, depth=depth, width=width, output_stride=output_stride)
        )


def device() -> str:
    """Where networks run: the GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def known_encoders() -> list[str]:
    """Return encoder names of segmentation-models-pytorch; ``tu-`` plus any timm model name works as well."""
    import segmentation_models_pytorch as smp

    return sorted(smp.encoders.get_encoder_names())
