"""Whatever a decoder raises, and the damage tifffile only logs, as one line about the file."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from data_io.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SIGNS = ("corrupted", "invalid page offset", "failed to reshape")


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn what happens inside while a file is read into `BadInput` that names it."""
    if path.exists() and not path.is_file():
        raise BadInput(f"{path}: a folder, a pipe or a device, not a file; give the image itself")
    if not path.is_file():
        raise BadInput(f"{path}: no such file, or a link to nothing; restore it or remove the link")
    damage = _Damage()
    logger = logging.getLogger("tifffile")
    logger.addHandler(damage)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield
    except BadInput:
        raise
    except PermissionError as fault:
        raise BadInput(f"{path}: you may not read this file; change its permissions") from fault
    except Exception as fault:  # decoders raise anything from struct.error to zlib's own
        raise BadInput(f"{path}: unreadable ({one_line(fault)}); copy or export it again") from fault
    finally:
        logger.removeHandler(damage)
        logger.propagate = propagate
    if damage.text:
        raise BadInput(f"{path}: damaged or cut ({damage.text}); copy or export it again")


def one_line(fault: object) -> str:
    """Return what a library says of a fault in one line of at most 120 letters."""
    return " ".join(str(fault).split())[:120] or type(fault).__name__


class _Damage(logging.Handler):
    """Remembers the first sign of damage in tifffile's log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if not self.text and any(sign in message for sign in _SIGNS):
            self.text = one_line(message)
