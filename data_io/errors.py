"""Bad input in one line, and the exit codes every command of the project ends with."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

from data_io.secrecy import veiled

if TYPE_CHECKING:
    from collections.abc import Callable

DONE = 0
BUG = 1
REFUSED = 2
NO_TRIAL = 3
PARTIAL = 4
REPORT_FAILED = 5
PREEMPTED = 75
INTERRUPTED = 130


class BadInput(ValueError):
    """What the user gave cannot be used.

    The message is one line, "what: fault; remedy": the file or option, what is wrong with it, what to do about it.
    Of several faults the first argument is such a line about all, and each further one a line about one of them.
    """

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


def printable(text: str) -> str:
    r"""Return text with control characters written out: a file name must not move a terminal's cursor.

    >>> printable("a\x1b[2J.tif")
    'a\\x1b[2J.tif'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def tell(fault: BadInput) -> None:
    """Print a refusal to standard error, without the secrets of the environment."""
    first, *each = fault.args
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)  # a line of progress may stand there
    for line in (f"error: {first}", *each):
        print(printable(veiled(line)), file=sys.stderr)


def entry_point(main: Callable[[list[str] | None], int]) -> NoReturn:
    """Run a command and leave the process with its exit code.

    Parameters
    ----------
    main
        Takes the arguments (None: those of the command line) and returns an exit code. `BadInput` becomes one
        `error:` line and exit 2, Ctrl-C exit 130, anything else a traceback and exit 1.
    """
    try:
        code = main(None)
    except BadInput as fault:
        tell(fault)
        code = REFUSED
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        code = INTERRUPTED
    except Exception:
        print(veiled(traceback.format_exc()), end="", file=sys.stderr)
        code = BUG
    sys.exit(code)
