"""Which names look like secrets, and a tree without them."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "(hidden)"

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRET_WORDS = re.compile(
    "(api)?keys?|tokens?|passwords?|passwd|pwd|passphrase|secrets?|credentials?|auth|authorization|bearer|cookie"
)
_PASSWORD_IN_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def is_secret(name: str) -> bool:
    """Tell whether a key's name has a word that names a secret.

    >>> is_secret("WANDB_API_KEY"), is_secret("accessToken"), is_secret("monkey")
    (True, True, False)
    """
    return any(_SECRET_WORDS.fullmatch(word.lower()) for word in _WORDS.findall(name))


def without_secrets(tree: Any) -> Any:
    """Return a copy of a tree without the entries that `is_secret` and without the passwords in its URLs."""
    if isinstance(tree, dict):
        return {name: without_secrets(value) for name, value in tree.items() if not is_secret(str(name))}
    if isinstance(tree, list | tuple):
        return [without_secrets(item) for item in tree]
    return _PASSWORD_IN_URL.sub(HIDDEN, tree) if isinstance(tree, str) else tree
