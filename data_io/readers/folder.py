"""Folders of TIFF or PNG frames with their annotations, and single movie files.

Layouts, also inside sub-folders (each sub-folder a field; folders called `patient_3` or `well B2` give its groups):

- `frames/` beside `masks/` (or images, raw ... beside labels, annotations, gt ...), with or without sub-folders,
- images and `<name>_mask`, `_masks`, `_cp_masks`, `_labels`, `_seg`, `_ROIs` ... side by side,
- a multi-page TIFF movie, alone or in a folder, with a multi-page mask,
- one ImageJ ROI set (`RoiSet.zip`) or GeoJSON file for all frames of a movie, or one for each image.

Annotations belong to images by name (`a.tif`, `a_mask.tif`) or by number (`im000_channel1.tif`, `im000_mask1.tif`).
"""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from data_io import masks as mask_files
from data_io.errors import BadInput
from data_io.readers import drawings
from data_io.readers.files import IMAGES, raw_file, tiled
from data_io.readers.raw import RawField

if TYPE_CHECKING:
    from collections.abc import Iterable

    from data_io.readers.raw import Options, RawFile

IMAGE_FOLDERS = ("frames", "images", "image", "imgs", "img", "raw", "raw_images")
MASK_FOLDERS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "gt", "ground_truth", "segmentation", "rois",
    "roiset", "roisets",
)  # fmt: skip
GROUPS = ("patient", "donor", "plate", "well", "condition", "treatment", "day", "replicate")
"""Words that make a folder's name say which group its fields belong to."""
HOW = "put images in frames/ and label images in masks/, with the same names"
DEPTH = 4
_MASK_WORD = re.compile(
    r"(?:^|[_\-. ])(?:cp[_-])?(?:masks?|labels?|annotations?|seg|segmentation|gt|rois?|roiset)\d*(?=$|[_\-. ])",
    re.IGNORECASE,
)
_GROUP = re.compile(rf"^({'|'.join(GROUPS)})[ _\-=]?(.+)$", re.IGNORECASE)


def is_movie(source: Path) -> bool:
    """Say whether the source is one TIFF or PNG file."""
    return source.is_file()


def movie(source: Path, options: Options, warnings: list[str]) -> list[RawField]:
    """Read one file as a field; its annotation is the file beside it that carries its name and a mask suffix."""
    if source.suffix.lower() not in IMAGES:
        raise BadInput(f"{source}: neither TIFF nor PNG by its name; export it as TIFF, or give the folder it is in")
    beside = [path for path in _files(source.parent) if is_mask(path) and bare(path) == source.stem]
    return _fields(source.stem, {}, [source], beside, options, warnings)


def is_folder(source: Path) -> bool:
    """Say whether the source is a folder."""
    return source.is_dir()


def folder(source: Path, options: Options, warnings: list[str]) -> list[RawField]:
    """Read a folder of frames and masks, or a folder of such folders."""
    fields = list(_walk(source, source.name or "field", {}, options, warnings, depth=DEPTH))
    if not fields:
        raise BadInput(f"{source}: {_why_nothing(source)}; {HOW}")
    return fields


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


def _walk(
    source: Path, name: str, groups: dict[str, str], options: Options, warnings: list[str], depth: int
) -> Iterable[RawField]:
    """Yield the fields of a folder: its own images, or those of its image folder, or those of its sub-folders."""
    folders = {path.name.lower(): path for path in _folders(source)}
    image_folder = next((folders[n] for n in IMAGE_FOLDERS if n in folders), None)
    mask_folder = next((folders[n] for n in MASK_FOLDERS if n in folders), None)
    here = _files(source)
    pictures = [path for path in here if path.suffix.lower() in IMAGES]
    if image_folder is not None and not pictures:
        yield from _beside(image_folder, mask_folder, here, name, groups, options, warnings)
    elif pictures:
        inside = _files(mask_folder, masks=True) if mask_folder else []
        images = [path for path in pictures if not is_mask(path)]
        frames = pictures if inside or not images else images
        drawn = inside + [path for path in here if path not in pictures]
        drawn = drawn or [path for path in here if path not in frames]
        yield from _fields(name, groups, frames, drawn, options, warnings)
    elif depth:
        for path in _folders(source):
            yield from _walk(path, path.name, groups | group_of(path.name), options, warnings, depth - 1)


def _beside(
    image_folder: Path,
    mask_folder: Path | None,
    here: list[Path],
    name: str,
    groups: dict[str, str],
    options: Options,
    warnings: list[str],
) -> Iterable[RawField]:
    """Yield the fields of an image folder and a mask folder, which may both hold one sub-folder per field.

    An ROI set or GeoJSON file above both belongs to the images as well.
    """
    files = _files(image_folder)
    if files:
        inside = _files(mask_folder, masks=True) if mask_folder else [path for path in files if is_mask(path)]
        frames = [path for path in files if mask_folder or path not in inside]
        yield from _fields(name, groups, frames, [*inside, *here], options, warnings)
    for path in _folders(image_folder):
        twin = mask_folder / path.name if mask_folder else None
        drawn = _files(twin, masks=True) if twin and twin.is_dir() else []
        frames = [one for one in _files(path) if drawn or not is_mask(one)]
        drawn = drawn or [one for one in _files(path) if is_mask(one)]
        yield from _fields(path.name, groups | group_of(path.name), frames, drawn, options, warnings)


def group_of(name: str) -> dict[str, str]:
    """Return the group a folder's name tells.

    >>> group_of("patient_3"), group_of("Well B02"), group_of("field_1")
    ({'patient': '3'}, {'well': 'B02'}, {})
    """
    told = _GROUP.match(name)
    return {told[1].lower(): told[2]} if told else {}


def _fields(
    name: str, groups: dict[str, str], frames: list[Path], masks: list[Path], options: Options, warnings: list[str]
) -> list[RawField]:
    """Return one field, or one per file where sizes differ (no movie changes its size) or each file is a movie."""
    _no_doubles(frames)
    _no_doubles(masks)
    if whole := _for_all(frames, masks):
        files = [raw_file(path, None, options) for path in frames]
        files = drawings.share(whole, files)
    else:
        if not masks:
            _refuse_pickles(frames)
        pairs = pair(frames, masks, warnings)
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
    by_name = {path.stem: path for path in masks} | {bare(path): path for path in masks}
    pairs = {path: by_name[path.stem] for path in frames if path.stem in by_name}
    pairs = pairs or _by_number(frames, masks)
    if not pairs:
        raise BadInput(
            f"{masks[0].parent}: masks do not belong to the images by name or number ({masks[0].name}, "
            f"{frames[0].name}); name each mask like its image"
        )
    if orphans := sorted(set(masks) - set(pairs.values())):
        warnings.append(f"{orphans[0]}: no image of that name ({len(orphans)} such masks); left out")
    return pairs


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
    found = [p for p in path.iterdir() if p.name[0] != "."]
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


def _refuse_pickles(frames: list[Path]) -> None:
    """Refuse images whose only annotation is a pickle as Cellpose writes it."""
    for path in frames:
        if (pickled := path.with_name(f"{path.stem}_seg.npy")).is_file():
            mask_files.refuse_suffix(pickled)


def natural(path: Path) -> list[tuple[int, str]]:
    """Return a key that sorts names as people count."""
    return [(int(t), "") if t.isdigit() else (0, t) for t in re.split(r"(\d+)", path.name)]


def _folders(path: Path) -> list[Path]:
    return sorted(
        (p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".") and p.suffix != ".zarr"), key=natural
    )


def _why_nothing(source: Path) -> str:
    present = sorted({p.suffix.lower() for p in source.rglob("*") if p.is_file() and p.suffix})
    if any(suffix in IMAGES for suffix in present):
        return "its images lie deeper than the folders a field may have, or are all in folders of masks"
    return f"no TIFF or PNG images in it, only {', '.join(present[:5])}" if present else "empty folder"
