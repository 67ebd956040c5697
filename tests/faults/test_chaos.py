"""The chaos run with a fixed seed."""

from __future__ import annotations

import pytest

from tests.faults import chaos


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_search_in_which_everything_goes_wrong_ends_like_one_in_which_nothing_did() -> None:
    assert chaos.main(["--seed", "1", "--minutes", "8"]) == 0
