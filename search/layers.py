"""Layers of a configuration: trees laid over each other, each value with its place, all faults told at once."""

from __future__ import annotations

import itertools
import json
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from data_io.errors import BadInput
from data_io.secrecy import HIDDEN, is_secret
from search import strict_yaml
from search.refusals import fault, known_keys, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from search.refusals import Root
    from search.strict_yaml import KeyPath

MAX_ROUNDS = 20


class Layers:
    """The merged tree, where each of its values comes from, and the faults found so far."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.tree: dict[str, Any] = {}
        self.sound: dict[str, Any] = {}
        self.origins: dict[KeyPath, str] = {}
        self.faults: list[str] = []

    def start(self, preset: dict[str, Any]) -> None:
        """Begin with a preset, which is sound: its values replace faulty ones so that the search for faults goes on."""
        self.sound = deepcopy(preset)
        self.tree = deepcopy(self.sound)

    def lay(self, tree: Mapping[str, Any], origins: Mapping[KeyPath, str]) -> None:
        """Lay a tree over what is there: mappings key by key, every other value whole."""
        _merge(self.tree, tree)
        self.origins.update(origins)

    def override(self, text: str) -> None:
        """Lay one ``key.path=value`` over the tree; the value is read by the rules of the file."""
        key, equals, value_text = text.partition("=")
        keys = key.strip().split(".")
        place = shown(f"{key}={HIDDEN}" if equals and is_secret(key) else text)
        if not equals or not all(keys):
            example = "such as train.max_epochs=10" if equals else f"or --data {place} if these are your images"
            self.faults.append(f"{place}: not an override; write key.path=value, {example}")
            return
        if keys == ["preset"]:
            self.faults.append(f"{place}: the preset lies below all values; choose it with --preset")
            return
        try:
            value, _ = strict_yaml.read(value_text, place)
        except BadInput as error:
            self.faults.append(str(error).replace(f"{place}:1:", f"{place}:", 1))
            return
        branch: Any = value
        for name in reversed(keys):
            branch = {name: branch}
        self.lay(branch, {tuple(keys): place})

    def origin(self, path: KeyPath) -> str:
        """Return the place of the value at `path`, else of what holds it or lies in it, else the preset."""
        preset = f"preset {self.sound['preset']}"
        kept = _at(self.sound, path)
        if path not in self.origins and kept is not None and _at(self.tree, path) == kept:
            return preset
        for end in range(len(path), 0, -1):
            if path[:end] in self.origins:
                return self.origins[path[:end]]
        inside = [place for known, place in self.origins.items() if path and known[: len(path)] == path]
        return inside[-1] if inside else preset

    def validated(self) -> Any:
        """Return the tree as an instance of the root model; raises BadInput naming every fault.

        Each round replaces the values found faulty by the preset's, so that rules between values are checked as well.
        """
        for _ in range(MAX_ROUNDS):
            try:
                instance = self.root.model_validate_json(json.dumps(self.tree))
            except ValidationError as error:
                self._take_out(error)
            else:
                self._refuse_faults()
                return instance
        self._refuse_faults()
        raise BadInput("the configuration contradicts itself; start again from --print-config of a preset")

    def _take_out(self, error: ValidationError) -> None:
        located = [(self._path(detail["loc"]), detail) for detail in error.errors()]
        paths = [path for path, _ in located]
        found = [(path, detail) for path, detail in located if not any(_lies_above(path, other) for other in paths)]
        self.faults.extend(fault(path, detail, self.root, self.origin) for path, detail in found)
        for path, _ in found:
            if not self._repair(path):
                self.tree = deepcopy(self.sound)

    def _path(self, location: tuple[int | str, ...]) -> KeyPath:
        """Return the part of a pydantic location that leads through the tree, without union tags and the like."""
        path: KeyPath = ()
        for step in location:
            here = _at(self.tree, path)
            if not _leads_on(here, step) and not (isinstance(here, dict) and step in known_keys(path, self.root)):
                break
            path = (*path, step)
        return path

    def _repair(self, path: KeyPath) -> bool:
        """Put the preset's value back at `path`, or remove what the preset lacks; False when that changes nothing.

        Lists are put back whole, as they are replaced whole.
        """
        path = tuple(itertools.takewhile(lambda step: isinstance(step, str), path))
        if not path:
            return False
        parent, sound = _at(self.tree, path[:-1]), _at(self.sound, path[:-1])
        key = path[-1]
        if isinstance(parent, dict):
            before = deepcopy(parent)
            if isinstance(sound, dict) and key in sound:
                parent[key] = deepcopy(sound[key])
            else:
                parent.pop(key, None)
            if parent != before:
                return True
        return self._repair(path[:-1])

    def _refuse_faults(self) -> None:
        faults = list(dict.fromkeys(self.faults))
        if len(faults) == 1:
            raise BadInput(faults[0])
        if faults:
            raise BadInput(f"{len(faults)} faults in the configuration", *(f"  {fault}" for fault in faults))


def _lies_above(path: KeyPath, other: KeyPath) -> bool:
    """Tell whether `other` is inside `path`: a fault there is the cause, one here its consequence."""
    return len(other) > len(path) > 0 and other[: len(path)] == path


def _at(tree: Any, path: KeyPath) -> Any:
    """Return what the tree holds at `path`, None where it ends before."""
    for step in path:
        if not _leads_on(tree, step):
            return None
        tree = tree[step]
    return tree


def _leads_on(tree: Any, step: int | str) -> bool:
    if isinstance(tree, list):
        return isinstance(step, int) and step < len(tree)
    return isinstance(tree, dict) and step in tree


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    """Lay one tree over another in place: mappings key by key, every other value whole."""
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _merge(below[key], value)
        else:
            below[key] = deepcopy(value)
