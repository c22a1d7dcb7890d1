"""Compiled programs: kept on the user's disk for later processes, and released where a process holds too many."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import platform
import re
import stat
import subprocess
import sys
import tempfile
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import filelock
import jax
import platformdirs

KEPT_BYTES = 64 * 2**20
"""What the programs of a kind of machine may take of the user's disk: some thousands of them."""

JAX_LEAST_S = 1.0
"""Programs that compile sooner are not kept, by JAX's default."""

_REJECTS = 3
"""The exit status of a trial in which JAX took nothing back."""

_COMPLAINT = re.compile(rb"^E\d{4} ", re.MULTILINE)
"""How a line of XLA's errors begins: its level and the date."""

_TRIAL = f"""
import sys, jax, jax.monitoring
seen = set()
jax.monitoring.register_event_listener(lambda name, **_: seen.add(name))
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
for _ in range(2):
    jax.jit(lambda x: x + 1)(1.0)
    jax.clear_caches()
sys.exit(0 if "/jax/compilation_cache/cache_hits" in seen else {_REJECTS})
"""


_MAPPED = Path("/proc/self/maps")
"""Linux's list of a process's pieces of memory, one a line."""

_MOST_MAPPED = Path("/proc/sys/vm/max_map_count")

_CALLS = 16
"""Counting the pieces takes as long as a short program, so that it is done once in so many calls."""

_RESERVE = 0.15
"""The share of the pieces that so many calls surely leave free: some ten thousand of Linux's default."""

_calls = 0
_releases_at = 0.5
"""The share of the pieces a process may have at which programs are released."""


def release_if_many() -> None:
    """Release all compiled programs, compiled again on use, where a process has mapped half of what Linux lets it.

    XLA maps some hundred pieces of memory for a program on CPUs, and a process that cannot map another ends by a
    segmentation fault; with Linux's default of 65,530 that is after some 400 programs.
    """
    global _calls, _releases_at
    _calls += 1
    if _calls % _CALLS or (share := _share_mapped()) is None or share < _releases_at:
        return
    jax.clear_caches()
    remaining = _share_mapped() or 0.0  # others may hold programs, or much else: not to be tried again at once
    _releases_at = min((1 + remaining) / 2, max(0.5, 1 - _RESERVE))


def _share_mapped() -> float | None:
    """The share of the pieces of memory a process may have that this one has; None where that is not known."""
    try:
        most = int(_MOST_MAPPED.read_text(encoding="ascii"))
        with _MAPPED.open("rb") as lines:
            return sum(1 for _ in lines) / most
    except (OSError, ValueError, ZeroDivisionError):
        return None


def keep() -> None:
    """Keep compiled programs in the user's cache folder, so that another process need not compile them again.

    Each kind of machine and version of jaxlib has a folder of its own, with a list of what is in it. What is not as it
    is listed is removed first, since JAX would run whatever has a program's name. Nothing is kept where JAX has been
    told where to keep programs, or to keep none, where the folder cannot be used or others can write it, and on
    machines whose programs JAX does not take back, or not without complaint (https://github.com/jax-ml/jax/issues/38445).
    """
    settings = jax.config.values
    if settings["jax_compilation_cache_dir"] is not None or not settings["jax_enable_compilation_cache"]:
        return
    try:
        folder = platformdirs.user_cache_path("jaxdist") / "programs" / _kind_of_machine()
        for each in (folder.parent, folder):
            each.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not _is_the_users_alone(each):
                return
        listed = _verified(folder)
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return
    if not listed["takes_back"]:
        return
    atexit.register(_note_new, folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if settings["jax_persistent_cache_min_compile_time_secs"] == JAX_LEAST_S:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    # A program that cannot be read is compiled, and one that cannot be written is not kept: nobody needs to know.
    warnings.filterwarnings("ignore", r"Error (reading|writing) persistent compilation cache entry")


def _kind_of_machine() -> str:
    """A name of what programs are compiled for and by: a home folder may be that of several machines."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else platform.processor()
    features = {line for line in text.splitlines() if line.startswith(("model name", "flags", "Features"))} or {text}
    words = "\n".join([jax.__version__, metadata.version("jaxlib"), platform.machine(), *sorted(features)])
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def _is_the_users_alone(folder: Path) -> bool:
    """Whether nobody else can write a folder whose files are run."""
    status = folder.lstat()
    owned = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    return owned and stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o022


def _lock(folder: Path) -> filelock.FileLock:
    return filelock.FileLock(folder / "list.lock", timeout=10)


def _read_list(folder: Path) -> dict[str, Any] | None:
    """A folder's list: whether JAX takes programs back, and the SHA-256 of each; None where there is none to trust."""
    try:
        listed = json.loads((folder / "list.json").read_text(encoding="utf-8"))
        valid = isinstance(listed["takes_back"], bool) and isinstance(listed["programs"], dict)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return listed if valid else None


def _write(folder: Path, listed: dict[str, Any]) -> None:
    aside = folder / f"list.{os.getpid()}"
    aside.write_text(json.dumps(listed), encoding="utf-8")
    aside.replace(folder / "list.json")


def _verified(folder: Path) -> dict[str, Any]:
    """A folder's list, after what is not as listed, and the oldest where there is too much, has been removed."""
    with _lock(folder):
        listed = _read_list(folder)
        if listed is None:
            takes_back = _takes_back()
            listed = {"takes_back": takes_back, "programs": {}}
            if takes_back is None:
                return {**listed, "takes_back": False}
            _write(folder, listed)
        noted, intact = listed["programs"], []
        for path in folder.glob("*-cache"):
            if path.name in noted and _sum_of(path) == noted[path.name]:
                status = path.stat()
                intact.append((-status.st_mtime, status.st_size, path))
            else:
                _remove(path)
        remaining, total = {}, 0
        too_much = sum(size for _, size, _ in intact) > KEPT_BYTES
        for _, size, path in sorted(intact):  # the newest first
            total += size
            if too_much and total > KEPT_BYTES / 2:
                _remove(path)
            else:
                remaining[path.name] = noted[path.name]
        listed = {**listed, "programs": remaining}
        if remaining != noted:
            _write(folder, listed)
        return listed


def _note_new(folder: Path) -> None:
    """Note what has been added to a folder and what has gone; what a killed process adds is not noted, nor kept."""
    try:
        with _lock(folder):
            listed = _read_list(folder)
            if listed is not None:
                noted, paths = listed["programs"], list(folder.glob("*-cache"))
                sums = {path.name: noted.get(path.name) or _sum_of(path) for path in paths}
                _write(folder, {**listed, "programs": {name: each for name, each in sums.items() if each}})
    except OSError:
        return  # then they are compiled again


def _sum_of(path: Path) -> str | None:
    """A file's SHA-256; None of what is no file, as a link."""
    try:
        regular = stat.S_ISREG(path.lstat().st_mode)
        return hashlib.sha256(path.read_bytes()).hexdigest() if regular else None
    except OSError:
        return None


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # a folder, which JAX cannot read either
        return


def _takes_back() -> bool | None:
    """Whether JAX takes back what it keeps on this machine, and silently, tried in a process whose lines nobody sees.

    Some versions take a program back and print lines of errors about it: that it was compiled for another machine. None
    where that process did not come to its end.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    with tempfile.TemporaryDirectory() as place:
        # Isolated from what lies in the folder where the command runs.
        command = [sys.executable, "-P", "-c", _TRIAL, place]
        try:
            done = subprocess.run(
                command,
                cwd=place,
                env={**environment, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2"},  # errors alone
                capture_output=True,
                check=False,
                timeout=60,
            )
        except subprocess.TimeoutExpired:
            return None
    if done.returncode == 0:
        return _COMPLAINT.search(done.stderr) is None
    return False if done.returncode == _REJECTS else None
