"""What the configuration says when it refuses a value: the place, the key, the fault, the remedy or nearest name."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

from data_io.secrecy import hidden

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pydantic_core import ErrorDetails

    from search.strict_yaml import KeyPath

Root = type[BaseModel]


def fault(path: KeyPath, detail: ErrorDetails, root: Root, origin: Callable[[KeyPath], str]) -> str:
    """Return one fault as ``place: key: what is wrong; remedy``.

    `path` is where it is in the tree, empty for a fault between sections; `detail` is what pydantic says; `root` is
    the model of the whole configuration; `origin` tells the place of a key.
    """
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if not path:
        return f"{_places_named(detail['msg'], root, origin)}: {context.get('error', detail['msg'])}"
    label = f"{origin(path)}: {'.'.join(map(str, path))}"
    if kind == "extra_forbidden":
        return f"{label}: unknown key{_nearest_key(path, root)}"
    if kind == "missing":
        return f"{label}: missing; add it"
    if kind == "value_error":
        return f"{label}: {context['error']}"
    if kind == "literal_error":
        return f"{label}: unknown value {shown(value)}{choices(str(value), _literals(context['expected']))}"
    if kind == "string_pattern_mismatch":
        return f"{label}: {shown(value)} is not a plain name; use letters, digits and . _ -"
    return f"{label}: {_sentence(detail['msg'])}, not {shown(value)}{_remedy(kind, value)}"


def _places_named(message: str, root: Root, origin: Callable[[KeyPath], str]) -> str:
    """Return the places of the keys that a fault between sections names."""
    named = [key for key in _all_keys(root) if len(key) > 1 and re.search(rf"\b{re.escape('.'.join(key))} ", message)]
    return ", ".join(dict.fromkeys(origin(key) for key in named)) or "configuration"


def _remedy(kind: str, value: Any) -> str:
    if kind in ("int_type", "float_type") and isinstance(value, str):
        return "; write the number without quotes" if _is_number(value) else "; write a number"
    if kind == "int_type" and isinstance(value, float):
        return "; write a whole number"
    remedies = {
        "bool_type": "; write true or false",
        "tuple_type": "; write a list: [a, b]",
        "model_type": "; write key: value lines below it",
        "model_attributes_type": "; write key: value lines below it",
        "dict_type": "; write key: value lines below it",
    }
    return remedies.get(kind, "; --print-config shows what it means")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _sentence(message: str) -> str:
    message = message.replace("Input should be", "must be", 1).replace("a valid array", "a list")
    return message[0].lower() + message[1:]


def shown(value: Any) -> str:
    """Return a value as an error message shows it: at most 60 characters, no secrets."""
    text = hidden(repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def _literals(expected: str) -> list[str]:
    return re.findall(r"'([^']*)'", expected)


def choices(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that offers the nearest of the choices and lists them all."""
    names = list(known)
    nearest = difflib.get_close_matches(name, names, n=1)
    meant = f"; did you mean {nearest[0]}?" if nearest else ";"
    return f"{meant} choose from {', '.join(names)}"


def _nearest_key(path: KeyPath, root: Root) -> str:
    """Return a hint: the nearest key of the same section, else the nearest key anywhere, else the section's keys."""
    *parents, last = map(str, path)
    siblings, everywhere = known_keys(tuple(parents), root), _all_keys(root)
    near = difflib.get_close_matches(last, siblings, n=1)
    if last in {key[-1] for key in everywhere}:
        here = [".".join([*parents, name]) for name in near]
        return f"; did you mean {' or '.join([*here, _keys_named(last, root)])}?"
    if near:
        return f"; did you mean {'.'.join([*parents, near[0]])}?"
    names = difflib.get_close_matches(last, sorted({key[-1] for key in everywhere}), n=1)
    if names:
        return f"; did you mean {_keys_named(names[0], root)}?"
    return f"; the keys here are {', '.join(siblings)}" if siblings else "; remove it"


def _keys_named(name: str, root: Root) -> str:
    return " or ".join(".".join(key) for key in _all_keys(root) if key[-1] == name)


def known_keys(path: KeyPath, root: Root) -> list[str]:
    """Return the keys of the section at a path of the configuration; none where the path leads to no section."""
    section: Root | None = root
    for step in path:
        if isinstance(step, int):
            continue
        field = section.model_fields.get(step) if section else None
        section = _section_of(field.annotation) if field else None
    return list(section.model_fields) if section else []


def _section_of(annotation: Any) -> Root | None:
    """Return the section an annotation names, also inside a tuple or a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_of, get_args(annotation))), None)


def _all_keys(section: Root, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    keys: list[tuple[str, ...]] = []
    for name, field in section.model_fields.items():
        keys.append((*above, name))
        below = field.annotation
        if isinstance(below, type) and issubclass(below, BaseModel):
            keys.extend(_all_keys(below, (*above, name)))
    return keys
