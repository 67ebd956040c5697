"""What differs between two sittings of a run in a way that changes results: settings, data or code.

The ledger keeps what a run was made with (`Made`); a run that goes on with something else is refused with the
difference, unless the change is accepted, which the ledger then keeps too.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_io.errors import BadInput
from search.config import NOT_HASHED, Config

if TYPE_CHECKING:
    from data_io.store import Dataset
    from search.ledger import Ledger

OPEN = {("train", "crop"): None, ("train", "precision"): "auto", ("train", "channels_last"): "auto"}
"""Settings that are filled in from data and machine when a run starts; left open they agree with any value."""
MADE_WITH = "made_with"
"""The ledger's event that holds a `Made`."""
PACKAGES = ("data_io", "postprocess", "analysis", "search")
SHOWN = 6
"""Differences that a refusal lists."""


@dataclass(frozen=True)
class Made:
    """What the results of a run depend on.

    Attributes
    ----------
    config
        Settings by their dotted names, without those that change no result.
    data
        Content hash of the data set.
    code
        Our source files and the first digits of their SHA-256.
    """

    config: dict[str, Any]
    data: str
    code: dict[str, str]

    @classmethod
    def of(cls, config: Config, dataset: Dataset) -> Made:
        """Return what a run is made with now."""
        settings = {".".join(key): value for key, value in _that_count(config).items()}
        return cls(settings, dataset.content_hash, sources())


def sources() -> dict[str, str]:
    """Return our source files and the first eight digits of their SHA-256."""
    home = Path(__file__).resolve().parent.parent
    found = sorted(path for package in PACKAGES for path in (home / package).rglob("*.py"))
    return {str(p.relative_to(home)): hashlib.sha256(p.read_bytes()).hexdigest()[:8] for p in found}


def settle(ledger: Ledger, now: Made, *, accept: bool) -> list[str]:
    """Return the differences to what the run was made with before, and keep the new state; none for a new run.

    Raises
    ------
    BadInput
        There are differences, and they were not accepted.
    """
    kept = [event for event in ledger.events if event["event"] == MADE_WITH]
    before = Made(kept[-1]["config"], kept[-1]["data"], kept[-1]["code"]) if kept else None
    changed = [] if before is None else changes(before, now)
    if changed and not accept:
        raise BadInput(refusal(ledger.path.parent, changed))
    if before != now:
        ledger.append(MADE_WITH, "", accepted=changed, **asdict(now))
    return changed


def changes(before: Made, after: Made) -> list[str]:
    """Return ``name: old -> new`` for everything that differs."""
    settings = _differences(before.config, after.config)
    data = [] if before.data == after.data else [f"data: content {before.data[:12]} -> {after.data[:12]}"]
    return [*settings, *data, *_differences(before.code, after.code)]


def refusal(run_dir: Path, changed: list[str]) -> str:
    """Say what changed and what can be done."""
    more = f"; and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return (
        f"{run_dir}: was made with another configuration, data or code ({'; '.join(changed[:SHOWN])}{more}); give a "
        "new folder with --out, or go on all the same with --accept-change"
    )


def differences(before: Config, after: Config) -> list[str]:
    """Return ``key: old -> new`` for every setting that changes results; empty when a run may go on."""
    old, new = _that_count(before), _that_count(after)
    same = {key for key, left_open in OPEN.items() if new.get(key) == left_open}
    return _differences(
        {".".join(key): value for key, value in old.items() if key not in same},
        {".".join(key): value for key, value in new.items() if key not in same},
    )


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [
        f"{key}: {old.get(key)!r} -> {new.get(key)!r}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key) or (key in old) != (key in new)
    ]


def _that_count(config: Config) -> dict[tuple[str, ...], Any]:
    """Return the settings that change results, by their path."""
    flat = _flat(config.model_dump(mode="json"))
    return {key: value for key, value in flat.items() if not any(key[: len(p)] == p for p in NOT_HASHED)}


def _flat(tree: dict[str, Any], above: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Return a nested mapping as paths and values; lists are values."""
    flat: dict[tuple[str, ...], Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, (*above, key)) if isinstance(value, dict) else {(*above, key): value}
    return flat
