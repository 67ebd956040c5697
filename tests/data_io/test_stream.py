"""Frames that do not fit into memory: decoded once an epoch, under a ceiling, in an order nobody can change."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest
import tifffile

from data_io import crops
from data_io.convert import convert
from data_io.errors import BadInput
from data_io.stream import FrameStream, frame_bytes, open_frames, reopen

EPOCH = {"seed": 3, "n": 96, "size": 48, "batch": 4, "strength": 0.5}
FRAME = 96 * 128 * (2 + 4)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, discs, grey):
    folder = tmp_path_factory.mktemp("stream")
    for field in ("a", "b", "c"):
        for name in ("frames", "masks"):
            (folder / "set" / field / name).mkdir(parents=True)
        for t in range(12):
            tifffile.imwrite(folder / f"set/{field}/frames/t{t:02d}.tif", grey(discs(t), t + ord(field)))
            tifffile.imwrite(folder / f"set/{field}/masks/t{t:02d}.tif", discs(t))
    return convert(folder / "set", folder / "d.zarr")


@pytest.fixture
def stream(dataset, tmp_path) -> FrameStream:
    """Return a stream of 36 frames of which 8 fit into memory."""
    return FrameStream.build([dataset], [dataset.frames()], tmp_path / "stream", 8 * FRAME)


def _hash(batches) -> list[str]:
    return [hashlib.sha256(image.tobytes() + labels.tobytes()).hexdigest() for image, labels in batches]


def test_crops_are_those_of_the_frames(stream, dataset):
    lanes = _lanes(stream)
    places = {k: lanes[k % 4].places[k // 4 * 4 : (k // 4 + 1) * 4] for k in range(6)}
    for k, (images, labels) in stream.crops(seed=3, epoch=0, n=24, size=48, batch=4, foreground=0.7):
        for image, drawn, (frame, y, x) in zip(images, labels, places[k], strict=True):
            _, ref = stream.refs[frame]
            window = np.s_[y : y + 48, x : x + 48]
            assert np.array_equal(drawn, dataset.labels(ref)[window])
            assert np.allclose(image, dataset.normalised(ref)[:, *window], atol=1e-6)


def _lanes(stream):
    from data_io.stream import plan_lanes

    return plan_lanes(stream, seed=3, epoch=0, n=24, size=48, batch=4, foreground=0.7)


class _Counting:
    """Notes every chunk that is decoded."""

    def __init__(self, reader, seen) -> None:
        self.reader, self.seen = reader, seen

    def image(self, ref, out) -> None:
        self.seen.append(("image", ref))
        self.reader.image(ref, out)

    def labels(self, ref, out) -> None:
        self.seen.append(("labels", ref))
        self.reader.labels(ref, out)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_every_chunk_is_decoded_once_an_epoch_whatever_the_number_of_workers(workers, dataset, tmp_path, monkeypatch):
    every = []
    for worker in range(workers):
        one = FrameStream.build([dataset], [dataset.frames()], tmp_path / "stream", 8 * FRAME)
        seen, reader = [], one._readers[0]
        monkeypatch.setattr(one, "_readers", [_Counting(reader, seen)])
        for _ in crops.batches(one, epoch=1, worker=worker, workers=workers, **EPOCH):
            assert one.held <= 8 * FRAME
        every += seen
        assert one.most_held <= 8 * FRAME / workers
    assert len(every) == len(set(every))
    assert {ref for _, ref in every} <= set(dataset.frames())


def test_order_is_the_same_for_any_number_of_workers_and_after_an_interruption(stream):
    whole = _hash(crops.batches(stream, epoch=2, **EPOCH))
    assert len(whole) == 24
    for workers in (2, 4):
        shares = [_hash(crops.batches(stream, epoch=2, worker=w, workers=workers, **EPOCH)) for w in range(workers)]
        assert [shares[k % workers][k // workers] for k in range(24)] == whole
    assert _hash(crops.batches(stream, epoch=2, first=17, **EPOCH)) == whole[17:]
    assert _hash(crops.batches(stream, epoch=3, **EPOCH)) != whole


def test_going_on_late_in_an_epoch_decodes_only_what_is_left(stream):
    list(crops.batches(stream, epoch=0, first=20, **EPOCH))
    assert 0 < stream.decoded < 18


def test_another_process_opens_the_same_stream(stream):
    twin = pickle.loads(pickle.dumps(stream))  # noqa: S301 - how a loading worker gets it
    assert _hash(crops.batches(twin, epoch=0, **EPOCH)) == _hash(crops.batches(stream, epoch=0, **EPOCH))


def test_crops_cover_frames_by_area_and_hold_cells_as_often_as_asked(stream):
    lanes = _lanes(stream)
    counts = np.bincount(np.concatenate([lane.places[:, 0] for lane in lanes]), minlength=36)
    assert counts.max() <= 2
    held = {f: np.mean([labels.any(axis=(1, 2)).mean() for _, labels in _many(stream, f)]) for f in (0.0, 1.0)}
    assert held[1.0] == 1
    assert held[0.0] < 1


def _many(stream, foreground):
    return (made for _, made in stream.crops(seed=0, epoch=0, n=400, size=24, batch=20, foreground=foreground))


def test_the_budget_decides_and_several_stores_are_one_stream(dataset, tmp_path):
    refs = dataset.frames()
    bank = open_frames([dataset], [refs], tmp_path / "bank", 10**9)
    assert isinstance(bank, crops.FrameBank)
    assert isinstance(reopen(tmp_path / "bank"), crops.FrameBank)
    both = open_frames([dataset, dataset], [refs[:12], refs[24:]], tmp_path / "both", 8 * FRAME)
    assert isinstance(both, FrameStream)
    assert len(reopen(tmp_path / "both")) == 24
    assert {k for k, _ in both.refs} == {0, 1}
    together = open_frames([dataset, dataset], [refs[:12], refs[24:]], tmp_path / "together", 10**9)
    assert np.array_equal(together.labels(12), dataset.labels(refs[24]))
    assert frame_bytes(dataset, refs[0]) == FRAME


def test_a_budget_below_four_frames_and_three_workers_are_refused(dataset, stream, tmp_path):
    with pytest.raises(BadInput, match=r"4 frames of 0 MB do not fit into 0 MB; give them more memory"):
        FrameStream.build([dataset], [dataset.frames()], tmp_path / "s", 3 * FRAME)
    with pytest.raises(BadInput, match="3 loading workers: frames are streamed in 4 lanes; use 1 or 2 or 4 workers"):
        next(stream.crops(seed=0, epoch=0, n=8, size=48, batch=4, foreground=0.5, workers=3))


def test_a_crop_larger_than_the_frame_is_mirrored_as_in_memory(dataset, stream, tmp_path):
    bank = crops.FrameBank.build(dataset, dataset.frames(), tmp_path / "bank")
    for _, (images, labels) in stream.crops(seed=0, epoch=0, n=8, size=160, batch=4, foreground=0.5):
        assert images.shape == (4, 1, 160, 160)
        assert np.array_equal(labels[:, 96:], labels[:, 32:96][:, ::-1])
    assert bank.shapes[0] == (96, 128)


def test_a_run_that_goes_on_keeps_its_crops_whatever_memory_is_free(dataset, tmp_path, monkeypatch):
    refs, folder = [dataset.frames()], tmp_path / "frames"
    made = open_frames([dataset], refs, folder, 8 * FRAME)
    again = open_frames([dataset], refs, folder)
    assert isinstance(again, FrameStream)
    assert again.window == made.window == 2
    other = open_frames([dataset], refs, folder, 12 * FRAME)
    assert other.window == 3
    assert isinstance(open_frames([dataset], refs, folder, 10**9), crops.FrameBank)
    monkeypatch.setattr("data_io.stream.free_bytes", lambda: 40 * FRAME)
    assert isinstance(open_frames([dataset], refs, folder), crops.FrameBank)
    fewer = open_frames([dataset], [dataset.frames()[:30]], folder)
    assert isinstance(fewer, FrameStream)
    assert fewer.window == 2
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]
