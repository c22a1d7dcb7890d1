"""Writing files so that nothing is ever half-written, aside first, then renamed, and so that damage is noticed."""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

_MARK = b"\njaxdist sha256 "
_TEMPORARY = re.compile(r"\..+-[0-9a-f]{8}(\.\w+)?")


@contextlib.contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes `path`'s place if the block succeeds and goes if it fails.

    The temporary name keeps the suffix, since writers choose their format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        # A failed write, unlike a failed open, does not say of which file.
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path` to fill; it becomes `path`, new or empty, if the block succeeds, else goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")


def is_temporary(name: str) -> bool:
    """Whether a file's or folder's name is one that `aside` or `folder_aside` gives while writing."""
    return _TEMPORARY.fullmatch(name) is not None


def remove_left_over(folder: Path) -> None:
    """Remove what `aside` and `folder_aside` were writing in `folder` itself when their process was killed."""
    for path in list(folder.glob(".*")):
        if is_temporary(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def remove(folder: Path) -> None:
    """Remove a folder, if it is there; one that is removed by half already has a temporary name."""
    if folder.exists():
        shutil.rmtree(folder.rename(_temporary(folder)))


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8."""
    with aside(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sealed(content: bytes | memoryview[int]) -> bytes:
    """Return a file's content with its checksum behind it, for formats whose readers ignore what follows, as HDF5's."""
    return bytes(content) + _seal(content)


def check_seal(path: Path) -> None:
    """Raise `ValueError` for a file that no longer is what `sealed` made; one without a seal passes."""
    content, mark, rest = path.read_bytes().rpartition(_MARK)
    if mark and mark + rest != _seal(content):
        raise ValueError("its content is not what was saved")


def _seal(content: bytes | memoryview[int]) -> bytes:
    return _MARK + hashlib.sha256(content).hexdigest().encode() + b"\n"
