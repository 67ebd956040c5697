"""Which names look like secrets, and trees and texts without them."""

from __future__ import annotations

import os
import re
from typing import Any

HIDDEN = "(hidden)"
SHORTEST = 8
"""A shorter value of the environment is a word that may stand anywhere."""

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRET_WORDS = re.compile(
    "(api)?keys?|tokens?|passwords?|passwd|pwd|passphrase|secrets?|credentials?|auth|authorization|bearer|cookie|"
    "signature|sig"
)
_PATH_WORDS = re.compile(r"files?|paths?|dir|folder|sock")
_PASSWORD_IN_URL = re.compile(
    r"(?<=s3://)[^/@\s]*:[^@\s]+(?=@)"  # an AWS key may hold a slash
    r"|(?<=://)[^/\s]+(?=@)"
    r"|(?<=[a-z0-9]:/)[^/\s]+(?=@)"  # what `Path` makes of it
)
_QUERY_OF_URL = re.compile(r"://[^\s?]*\?\S*=")
_NAME = re.compile(r"-{0,2}[A-Za-z][A-Za-z0-9_.-]*")
_QUOTED_OR_PLAIN = r"(\"[^\"]*\"?|'[^']*'?|[^\s,;}\]\"']+)"
_VALUE = re.compile(rf"([\"']?\s*[=:]\s*){_QUOTED_OR_PLAIN}")
_NEXT_ARGUMENT = re.compile(rf"(\s+){_QUOTED_OR_PLAIN}")


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


def has_password(address: str) -> bool:
    """Tell whether a URL carries a name or password of its user, or a query, as signed addresses do.

    >>> has_password("s3://me:pw@bucket/x"), has_password("s3://bucket/x?token=pw"), has_password("s3://bucket/a@b")
    (True, True, False)
    """
    return any(found.search(address) for found in (_PASSWORD_IN_URL, _QUERY_OF_URL))


def hidden(typed: str) -> str:
    """Return what a user typed without the values behind secret names and without the passwords in URLs.

    >>> hidden("tracking={api_key: abc, project: x}"), hidden("--token abc --out x"), hidden("s3://me:pw@b/x")
    ('tracking={api_key: (hidden), project: x}', '--token (hidden) --out x', 's3://(hidden)@b/x')
    """
    parts, at = [], 0
    for name in _NAME.finditer(typed):
        if name.start() < at or not is_secret(name[0]):
            continue
        value = _VALUE.match(typed, name.end())
        if value is None and name[0].startswith("--"):
            value = _NEXT_ARGUMENT.match(typed, name.end())
        if value is not None:
            parts += [typed[at : value.end(1)], HIDDEN]
            at = value.end()
    return _PASSWORD_IN_URL.sub(HIDDEN, "".join([*parts, typed[at:]]))


def veiled(said: str) -> str:
    """Return what is about to be printed without passwords in URLs and without secrets of the environment.

    These are the values of variables that `is_secret` names, but for the paths of files, which are no secrets.
    """
    values = {value for name, value in os.environ.items() if is_secret(name) and not _is_path(name, value)}
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= SHORTEST:
            said = said.replace(value, HIDDEN)
    return _PASSWORD_IN_URL.sub(HIDDEN, said)


def _is_path(name: str, value: str) -> bool:
    """Tell whether a variable names a file; a key may begin with a slash, too."""
    told = name in ("PWD", "OLDPWD") or any(_PATH_WORDS.fullmatch(word.lower()) for word in _WORDS.findall(name))
    return told and value.startswith("/")
