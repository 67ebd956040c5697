"""Bad input in one line, and the exit codes every command of the project ends with."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import shutil
import sys
import traceback
from pathlib import Path
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
UNREAD = 141
"""Nobody reads the output any more, as with ``| head -1``; other programs are then ended by signal 13, SIGPIPE."""


class BadInput(ValueError):
    """What the user gave cannot be used.

    The message is one line, "what: fault; remedy": the file or option, what is wrong with it, what to do about it.
    Of several faults the first argument is such a line about all, and each further one a line about one of them.
    """

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class DiskFull(OSError):
    """A disk has no room for a file; `needed` is the file's size in bytes, None where it is not known."""

    def __init__(self, path: Path | str, needed: int | None = None) -> None:
        folder = next((p for p in (Path(path), *Path(path).parents) if p.is_dir()), Path("/"))
        free = shutil.disk_usage(folder).free
        wanted = "" if needed is None else f", {needed} needed"
        super().__init__(errno.ENOSPC, f"the disk is full ({free} bytes free{wanted})", str(path))

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or the one behind it, says that a disk or a quota is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return True
        if "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def disk_full(error: BaseException, folder: Path | str = ".") -> DiskFull:
    """Return what a full disk is told as, whatever the error that showed it; `folder` where it names no path."""
    if isinstance(error, DiskFull):
        return error
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, DiskFull):
            return inner
        if isinstance(inner, OSError) and inner.filename is not None:
            return DiskFull(str(inner.filename))
        if "</torch_" in str(inner):  # how PyTorch calls the files of its loading workers
            return DiskFull("/dev/shm")  # noqa: S108 - shared memory, where the system has it
        inner = inner.__cause__ or inner.__context__
    return DiskFull(Path(folder).absolute())


_REMEDIES = {
    errno.EACCES: "change its permissions or name another place",
    errno.EPERM: "change its permissions or name another place",
    errno.EROFS: "name another place",
    errno.ENOTDIR: "name another place",
    errno.EISDIR: "name another place",
    errno.ELOOP: "remove the link that leads to itself",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def of_a_place(error: OSError) -> BadInput | None:
    """Return what a file or folder that may not be used is told as; None where the error is not about that."""
    if error.filename is None or error.errno not in _REMEDIES:
        return None
    what = str(error.strerror)
    return BadInput(f"{error.filename}: {what[:1].lower()}{what[1:]}; {_REMEDIES[error.errno]}")


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
        Takes the arguments (None: those of the command line) and returns an exit code. `BadInput`, and a file or
        folder that may not be used, become one `error:` line and exit 2, a full disk one line and exit 75, Ctrl-C
        exit 130, output that nobody reads exit 141 and silence, anything else a traceback and exit 1.
    """
    try:
        code = _code(main, _Readers())
    except BrokenPipeError:  # of telling a fault
        code = UNREAD
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # the interpreter flushes once more
            code = code or UNREAD
    sys.exit(code)


def _code(main: Callable[[list[str] | None], int], nobody_reads: Callable[[], bool]) -> int | str | None:
    """Return the exit code of a command, once its fault has been told."""
    code: int | str | None
    try:
        code = main(None)
    except BadInput as fault:
        tell(fault)
        code = REFUSED
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        code = INTERRUPTED
    except SystemExit as end:  # of --help, or of a library that turned its output away
        code = UNREAD if end.code and nobody_reads() else end.code
    except Exception as fault:
        if isinstance(fault, BrokenPipeError) and nobody_reads():
            code = UNREAD
        elif is_disk_full(fault):
            remedy = "free some and run the same command again: it goes on from here"
            print(printable(f"error: {disk_full(fault)}; {remedy}"), file=sys.stderr)
            code = PREEMPTED
        elif isinstance(fault, OSError) and (refusal := of_a_place(fault)) is not None:
            tell(refusal)
            code = REFUSED
        else:
            print(veiled(traceback.format_exc()), end="", file=sys.stderr)
            code = BUG
    return code


class _Readers:
    """Tells whether a pipe that takes the output has lost its reader; knows it even once the output was turned away."""

    def __init__(self) -> None:
        self.poll = select.poll()
        for number in (1, 2):
            with contextlib.suppress(OSError):  # it may be closed
                self.poll.register(os.dup(number), 0)

    def __call__(self) -> bool:
        return any(event & select.POLLERR for _, event in self.poll.poll(0))
