"""Image crops per second of the zarrdataset package; run by crops.py in an environment that has zarr 2.

    python other_zarrdataset.py IMAGES.npy STORE.zarr CROP CROPS ROUNDS

IMAGES.npy is `(T, C, Y, X)`; the store gets the same chunks and the same compression as ours. Prints JSON: rates of
wall and processor time, medians.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from itertools import islice


def main() -> None:
    """Write the store if it is not there, then time crops in random order."""
    source, store, size, crops, rounds = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
    os.environ["BLOSC_NTHREADS"] = "1"

    import numcodecs
    import numpy as np
    import zarr
    import zarrdataset as zds

    if not os.path.isdir(store):  # noqa: PTH112 - a zarr store, not one of ours
        images = np.load(source, mmap_mode="r")
        group = zarr.open_group(store, mode="w")
        group.create_dataset(
            "0", data=images, chunks=(1, *images.shape[1:]), compressor=numcodecs.Zstd(level=1, checksum=True)
        )
    specs = zds.ImagesDatasetSpecs(filenames=[store], data_group="0", source_axes="ZCYX", axes="ZCYX")
    sampler = zds.PatchSampler(patch_size={"Z": 1, "Y": size, "X": size})
    dataset = zds.ZarrDataset([specs], patch_sampler=sampler, shuffle=True)
    wall, cpu = [], []
    for turn in range(rounds + 1):
        start, used, n = time.perf_counter(), time.process_time(), 0
        for crop in islice(dataset, crops):
            assert np.asarray(crop).shape[-2:] == (size, size)
            n += 1
        if turn:
            wall.append(n / (time.perf_counter() - start))
            cpu.append(n / (time.process_time() - used))
    print(json.dumps({"wall": statistics.median(wall), "cpu": statistics.median(cpu), "crops": n}))


if __name__ == "__main__":
    main()
