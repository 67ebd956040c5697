"""What differs between two configurations in a way that changes results."""

from __future__ import annotations

from typing import Any

from search.config import NOT_HASHED, Config

OPEN = {("train", "crop"): None, ("train", "precision"): "auto", ("train", "channels_last"): "auto"}
"""Settings that are filled in from data and machine when a run starts; left open they agree with any value."""


def differences(before: Config, after: Config) -> list[str]:
    """Return ``key: old -> new`` for every setting that changes results; empty when a run may go on."""
    old, new = _flat(before.model_dump(mode="json")), _flat(after.model_dump(mode="json"))
    changed = []
    for key in sorted({*old, *new}):
        if any(key[: len(prefix)] == prefix for prefix in NOT_HASHED):
            continue
        if old.get(key) == new.get(key) or (key in OPEN and new.get(key) == OPEN[key]):
            continue
        changed.append(f"{'.'.join(key)}: {old.get(key)!r} -> {new.get(key)!r}")
    return changed


def _flat(tree: dict[str, Any], above: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Return a nested mapping as paths and values; lists are values."""
    flat: dict[tuple[str, ...], Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, (*above, key)) if isinstance(value, dict) else {(*above, key): value}
    return flat
