"""The parser of every command: what is wrong with the arguments is one line, as any other bad input."""

from __future__ import annotations

import argparse
from typing import NoReturn

from data_io.errors import BadInput
from data_io.secrecy import hidden


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` that raises `BadInput` where that one prints its usage and ends the process."""

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments; secrets among them are not repeated."""
        raise BadInput(f"{self.prog}: {hidden(message)}; see --help")
