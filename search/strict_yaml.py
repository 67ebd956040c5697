"""Strict YAML 1.2: the text of a configuration file as a tree, with the line of every value.

Scalars follow the core schema of YAML 1.2.2, section 10.3.2: ``1e-4`` is a float, ``no`` is text. What a configuration
never needs and what can hide a fault is refused: duplicate keys, anchors and aliases (alias bombs), tags
(``!!python``), several documents, text beyond 1 MB and nesting beyond 20 levels.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from data_io.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

KeyPath = tuple[str | int, ...]

MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 20

_DATA = (ScalarEvent, MappingStartEvent, MappingEndEvent, SequenceStartEvent, SequenceEndEvent)

_NULL = re.compile(r"null|Null|NULL|~|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?(\.inf|\.Inf|\.INF)")
_NAN = re.compile(r"\.nan|\.NaN|\.NAN")


def read(text: str, name: str) -> tuple[Any, dict[KeyPath, int]]:
    """Return the tree of a YAML text and the line, counted from 1, of every path in it.

    `name` is the file's name for the error messages. Mappings have text keys. An empty text gives None. Raises
    BadInput on the first thing that is not plain YAML 1.2 data.
    """
    if len(text) > MAX_CHARACTERS:
        raise BadInput(f"{name}: {len(text)} characters; a configuration has at most {MAX_CHARACTERS}")
    lines: dict[KeyPath, int] = {}
    try:
        events = _Events(YAML(typ="safe", pure=True).parse(text), name)
        tree = _value(events, next(events), (), lines)
        for _ in events:
            continue
    except StopIteration:
        return None, lines
    except YAMLError as error:
        raise BadInput(_syntax(error, name)) from None
    return tree, lines


def scalar(text: str) -> str | int | float | bool | None:
    """Return the value of a plain scalar by the core schema of YAML 1.2: the first of null, bool, int, float, text.

    >>> scalar("1e-4"), scalar("no"), scalar("true"), scalar("~"), scalar("010")
    (0.0001, 'no', True, None, 10)
    """
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
        return bool(_TRUE.fullmatch(text))
    for pattern, base in ((_DECIMAL, 10), (_OCTAL, 8), (_HEXADECIMAL, 16)):
        if pattern.fullmatch(text):
            return int(text, base) if len(text) <= 4000 else float("inf")
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text) or _NAN.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text


class _Events:
    """The parser's events that carry data; refuses anchors, aliases, tags and a second document as they pass."""

    def __init__(self, events: Iterator[Any], name: str) -> None:
        self._events = events
        self.name = name
        self._documents = 0

    def __iter__(self) -> _Events:
        return self

    def __next__(self) -> Any:
        for event in self._events:
            if isinstance(event, AliasEvent) or getattr(event, "anchor", None) is not None:
                raise BadInput(f"{self.where(event)}: anchors and aliases are refused; write the value out")
            if getattr(event, "tag", None) is not None:
                raise BadInput(f"{self.where(event)}: the tag {event.tag} is refused; write plain values")
            if isinstance(event, DocumentStartEvent):
                self._documents += 1
                if self._documents > 1:
                    raise BadInput(f"{self.where(event)}: a second document; keep one document in a file")
            if isinstance(event, _DATA):
                return event
        raise StopIteration

    def where(self, event: Any) -> str:
        return f"{self.name}:{_line(event)}"


def _line(event: Any) -> int:
    return cast("int", event.start_mark.line) + 1


def _value(events: _Events, event: Any, path: KeyPath, lines: dict[KeyPath, int]) -> Any:
    lines[path] = _line(event)
    if len(path) > MAX_DEPTH:
        raise BadInput(f"{events.where(event)}: nested deeper than {MAX_DEPTH} levels; flatten it")
    if isinstance(event, ScalarEvent):
        return scalar(event.value) if event.style is None else event.value
    if isinstance(event, SequenceStartEvent):
        return _sequence(events, path, lines)
    return _mapping(events, path, lines)


def _sequence(events: _Events, path: KeyPath, lines: dict[KeyPath, int]) -> list[Any]:
    items: list[Any] = []
    for event in events:
        if isinstance(event, SequenceEndEvent):
            break
        items.append(_value(events, event, (*path, len(items)), lines))
    return items


def _mapping(events: _Events, path: KeyPath, lines: dict[KeyPath, int]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for event in events:
        if isinstance(event, MappingEndEvent):
            break
        if not isinstance(event, ScalarEvent):
            raise BadInput(f"{events.where(event)}: a key must be text; quote it or remove the brackets")
        key, line = event.value, _line(event)
        if key in mapping:
            first = lines[(*path, key)]
            raise BadInput(f"{events.where(event)}: the key {key!r} stands here and in line {first}; keep one of them")
        mapping[key] = _value(events, next(events), (*path, key), lines)
        lines[(*path, key)] = line
    return mapping


def _syntax(error: YAMLError, name: str) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"{name}:{mark.line + 1}" if mark is not None else name
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{where}: not valid YAML ({problem}); check the indentation, quotes and brackets of this line"
