"""The configuration as YAML text, the sentence of each field beside its value."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

if TYPE_CHECKING:
    from ruamel.yaml.comments import CommentedMap
    from ruamel.yaml.representer import BaseRepresenter


def write(section: BaseModel) -> str:
    """Return a section and all below it as YAML 1.2, with a comment for every field."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 4096
    yaml.representer.add_representer(type(None), _null)
    text = io.StringIO()
    yaml.dump(_commented(section), text)
    return text.getvalue()


def _null(representer: BaseRepresenter, _: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def _commented(section: BaseModel, indent: int = 0) -> CommentedMap:
    """Return a section as a map that ruamel writes with the field's sentence beside each value."""
    from ruamel.yaml.comments import CommentedMap

    commented = CommentedMap()
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        commented[name] = _commented(value, indent + 2) if isinstance(value, BaseModel) else _plain(value)
        if not isinstance(value, BaseModel | dict) and not _is_list_of_sections(value):
            commented.yaml_add_eol_comment(field.description, name, column=0)
        else:
            commented.yaml_set_comment_before_after_key(name, before=field.description, indent=indent)
    return commented


def _is_list_of_sections(value: Any) -> bool:
    return isinstance(value, tuple) and any(isinstance(item, BaseModel) for item in value)


def _plain(value: Any) -> Any:
    """Return a value as ruamel's own types: lists of scalars in one line."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    if isinstance(value, BaseModel):
        return CommentedMap((name, _plain(getattr(value, name))) for name in type(value).model_fields)
    if isinstance(value, dict):
        return CommentedMap((name, _plain(item)) for name, item in value.items())
    if isinstance(value, tuple):
        items = CommentedSeq(_plain(item) for item in value)
        if not _is_list_of_sections(value):
            items.fa.set_flow_style()
        return items
    return value
