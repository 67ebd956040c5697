"""The list of bad input, and how each item of it is made; what is honest though odd is told apart.

`ITEMS` is the list itself. A test of each section makes every item of its list and gives it to the commands that take
such input, so an item without a way to make it fails.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
import zarr

from tests.data_io import test_bad_input as single

Spoil = Callable[[Path], object]
Refused = dict[str, tuple[Spoil, str]]
"""Item: how to make it, and what the line that refuses it says."""
Noted = dict[str, tuple[Spoil, str]]
"""Item: how to make it, and what `data_io.check` says of it."""

ITEMS = {
    "images": (
        "0 bytes", "TIFF cut at 10 %", "TIFF cut at 50 %", "TIFF cut at 99 %", "PNG cut", "renamed JPEG", "text as PNG",
        "flipped zlib TIFF", "16-bit+", "12-in-16+", "NaN", "inf", "negative int", "RGBA", "palette", "multi-page+",
        "constant+", "saturated+", "smaller than the crop+", "not divisible by 32+", "decompression bomb",
        "exotic compression", "unreadable", "dangling symlink",
    ),
    "masks": (
        "missing for some frames+", "missing for all", "other size", "float", "binary+", "negative", "non-consecutive+",
        "label >= 2^31", "uint8 overflow suspected", "RGB mask", "label in two pieces+", "empty+", "all foreground",
        "JPEG mask", "mask identical to the image",
    ),
    "set": (
        "duplicate names", "duplicate pixels", "names differing by case", "hostile names+",
        "neighbouring frames across a split+", "the same well in two parts", "fewer than 2 groups", "empty folder",
    ),
    "zarr": (
        "missing chunk", "flipped chunk", "cut chunk", "0-byte chunk", "missing shard", "flipped shard", "cut shard",
        "0-byte shard", "bad zarr.json", "object dtype", "..", "symlink out of the root", "unfinished store",
    ),
    "config": (
        "unknown key", "duplicate key", "1e-3 as text", "no", "python tag", "lr <= 0", "grace > max epochs",
        "GPU share 1.5", "empty grid", "unknown encoder", "absent metric", "alias bomb",
    ),
    "statistics": (
        "empty arm+", "one frame+", "all equal+", "NaN", "unpaired lists", "cells used as replicates",
        "more than 10 % failed frames", "wrong columns",
    ),
    "checkpoints": (
        "empty", "cut", "wrong architecture", "malicious pickle", "NumPy hyper-parameter", "no hash",
    ),
}  # fmt: skip
"""Every item of the list of bad input, by section; `+` marks what is legitimate: accepted, and counted or warned of."""

FRAME, MASK, SHAPE = single.FRAME, single.MASK, single.SHAPE


def discs(t: int = 0) -> np.ndarray:
    """Return `(Y, X)` uint16 labels of six discs that drift by t px."""
    labels = np.zeros(SHAPE, np.uint16)
    y, x = np.ogrid[: SHAPE[0], : SHAPE[1]]
    for i in range(6):
        labels[(y - 16 - 32 * (i // 3)) ** 2 + (x - 20 - 36 * (i % 3) - t) ** 2 <= 64] = i + 1
    return labels


def grey(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return `(Y, X)` uint16: bright cells on a noisy background."""
    noise = np.random.default_rng(seed).normal(0, 20, labels.shape)
    return (1000 + 800 * (labels > 0) + noise).astype(np.uint16)


def write_movie(folder: Path, frames: int = 5, seed: int = 0) -> Path:
    """Write frames/ and masks/ of a movie with six cells."""
    for name in ("frames", "masks"):
        (folder / name).mkdir(parents=True)
    for t in range(frames):
        tifffile.imwrite(folder / f"frames/t{t:03d}.tif", grey(discs(t), seed + t))
        tifffile.imwrite(folder / f"masks/t{t:03d}.tif", discs(t))
    return folder


# --- images, masks, sets ------------------------------------------------------------------------------------------


def _unreadable(movie: Path) -> None:
    (movie / FRAME).chmod(0)


def _values(change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    return lambda movie: tifffile.imwrite(movie / FRAME, change(tifffile.imread(movie / FRAME)))


def _ramp(top: int) -> Spoil:
    return _values(lambda image: np.linspace(0, top, image.size).reshape(image.shape).astype(np.uint16))


def _cropped(movie: Path) -> None:
    for path in [*(movie / "frames").iterdir(), *(movie / "masks").iterdir()]:
        tifffile.imwrite(path, tifffile.imread(path)[:61, :75])


def _as_pages(movie: Path) -> None:
    stacks = [np.stack([tifffile.imread(p) for p in sorted((movie / name).iterdir())]) for name in ("frames", "masks")]
    for name, stack in zip(("a.tif", "a_mask.tif"), stacks, strict=True):
        tifffile.imwrite(movie / name, stack, photometric="minisblack")
    shutil.rmtree(movie / "frames")
    shutil.rmtree(movie / "masks")


def _stray(mask: np.ndarray) -> np.ndarray:
    mask[90:92, 120:122] = 1
    return mask


def _hostile_names(movie: Path) -> None:
    names = [
        "=cmd|'x'!A0",
        "<script>alert(1)</script>".replace("/", "_"),
        "a;rm -rf ~",
        "line\nbreak \x1b[2J",
        "'\"%s{0}",
    ]
    for t, name in enumerate(names):
        for folder in ("frames", "masks"):
            (movie / folder / f"t{t:03d}.tif").rename(movie / folder / f"{name} {t:03d}.tif")


def _wells(movie: Path, table: str) -> None:
    shutil.rmtree(movie / "frames")
    shutil.rmtree(movie / "masks")
    for at, name in enumerate("abc"):
        write_movie(movie / name, 2, seed=10 * at)
    (movie / "groups.csv").write_text(table)


def _emptied(movie: Path) -> None:
    shutil.rmtree(movie)
    movie.mkdir()


IMAGES: Refused = single.IMAGES | {
    "unreadable": (_unreadable, r"t001\.tif: you may not read this file; change its permissions"),
    "a folder called as an image": (
        lambda movie: (movie / FRAME).unlink() or (movie / FRAME).mkdir(),
        r"t001\.tif: a folder with the name of an image; rename it",
    ),
}
MASKS: Refused = single.MASKS
SETS: Refused = single.SET | {
    "duplicate pixels": (
        lambda movie: shutil.copy(movie / "frames/t000.tif", movie / FRAME),
        r"t001\.tif: the same pixels as movie t000\.tif; remove one of the two",
    ),
    "the same well in two parts": (
        lambda movie: _wells(movie, "field,well,part\na,A1,train\nb,A1,test\nc,B1,val\n"),
        r"well 'A1' lies in test and train; keep it in one part",
    ),
    "fewer than 2 groups": (
        lambda movie: _wells(movie, "field,well\na,A1\nb,A1\nc,A1\n"),
        r"split by well: there is one well, a split needs two or more; split by time",
    ),
    "empty folder": (_emptied, r"movie: empty folder; put images in frames/"),
}
BY_WELL = {"the same well in two parts", "fewer than 2 groups"}
"""Sets that are wrong only where a split by well is asked for."""

NOTED: dict[str, Noted] = {
    "images": {
        "16-bit+": (_ramp(65535), r"uint16, 16 bits used: 0 to 65535"),
        "12-in-16+": (
            lambda movie: [tifffile.imwrite(p, tifffile.imread(p)) for p in (movie / "frames").iterdir()],
            r"uint16, 11 bits used",
        ),
        "multi-page+": (_as_pages, r"a\.tif: its 5 pages are read as time; if they are depth, say so with --z"),
        "constant+": (
            _values(lambda image: np.full_like(image, 700)),
            r"warning: 1 frames have one grey value everywhere, such as movie frame 1",
        ),
        "saturated+": (_values(lambda image: np.where(image > 1500, 65535, image).astype(np.uint16)), r"saturated"),
        "smaller than the crop+": (_cropped, r"5 of 61 x 75 px.*\n(.*\n)*recommended: crop \d+ px.*sides padded"),
        "not divisible by 32+": (_cropped, r"5 of 61 x 75 px.*\n(.*\n)*.*sides padded to multiples of 32 px"),
    },
    "masks": {
        "missing for some frames+": (
            lambda movie: (movie / MASK).unlink(),
            r"1 frames have no mask: not trained on, not scored, still predicted",
        ),
        "binary+": (
            single._all_masks(lambda mask: 255 * (mask > 0).astype(np.uint8)),
            r"binary masks in movie: cells are connected components",
        ),
        "non-consecutive+": (single._all_masks(lambda mask: np.where(mask > 0, 1000 * mask + 7, 0)), r"cells +30;"),
        "label in two pieces+": (single._all_masks(_stray), r"5 labels lie in several pieces; each counts as one cell"),
        "empty+": (single._mask(np.zeros(SHAPE, np.uint16)), r"1 frames annotated as empty"),
    },
    "set": {
        "hostile names+": (_hostile_names, r"usable: yes"),
        "neighbouring frames across a split+": (
            lambda movie: None,
            r"movie: neighbouring frames lie in two parts, none left out between",
        ),
    },
}


# --- stores -------------------------------------------------------------------------------------------------------


def write_store(movie: Path, place: Path) -> Path:
    """Convert a movie."""
    from data_io.convert import convert

    return convert(movie, place).path


def write_sharded(folder: Path) -> Path:
    """Write an OME-Zarr as another program does: two frames in each shard, checksummed chunks within."""
    labels = np.stack([discs(t) for t in range(4)])
    root = zarr.open_group(folder / "movie.zarr", mode="w", zarr_format=3)
    axes = [{"name": "t", "type": "time"}, *({"name": n, "type": "space", "unit": "micrometer"} for n in "yx")]
    scale = [{"type": "scale", "scale": [1.0, 0.5, 0.5]}]
    zstd = zarr.codecs.ZstdCodec(checksum=True)
    described = {"axes": axes, "datasets": [{"path": "s0", "coordinateTransformations": scale}], "name": "movie"}
    for path, values, more in (
        ("", np.stack([grey(one, t) for t, one in enumerate(labels)]), {}),
        ("labels/cells/", labels, {"image-label": {}}),
    ):
        root.create_array(
            f"{path}s0", shape=values.shape, chunks=(1, *SHAPE), shards=(2, *SHAPE), dtype="uint16", compressors=zstd
        )[:] = values
        group = root if not path else root[path.rstrip("/")]
        group.attrs["ome"] = {"version": "0.5", "multiscales": [described], **more}
    root["labels"].attrs["ome"] = {"version": "0.5", "labels": ["cells"]}
    return folder / "movie.zarr"


def _chunk(change: Callable[[bytes], bytes | None], key: str) -> Spoil:
    def spoil(store: Path) -> None:
        data = change((store / key).read_bytes())
        (store / key).unlink() if data is None else (store / key).write_bytes(data)

    return spoil


def flipped(data: bytes) -> bytes:
    """Return the bytes with one bit changed."""
    changed = bytearray(data)
    changed[len(data) // 3] ^= 0x10
    return bytes(changed)


DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda data: None,
    "flipped": flipped,
    "cut": lambda data: data[: len(data) // 2],
    "0-byte": lambda data: b"",
}


def reseal(store: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a store as someone does who knows how its manifest is made."""
    manifest = json.loads((store / "manifest.json").read_text())
    manifest.pop("sha256")
    change(manifest["files"])
    for name in manifest["files"]:
        if (store / name).is_file():
            data = (store / name).read_bytes()
            manifest["files"][name] = [len(data), hashlib.sha256(data).hexdigest()]
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (store / "manifest.json").write_text(json.dumps({"sha256": digest, **manifest}, indent=1) + "\n")


def _object_dtype(store: Path) -> None:
    file = store / "movie/s0/zarr.json"
    file.write_text(file.read_text().replace('"uint16"', '"object"', 1))
    reseal(store, lambda files: None)


def _linked_out(store: Path) -> None:
    outside = store.parent / "outside"
    (store / CHUNK).rename(outside)
    (store / CHUNK).symlink_to(outside)


def _unfinished(store: Path) -> None:
    mark = {"host": "elsewhere", "pid": 1, "token": "0", "since": "2026-01-01T00:00:00+00:00"}
    (store / "manifest.json").write_text(json.dumps({"format": 3, "unfinished": mark}))


CHUNK = "movie/s0/c/2/0/0/0"
SHARD = "s0/c/1/0/0"
SHARDS: Refused = {
    f"{how} shard": (_chunk(change, SHARD), r"movie\.zarr.*s0.*(missing|damaged|checksum|0 bytes).*; ")
    for how, change in DAMAGE.items()
}
STORES: Refused = {
    f"{how} chunk": (_chunk(change, CHUNK), rf"{CHUNK}: .*\(array movie/s0, chunk 2, 0, 0, 0\); convert the source")
    for how, change in DAMAGE.items()
} | {
    "bad zarr.json": (_chunk(lambda data: data[1:], "movie/s0/zarr.json"), r"zarr\.json: \d+ bytes instead of \d+"),
    "object dtype": (_object_dtype, r"zarr\.json: values are not plain numbers; only integers"),
    "..": (
        lambda store: reseal(store, lambda files: files.update({"../secret": [1, "0"]})),
        r"names a file outside the store \(\.\./secret\); do not use it",
    ),
    "symlink out of the root": (_linked_out, r"a symbolic link in a store; put what it points to in its place"),
    "unfinished store": (_unfinished, r"an unfinished data set, begun .* on elsewhere; run its conversion again"),
}


# --- configurations -----------------------------------------------------------------------------------------------

CONFIGS: dict[str, tuple[str, str]] = {
    "unknown key": ("train: {max_epoch: 3}", r"train\.max_epoch: unknown key; did you mean train\.max_epochs\?"),
    "duplicate key": ("seed: 1\nseed: 2", r":2: the key 'seed' stands here and in line 1; keep one of them"),
    "1e-3 as text": ("space: {learning_rate: ['1e-3']}", r"learning_rate\.0: .*not '1e-3'; write the number without"),
    "no": ("tracking: {images: no}", r"tracking\.images: .*not 'no'; write true or false"),
    "python tag": ("seed: !!python/object/apply:os.system ['touch canary']", r":1: the tag .* is refused; write plain"),
    "lr <= 0": ("space: {learning_rate: [0.0]}", r"learning_rate\.0: must be greater than 0, not 0\.0"),
    "grace > max epochs": (
        "train: {max_epochs: 2}\nschedule: {grace_epochs: 5}",
        r"schedule\.grace_epochs 5 is more than train\.max_epochs 2.*; lower the grace",
    ),
    "GPU share 1.5": ("resources: {gpus_per_trial: 1.5}", r"a share of one GPU .* not 1\.5; write 0\.5, 1 or 2"),
    "empty grid": ("space: {architectures: [], stardist_unet: false}", r"empty grid: no model for .*; name at least"),
    "unknown encoder": ("space: {encoders: [resnet19]}", r"resnet19.*; did you mean resnet1"),
    "absent metric": ("objective: trait:volume", r"objective: unknown objective 'trait:volume'; did you mean"),
    "alias bomb": (
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]",
        r":1: anchors and aliases are refused; write the value out",
    ),
    "no text": ("seed: \udcff", r"cannot be read \(not UTF-8 text\); give a YAML file"),
    "a large file": ("#" * 5_000_000, r"\d+ characters; a configuration has at most 1000000"),
    "nested too deep": ("[" * 500_000, r":1: nested deeper than 20 levels; flatten it"),
}  # fmt: skip
"""Item: a configuration file, and what the line that refuses it says."""


# --- models -------------------------------------------------------------------------------------------------------


class Canary:
    """Leaves a file when it is unpickled."""

    def __init__(self, file: Path | str) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        """Say how it is made again: by code of its own choice."""
        return os.system, (f"touch {self.file}",)


def pickled(what: object, file: Path, protocol: int = 2) -> Path:
    """Write a plain pickle."""
    file.write_bytes(pickle.dumps(what, protocol=protocol))
    return file


def fits(model: Path) -> None:
    """Have the facts of a model folder vouch for the weights that lie there."""
    _write_facts(model, sha256=hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest())


def _write_facts(model: Path, **changes: Any) -> None:
    """Change facts of a model folder, those that become ... are left out; nothing vouches for the facts themselves."""
    facts = json.loads((model / "model.json").read_text()) | changes | {"check": ...}
    (model / "model.json").write_text(json.dumps({name: value for name, value in facts.items() if value is not ...}))


def _weights(change: Callable[[bytes], bytes], *, vouched: bool = False) -> Spoil:
    def spoil(model: Path) -> None:
        file = model / "model.safetensors"
        file.write_bytes(change(file.read_bytes()))
        if vouched:
            fits(model)

    return spoil


def _facts(**changes: Any) -> Spoil:
    return lambda model: _write_facts(model, **changes)


def _pickle_as_weights(model: Path) -> None:
    pickled(Canary("canary"), model / "model.safetensors")
    fits(model)


def _saved_with(what: object) -> Spoil:
    """Save with torch what it pickles, in place of the weights."""

    def spoil(model: Path) -> None:
        import torch

        torch.save({"state_dict": {}, "hyper_parameters": what}, model / "model.safetensors")
        fits(model)

    return spoil


NO_FILE = r"model\.safetensors: no safetensors file \(.*\); run the search again"
CHANGED = r"model\.safetensors: differs from the checksum in model\.json; restore it or run the search again"
MODELS: Refused = {
    "empty": (_weights(lambda data: b""), CHANGED),
    "empty, vouched for": (_weights(lambda data: b"", vouched=True), NO_FILE),
    "cut": (_weights(lambda data: data[:-1000]), CHANGED),
    "cut, vouched for": (_weights(lambda data: data[:-1000], vouched=True), NO_FILE),
    "flipped": (_weights(flipped), CHANGED),
    "huge header": (_weights(lambda data: (2**62).to_bytes(8, "little") + data[8:], vouched=True), NO_FILE),
    "missing": (lambda model: (model / "model.safetensors").unlink(), r"model\.safetensors: missing; run the search"),
    "wrong architecture": (_facts(architecture="linknet"), r"does not fit linknet on tu-regnetx_002 \(.*\); restore"),
    "unknown architecture": (_facts(architecture="../evil"), r"model\.json: architecture: .*; restore it or run"),
    "model of a hub": (_facts(encoder="tu-hf-hub:evil/model"), r"model\.json: encoder: .*; restore it or run"),
    "a billion channels": (_facts(in_channels=10**9), r"model\.json: in_channels: .*; restore it or run"),
    "malicious pickle": (_pickle_as_weights, NO_FILE),
    "malicious torch file": (_saved_with(Canary("canary")), NO_FILE),
    "NumPy hyper-parameter": (_saved_with({"rate": np.float64(1e-3)}), NO_FILE),
    "no hash": (_facts(sha256=...), r"model\.json: lacks sha256; it was not written by this version"),
    "no JSON": (lambda model: (model / "model.json").write_text("{"), r"model\.json: not JSON \(.*\); run the search"),
    "nested too deep": (
        lambda model: (model / "model.json").write_text("[" * 200_000),
        r"model\.json: not JSON \(nested too deep\); run the search again",
    ),
}


# --- cells tables ---------------------------------------------------------------------------------------------------


def cells(seed: int = 0, frames: int = 10) -> pd.DataFrame:
    """Return a table of five cells in each frame, of two patients of each of two conditions."""
    rng = np.random.default_rng(seed)
    n = 5 * frames
    return pd.DataFrame(
        {
            "frame": np.repeat(np.arange(frames), 5),
            "label": np.tile(np.arange(1, 6), frames),
            "area_px2": rng.normal(100, 5, n).round(3),
            "radius_px": rng.normal(6, 0.1, n).round(3),
            "circularity": rng.uniform(0.8, 0.9, n).round(3),
            "centroid_y_px": np.tile(20.0 * np.arange(5), frames),
            "centroid_x_px": np.tile(20.0 * np.arange(5), frames),
            "patient": np.tile(["p1", "p1", "p2", "p3", "p4"], frames),
            "condition": np.tile(["a", "a", "a", "b", "b"], frames),
        }
    )


Tables = Callable[[pd.DataFrame, pd.DataFrame], tuple[pd.DataFrame, pd.DataFrame]]
BY = ["--by", "condition"]

STATISTICS: dict[str, tuple[Tables, str, list[str]]] = {
    "NaN": (lambda a, b: (a, b.assign(frame=b["frame"].where(b["frame"] > 0))), r"frames are whole numbers from 0", []),
    "text in a trait": (lambda a, b: (a, b.assign(area_px2="wide")), r"column area_px2 holds 'wide'.*no number", []),
    "infinite": (
        lambda a, b: (a, b.assign(area_px2=np.inf)),
        r"area_px2 holds inf in 50 rows, which no cell has; ",
        [],
    ),
    "negative": (
        lambda a, b: (a, b.assign(circularity=-0.5)),
        r"circularity holds -0\.5 in 50 rows, which no cell",
        [],
    ),
    "a cell nowhere": (lambda a, b: (a, b.assign(centroid_x_px=np.inf)), r"centroid_x_px holds inf in 50 rows, ", []),
    "no label": (lambda a, b: (a, b.assign(label=np.nan)), r"label nan in 50 rows; labels are whole numbers", []),
    "half a label": (
        lambda a, b: (a, b.assign(label=b["label"] + 0.5)),
        r"label 1\.5 in 50 rows; labels are whole",
        [],
    ),
    "a border that is no flag": (
        lambda a, b: (a, b.assign(border="yes")),
        r"column border holds 'yes'; write True",
        [],
    ),
    "two columns of one name": (
        lambda a, b: (a, b.rename(columns={"radius_px": "area_px2"})),
        r"two columns are called area_px2; keep one of them",
        [],
    ),
    "a thousand columns": (
        lambda a, b: (a, pd.DataFrame([range(1001)], columns=[f"c{i}" for i in range(1001)])),
        r"1001 columns or more; export the table of cells alone",
        [],
    ),
    "unpaired lists": (lambda a, b: (a, b.assign(frame=b["frame"] + 100)), r"no frame in common with", []),
    "cells used as replicates": (
        lambda a, b: (a.assign(patient=[f"p{i}" for i in range(len(a))]), b),
        r"cells are no replicates of a condition",
        BY,
    ),
    "more than 10 % failed frames": (lambda a, b: (a, b[b["frame"] > 1]), r"more than 10 %", []),
    "wrong columns": (lambda a, b: (a, b.drop(columns="label")), r"a cells table needs frame, label and at least", []),
}
"""Item: how two tables are spoilt, what the refusal says, and what is asked for beside the comparison."""

NOT_TESTED: dict[str, Tables] = {
    "empty arm+": lambda a, b: (a, b[:0]),
    "one frame+": lambda a, b: (a[a["frame"] == 0], b[b["frame"] == 0]),
    "all equal+": lambda a, b: (a.assign(area_px2=100.0), b.assign(area_px2=100.0)),
}
"""Item: two tables that are honest and cannot be tested."""
