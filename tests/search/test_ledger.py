"""The ledger: every event survives, a torn tail is dropped, damage is named."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from data_io.errors import BadInput
from search.ledger import BACKUP, Ledger

if TYPE_CHECKING:
    from pathlib import Path


def test_events_are_read_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append("start", "a")
    assert ledger.epoch("a", {"epoch": 1, "rung_metric": 0.5})
    ledger.append("stop", "a", reason="weak")
    ledger.close()
    again = Ledger(tmp_path / "ledger.jsonl")
    state = again.trials()["a"]
    assert state.status == "stopped"
    assert state.rows[1]["rung_metric"] == 0.5
    assert again.epochs == 1


def test_an_epoch_is_recorded_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    assert ledger.epoch("a", {"epoch": 1, "rung_metric": 0.5})
    assert not ledger.epoch("a", {"epoch": 1, "rung_metric": 0.6})
    assert ledger.trials()["a"].rows[1]["rung_metric"] == 0.5


def test_a_line_cut_by_a_kill_is_dropped_and_the_next_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.epoch("a", {"epoch": 1})
    ledger.epoch("a", {"epoch": 2})
    ledger.close()
    path.write_bytes(path.read_bytes()[:-7])
    again = Ledger(path)
    assert list(again.trials()["a"].rows) == [1]
    again.epoch("a", {"epoch": 2})
    again.close()
    assert list(Ledger(path).trials()["a"].rows) == [1, 2]


def test_damage_before_the_end_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"event": "start", "trial": "a"}\nbroken\n{"event": "start", "trial": "b"}\n')
    with pytest.raises(BadInput, match=r"ledger\.jsonl:2: damaged line"):
        Ledger(path)


def test_nan_and_infinity_are_kept_as_text(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.epoch("a", {"epoch": 1, "train_loss": math.nan, "rung_metric": math.inf})
    assert Ledger(tmp_path / "ledger.jsonl").trials()["a"].rows[1]["train_loss"] == "nan"


def test_starting_again_reopens_a_trial_that_the_budget_ended(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append("budget", "a", reason="minutes")
    assert ledger.trials()["a"].status == "budget"
    ledger.append("start", "a")
    assert ledger.trials()["a"].status is None


def test_the_copy_gets_what_was_added_and_is_made_anew_where_it_is_not_what_was_copied(tmp_path: Path) -> None:
    path, copy = tmp_path / "ledger.jsonl", tmp_path / BACKUP
    ledger = Ledger(path)
    for harm in (bool, bool, copy.unlink, lambda: copy.write_bytes(b"half")):
        ledger.append("start", "a")
        harm()
        ledger.back_up()
        assert copy.read_bytes() == path.read_bytes()
    first = copy.stat().st_ino
    ledger.append("start", "b")
    ledger.close()
    assert copy.read_bytes() == path.read_bytes()
    assert copy.stat().st_ino == first  # nothing was written twice
    Ledger(path).close()
    assert copy.read_bytes() == path.read_bytes()
