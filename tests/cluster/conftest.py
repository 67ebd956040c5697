from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster.heads import Head, ray_head

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def with_token() -> Iterator[Head]:
    with ray_head() as head:
        yield head
