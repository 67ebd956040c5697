"""The worst cells: every kind of mistake is found with its pixels and its place."""

from __future__ import annotations

import numpy as np

from analysis.worst_cells import EACH, SHOWN, Mistake, mistakes, worst


def test_every_kind_of_mistake_is_found_with_its_pixels() -> None:
    truth, pred = np.zeros((100, 100), np.int32), np.zeros((100, 100), np.int32)
    truth[5:15, 5:15], truth[5:15, 15:25] = 1, 2
    pred[5:15, 5:25] = 7  # merge: 200 px, of which 100 are one cell
    truth[30:40, 5:25] = 3
    pred[30:40, 5:13], pred[30:40, 13:25] = 8, 9  # split: 200 px, the larger piece 120; found as well, outline off
    truth[60:66, 60:66] = 4  # missed
    pred[80:84, 80:84] = 10  # invented
    truth[50:60, 5:15] = 5
    pred[50:60, 6:15] = 11  # outline: 10 px
    found = {mistake.kind: mistake for mistake in mistakes(truth, pred, "a", 3) if mistake.kind != "outline"}
    assert {kind: m.wrong for kind, m in found.items()} == {"merge": 100, "split": 80, "missed": 36, "invented": 16}
    assert found["merge"].box == (5, 5, 15, 25)
    assert found["missed"] == Mistake("missed", "a", 3, 36, (60, 60, 66, 66))
    outlines = sorted(m.wrong for m in mistakes(truth, pred, "a", 3) if m.kind == "outline")
    assert outlines == [10, 80, 100], "the third is the true cell that the merged one is matched with"
    assert not mistakes(truth, truth, "a", 3)


def test_labels_may_have_gaps_and_fill_the_frame() -> None:
    full = np.full((10, 10), 2**31 + 5, np.int64)
    assert not mistakes(full, full, "a", 0)
    assert [m.kind for m in mistakes(full, np.zeros_like(full), "a", 0)] == ["missed"]
    assert [(m.kind, m.box) for m in mistakes(np.zeros_like(full), full, "a", 0)] == [("invented", (0, 0, 10, 10))]


def test_the_worst_are_few_of_a_kind_and_of_different_places() -> None:
    found = [Mistake("missed", "a", frame, 100 - frame, (0, 0, 10, 10)) for frame in range(9)]
    assert worst(found) == found[:1], "a cell that is lost in every frame is one place"
    other = [Mistake("missed", "a", 0, 50 - k, (0, 20 * k, 10, 20 * k + 10)) for k in range(1, 9)]
    assert len(worst(found + other)) == EACH
    kinds = [
        Mistake(kind, "a", 0, 10, (at, 20 * k, at + 10, 20 * k + 10))
        for at, kind in ((100, "merge"), (200, "split"), (300, "invented"))
        for k in range(5)
    ]
    assert len(worst(kinds + found + other)) == SHOWN
    elsewhere = Mistake("missed", "b", 0, 1, (0, 0, 10, 10))
    assert elsewhere in worst([*found, elsewhere])
