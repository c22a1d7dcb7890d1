"""The command line: `main` runs a command and turns what goes wrong into one sentence and an exit code."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from jaxdist.cli import output
from jaxdist.cli.parser import parse
from jaxdist.compute import hosts
from jaxdist.errors import InputError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 2 for input that cannot be used, 1 if another process is gone."""
    screen = os.environ.pop("MPLBACKEND", None)  # figures are drawn into files; a name that is wrong stops Matplotlib
    try:
        code = _answer(arguments)
    except Exception:  # whatever it is, the other processes must not wait for this one
        if not hosts.joined():
            raise
        traceback.print_exc()
        code = 1
    finally:
        if screen is not None:
            os.environ["MPLBACKEND"] = screen
    if code and hosts.joined():
        hosts.leave(code)
    return code


def _answer(arguments: Sequence[str] | None) -> int:
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        command: Callable[[argparse.Namespace], int | None] = options.command
        return command(options) or 0
    except InputError as error:
        output.complain(str(error))
        return 2
    except BrokenPipeError:
        # The reader of a pipe has seen enough; Python would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            output.complain(f"{error.filename}: the name or path is too long for this system; choose a shorter one")
            return 2
        if error.errno == errno.ENOTDIR:
            output.complain(f"{error.filename}: part of this path is a file, not a folder; choose another path")
            return 2
        output.complain(
            f"cannot read or write ({error}); finished work is kept: free up space or fix permissions, then repeat "
            "the command"
        )
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


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
