"""Instances and morphology against straightforward scikit-image code, on the same synthetic movie in one run.

    python tests/benchmarks/postprocess.py

whole    two_class decoding and every measure on two cores, against peak_local_max, watershed and regionprops_table of
         area, perimeter_crofton, solidity, centroid and bbox on one: aim 4 times as fast, at equal labels (asserted)
core     area, Crofton perimeter, contour circularity and solidity (with moments, boxes, contacts and Feret diameters,
         which come along) on one core, against that regionprops_table: aim 10 times
trackmate   TrackMate's measures alone
cp_measure  CellProfiler's size and shape features, where the package cp_measure is installed

Rounds are interleaved and the fastest of each counts; compilation is done before. What runs on one core is timed by the
seconds of the processor, which other programs do not disturb; on two cores the clock counts, so they have to be free.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from scipy import ndimage as ndi

from postprocess import morphology, trackmate, two_class
from tests.benchmarks import bench

if TYPE_CHECKING:
    from collections.abc import Callable

PROPERTIES = ("label", "area", "perimeter_crofton", "solidity", "centroid", "bbox")


def plain_decode(prediction: Any) -> np.ndarray:
    """Return the cells as a tutorial would find them."""
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    mask = prediction.probability[0] > 127.5
    distance = ndi.gaussian_filter(ndi.distance_transform_edt(mask).astype(np.float32), two_class.Params.smoothing)
    distance[~mask] = 0
    peaks = peak_local_max(distance, min_distance=two_class.Params.min_distance, threshold_abs=0, exclude_border=False)
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-distance, markers, mask=mask)


def plain(predictions: list[Any]) -> None:
    """Decode and measure frame by frame with scikit-image."""
    from skimage.measure import regionprops_table

    for prediction in predictions:
        regionprops_table(plain_decode(prediction), properties=PROPERTIES)


def ours(prediction: Any) -> None:
    """Decode and measure one frame."""
    morphology.measure(two_class.decode(prediction, two_class.Params()))


def core(labels: np.ndarray) -> None:
    """Measure what does not need the whole table."""
    ids, cells = morphology.compact(labels)
    _, boxes, _ = morphology._accumulate(cells, len(ids))
    morphology._outlines(cells, boxes)


def fastest(rounds: int, **calls: Callable[[], Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the least seconds of each call, taken in turns: by the clock, and of the processor."""
    clocks = (time.perf_counter, time.process_time)
    best = tuple(dict.fromkeys(calls, float("inf")) for _ in clocks)
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            began = [now() for now in clocks]
            call()
            for least, now, start in zip(best, clocks, began, strict=True):
                least[name] = min(least[name], now() - start)
    return best[0], best[1]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=47)
    parser.add_argument("--size", type=bench.read_size, default=(904, 1224), metavar="YxX")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", type=Path)
    given = parser.parse_args()
    dataset = bench.make_store(bench.cache_folder(given.cache), given.frames, given.size)
    truth = [dataset.labels(ref) for ref in dataset.frames("all")]
    predictions = [two_class.perfect(labels) for labels in truth]
    labels = [two_class.decode(prediction, two_class.Params()) for prediction in predictions]
    for prediction, cells in zip(predictions, labels, strict=True):
        pairs = np.unique(np.stack([plain_decode(prediction).ravel(), cells.ravel()]), axis=1)
        assert pairs.shape[1] == cells.max() + 1, "the two ways must find the same cells"
    cells, mpx = sum(int(each.max()) for each in labels), sum(each.size for each in labels) / 1e6
    print(f"{len(labels)} frames of {given.size[0]} x {given.size[1]} px, {cells} cells, two_class, equal labels")

    from skimage.measure import regionprops_table

    def in_two_threads() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(ours, predictions))

    calls: dict[str, Callable[[], Any]] = {
        "plain": lambda: plain(predictions),
        "ours_2": in_two_threads,
        "ours_1": lambda: [ours(prediction) for prediction in predictions],
        "plain_decode": lambda: [plain_decode(prediction) for prediction in predictions],
        "decode": lambda: [two_class.decode(prediction, two_class.Params()) for prediction in predictions],
        "table": lambda: [regionprops_table(each, properties=PROPERTIES) for each in labels],
        "core": lambda: [core(each) for each in labels],
        "measure": lambda: [morphology.measure(each) for each in labels],
        "trackmate": lambda: [trackmate.largest(each, int(each.max())) for each in labels],
    }
    try:
        from cp_measure.bulk import get_core_measurements

        shape = get_core_measurements()["sizeshape"]
        calls["cp_measure"] = lambda: [shape(each, None) for each in labels]
    except ImportError:
        print("cp_measure is not installed: not compared")
    waited, took = fastest(given.rounds, **calls)
    rate = {name: cells / seconds for name, seconds in took.items()}
    print(f"decode      scikit-image {mpx / took['plain_decode']:.1f}, ours {mpx / took['decode']:.1f} Mpx/s a core")
    print(f"measure     regionprops_table {rate['table']:.0f}, ours {rate['measure']:.0f} cells/s a core")
    for name in ("trackmate", "cp_measure"):
        if name in rate:
            print(f"{name:<11} {rate[name]:.0f} cells/s a core")
    print(f"ratio core  {took['table'] / took['core']:.1f} (aim 10)")
    print(f"ratio whole {waited['plain'] / waited['ours_2']:.1f} on two cores (aim 4)")
    print(f"            {took['plain'] / took['ours_1']:.1f} on one core")


if __name__ == "__main__":
    main()
