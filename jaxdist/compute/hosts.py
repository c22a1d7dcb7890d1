"""Several processes, on one host or many, as one program: how they join, which of them writes, how they end.

JAX's own runtime does the work: all processes run the same command, see the same mesh and get the same results. What
is here belongs to the command line; a program of one's own may call ``jax.distributed.initialize`` itself.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import sys
import time
from collections.abc import Mapping
from typing import NoReturn

from jaxdist.errors import InputError
from jaxdist.formatting import counted

HELP = {
    "coordinator": "HOST:PORT of process 0, where all processes meet; unset: this process runs alone",
    "processes": "number of processes",
    "index": "index of this process, from 0; process 0 writes and prints",
    "auto": "true: find the other processes through Slurm, a TPU pod or another cluster that JAX knows [false]",
}
"""The options of the command line by name; they are no part of a config, since no result depends on them."""

HEARTBEAT = 30
"""Seconds without a sign of life after which JAX ends the processes that wait for another."""

FAREWELL = 3600
"""Seconds that finished processes wait for process 0 to write its tables and figures; if it dies, they notice."""

PATIENCE = 300
"""Seconds to wait for the others to start."""

_LOST = ("Gloo", "NCCL", "coordination service", "UNAVAILABLE")
"""What JAX's errors say where a transfer between processes failed."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Where the processes meet, how many they are, and which one this is; all None: JAX finds that out."""

    coordinator: str | None = None
    processes: int | None = None
    index: int | None = None


def cluster(given: Mapping[str, str]) -> Cluster | None:
    """What the options on the command line ask for, None for a process on its own.

    A cluster is looked for only on request: inside a Slurm allocation JAX would find one for any command, and a quick
    look at a single run would wait for processes that nobody started.

    Raises:
      InputError: if one is missing, out of range, or they contradict each other.
    """
    auto = given.get("auto", "false").lower()
    if auto not in ("true", "false"):
        raise InputError(f"--distributed.auto: expected true or false, got {given['auto']!r}")
    explicit = [name for name in ("coordinator", "processes", "index") if name in given]
    if auto == "true" and explicit:
        raise InputError(
            f"--distributed.{explicit[0]}: cannot be combined with --distributed.auto true, which finds it; leave it "
            "out"
        )
    if auto == "true":
        return Cluster()
    if not explicit:
        return None
    if len(explicit) < 3:
        missing = next(name for name in ("coordinator", "processes", "index") if name not in given)
        raise InputError(f"--distributed.{explicit[0]}: also needs --distributed.{missing}; see docs/hosts.md")
    host, _, port = given["coordinator"].rpartition(":")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise InputError(
            f"--distributed.coordinator: expected HOST:PORT with a port 1..65535, got {given['coordinator']!r}"
        )
    processes, index = (_number(name, given[name]) for name in ("processes", "index"))
    if processes < 1:
        raise InputError(f"--distributed.processes: expected at least 1, got {processes}")
    if index >= processes:
        raise InputError(
            f"--distributed.index: expected 0..{processes - 1} for "
            f"{counted(processes, 'process', 'processes')}, got {index}"
        )
    return Cluster(given["coordinator"], processes, index)


def _number(name: str, text: str) -> int:
    if not text.isdecimal():
        raise InputError(f"--distributed.{name}: expected a whole number, got {text!r}")
    return int(text)


def join(cluster: Cluster) -> None:
    """Meet the other processes, before JAX is used for anything else; all but process 0 fall silent.

    Raises:
      InputError: if there is no cluster to find, or the others do not come.
    """
    import jax

    if cluster.coordinator is not None:
        _meet(cluster)
    try:
        jax.distributed.initialize(
            cluster.coordinator,
            cluster.processes,
            cluster.index,
            # With everything given, nothing else is to be guessed from a cluster's variables.
            cluster_detection_method="deactivate" if cluster.coordinator else None,
            initialization_timeout=PATIENCE,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=FAREWELL,
        )
    except (ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        if cluster.coordinator is None:
            raise InputError(
                f"--distributed.auto: JAX found no cluster to join ({reason}); give --distributed.coordinator, "
                "--distributed.processes and --distributed.index"
            ) from None
        raise InputError(
            f"--distributed.coordinator: process {cluster.index} could not reach the others at {cluster.coordinator} "
            f"({reason}); check that {counted(cluster.processes, 'process', 'processes')} were started and can reach "
            "it"
        ) from None
    if not writes():
        # The descriptor, not only Python's stream: libraries print there too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _meet(cluster: Cluster) -> None:
    """Refuse in words what would end JAX in C++: a port that is taken, or a process 0 that does not come."""
    assert cluster.coordinator is not None
    host, _, port = cluster.coordinator.rpartition(":")
    name = f"--distributed.coordinator: {cluster.coordinator}"
    if cluster.index == 0:
        try:
            socket.create_server(("", int(port))).close()
        except OSError as error:
            raise InputError(f"{name}: cannot listen on this port ({error}); choose another") from None
        return
    waiting_until = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > waiting_until:
                raise InputError(f"{name}: no answer within {PATIENCE} s ({error}); start process 0 there") from None
        time.sleep(0.2)


def joined() -> bool:
    """Whether this process is one of several; answered without loading JAX."""
    return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


def writes() -> bool:
    """Whether this process is the one that writes files and prints."""
    return not joined() or sys.modules["jax"].process_index() == 0


def lost(error: BaseException) -> bool:
    """Whether an error is that of a transfer that failed because another process is gone."""
    return joined() and any(word in str(error) for word in _LOST)


def leave(code: int) -> NoReturn:
    """End this process at once after an error.

    An ordinary exit would first wait for the others, which wait for this one; so they see its connections close.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
