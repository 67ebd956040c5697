"""Folders of TIFF or PNG frames with their annotations, and single movie files.

Layouts, also inside sub-folders (each sub-folder a field; folders called `patient_3` or `well B2` give its groups):

- `frames/` beside `masks/` (or images, raw ... beside labels, annotations, gt ...), with or without sub-folders,
- images and `<name>_mask`, `_masks`, `_cp_masks`, `_labels`, `_seg`, `_ROIs` ... side by side,
- a multi-page TIFF movie, alone or in a folder, with a multi-page mask,
- one ImageJ ROI set (`RoiSet.zip`) or GeoJSON file for all frames of a movie, or one for each image.

Annotations belong to images by name (`a.tif`, `a_mask.tif`) or by number (`im000_channel1.tif`, `im000_mask1.tif`); of
several for one image the instance labels are taken. Folders called train, val and test give the part of their fields.
Whatever holds images and is no field is named in a warning.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from data_io import masks as mask_files
from data_io.errors import BadInput
from data_io.readers import drawings
from data_io.readers.files import IMAGES, raw_file, tiled
from data_io.readers.raw import RawField

if TYPE_CHECKING:
    from collections.abc import Sequence

    from data_io.readers.raw import Options, RawFile

IMAGE_FOLDERS = ("frames", "images", "image", "imgs", "img", "raw", "raw_images")
MASK_FOLDERS = (
    "labels", "label", "cp_masks", "masks", "mask", "annotations", "annotation", "gt", "ground_truth", "segmentation",
    "rois", "roiset", "roisets",
)  # fmt: skip
GROUPS = ("patient", "donor", "plate", "well", "condition", "treatment", "day", "replicate")
"""Words that make a folder's name say which group its fields belong to."""
PARTS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Names of folders that say which part their fields belong to."""
UNREAD = (*mask_files.LOSSY, ".npy", ".gif", ".bmp")
HOW = "put images in frames/ and label images in masks/, with the same names"
RUN = "run.json"
"""A folder with this file holds what was made of images."""
DEPTH = 4
_MASK_WORD = re.compile(
    r"(?:^|[_\-. ])(?:cp[_-])?(?:masks?|labels?|annotations?|seg|segmentation|gt|rois?|roiset)\d*(?=$|[_\-. ])",
    re.IGNORECASE,
)
_INSTANCES = re.compile(r"cp[_-]masks?|labels?|instance", re.IGNORECASE)
_TRUTH = re.compile(r"^\d{2}_(?:GT|ST|AUTO|ERR_SEG|RES)$")
"""Folders of the Cell Tracking Challenge that hold no images."""
_GROUP = re.compile(rf"^({'|'.join(GROUPS)})[ _\-=]?(.+)$", re.IGNORECASE)


def is_movie(source: Path) -> bool:
    """Say whether the source is one TIFF or PNG file."""
    return source.is_file()


def movie(source: Path, options: Options, warnings: list[str]) -> list[RawField]:
    """Read one file as a field; its annotation is the file beside it that carries its name and a mask suffix."""
    if source.suffix.lower() not in IMAGES:
        raise BadInput(f"{source}: neither TIFF nor PNG by its name; export it as TIFF, or give the folder it is in")
    beside = [path for path in _files(source.parent) if path != source and is_mask(path) and source.stem in bares(path)]
    return _fields(source.stem, {}, [source], beside, options, warnings)


def is_folder(source: Path) -> bool:
    """Say whether the source is a folder."""
    return source.is_dir()


def folder(source: Path, options: Options, warnings: list[str]) -> list[RawField]:
    """Read a folder of frames and masks, or a folder of such folders."""
    fields = _walk(_Place(source, source.name or "field"), options, warnings)
    if not fields:
        raise BadInput(f"{source}: {_why_nothing(source)}; {HOW}")
    return _parted(source, fields, warnings)


@dataclass(frozen=True)
class _Place:
    """A folder to look for images in, and what may hold their annotation."""

    folder: Path
    name: str
    groups: dict[str, str] = field(default_factory=dict)
    masks: Path | None = None
    """A folder of masks that mirrors this one."""
    offered: tuple[Path, ...] = ()
    """Annotation files elsewhere that may belong to images here."""
    depth: int = DEPTH


def _parted(source: Path, fields: list[RawField], warnings: list[str]) -> list[RawField]:
    """Give the fields the parts that folders above them are called after, if they make a split."""
    parts, called = [], {}
    for one in fields:
        above = one.files[0].image.parent.relative_to(source).parts
        name = next((part for part in above if part.lower() in PARTS), "")
        parts.append(PARTS.get(name.lower(), ""))
        if name and any(file.drawing for file in one.files):
            called[name] = parts[-1]
    if not {"train"} < {*parts} - {""}:
        return fields
    if len(set(called.values())) < len(set(PARTS.values())):
        told = ", ".join(sorted(called)) or "no folder"
        warnings.append(
            f"{source}: of its folders train, val and test only {told} held annotated images; split anew over all"
        )
        return fields
    return [replace(one, part=part) for one, part in zip(fields, parts, strict=True)]


def is_mask(path: Path) -> bool:
    """Say whether the name is that of an annotation."""
    return path.suffix.lower() not in IMAGES or _MASK_WORD.search(path.stem) is not None


def bare(path: Path) -> str:
    """Return the name without suffix and without the words that say mask.

    >>> from pathlib import Path
    >>> bare(Path("t1_cp_masks.png")), bare(Path("mask_t1.tif")), bare(Path("t1.tif.zip"))
    ('t1', 't1', 't1')
    """
    stem = Path(path.stem).stem if Path(path.stem).suffix.lower() in IMAGES else path.stem
    return _MASK_WORD.sub("", stem).strip("_-. ")


def bares(path: Path) -> set[str]:
    """Return every name an image of this annotation may have: a name may itself hold a word that says mask.

    >>> sorted(bares(Path("label_free_0_mask.tif")))
    ['free_0', 'free_0_mask', 'label_free_0']
    """
    stem = Path(path.stem).stem if Path(path.stem).suffix.lower() in IMAGES else path.stem
    words = _MASK_WORD.finditer(stem)
    return {bare(path)} | {(stem[: word.start()] + stem[word.end() :]).strip("_-. ") for word in words}


def _walk(at: _Place, options: Options, warnings: list[str]) -> list[RawField]:
    """Return the fields of a folder: its own images, those of its image folder, and those of its sub-folders."""
    folders = _folders(at.folder)
    truths = [path for path in folders if _TRUTH.match(path.name)]
    _leave_out(truths, "truth of the Cell Tracking Challenge, whose data set has another folder", warnings)
    homes, drawn = _called(folders, IMAGE_FOLDERS), _called(folders, MASK_FOLDERS)
    rest = [path for path in folders if path not in (*homes, *drawn, *truths)]
    if not homes:
        rest += [path for path in drawn if _called(_folders(path), IMAGE_FOLDERS)]
    mirror = _one_of([path for path in drawn if path not in rest], warnings) or at.masks
    files = _files(at.folder)
    pictures = [path for path in files if path.suffix.lower() in IMAGES]
    offered = [*at.offered, *(path for path in files if path not in pictures)]
    below: list[RawField] = []
    used: set[Path] = set()
    if mirror and _by_name(pictures, _files(mirror, masks=True)):
        homes, rest = [], [*rest, *homes]
    elif mirror:
        _leave_out(homes[1:], f"{homes[0].name if homes else ''} beside it has the masks", warnings)
    else:
        rest += homes[1:]
    if homes:
        inside = () if _by_name(pictures, offered) else tuple(offered)
        below += _walk(replace(at, folder=homes[0], masks=mirror, offered=inside), options, warnings)
        mirror, offered = None, [path for path in offered if path not in inside]
    for path in rest:
        below += _walk(_below(at, path, mirror, used), options, warnings) if at.depth else []
    if not at.depth:
        deeper = [path for path in rest if _holds(path, IMAGES)]
        _leave_out(deeper, f"its images lie more than {DEPTH} folders deep", warnings)
    if not pictures:
        _unused(mirror, used, offered, warnings)
        return below
    own = _own(replace(at, masks=mirror, offered=tuple(offered)), pictures, used, below, options, warnings)
    return own + below


def _below(at: _Place, path: Path, mirror: Path | None, used: set[Path]) -> _Place:
    """Return the place of a sub-folder, with the masks that mirror it or bear its name before theirs."""
    twin = mirror / path.name if mirror else None
    loose: list[Path] = []
    if mirror and twin and not twin.is_dir():
        twin, loose = None, [one for one in _files(mirror, masks=True) if bare(one).startswith(f"{path.name}_")]
    used |= {*loose, *([twin] if twin else [])}
    return _Place(path, path.name, at.groups | group_of(path.name), twin, tuple(loose), at.depth - 1)


def _own(
    at: _Place, pictures: list[Path], used: set[Path], below: list[RawField], options: Options, warnings: list[str]
) -> list[RawField]:
    """Return the fields of a folder's own images."""
    inside = [path for path in _files(at.masks, masks=True) if path not in used] if at.masks else []
    frames, beside = _sides(pictures, bool(inside))
    told = {}
    for folder in _folders(at.masks) if at.masks else []:
        image = next((path for path in frames if path.stem == folder.name), None)
        if image is not None and folder not in used:
            told[image] = _only(folder)
            used.add(folder)
    drawn = _without_strays(frames, [*inside, *beside, *at.offered], warnings)
    alone = len(pictures) == 1 and not told and not _by_name(frames, drawn)
    if alone and any(file.drawing for one in below for file in one.files):
        _leave_out(pictures, "a picture without annotation above folders of annotated images", warnings)
        return []
    if not drawn and not told:
        _refuse_pickles(frames, at.masks)
    beside_them = [path for home in (at.folder, at.masks) if home for path in sorted(home.iterdir())]
    _leave_out([path for path in beside_them if _is_unread(path)], "not TIFF or PNG", warnings)
    _unused(at.masks, {*used, *inside}, (), warnings)
    return _fields(at.name, at.groups, frames, drawn, options, warnings, told)


def _is_unread(path: Path) -> bool:
    """Say whether a file is a picture or an array of a kind that is not read; Cellpose leaves a `_seg.npy` anywhere."""
    return path.suffix.lower() in UNREAD and not path.name.startswith(".") and not path.name.endswith("_seg.npy")


def _sides(pictures: list[Path], masks: bool) -> tuple[list[Path], list[Path]]:
    """Tell images from the masks beside them; `masks` says that there is a folder of masks as well."""
    wordy = {path: bares(path) for path in pictures if is_mask(path)}
    plain = {path.stem for path in pictures if path not in wordy}
    named = set().union(*wordy.values())
    drawn = [path for path in wordy if wordy[path] & plain or path.stem not in named]
    if masks or not plain:
        stems = {path.stem for path in pictures}
        drawn = [path for path in drawn if wordy[path] & stems]
    return [path for path in pictures if path not in drawn], drawn


def _only(folder: Path) -> Path:
    """Return the one annotation in the folder of an image."""
    found = _files(folder, masks=True)
    if len(found) != 1:
        raise BadInput(f"{folder}: {len(found)} annotation files for one image; save them as one file")
    return found[0]


def _without_strays(frames: list[Path], drawn: list[Path], warnings: list[str]) -> list[Path]:
    """Leave out archives and JSON files that nothing calls an annotation, where others are called so."""
    stems = {path.stem for path in frames}
    sure = [
        path
        for path in drawn
        if path.suffix.lower() in IMAGES or _MASK_WORD.search(path.stem) or bares(path) & stems or path.stem in stems
    ]
    if not sure:
        return drawn
    _leave_out([path for path in drawn if path not in sure], "not called an annotation, and there are others", warnings)
    return sure


def _called(folders: list[Path], names: Sequence[str]) -> list[Path]:
    return sorted((path for path in folders if path.name.lower() in names), key=lambda p: names.index(p.name.lower()))


def _one_of(folders: list[Path], warnings: list[str]) -> Path | None:
    """Return the folder of masks to take, instance labels before foreground."""
    unfit = (*mask_files.LOSSY, ".npy")
    full = [path for path in folders if _annotations(path)] or [path for path in folders if _holds(path, unfit)]
    if full:
        why = f"{full[0].name} beside it is taken for the annotation"
        _leave_out([path for path in full[1:] if _annotations(path)], why, warnings)
    return next(iter(full), None)


def _annotations(folder: Path) -> bool:
    return _holds(folder, (*IMAGES, *drawings.OUTLINES))


def _holds(folder: Path, suffixes: Sequence[str]) -> bool:
    return any(path.suffix.lower() in suffixes and path.name[:2] != "._" for path in folder.rglob("*"))


def _unused(masks: Path | None, used: set[Path], offered: Sequence[Path], warnings: list[str]) -> None:
    """Name annotation that belongs to no image."""
    inside = [path for path in [*_files(masks, masks=True), *_folders(masks)] if path not in used] if masks else []
    called = [path for path in offered if path.suffix.lower() in IMAGES or _MASK_WORD.search(path.stem)]
    _leave_out([*(p for p in inside if p.is_file() or _annotations(p)), *called], "masks without images", warnings)


def _leave_out(paths: Sequence[Path], why: str, warnings: list[str]) -> None:
    if paths:
        warnings.append(f"{paths[0]}: {why}{f' ({len(paths)} such)' * (len(paths) > 1)}; left out")


def group_of(name: str) -> dict[str, str]:
    """Return the group a folder's name tells.

    >>> group_of("patient_3"), group_of("Well B02"), group_of("field_1")
    ({'patient': '3'}, {'well': 'B02'}, {})
    """
    told = _GROUP.match(name)
    return {told[1].lower(): told[2]} if told else {}


def _fields(
    name: str,
    groups: dict[str, str],
    frames: list[Path],
    masks: list[Path],
    options: Options,
    warnings: list[str],
    told: dict[Path, Path] | None = None,
) -> list[RawField]:
    """Return one field, or one per file where sizes differ (no movie changes its size) or each file is a movie."""
    _no_doubles(frames)
    _no_doubles(masks)
    told = told or {}
    if not told and (whole := _for_all(frames, masks)):
        files = [raw_file(path, None, options) for path in frames]
        files = drawings.share(whole, files)
    else:
        pairs = pair([path for path in frames if path not in told], masks, warnings) | told
        files = [raw_file(path, pairs.get(path), options) for path in frames]
    if options.tiles is not None:
        return _mosaic(name, groups, files, options, warnings)
    same = len({(file.plane.shape, file.plane.channels) for file in files}) <= 1
    if same and (len(files) == 1 or all(file.plane.frames == 1 for file in files)):
        return [RawField(name, tuple(files), groups)] if files else []
    if not same:
        warnings.append(f"{name}: frames of different sizes; each is a field of its own")
    return [RawField(f"{name}_{file.image.stem}", (file,), groups) for file in files]


def _mosaic(
    name: str, groups: dict[str, str], files: list[RawFile], options: Options, warnings: list[str]
) -> list[RawField]:
    """Return a field for each tile of the mosaics, which follow each other in time."""
    warnings.append(
        f"{name}: tiles of one mosaic are fields; neighbouring ones share a sample, and cells cut by a seam"
    )
    series = zip(*(tiled(file, options) for file in files), strict=True)
    places = [(r + 1, c + 1) for r in range((options.tiles or (1, 1))[0]) for c in range((options.tiles or (1, 1))[1])]
    return [
        RawField(f"{name}_r{row}c{column}", tiles, groups) for (row, column), tiles in zip(places, series, strict=True)
    ]


def _for_all(frames: list[Path], masks: list[Path]) -> Path | None:
    """Return the one ROI set or GeoJSON file that holds the outlines of many frames, if that is what is there."""
    if len(masks) != 1 or len(frames) < 2 or masks[0].suffix.lower() not in drawings.OUTLINES:
        return None
    return None if bare(masks[0]) in {path.stem for path in frames} else masks[0]


def pair(frames: list[Path], masks: list[Path], warnings: list[str]) -> dict[Path, Path]:
    """Return the annotation of each frame that has one: by name, else by the numbers in the names.

    Raises
    ------
    BadInput
        There are annotations, and none belongs to an image.
    """
    if not masks or not frames:
        return {}
    if len(frames) == len(masks) == 1:
        return {frames[0]: masks[0]}
    claims = _by_name(frames, masks)
    pairs = {frame: min(claimed, key=lambda mask: _rank(frame, mask)) for frame, claimed in claims.items()}
    twice = [(mask, taken) for frame, taken in pairs.items() for mask in claims[frame] if mask != taken]
    if twice:
        _leave_out([mask for mask, _ in twice], f"{twice[0][1].name} is taken for the same image", warnings)
    pairs = pairs or _by_number(frames, masks)
    if not pairs:
        raise BadInput(
            f"{masks[0].parent}: masks do not belong to the images by name or number ({masks[0].name}, "
            f"{frames[0].name}); name each mask like its image"
        )
    if orphans := sorted(set(masks) - set(pairs.values()) - {mask for mask, _ in twice}):
        warnings.append(f"{orphans[0]}: no image of that name ({len(orphans)} such masks); left out")
    return pairs


def _by_name(frames: list[Path], masks: list[Path]) -> dict[Path, list[Path]]:
    """Return the masks that are called after each image, or after its folder and itself (`f0_t0.tif` for `f0/t0.tif`).

    A mask belongs to the image with the longest name of those it may be called after.
    """
    stems = {f"{path.parent.name}_{path.stem}": path for path in frames} | {path.stem: path for path in frames}
    claims = defaultdict(list)
    for mask in masks:
        if names := ({mask.stem} | bares(mask)) & stems.keys():
            claims[stems[max(names, key=len)]].append(mask)
    return {frame: claims[frame] for frame in frames if frame in claims}


def _rank(frame: Path, mask: Path) -> int:
    """Return which of several masks of an image is taken: its very name, instance labels, outlines, anything else."""
    if mask.stem == frame.stem and mask.suffix.lower() in IMAGES:
        return 0
    if mask.suffix.lower() in drawings.OUTLINES:
        return 2
    return 1 if _INSTANCES.search(mask.stem.removeprefix(frame.stem)) else 3


def _by_number(frames: list[Path], masks: list[Path]) -> dict[Path, Path]:
    """Pair by the numbers that vary between images, found in the masks at whatever place makes them fit."""
    of_frame, of_mask = _numbers(frames), _numbers(masks)
    if not of_frame or not of_mask:
        return {}
    vary = [at for at in range(len(of_frame[0])) if len({numbers[at] for numbers in of_frame}) > 1]
    image = {tuple(numbers[at] for at in vary): path for numbers, path in zip(of_frame, frames, strict=True)}
    readings = {}
    for places in combinations(range(len(of_mask[0])), len(vary)):
        keys = [tuple(numbers[at] for at in places) for numbers in of_mask]
        if len(image) == len(frames) and len(set(keys)) == len(keys) and image.keys() >= set(keys):
            readings[tuple(keys)] = {image[key]: mask for key, mask in zip(keys, masks, strict=True)}
    if len(readings) > 1:
        raise BadInput(
            f"{masks[0].parent}: the numbers in {masks[0].name} fit more than one image; name each mask like its image"
        )
    return next(iter(readings.values()), {})


def _numbers(paths: list[Path]) -> list[list[int]]:
    """Return the numbers in each name, or nothing if their count differs between names."""
    numbers = [[int(digits) for digits in re.findall(r"\d+", path.stem)] for path in paths]
    return numbers if len({len(one) for one in numbers}) == 1 and numbers[0] else []


def _no_doubles(paths: list[Path]) -> None:
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(path.stem.lower(), path)
        if other is not path:
            raise BadInput(f"{path}: same name as {other.name}; keep one of them or rename it")


def _files(path: Path, *, masks: bool = False) -> list[Path]:
    """Return the images and annotations of a folder in natural order (t2 before t10).

    Raises
    ------
    BadInput
        A picture stored with loss where a mask is meant: its labels are no longer whole numbers.
    """
    found = [p for p in path.iterdir() if not p.name.startswith("._")]  # macOS leaves such beside every file
    for p in sorted(found):
        if p.suffix.lower() in mask_files.LOSSY and (masks or _MASK_WORD.search(p.stem)):
            mask_files.refuse_suffix(p)
    if whole := [p for p in found if p.suffix.lower() in IMAGES and p.is_dir()]:
        raise BadInput(f"{min(whole)}: a folder with the name of an image; rename it")
    known = [p for p in found if p.suffix.lower() in (*IMAGES, ".zip", ".roi", ".geojson") or _is_json_mask(p, masks)]
    return sorted(known, key=natural)


def _is_json_mask(path: Path, masks: bool) -> bool:
    """Say whether a file is GeoJSON by its place or name: QuPath calls some of them .json."""
    return path.suffix.lower() == ".json" and (masks or _MASK_WORD.search(path.stem) is not None)


def _refuse_pickles(frames: list[Path], masks: Path | None = None) -> None:
    """Refuse images whose only annotation is a pickle as Cellpose writes it."""
    pickled = [path.with_name(f"{path.stem}_seg.npy") for path in frames]
    pickled += sorted(masks.glob("*.npy")) if masks else []
    for path in pickled:
        if path.is_file():
            mask_files.refuse_suffix(path)


def natural(path: Path) -> list[tuple[int, str]]:
    """Return a key that sorts names as people count."""
    return [(int(t), "") if t.isdecimal() else (0, t) for t in re.split(r"(\d+)", path.name)]


def _folders(path: Path) -> list[Path]:
    """Return the sub-folders in natural order, without hidden ones, Zarr groups, links to a folder above and runs.

    A run inside the folder of its own images holds label images of what it found there.
    """
    above = {path.resolve(), *path.resolve().parents}
    found = [p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".") and p.suffix != ".zarr"]
    found = [p for p in found if not (p / RUN).is_file()]
    return sorted((p for p in found if p.resolve() not in above and p.suffix.lower() not in IMAGES), key=natural)


def _why_nothing(source: Path) -> str:
    present = sorted({p.suffix.lower() for p in source.rglob("*") if p.is_file() and p.suffix})
    for home in _called([p for p in source.iterdir() if p.is_dir()], IMAGE_FOLDERS):
        inside = sorted({p.suffix.lower() for p in home.rglob("*") if p.is_file() and p.suffix})
        if not any(suffix in IMAGES for suffix in inside):
            return (
                f"no TIFF or PNG images in {home.name}, only {', '.join(inside[:5])}"
                if inside
                else f"{home.name} is empty"
            )
    if any(suffix in IMAGES for suffix in present):
        return "its images lie deeper than the folders a field may have, or are all in folders of masks"
    return f"no TIFF or PNG images in it, only {', '.join(present[:5])}" if present else "empty folder"
