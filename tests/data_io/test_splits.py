"""Splits: whole fields, or stretches of time; no frame twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_io.errors import BadInput
from data_io.splits import SHARED, in_time, split
from data_io.store import Field


def _field(
    name: str,
    frames: int,
    cells: int | tuple[int, ...] = 3,
    groups: dict[str, str] | None = None,
    missing: int = 0,
) -> Field:
    annotated = tuple(t >= missing for t in range(frames))
    counts = cells if isinstance(cells, tuple) else (cells,) * frames
    return Field(
        name, name, frames, ("grey",), (64, 64), "uint16", None, None, groups or {}, annotated, counts,
        ("x.tif",) * frames, (), False, "labels",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("frames", "sizes"), [(3, (1, 1, 1)), (5, (3, 1, 1)), (10, (6, 2, 2)), (20, (10, 4, 4)), (47, (27, 9, 9))]
)
def test_one_movie_is_split_in_time(frames, sizes):
    result = split([_field("a", frames)])
    assert tuple(len(part) for part in (result.train, result.val, result.test)) == sizes
    assert result.unit == "time"
    assert result.warnings == (SHARED,)
    gap = 1 if frames >= 20 else 0
    assert result.val[0].frame - result.train[-1].frame == 1 + gap
    assert result.test[0].frame - result.val[-1].frame == 1 + gap
    assert result.test[-1].frame == frames - 1


def test_two_fields_keep_the_second_for_the_test():
    result = split([_field("a", 8), _field("b", 8)])
    assert {ref.field for ref in result.test} == {"b"}
    assert {ref.field for ref in (*result.train, *result.val)} == {"a"}
    assert "two fields" in result.warnings[0]


@given(st.lists(st.integers(1, 6), min_size=3, max_size=40))
def test_three_or_more_fields_are_never_divided(frames):
    fields = [_field(f"f{i:02d}", n) for i, n in enumerate(frames)]
    result = split(fields)
    parts = [{ref.field for ref in part} for part in (result.train, result.val, result.test)]
    assert all(parts)
    assert sum(map(len, parts)) == len(set().union(*parts)) == len(fields)
    assert sum(len(part) for part in (result.train, result.val, result.test)) == sum(frames)
    assert len(parts[0]) >= max(len(parts[1]), len(parts[2]))
    assert result.hash == split(fields).hash


@given(st.integers(3, 200))
def test_in_time_uses_each_frame_at_most_once(n):
    refs = _field("a", n).refs()
    used = [ref for part in in_time(refs) for ref in part]
    assert len(used) == len(set(used)) == n - (2 if n >= 20 else 0)
    assert used == sorted(used)


def test_by_well_when_there_are_three_and_never_a_well_in_two_parts():
    fields = [_field(f"f{i}", 2, groups={"well": f"B{i // 2}"}) for i in range(6)]
    result = split(fields)
    assert result.unit == "well"
    wells = [{fields[int(ref.field[1])].groups["well"] for ref in part} for part in (result.train, result.test)]
    assert not wells[0] & wells[1]


def test_fields_without_cells_are_spread_over_the_parts():
    result = split([_field(f"a{i}", 1, cells=0) for i in range(4)] + [_field(f"b{i}", 1) for i in range(4)])
    assert not result.warnings


def test_cells_in_few_frames_of_a_movie_are_shared_between_the_parts():
    result = split([_field("a", 12, cells=(4, 0, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0))])
    assert [len(part) for part in (result.train, result.val, result.test)] == [5, 4, 3]
    assert result.warnings == (SHARED,)


def test_refusals_say_what_to_do():
    with pytest.raises(BadInput, match=r"2 annotated frames.*annotate more"):
        split([_field("a", 6, missing=4)])
    with pytest.raises(BadInput, match=r"there is one well.*split by time"):
        split([_field(f"a{i}", 3, groups={"well": "B1"}) for i in range(3)], by="well")
    with pytest.raises(BadInput, match="choose from auto, field, time, well"):
        split([_field(f"a{i}", 3, groups={"well": "B1"}) for i in range(3)], by="patient")
