"""What ends a process of a trial, as Ray and PyTorch really tell it."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
from torch.utils.data import IterableDataset

from data_io import errors
from data_io.errors import BadInput
from search.batches import loader
from search.worker import ERROR, what_failed
from tests.faults.disturbed import Search, assert_exact, undisturbed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Dying(IterableDataset[Any]):
    """A data set whose worker process ends without a word."""

    def __iter__(self) -> Iterator[int]:
        yield 1
        os._exit(3)


def test_f21_a_data_loading_worker_that_dies_is_an_error_with_its_traceback() -> None:
    with pytest.raises(RuntimeError) as died:
        list(loader(Dying(), 1))
    told = what_failed(died.value)
    assert "DataLoader worker" in told[ERROR]
    assert "exited unexpectedly" in told[ERROR]
    assert 'test_workers.py", line' in told[ERROR]


@pytest.mark.slow
def test_f19_a_process_that_the_memory_of_its_node_ended_is_named_as_such(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.0")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    search = Search(tmp_path / "run", small_data, trials=1, references=0, slots=1)
    search.behave(every={"seconds": 30.0})
    try:
        assert search.run() == errors.NO_TRIAL, search.said
        assert {event["cause"] for event in search.events("retry")} == {"memory"}
        assert "the memory of the node ran out and Ray ended its process" in search.events("fail")[0]["reason"]
    finally:
        search.end()


@pytest.mark.slow
def test_f02_the_model_of_an_undisturbed_search_is_what_an_undisturbed_search_does(
    small_data: Path, tmp_path: Path
) -> None:
    search = Search(tmp_path / "run", small_data, trials=11, references=1, slots=1)
    try:
        assert search.run() == errors.DONE, search.said
        assert [(event["trial"], event["epoch"]) for event in search.events("epoch")] == undisturbed(search)
        assert_exact(search, search.outcome())
    finally:
        search.end()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cut", "lines"])
def test_f03_a_search_goes_on_from_a_ledger_that_lost_its_end(how: str, small_data: Path, tmp_path: Path) -> None:
    search = Search(tmp_path / "run", small_data, trials=11, references=1, slots=1)
    search.behave(every={"seconds": 0.1})
    try:
        search.begin()
        search.wait_for_epochs(40)
        search.kill()
        path = search.folder / "ledger.jsonl"
        whole = path.read_bytes()
        lost = whole[: len(whole) // 2] if how == "cut" else b"".join(whole.splitlines(keepends=True)[:-20])
        path.write_bytes(lost)
        assert search.run("--resume") == errors.DONE, search.said
        assert "epochs that the ledger lacked were read from the trials' own records" in search.said
        assert_exact(search, search.outcome())
        assert {name: found["epochs"] for name, found in search.outcome().items()} == epochs_of(undisturbed(search))
    finally:
        search.end()


def epochs_of(order: list[tuple[str, int]]) -> dict[str, Any]:
    """Last epoch of each trial."""
    return dict(order)


def test_what_a_node_cannot_use_is_told_with_its_name() -> None:
    fault = BadInput("s3://lab/frames.zarr: s3fs is not installed; install it")
    told = what_failed(fault)[ERROR]
    assert told.splitlines()[-1] == f"on node {socket.gethostname()}: {fault}"
    assert "BadInput" in told  # the traceback stands above
