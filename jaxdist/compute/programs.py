"""Compiled programs, kept on the user's disk for later processes."""

from __future__ import annotations

import warnings
from pathlib import Path

import filelock
import jax
import platformdirs

KEPT_BYTES = 256 * 2**20
"""What compiled programs may take of the user's disk: several thousand of them."""

_ENTRY, _USED = "-cache", "-atime"
"""How JAX's files end: a program, and when it was last used, which is written after it."""


def keep() -> None:
    """Keep compiled programs in the user's cache folder, so that another process need not compile them again.

    Unless JAX has been told where to keep them, or to keep none. Where the folder cannot be used nothing is kept.
    """
    if (
        jax.config.values["jax_compilation_cache_dir"] is not None
        or not jax.config.values["jax_enable_compilation_cache"]
    ):
        return
    folder = platformdirs.user_cache_path("jaxdist") / "programs"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _remove_unfinished(folder)
    except (OSError, filelock.Timeout):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", KEPT_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    # A program that cannot be read is compiled, and one that cannot be written is not kept: nobody needs to know.
    warnings.filterwarnings("ignore", r"Error (reading|writing) persistent compilation cache entry")


def _remove_unfinished(folder: Path) -> None:
    """Remove what a process that was killed may have left half-written, over which JAX would not write."""
    with filelock.FileLock(folder / ".lockfile", timeout=10):  # JAX's own
        for entry in folder.glob(f"*{_ENTRY}"):
            if not entry.with_name(entry.name.removesuffix(_ENTRY) + _USED).exists():
                entry.unlink()
