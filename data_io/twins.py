"""Frames that occur twice, exactly or nearly, and parts of a split that leak into each other by them.

Nearly: the same view exported again, with other grey values, compressed, blurred, mirrored or turned. A frame is
reduced to 32 x 32 means with their surroundings subtracted, which takes out the lamp; the correlation of two frames of
different fields is then near 0, and near 1 for twins. Crops and shifted views of one another are not found.
"""

from __future__ import annotations

import base64
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from data_io.store import PARTS, FrameRef

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from data_io.fingerprint import FrameMeasures
    from data_io.store import Field, Splits

    Frames = list[tuple[FrameRef, NDArray[np.float32]]]

SIDE = 32
"""Means per side of a signature."""
NEAR = 0.7
"""Frames of different fields that correlate more are twins, if they also stand out from the other pairs."""
STAND_OUT = 8.0
"""By this many SDs, estimated from the median deviation: dust on the camera makes all fields a little alike."""
MOST = 2000
"""Frames compared at most, evenly taken; each comparison is 8 x 32 x 32 products."""
TOLD = 3


def signature(image: NDArray[Any]) -> str:
    """Return a `(C, Y, X)` image as 32 x 32 signed bytes in base64: block means less those of the 5 x 5 around them."""
    from scipy import ndimage

    grey = image[0] if len(image) == 1 else image.mean(axis=0)
    small = _block_means(_block_means(np.asarray(grey, np.float32), 0), 1)
    local = small - ndimage.uniform_filter(small, 5, mode="reflect")
    spread = 1.4826 * float(np.median(np.abs(local))) or float(local.std())
    scaled = np.clip(local / spread, -4, 4) if spread else np.zeros_like(local)
    return base64.b64encode(np.rint(31 * scaled).astype(np.int8).tobytes()).decode()


def find(
    fields: Sequence[Field], measures: Mapping[str, Sequence[FrameMeasures]], splits: Splits
) -> dict[str, list[dict[str, Any]]]:
    """Return `duplicates`, `near_duplicates` and `leakage`: lists of pairs of frames.

    A pair has `a` and `b` as [field, frame], their `files` and their `parts` (None where a frame is in no part).
    `leakage` has a `kind`: "duplicate" and "near duplicate" for pairs in two parts, "neighbours" for frames of one
    movie that follow each other and lie in two parts.
    """
    part = {ref: name for name in PARTS for ref in getattr(splits, name)}
    file = {ref: field.sources[ref.frame] for field in fields for ref in field.refs()}

    def pair(a: FrameRef, b: FrameRef, **more: Any) -> dict[str, Any]:
        frames = {"a": [a.field, a.frame], "b": [b.field, b.frame], "files": [file[a], file[b]]}
        return more | frames | {"parts": [part.get(a), part.get(b)]}

    same = _duplicates(fields, measures)
    near = _near(fields, measures, part)
    leaks = [
        pair(a, b, kind=kind)
        for kind, a, b in [
            *(("duplicate", a, b) for a, b in same),
            *(("near duplicate", a, b) for _, a, b in near),
            *(("neighbours", a, b) for field in fields for a, b in pairwise(field.refs())),
        ]
        if _in_two_parts(part, a, b)
    ]
    return {
        "duplicates": [pair(a, b) for a, b in same],
        "near_duplicates": [pair(a, b, correlation=round(r, 3)) for r, a, b in near],
        "leakage": leaks,
    }


def warnings(found: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """Return one line per pair of twins, a few of each sort, and one on neighbours in two parts."""
    told = []
    for sort, text in (("duplicates", "the same pixels as"), ("near_duplicates", "nearly the same picture as")):
        pairs = found[sort]
        for one in pairs[:TOLD]:
            leak = f"; they lie in {' and '.join(one['parts'])}" if len(set(one["parts"]) - {None}) == 2 else ""
            told.append(f"{_name(one, 0)}: {text} {_name(one, 1)}{leak}")
        if len(pairs) > TOLD:
            told.append(f"{len(pairs) - TOLD} more frames are {text} another")
    movies = list(dict.fromkeys(one["a"][0] for one in found["leakage"] if one["kind"] == "neighbours"))
    if movies:
        more = f" and {len(movies) - TOLD} more" if len(movies) > TOLD else ""
        told.append(f"{', '.join(movies[:TOLD])}{more}: neighbouring frames lie in two parts, none left out between")
    return told


def _duplicates(
    fields: Sequence[Field], measures: Mapping[str, Sequence[FrameMeasures]]
) -> list[tuple[FrameRef, FrameRef]]:
    """Return every frame that has the pixels of an earlier one, with the first of those."""
    first: dict[str, FrameRef] = {}
    every = [(ref, measures[field.name][ref.frame].digest) for field in fields for ref in field.refs()]
    pairs = [(ref, first.setdefault(digest, ref)) for ref, digest in every]
    return [(ref, twin) for ref, twin in pairs if twin != ref]


def _near(
    fields: Sequence[Field], measures: Mapping[str, Sequence[FrameMeasures]], part: Mapping[FrameRef, str]
) -> list[tuple[float, FrameRef, FrameRef]]:
    """Return correlation and frames of the closest pair of each two fields that have one, pairs in two parts first."""
    refs = [ref for field in fields for ref in field.refs()]
    refs = refs[:: -(-len(refs) // MOST)]
    vectors = np.stack([_unit(measures[ref.field][ref.frame].signature) for ref in refs])
    owner = np.unique([ref.field for ref in refs], return_inverse=True)[1]
    if owner.max() == 0:
        return []
    r = _correlations(vectors)
    apart = owner[:, None] < owner[None, :]
    others = r[apart]
    middle = float(np.median(others))
    usual = middle + STAND_OUT * 1.4826 * float(np.median(np.abs(others - middle)))
    alike = np.argwhere(apart & (r > max(NEAR, min(usual, 0.95))))
    digests = Counter(one.digest for own in measures.values() for one in own)
    best: dict[tuple[str, str], tuple[bool, float, FrameRef, FrameRef]] = {}
    for i, j in alike:
        a, b = refs[i], refs[j]
        if any(digests[measures[ref.field][ref.frame].digest] > 1 for ref in (a, b)):
            continue  # told as the same pixels
        found = (_in_two_parts(part, a, b), float(r[i, j]), a, b)
        best[a.field, b.field] = max(found, best.get((a.field, b.field), found), key=lambda one: one[:2])
    return [(value, a, b) for _, value, a, b in best.values()]


def _correlations(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return `(N, N)`: the highest correlation of each two signatures over mirrors and right angles."""
    highest = np.full((len(vectors), len(vectors)), -1, np.float32)
    for turned in _turned(vectors.reshape(-1, SIDE, SIDE)):
        np.maximum(highest, vectors @ turned.reshape(len(vectors), -1).T, out=highest)
    return highest


def _turned(squares: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    for mirrored in (squares, squares.transpose(0, 2, 1)):
        for quarter in range(4):
            yield np.rot90(mirrored, quarter, axes=(1, 2))


def _unit(text: str) -> NDArray[np.float32]:
    values = np.frombuffer(base64.b64decode(text), np.int8).astype(np.float32)
    values -= values.mean()
    return values / max(float(np.linalg.norm(values)), 1e-6)


def _block_means(grey: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return the means of 32 stretches along an axis; a shorter axis repeats its values."""
    side = grey.shape[axis]
    starts = np.arange(SIDE) * side // SIDE
    widths = np.maximum(np.diff(starts, append=side), 1).astype(np.float32)
    sums = np.add.reduceat(grey, starts, axis=axis)
    return np.asarray(sums / (widths[:, None] if axis == 0 else widths), np.float32)


def _in_two_parts(part: Mapping[FrameRef, str], a: FrameRef, b: FrameRef) -> bool:
    return len({part.get(a), part.get(b)} - {None}) == 2


def _name(pair: Mapping[str, Any], which: int) -> str:
    field, frame = pair["ab"[which]]
    return f"{field} frame {frame} ({pair['files'][which]})"
