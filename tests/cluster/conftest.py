from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster.heads import Head, ray_head
from tests.faults import planted

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def with_token() -> Iterator[Head]:
    """Return a head that asks for a token, of a user who has secrets in her environment."""
    with ray_head(**planted.ENVIRONMENT) as head:
        yield head
