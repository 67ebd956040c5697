"""A chosen model as a bioimage.io package, for Fiji, napari, ilastik and everything else that reads the format.

    python -m search.export RUN/best/two_class                       writes RUN/best/two_class.zip
    python -m search.export RUN/best/star --out my_cells.zip

The package holds the network as TorchScript and as ONNX, for any batch and any size that the description names, and
the normalisation as preprocessing steps. Its outputs are probabilities (and ray lengths), not cells: the decoding that
makes cells is described in the package's README and, in full, in its configuration. `bioimageio.core.test_model` has
to pass before the package is written. Needs ``pip install 'cellsearch[export]'``.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from keyword import iskeyword
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from data_io import errors
from data_io.command_line import Parser
from data_io.errors import BadInput
from data_io.job_folder import refuse_lost
from data_io.location import refuse_remote
from data_io.secrecy import hidden
from search import handover, models, trust
from search.brought import brought, place_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

OPSET = 18
CHANNELS = {
    "two_class": ("foreground",),
    "three_class": ("background", "core", "boundary"),
    "star": ("object", *(f"ray_{k}" for k in range(models.N_RAYS))),
}
MEANING = {
    "two_class": "probability that a pixel is part of a cell",
    "three_class": "probabilities of background, cell core and boundary between cells",
    "star": "object probability, then pixels to the outline along 32 rays from x towards y, at every second pixel",
}
PAPER = "10.1177/11779322241272387"


class Answer(torch.nn.Module):
    """A network with probabilities (and ray lengths) for scores."""

    def __init__(self, network: models.Network) -> None:
        super().__init__()
        self.network = network
        self.target = network.target

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return ``(N, K, Y / grid, X / grid)`` float32 of images ``(N, C, Y, X)``, normalised."""
        scores: torch.Tensor = self.network(images)
        if self.target == "three_class":
            return scores.softmax(dim=1)
        if self.target == "two_class":
            return scores.sigmoid()
        return torch.cat([scores[:, :1].sigmoid(), scores[:, 1:].clamp(min=0)], dim=1)


def export(folder: Path, out: Path) -> Path:
    """Write the model of `folder` (``RUN/best/<target>``) as a package; return its path.

    Raises
    ------
    BadInput
        When the folder holds no model, `out` exists or the optional packages are missing.
    RuntimeError
        When the package does not pass `bioimageio.core.test_model`.
    """
    if out.exists():
        raise BadInput(f"{out}: exists; give another name with --out")
    network, facts = handover.load(folder)
    try:
        import bioimageio.core  # noqa: F401
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as missing:
        raise BadInput(f"{missing.name}: not installed; pip install 'cellsearch[export]'") from None
    os.environ.setdefault("BIOIMAGEIO_PERFORM_IO_CHECKS", "0")  # nothing is fetched to write or test a package
    from bioimageio.core import test_model
    from bioimageio.spec import save_bioimageio_package

    answer = Answer(network.to(memory_format=torch.contiguous_format)).eval()
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        work = Path(scratch)
        raw, images = _example(facts)
        with torch.inference_mode():
            expected = answer(torch.from_numpy(images)).numpy()
        np.save(work / "test_input.npy", raw)
        np.save(work / "test_output.npy", expected)
        _write_weights(answer, torch.from_numpy(images), work)
        (work / "README.md").write_text(_readme(facts), encoding="utf-8")
        package = save_bioimageio_package(_description(facts, work), output_path=work / "package.zip")
        found = test_model(package)
        if found.status != "passed":
            raise RuntimeError(f"the package of {folder} does not pass bioimageio.core.test_model: {found.format()}")
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(Path(package).read_bytes())
    return out


def _example(facts: dict[str, Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return a raw test frame ``(1, C, S, S)`` and the same, normalised as the description says."""
    side, channels = max(int(facts["crop"]), 64), int(facts["in_channels"])
    rng = np.random.default_rng(0)
    yy, xx = np.mgrid[:side, :side] / side
    pattern = np.sin(9 * yy) * np.cos(11 * xx) + 0.1 * rng.standard_normal((channels, side, side))
    raw = (2000 + 600 * pattern).round().astype(np.float32)[None]
    return raw, _normalised(raw, facts["normalisation"])


def _normalised(raw: NDArray[np.float32], rule: dict[str, Any]) -> NDArray[np.float32]:
    if rule["mode"] == "dataset":
        limits = np.asarray(rule["limits"][rule["dtype"]], np.float64)
        low, high = limits[:, 0][None, :, None, None], limits[:, 1][None, :, None, None]
    else:
        wanted = (rule["low_percentile"], rule["high_percentile"])
        low, high = np.percentile(raw, wanted, axis=(2, 3), keepdims=True)
    least, most = rule["clip"]
    scaled: NDArray[np.float32] = np.clip((raw - low) / (high - low), least, most).astype(np.float32)
    return scaled


def _write_weights(answer: Answer, images: torch.Tensor, work: Path) -> None:
    """Write weights.pt (TorchScript) and weights.onnx, both for any batch and size."""
    with torch.no_grad():
        torch.jit.trace(answer, images, check_trace=False).save(work / "weights.pt")  # type: ignore[no-untyped-call]
        two = torch.cat([images, images.flip(3)])
        free = torch.export.Dim.DYNAMIC
        torch.onnx.export(
            answer,
            (two,),
            work / "weights.onnx",
            input_names=["images"],
            output_names=["answer"],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=({0: free, 2: free, 3: free},),
            external_data=False,
            verbose=False,
        )


def _description(facts: dict[str, Any], work: Path) -> Any:
    """Return the description of the package."""
    from bioimageio.spec.model import v0_5 as spec

    target, grid = facts["target"], models.GRID[facts["target"]]
    smallest = models.smallest_side(facts["architecture"], facts.get("output_stride"))
    size = spec.ParameterizedSize(min=max(smallest, 2 * models.DIVISOR), step=models.DIVISOR)
    pixel = facts.get("pixel_size_um")
    scale = float(pixel) if pixel else 1.0
    unit: dict[str, Any] = {"unit": "micrometer"} if pixel else {}
    input_name = spec.TensorId("images")
    names = [str(name) for name in facts.get("channels") or range(facts["in_channels"])]

    def sized(name: str) -> Any:
        along = spec.SizeReference(tensor_id=input_name, axis_id=spec.AxisId(name))
        return spec.SpaceOutputAxis(id=spec.AxisId(name), size=along, scale=scale * grid, **unit)

    inputs = spec.InputTensorDescr(
        id=input_name,
        description="microscope frames, grey values as recorded",
        axes=[
            spec.BatchAxis(),
            spec.ChannelAxis(channel_names=[spec.Identifier(name) for name in _identifiers(names)]),
            spec.SpaceInputAxis(id=spec.AxisId("y"), size=size, scale=scale, **unit),
            spec.SpaceInputAxis(id=spec.AxisId("x"), size=size, scale=scale, **unit),
        ],
        test_tensor=spec.FileDescr(source=work / "test_input.npy"),
        data=spec.IntervalOrRatioDataDescr(type="float32"),
        preprocessing=_preprocessing(facts["normalisation"]),
    )
    outputs = spec.OutputTensorDescr(
        id=spec.TensorId("answer"),
        description=MEANING[target],
        axes=[
            spec.BatchAxis(),
            spec.ChannelAxis(channel_names=[spec.Identifier(name) for name in CHANNELS[target]]),
            sized("y"),
            sized("x"),
        ],
        test_tensor=spec.FileDescr(source=work / "test_output.npy"),
    )
    version = spec.Version(torch.__version__.split("+")[0])
    return spec.ModelDescr(
        name=f"{target} {facts['architecture']} {facts['encoder']} by cellsearch".replace("  ", " "),
        description=f"Cell segmentation in microscope frames: {MEANING[target]}.",
        authors=[spec.Author(name="cellsearch")],
        cite=[spec.CiteEntry(text="Vašinková et al. 2024", doi=spec.Doi(PAPER))],
        license=spec.LicenseId("BSD-3-Clause"),
        documentation=spec.FileDescr(source=work / "README.md"),
        tags=["segmentation", "cells", "2d", "unet", "cellsearch"],
        inputs=[inputs],
        outputs=[outputs],
        weights=spec.WeightsDescr(
            torchscript=spec.TorchscriptWeightsDescr(source=work / "weights.pt", pytorch_version=version),
            onnx=spec.OnnxWeightsDescr(source=work / "weights.onnx", opset_version=OPSET),
        ),
        config=spec.Config(**{"cellsearch": json.loads(json.dumps(facts, default=str))}),
    )


def _preprocessing(rule: dict[str, Any]) -> list[Any]:
    """Return the steps that do to a frame what `data_io.normalise` does."""
    from bioimageio.spec.model import v0_5 as spec

    low, high = rule["clip"]
    clip = spec.ClipDescr(kwargs=spec.ClipKwargs(min=low, max=high))
    if rule["mode"] == "dataset":
        limits = np.asarray(rule["limits"][rule["dtype"]], np.float64)
        along = spec.FixedZeroMeanUnitVarianceAlongAxisKwargs(
            axis=spec.AxisId("channel"), mean=limits[:, 0].tolist(), std=(limits[:, 1] - limits[:, 0]).tolist()
        )
        return [spec.FixedZeroMeanUnitVarianceDescr(kwargs=along), clip]
    scale = spec.ScaleRangeKwargs(
        axes=(spec.AxisId("y"), spec.AxisId("x")),
        min_percentile=rule["low_percentile"],
        max_percentile=rule["high_percentile"],
    )
    return [spec.ScaleRangeDescr(kwargs=scale), clip]


def _identifiers(names: Sequence[str]) -> list[str]:
    """Return names of channels as the format takes them, each another.

    >>> _identifiers(["GFP", "gfp", "2 nd", "class", ""])
    ['gfp_0', 'gfp_1', 'channel_2_nd', 'channel_class', 'channel_grey']
    """
    words = ["".join(letter if letter.isalnum() else "_" for letter in name).strip("_").lower() for name in names]
    whole = [word if word.isidentifier() and not iskeyword(word) else f"channel_{word or 'grey'}" for word in words]
    return [word if whole.count(word) == 1 else f"{word}_{number}" for number, word in enumerate(whole)]


def _readme(facts: dict[str, Any]) -> str:
    decode = "\n".join(f"- {name}: {value}" for name, value in facts["decode"].items())
    encoder = facts["encoder"] or "its own encoder"
    return f"""# {facts["target"]}: {facts["architecture"]} on {encoder}

Output: {MEANING[facts["target"]]}.
Trained on {facts["crop"]}-px crops; encoder weights: {facts.get("encoder_weights")}.

## Preprocessing

As in the description. A frame with hardly any contrast is scaled by a least range in cellsearch itself, here by its own
percentiles.

## From the output to cells

Decoding parameters, fitted on validation frames:

{decode}

## Validation

{facts.get("objective")} on the validation frames: {facts.get("decode_fit", {}).get("value")}.
Data {facts.get("data_hash")}.
"""


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = Parser(prog="python -m search.export", description="Write a chosen model as a bioimage.io package.")
    parser.add_argument("model", type=place_of, metavar="RUN/best/TARGET", help="folder of a chosen model, or s3://...")
    parser.add_argument("--out", type=Path, metavar="FILE.zip", help="the package (default: beside the folder)")
    given = parser.parse_args(arguments)
    if isinstance(given.model, str) and given.out is None:
        raise BadInput(f"{hidden(given.model)}: the package is written to this machine; name it with --out FILE.zip")
    if given.out is None:
        refuse_lost(given.model)
    else:
        refuse_lost(given.out, "--out")
        refuse_remote(given.out, "--out")
    trust.refuse_forced_pickles()
    if isinstance(given.model, Path) and not given.model.is_dir():
        raise BadInput(f"{given.model}: no such folder; give the folder of a chosen model, RUN/best/TARGET")
    with brought(given.model) as folder:
        written = export(folder.resolve(), given.out or folder.resolve().with_suffix(".zip"))
    print(f"{written}: passes bioimageio.core.test_model")
    return errors.DONE


if __name__ == "__main__":
    sys.exit(errors.entry_point(main))
