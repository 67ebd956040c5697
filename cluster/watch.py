"""A search that loses this machine's Ray would wait for ever: a thread sees that its processes have ended.

Ray's client notices that a node of a cluster is gone, but not that the node it was started with, its own, is.
"""

from __future__ import annotations

import contextlib
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOOK_SECONDS = 2.0
"""Time between two looks at Ray's processes."""
NEEDED = ("raylet", "gcs_server")
"""Processes of Ray without which a session is over."""


@contextmanager
def watched(lost: Callable[[str], None]) -> Iterator[None]:
    """Call `lost`, in a thread, with the name of the process when the session that this process began has died."""
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(lost, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def dead_process() -> str | None:
    """Return which process of Ray's session has died; None while all live, and where another process began it."""
    node = _own_node()
    ended = {} if node is None else {kind: process.pid for kind, process in node.dead_processes()}
    return next((f"{kind}, process {ended[kind]}" for kind in NEEDED if kind in ended), None)


def end_session() -> None:
    """End what is left of the session's processes."""
    node = _own_node()
    if node is not None:
        with contextlib.suppress(Exception):  # what is dead already cannot be ended
            node.kill_all_processes(check_alive=False, allow_graceful=False)


def _watch(lost: Callable[[str], None], over: threading.Event) -> None:
    while not over.wait(LOOK_SECONDS):
        if (dead := dead_process()) is not None:
            lost(dead)
            return


def _own_node() -> Any:
    """Return Ray's handle on the processes that this process started; there is no public way to them."""
    from ray._private import worker

    return worker._global_node
