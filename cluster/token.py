"""The token that Ray's processes and commands show each other, in a file that only its owner can read.

Ray makes ``~/.ray/auth_token`` itself when a session begins, readable by everyone on the machine; here it is made
first, with mode 0600, and a readable one is closed.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MODE = "RAY_AUTH_MODE"
TOKEN = "RAY_AUTH_TOKEN"  # noqa: S105 - the name of Ray's variable
TOKEN_FILE = "RAY_AUTH_TOKEN_PATH"  # noqa: S105 - the same
OTHERS = 0o077
"""Permission bits of everyone but the owner."""


def token_file(environment: Mapping[str, str]) -> Path:
    """Return the file in which Ray looks for the token."""
    named = environment.get(TOKEN_FILE)
    return Path(named) if named else Path.home() / ".ray" / "auth_token"


def is_asked_for(environment: Mapping[str, str]) -> bool:
    """Tell whether Ray's processes of this environment ask for a token."""
    return environment.get(MODE, "").lower() == "token"


def make_private(environment: Mapping[str, str]) -> None:
    """Make the token's file with mode 0600, or close one of ours that others can read; an empty one is made anew.

    Nothing happens where the token is a variable, or token authentication is off. Raises OSError where the file is not
    there and cannot be made.
    """
    if not is_used(environment):
        return
    file = token_file(environment)
    if is_empty(file):  # the disk was full when it was made
        file.unlink()
    try:
        _make(file)
    except FileExistsError:
        _close(file)


def is_used(environment: Mapping[str, str]) -> bool:
    """Tell whether a session that begins here takes its token from the file."""
    return not environment.get(TOKEN) and environment.get(MODE, "token").lower() == "token"


def is_empty(file: Path) -> bool:
    """Tell whether a file is there that holds no token."""
    try:
        return file.is_file() and not file.stat().st_size
    except OSError:
        return False


def is_private(file: Path) -> bool:
    """Tell whether nobody but the owner may read a file; one that is not there is private."""
    try:
        return not file.stat().st_mode & OTHERS
    except OSError:
        return True


def _make(file: Path) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as text:
            text.write(secrets.token_hex(32))
    except OSError:
        file.unlink()
        raise


def _close(file: Path) -> None:
    if not is_private(file) and file.stat().st_uid == os.getuid():
        with suppress(PermissionError):
            file.chmod(0o600)
