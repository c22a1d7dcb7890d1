"""What a run keeps while it is not finished, so that the same command goes on after being killed at any moment.

The folder ``unfinished`` of a run folder holds what the work is for (run.toml), training states (written by Orbax, the
older ones pruned) and the counts of networks already swept. It goes when the run's result is saved. Everything in it
carries checksums, since not all that these formats leave open would be noticed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shutil
import time
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import tomli_w

from jaxdist import config as configs
from jaxdist import files
from jaxdist.compute import Backend, hosts
from jaxdist.config import Config
from jaxdist.errors import DAMAGED, InputError
from jaxdist.storage import places

Tree = TypeVar("Tree")

FOLDER = places.UNFINISHED

_FORMAT = 6
"""Which arrays are kept, in which order, under which names: another number when that changes."""

_SUMS = "sha256.json"
"""In the folder of a training state, the checksums of its files; a state without them was not finished."""

_ROOM = 2**20
"""Bytes that must be free on the disk beyond those of a state itself."""

_KEPT = 2
"""Training states kept: the newest, and one before it should the newest be damaged."""

_FREE = ("out", "data.dir", "train.save_every", "statistics.")
"""Beginnings of the names of config fields that change no counts or weights: a run may go on with other values."""


class Store:
    """One run's unfinished work. Everything it writes is whole or absent.

    Several processes keep none: what each of them found would have to be the same at every moment.
    """

    def __init__(self, run_folder: Path, config: Config) -> None:
        """Look for work to go on with, and write nothing; raises `InputError` if it is of another config."""
        self._folder = run_folder / FOLDER
        self._config = config
        self._noted = self._folder / places.NOTED
        self._found: dict[str, Any] = {}
        self.keeps = not hosts.joined()
        if self.keeps and self._noted.exists():
            with _readable(self._noted):
                self._found = tomllib.loads(self._noted.read_text(encoding="utf-8"))
            if self._found.get("format") != _FORMAT:
                raise InputError(
                    f"{self._folder}: holds unfinished work of another version of jaxdist; delete it, or finish it "
                    "with that version"
                )
            with _readable(self._noted):
                files.check_seal(self._noted)
                before = configs.from_dict(self._found["config"], where=str(self._noted), kept=True)
            refuse_other(before, config, self._folder)

    @property
    def backend(self) -> Backend | None:
        """How the work computes its products, which another trial might choose differently; None for new work."""
        return self._found.get("backend")

    @property
    def code(self) -> dict[str, str]:
        """What tells the code that the work to go on with was begun with, by name."""
        return dict(self._found.get("code", {}))

    def begin(self, data_digest: str, backend: Backend, code: Mapping[str, str]) -> None:
        """Note what new work is for.

        Args:
          data_digest: tells the images.
          backend: of the products.
          code: tells the code of a user's own functions, by name; new names are added to those of earlier work.

        Raises:
          InputError: if work to go on with is on other images.
        """
        if self._found.get("data_digest", data_digest) != data_digest:
            raise InputError(
                f"{self._folder}: holds unfinished work on other images; pass the same images, or delete it"
            )
        if self.keeps and (not self._found or code.keys() - self.code.keys()):
            if not self._found:
                files.remove(self._folder)  # nothing says what it was for
            about = {"format": _FORMAT, "data_digest": data_digest, "backend": backend, "code": {**self.code, **code}}
            self._found = about | {"config": configs.to_dict(self._config)}
            with files.aside(self._noted) as temporary:
                temporary.write_bytes(files.sealed(tomli_w.dumps(self._found).encode(), comment="# "))

    def clear(self) -> None:
        """Remove everything kept, all of it or nothing: later work must not go on with half of this."""
        clear(self._folder.parent)

    @contextlib.contextmanager
    def training(
        self, name: str
    ) -> Iterator[tuple[Callable[[Tree], Tree], Callable[[Tree, int], None], Callable[[], bool]]]:
        """Yield a function that reads the newest state kept, or returns its argument; one that keeps a state; and one
        that says whether the last time is long ago.

        States are pytrees of arrays, all of one structure; they come back as NumPy's, on no device yet. To keep one its
        step is given too.
        """
        if not self.keeps:
            yield lambda start: start, lambda *_: None, lambda: False
            return
        import orbax.checkpoint as ocp  # late: importing it takes most of a second

        logging.getLogger("absl").setLevel(logging.CRITICAL)  # what goes wrong is raised too
        folder = (self._folder / "training" / name).absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=_KEPT, enable_async_checkpointing=False)
        with ocp.CheckpointManager(folder, options=options) as manager:
            kept_at = time.monotonic()

            def newest(start: Tree) -> Tree:
                for step in sorted(manager.all_steps(), reverse=True):
                    if (folder / str(step) / _SUMS).exists():
                        break
                    manager.delete(step)  # killed before it was finished
                else:
                    return start
                like = jax.tree.map(np.asarray, start)
                with _readable(folder / str(step)):
                    _check_sums(folder / str(step))
                    restored: Tree = manager.restore(step, args=ocp.args.StandardRestore(like))
                return restored

            def keep(state: Tree, step: int) -> None:
                nonlocal kept_at
                _refuse_full(folder, state)
                try:
                    manager.save(step, args=ocp.args.StandardSave(jax.tree.map(np.asarray, state)), force=True)
                except ValueError as error:  # TensorStore's, which ends with what the system said
                    raise OSError(f"{folder}: {str(error).rsplit(': ', 1)[-1].split(' [')[0]}") from None
                files.write_text(folder / str(step) / _SUMS, json.dumps(_checksums(folder / str(step))))
                kept_at = time.monotonic()

            yield newest, keep, lambda: time.monotonic() - kept_at >= self._config.train.save_every

    def kept_or_computed(self, what: str, compute: Callable[[], tuple[Any, ...]]) -> tuple[np.ndarray, ...]:
        """Return the arrays kept of this, or compute and keep them; `what` is the same for nothing else of the run."""
        if not self.keeps:
            return tuple(map(np.asarray, compute()))
        path = self._folder / "sweep" / f"{files.named(what)}.npz"
        if path.exists():
            with _readable(path), path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                if archive["of"].tobytes() != what.encode():
                    raise ValueError("holds something else")
                return tuple(archive[f"arr_{k}"] for k in range(len(archive.files) - 1))
        arrays = tuple(map(np.asarray, compute()))
        with files.aside(path) as temporary:
            np.savez(temporary, *arrays, of=np.frombuffer(what.encode(), np.uint8))
        return arrays


def clear(run_folder: Path) -> None:
    """Remove what was kept in a run folder, whatever it was for."""
    if hosts.writes():
        files.remove(run_folder / FOLDER)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what a damaged file raises into one sentence."""
    try:
        yield
    except (FileNotFoundError, *DAMAGED, zipfile.BadZipFile, zlib.error) as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise InputError(
            f"{path}: is damaged ({type(error).__name__}: {reason}); delete it, then repeat the command"
        ) from None


def _checksums(folder: Path) -> dict[str, str]:
    """The checksum of every file in a folder and below it, but of the checksums' own."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _SUMS)
    return {path.relative_to(folder).as_posix(): files.digest(path) for path in paths}


def _check_sums(folder: Path) -> None:
    """Raise `ValueError` unless every file of a state is there as it was written: TensorStore checks no large array."""
    if json.loads((folder / _SUMS).read_text(encoding="utf-8")) != _checksums(folder):
        raise ValueError("its files are not what was saved")


def _refuse_full(folder: Path, state: Any) -> None:
    """Raise `OSError` where there is no room for a state: TensorStore would say so too, but not in one sentence."""
    if shutil.disk_usage(folder).free < _ROOM + sum(leaf.nbytes for leaf in jax.tree.leaves(state)):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def refuse_other(found: Config, wanted: Config, folder: Path, *, more_seeds: bool = False) -> None:
    """Refuse a config that differs from another where that changes a result.

    Args:
      found: the config of the work or result that is there.
      wanted: the config that is given.
      folder: where it was found, for the message.
      more_seeds: the wanted config may have more seeds than the one found.

    Raises:
      InputError: with the fields in which they differ.
    """
    fields = differences(found, wanted)
    if more_seeds and wanted.train.numbers[: found.train.seeds] == found.train.numbers:
        fields.pop("train.seeds", None)
    if fields:
        way_out = "delete it" if folder.name == FOLDER else "choose another folder with --out"
        raise InputError(f"{folder}: holds a run with {in_words(fields)}; use the same settings, or {way_out}")


def differences(found: Config, wanted: Config) -> dict[str, tuple[Any, Any]]:
    """The fields in which two configs differ where that changes a result: their values in both."""
    before, after = (_flat(configs.to_dict(config)) for config in (found, wanted))
    pairs = {key: (before.get(key, "unset"), after.get(key, "unset")) for key in before | after}
    return {key: pair for key, pair in pairs.items() if not key.startswith(_FREE) and pair[0] != pair[1]}


def in_words(fields: Mapping[str, tuple[Any, Any]]) -> str:
    """The differences of two configs, as a sentence has them."""
    return ", ".join(f"{key} {before}, not {after}" for key, (before, after) in fields.items())


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
