"""The command line: `main` runs a command and turns what goes wrong into one sentence and an exit code."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from jaxdist.cli import output, surroundings
from jaxdist.cli.parser import parse
from jaxdist.compute import hosts
from jaxdist.errors import InputError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 2 for input that cannot be used, 1 if another process is gone."""
    try:
        with surroundings.lifted():
            code = _answer(arguments)
    except Exception:  # whatever it is, the other processes must not wait for this one
        if not hosts.joined():
            raise
        traceback.print_exc()
        code = 1
    if code and hosts.joined():
        hosts.leave(code)
    return code


_PERMISSIONS = "; fix its permissions or those of its folder, or choose another path"
_OF_SYSTEM = {
    errno.ENAMETOOLONG: "the name or path is too long for this system; choose a shorter one",
    errno.ENOTDIR: "part of this path is a file, not a folder; choose another path",
    errno.EISDIR: "expected a file, found a folder; choose another path",
    errno.ENOENT: "no such file or folder; check the path, or make the folder that it is to lie in",
    errno.EACCES: f"this user may not read or write it{_PERMISSIONS}",
    errno.EPERM: f"this user may not do that to it{_PERMISSIONS}",
    errno.EROFS: "the file system is read-only; choose another path",
    errno.ENOSPC: "no space is left there; finished work is kept: free up space, then repeat the command",
    errno.EDQUOT: "no more of the disk is this user's; finished work is kept: free up space, then repeat the command",
}
"""What the system's errors about a file mean, and what to do."""


def _answer(arguments: Sequence[str] | None) -> int:
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        command: Callable[[argparse.Namespace], int | None] = options.command
        code = command(options) or 0
        sys.stdout.flush()  # what goes wrong there is an answer too
        return code
    except InputError as error:
        output.complain(str(error))
        return 2
    except BrokenPipeError:
        _drop_output()  # the reader of a pipe has seen enough
        return 141
    except OSError as error:
        said = _OF_SYSTEM.get(error.errno or 0)
        try:
            sys.stdout.flush()
        except OSError:
            _drop_output()
        if error.filename is None or said is None:
            output.complain(
                f"cannot read or write ({error}); finished work is kept: free up space or fix permissions, then repeat "
                "the command"
            )
        else:
            output.complain(f"{os.fspath(error.filename)}: {said}")
        return 2
    except (RuntimeError, ValueError) as error:
        if hosts.lost(error):
            output.complain(f"another process has ended ({_first_line(error)}); restart all of them")
            return 1
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        output.complain(f"out of memory ({_first_line(error)}); use fewer seeds or units")
        return 2
    except KeyboardInterrupt:
        output.complain("interrupted; finished files are kept")
        return 130


def _drop_output() -> None:
    """What could not be printed is forgotten, since Python would try it again when it ends, and complain again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
