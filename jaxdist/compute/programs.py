"""Compiled programs, kept on the user's disk for later processes."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from importlib import metadata
from pathlib import Path

import jax
import platformdirs

KEPT_BYTES = 64 * 2**20
"""What compiled programs may take of the user's disk: some thousands of them."""

JAX_LEAST_S = 1.0
"""Programs that compile sooner are not kept, by JAX's default."""

_TRIAL = """
import sys, jax, jax.monitoring
seen = set()
jax.monitoring.register_event_listener(lambda name, **_: seen.add(name))
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
for _ in range(2):
    jax.jit(lambda x: x + 1)(1.0)
    jax.clear_caches()
sys.exit("/jax/compilation_cache/cache_hits" not in seen)
"""

_VERDICT, _FINDS, _REJECTS = "verdict", "finds", "rejects"


def keep() -> None:
    """Keep compiled programs in the user's cache folder, so that another process need not compile them again.

    Each kind of machine and version of jaxlib has a folder of its own. Nothing is kept where JAX has been told where to
    keep programs, or to keep none, where the folder cannot be used or is not the user's alone, and on machines whose
    programs JAX does not take back (https://github.com/jax-ml/jax/issues/38445), which it says in a line for each.
    """
    told = jax.config.values
    if told["jax_compilation_cache_dir"] is not None or not told["jax_enable_compilation_cache"]:
        return
    try:
        top = platformdirs.user_cache_path("jaxdist")
        folder = top / "programs" / _kind_of_machine()
        for each in (top, folder.parent, folder):
            each.mkdir(parents=True, exist_ok=True, mode=0o700)
            _make_the_users_alone(each)
        _trim(folder.parent)
        if not _finds_again(folder):
            return
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if told["jax_persistent_cache_min_compile_time_secs"] == JAX_LEAST_S:
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


def _make_the_users_alone(folder: Path) -> None:
    """Let nobody else write a folder whose files are run; raises `PermissionError` where it is not the user's."""
    status = folder.stat()
    if hasattr(os, "getuid") and status.st_uid != os.getuid():
        raise PermissionError(folder)
    if status.st_mode & 0o022:
        folder.chmod(status.st_mode & ~0o022)


def _trim(folder: Path) -> None:
    """Remove entries that a process was killed at, and the oldest where there are too many."""
    entries = []
    for path in folder.glob("*/*-cache"):
        try:
            status = path.stat()
        except FileNotFoundError:  # by another process at the same time
            continue
        if status.st_size == 0:  # JAX would never write over it
            path.unlink(missing_ok=True)
        entries.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in entries)
    if total <= KEPT_BYTES:
        return
    for _, size, path in sorted(entries):
        path.unlink(missing_ok=True)
        total -= size
        if total <= KEPT_BYTES / 2:
            break


def _finds_again(folder: Path) -> bool:
    """Whether JAX takes back what it has kept on this machine: tried once, in a process whose lines nobody sees."""
    noted = folder / _VERDICT
    if noted.exists():
        return noted.read_text(encoding="utf-8") == _FINDS
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-c", _TRIAL, place]
        finds = subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0
    aside = noted.with_name(f"{_VERDICT}.{os.getpid()}")
    aside.write_text(_FINDS if finds else _REJECTS, encoding="utf-8")
    aside.replace(noted)
    return finds
