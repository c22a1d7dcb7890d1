"""Writing files so that nothing is ever half-written, aside first, then renamed, and so that damage is noticed."""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path

from jaxdist.errors import InputError

LONGEST_NAME = 255
"""Bytes of a file's name in nearly all file systems."""

Watch = Callable[[Path, Path], contextlib.AbstractContextManager[None]]
"""What is entered before a file takes its place, and left when it has: given where it was written, and its place."""

_MARK = b"jaxdist sha256 "
_TEMPORARY = re.compile(r"\..+-[0-9a-f]{8}(\.\w+)?", re.DOTALL)
_SUFFIX = re.compile(r"\.\w{1,16}")
_LONGEST_PART = 80
_WATCHES: ContextVar[tuple[Watch, ...]] = ContextVar("_WATCHES", default=())
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""How ``gs://bucket`` begins, also as a path, which has one slash."""
_UNUSABLE = re.compile(r'[\x00-\x1f/\\:*?"<>|]')


def expanded(path: str | Path) -> Path:
    """A path with ``~`` and ``~user`` as the shell has them.

    Raises:
      InputError: where there is no such home, and for an address on the network, which would be a folder of its name.
    """
    try:
        place = Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{path}: there is no home folder of that name; write the path out") from None
    if _ADDRESS.match(str(path)) and not place.exists():
        raise InputError(f"{path}: expected a path on this machine; copy there what is made here, or here what is read")
    return place


@contextlib.contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes `path`'s place if the block succeeds and goes if it fails.

    The temporary name keeps the suffix, since writers choose their format by it, and is as long as a name may be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        with contextlib.ExitStack() as watching:
            for watch in _WATCHES.get():
                watching.enter_context(watch(temporary, path))
            temporary.replace(path)
    except OSError as error:
        # A failed write, unlike a failed open, does not say of which file.
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Within the block, every file that `aside` has written takes its place within `watch` of both paths."""
    token = _WATCHES.set((*_WATCHES.get(), watch))
    try:
        yield
    finally:
        _WATCHES.reset(token)


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
    suffix = path.suffix if _SUFFIX.fullmatch(path.suffix) else ""
    return path.with_name(fitted(f".{path.name.removesuffix(suffix)}", f"-{secrets.token_hex(4)}{suffix}"))


def fitted(name: str, end: str = "") -> str:
    """As much of a file's name as fits before its end.

    >>> fitted("a" * 300, "-old.md")[-9:], len(fitted("é" * 300, ".md"))
    ('aa-old.md', 129)
    """
    return _beginning(name, LONGEST_NAME - len(end.encode())) + end


def _beginning(text: str, most: int) -> str:
    """As much of a text as fits into so many bytes of UTF-8."""
    return text.encode("utf-8", "ignore")[:most].decode("utf-8", "ignore")


def named(text: str) -> str:
    """A name of at most 97 bytes for a file of what the text says, of which no other text has the same.

    >>> named('["sweep", "relu", "dense0/pre"]')
    'sweep-relu-dense0-pre-6559404ece61c402'
    """
    words = re.sub(r"\W+", "-", text).strip("-")
    return f"{_beginning(words, _LONGEST_PART)}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:16]}"


def parts(labels: Sequence[str]) -> dict[str, str]:
    """A part of files' names for each label: the label with `_` for what no name may hold, if it is short.

    Where it is long, or two labels would have the same, also on disks that do not tell capitals, `named` makes it.

    >>> parts(["dense0/pre", "dense1/pre"])
    {'dense0/pre': 'dense0_pre', 'dense1/pre': 'dense1_pre'}
    """
    plain = {label: _UNUSABLE.sub("_", label) for label in labels}
    folded = [part.casefold() for part in plain.values()]
    return {
        label: part if len(part.encode()) <= _LONGEST_PART and folded.count(part.casefold()) == 1 else named(label)
        for label, part in plain.items()
    }


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


def write_named(path: Path, text: str) -> None:
    """Write text where a user says: into what is no file, as a device or a pipe, or whatever a link leads to."""
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
    else:
        write_text(path.resolve(), text)


def digest(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sealed(content: bytes | memoryview[int], comment: str = "") -> bytes:
    """Return a file's content with its checksum behind it.

    For formats whose readers ignore what follows, as HDF5's, or with what begins a comment, as TOML's.
    """
    return bytes(content) + _seal(content, comment.encode())


def check_seal(path: Path) -> None:
    """Raise `ValueError` for a file that no longer is what `sealed` made; one without a seal passes."""
    before, mark, rest = path.read_bytes().rpartition(_MARK)
    content, newline, comment = before.rpartition(b"\n")
    if mark and newline + comment + mark + rest != _seal(content, comment):
        raise ValueError("its content is not what was saved")


def _seal(content: bytes | memoryview[int], comment: bytes) -> bytes:
    return b"\n" + comment + _MARK + hashlib.sha256(content).hexdigest().encode() + b"\n"
