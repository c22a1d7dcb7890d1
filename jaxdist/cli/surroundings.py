"""What a user has set for other programs: commands work with it, or say in one sentence why not."""

from __future__ import annotations

import contextlib
import datetime
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from jaxdist.compute import hosts
from jaxdist.errors import InputError


@contextlib.contextmanager
def lifted() -> Iterator[None]:
    """Lift what would stop a command that has nothing to do with it; afterwards all is as it was.

    Figures are drawn into files, a date for files is a number, and what a stream cannot print is printed as its escape
    sequence.
    """
    wrong = ["MPLBACKEND"]
    try:
        datetime.datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), datetime.UTC)
    except (ValueError, OverflowError, OSError):
        wrong.append("SOURCE_DATE_EPOCH")
    before = {name: os.environ.pop(name) for name in wrong if name in os.environ}
    with contextlib.ExitStack() as stack:
        stack.callback(os.environ.update, before)
        for name in ("stdout", "stderr"):
            stack.enter_context(_printable(name))
        yield


@contextlib.contextmanager
def _printable(name: str) -> Iterator[None]:
    """One of this process's streams takes all that is printed; one that the caller has closed leads nowhere."""
    stream = getattr(sys, name)
    try:
        if stream is None:
            with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
                setattr(sys, name, nowhere)
                yield
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
            try:
                yield
            finally:
                stream.reconfigure(errors="strict")
        else:
            yield
    finally:
        setattr(sys, name, stream)


def start_jax(cluster: hosts.Cluster | None) -> None:
    """Import JAX and let it find the devices, all cores in use, other processes met or programs kept for later ones.

    Raises:
      InputError: where JAX cannot start with what the environment sets for it.
    """
    try:
        import jax

        from jaxdist.compute import devices, programs

        _ease()
        devices.use_all_cores()
        if cluster:
            hosts.join(cluster)
        else:
            programs.keep()
        jax.device_put(0)  # it is here that JAX looks for devices, and for the one that it is told to use
    except (RuntimeError, ValueError, AssertionError) as error:
        said = str(error).partition("\n")[0]
        blamed = _told(lambda name: name.startswith("JAX_") and name.lower() in said.lower())
        named = blamed or _told(_CHOOSING.__contains__)
        if isinstance(error, InputError) or hosts.lost(error) or not named:
            raise
        raise InputError(
            f"{', '.join(f'{name}={value}' for name, value in named.items())}: JAX cannot use that here"
            f"{f' ({said})' if said else ''}; unset it, or set it to what this machine and this JAX have"
        ) from None


_CHOOSING = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "JAX_NUM_CPU_DEVICES", "JAX_DEFAULT_DEVICE", "XLA_FLAGS")
"""What decides which devices JAX looks for."""


def _told(which: Callable[[str], bool]) -> dict[str, str]:
    """Those of the environment's variables."""
    return {name: value for name, value in os.environ.items() if which(name)}


def _ease() -> None:
    """Lift what commands could not work with, or would give other numbers with; JAX keeps these settings.

    They move arrays between the host and devices, and compute with infinite bounds and, where that is asked for, NaN.
    Their random numbers are the same everywhere.
    """
    import jax

    jax.config.update("jax_transfer_guard", "allow")
    jax.config.update("jax_debug_infs", False)
    jax.config.update("jax_debug_nans", False)
    jax.config.update("jax_threefry_partitionable", True)
    jax.config.update("jax_random_seed_offset", 0)
