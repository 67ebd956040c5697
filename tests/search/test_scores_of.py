"""The test scores of a trial: the values of its labels, with the interval where there are frames enough."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from analysis.scores import frame_counts, score
from postprocess import methods
from search import select

if TYPE_CHECKING:
    from pathlib import Path


class _Movie:
    """A data set of `n` frames, each a square that a network finds all but one column of."""

    channels = 1

    def labels(self, ref: SimpleNamespace) -> np.ndarray:
        labels = np.zeros((40, 40), np.int32)
        labels[10:30, 10 : 26 + ref.frame] = 1
        return labels

    def normalised(self, ref: SimpleNamespace) -> np.ndarray:
        found = self.labels(ref)
        found[:, 10] = 0
        return found[None].astype(np.float32)


def _perfect(_: Any, images: Any) -> Any:
    return (methods.target_named("two_class").perfect(image[0].astype(np.int32)) for image in images)


@pytest.mark.parametrize("n", [2, 6])
def test_scores_come_with_their_interval(n: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    movie, refs = _Movie(), [SimpleNamespace(field="a", frame=frame) for frame in range(n)]
    monkeypatch.setattr(select, "load_best", lambda *_: (None, 1))
    monkeypatch.setattr(select.inference, "predict_frames", _perfect)
    trial: Any = SimpleNamespace(target="two_class")
    found = select.scores_of(trial, {}, tmp_path, movie, refs)  # type: ignore[arg-type]
    told = score([frame_counts(movie.labels(ref), movie.normalised(ref)[0].astype(np.int32)) for ref in refs])
    assert found["dataset_iou"] == pytest.approx(told["dataset_iou"])
    assert 0.93 < found["dataset_iou"] < 0.96
    if n < 5:
        assert set(found) == {"dataset_iou", "pq"}
    else:
        assert [found["dataset_iou_low"], found["dataset_iou_high"]] == pytest.approx(told["dataset_iou_ci"])
