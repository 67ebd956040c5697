"""The parser of every command: what is wrong with the arguments is one line, as any other bad input."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from data_io.errors import BadInput
from data_io.secrecy import hidden

if TYPE_CHECKING:
    from collections.abc import Iterable

NETWORK = re.compile(
    r"(-{0,2}[\w.-]+=)?['\"]?([a-z0-9+.-]+::)*(https?|ftps?|sftp|ssh|file|gs|gcs|abfss?|az|github|hf):/", re.IGNORECASE
)
"""An argument that is an address of the network other than s3://, or a chain of such."""


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` that raises `BadInput` where that one prints its usage and ends the process."""

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments; secrets among them are not repeated."""
        raise BadInput(f"{self.prog}: {hidden(message)}; see --help")

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuse addresses of the network, which would be taken for names of folders; else as argparse does."""
        given = sys.argv[1:] if args is None else list(args)
        for one in given:
            if not one:
                unset = "an empty argument, as of a variable of the shell that is not set"
                raise BadInput(f"{self.prog}: {unset}; fill it in or leave it out, see --help")
            if NETWORK.match(one):
                remedy = "fetch what lies there and give its folder, or give s3://bucket/name"
                raise BadInput(f"{hidden(one)}: an address of the network, which is not read; {remedy}")
        return super().parse_known_args(given, namespace)
