"""Options of `data_io.convert`, which its messages name, given to a search: there they are settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_io.errors import BadInput
from data_io.secrecy import hidden

if TYPE_CHECKING:
    from collections.abc import Sequence

SETTINGS = {
    "--z": "data.z=max",
    "--channels": "'data.channels=[DIC, GFP]'",
    "--truth": "data.truth=gold",
    "--labels": "data.labels=NAME",
    "--tiles": "'data.tiles=[3, 4]'",
    "--reader": "data.reader=folder",
    "--split-by": "data.split_by=well",
    "--split-touching": "data.split_touching=true",
    "--normalise": "data.normalise=dataset",
    "--pixel-size": "data.pixel_size_um=0.65",
    "--frame-interval": "data.frame_interval_s=90",
}
"""What says in a search what the option says in a conversion, by example."""


def refuse(arguments: Sequence[str]) -> None:
    """Refuse what is an option of a conversion.

    Raises
    ------
    BadInput
        One is among the arguments; the setting is named.
    """
    for argument in arguments:
        option = argument.partition("=")[0]
        if option in SETTINGS:
            raise BadInput(
                f"{hidden(argument)}: an option of data_io.convert; in a search write the setting, such as "
                f"{SETTINGS[option]}"
            )
