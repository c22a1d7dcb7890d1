"""The IDX file format, as defined at the foot of yann.lecun.com/exdb/mnist, and NumPy's; gzip is told by content.

A file is two zero bytes, a type byte, the number of dimensions, each dimension as a big-endian uint32, then the values,
big-endian, the last dimension fastest.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from jaxdist.data.dataset import RawSplit
from jaxdist.errors import DAMAGED, InputError
from jaxdist.formatting import counted, listed

STEMS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
"""The standard file names, images then labels, of each split."""

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: "i2", 0x0C: "i4", 0x0D: "f4", 0x0E: "f8"}
_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"
_LAYERS = 3
"""How often a file may be compressed, one time inside the other."""


def find(folder: Path, stem: str) -> Path | None:
    """Return the file of a standard name in `folder`, the first of `_spelled`; a folder if no file has the name."""
    paths = _spelled(folder, stem)
    return next((path for path in paths if path.is_file()), paths[0] if paths else None)


def present(folder: Path) -> bool:
    """Whether `folder` holds any of the four IDX files."""
    return any(find(folder, stem) for stems in STEMS.values() for stem in stems)


def _spelled(folder: Path, stem: str) -> list[Path]:
    """What has a standard name in `folder`: with a dot for the second dash, or '.gz' at the end, or both.

    Some archives unpack to a folder of that name with the file inside, which then stands for it.
    """
    names = [f"{spelling}{suffix}" for suffix in ("", ".gz") for spelling in (stem, stem.replace("-idx", ".idx"))]
    paths = [folder / name for name in names if (folder / name).exists()]
    inside = {path: [path / name for name in names if (path / name).is_file()] for path in paths if path.is_dir()}
    return [each for path in paths for each in inside.get(path) or [path]]


def read_split(folder: Path, split: Literal["train", "test"]) -> RawSplit:
    """Read the images and labels of one split; raises `InputError` for a file that is missing or malformed."""
    images, labels = (_required(folder, stem) for stem in STEMS[split])
    return RawSplit(read_array(images), read_array(labels), str(images), str(labels))


def read_array(path: Path) -> np.ndarray:
    """Return the array in an IDX file, in native byte order; raises `InputError` naming the file for any defect."""
    with _opened(path) as file:
        start = _up_to(file, 4)
        if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _TYPES or not start[3]:
            raise InputError(
                f"{path}: starts with '{start.hex(' ')}', which is not an IDX header; expected '00 00', a type of 08, "
                "09, 0b, 0c, 0d or 0e, and the number of dimensions; "
                f"{_instead_of(start)}"
            )
        kind = np.dtype(_TYPES[start[2]]).newbyteorder(">")
        sizes = _up_to(file, 4 * start[3])
        if len(sizes) < 4 * start[3]:
            raise InputError(
                f"{path}: ends inside its header; expected {counted(start[3], 'dimension')}; get the file again"
            )
        shape = tuple(int(n) for n in np.frombuffer(sizes, ">u4"))
        expected = math.prod(shape) * kind.itemsize
        # One byte more than expected shows that there are trailing bytes; nothing is allocated by what a header says.
        values = _up_to(file, expected + 1)
    if len(values) != expected:
        amount = f"only {len(values):,}" if len(values) < expected else "more"
        raise InputError(
            f"{path}: its header declares {' x '.join(map(str, shape))} values of {counted(kind.itemsize, 'byte')}, "
            f"so expected {counted(f'{expected:,}', 'byte')} after it, got {amount}; "
            + ("write its sizes big-endian" if _swapped(sizes) * kind.itemsize == len(values) else "get the file again")
        )
    return np.frombuffer(values, kind).reshape(shape).astype(kind.newbyteorder("="), copy=False)


def read_any(path: Path) -> np.ndarray:
    """The one array in a file of IDX or of NumPy; raises `InputError` naming the file for any defect."""
    with _opened(path) as file:
        start = bytes(_up_to(file, 6))
    if start == b"\x93NUMPY":
        with _numpy(path):
            return np.load(path, allow_pickle=False)
    if start[:2] == b"PK":
        names = names_in(path)
        if len(names) != 1:
            raise InputError(f"{path}: holds the arrays {listed(names)}; expected a single one; save them one by one")
        return read_member(path, names[0])
    return read_array(path)


def names_in(path: Path) -> list[str]:
    """The names of the arrays in an archive of NumPy."""
    with _numpy(path), np.load(path, allow_pickle=False) as arrays:
        return list(arrays.files)


def read_member(path: Path, name: str) -> np.ndarray:
    """One array of an archive of NumPy."""
    with _numpy(path), np.load(path, allow_pickle=False) as arrays:
        array: np.ndarray = arrays[name]
        return array


@contextmanager
def _numpy(path: Path) -> Iterator[None]:
    try:
        yield
    except (*DAMAGED, zipfile.BadZipFile, zlib.error, tokenize.TokenError, MemoryError) as error:
        said = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(f"{path}: not readable as arrays of NumPy ({said}); save plain numbers anew") from None


def _swapped(sizes: bytearray) -> int:
    """How many values the sizes [dimensions] of a header declare if they are read little-endian."""
    return math.prod(int(n) for n in np.frombuffer(sizes, "<u4"))


def _instead_of(start: bytes | bytearray) -> str:
    """What to do about a file by its first bytes, decompressed."""
    if bytes(start[:2]) == _GZIP:
        return f"decompress it, since it is compressed more than {_LAYERS} times"
    if bytes(start).lower() in (b"<!do", b"<htm"):
        return "get the file again, since this is a web page, perhaps an error page"
    if bytes(start) == b"vers":
        return "fetch the file itself with 'git lfs pull', since this is a Git LFS pointer"
    if len(start) == 4 and bytes(start[2:]) == b"\0\0" and start[1] in _TYPES:
        return "write its header big-endian"
    return "get the file again"


def digest(path: Path) -> str:
    """Return the SHA-256 in hex of the file's decompressed bytes; raises `InputError` for one that cannot be read."""
    hasher = hashlib.sha256()
    with _opened(path) as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()


def _required(folder: Path, stem: str) -> Path:
    path = find(folder, stem)
    if path is None:
        names = ", ".join(name for stems in STEMS.values() for name in stems)
        others = ", ".join(other.name for other in sorted(folder.iterdir()) if _like(other.name, stem))
        raise InputError(
            f"{folder}: no file {stem}, with or without .gz; expected the four IDX files {names}; "
            + (f"if {others} is the one, rename it" if others else "add it")
        )
    if path.is_file():
        refuse_another(path, _spelled(folder, stem))
    return path


def _like(name: str, stem: str) -> bool:
    """Whether a file's name may stand for a standard one, as test-images-idx3-ubyte does for t10k-images-idx3-ubyte."""
    split, kind = stem.split("-")[:2]
    return {"t10k": "test"}.get(split, split) in name and kind in name


def refuse_another(path: Path, spelled: list[Path]) -> None:
    """Raise `InputError` where a second file, by another spelling of the name, is not the same data."""
    for other in spelled:
        if other != path and other.is_file() and digest(other) != digest(path):
            sizes = [f"{each.stat().st_size:,} bytes" for each in (path, other)]
            raise InputError(
                f"{path} ({sizes[0]}) and {other.name} ({sizes[1]}) next to it hold different data; expected only one "
                "of them; delete the wrong one"
            )


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading its bytes, decompressed; what goes wrong inside becomes an `InputError`.

    Whether it is compressed is told by its first bytes: browsers and unpackers take a `.gz` away, or add one.
    """
    try:
        with contextlib.ExitStack() as stack:
            file: Any = stack.enter_context(path.open("rb"))
            for _ in range(_LAYERS):
                start = file.read(2)
                file.seek(0)
                if start != _GZIP:
                    break
                file = stack.enter_context(gzip.GzipFile("", "rb", fileobj=file))
            yield file
    except EOFError:
        raise InputError(f"{path}: the gzip data is cut short; expected a whole file; get it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: not intact gzip data ({error}); expected gzip; get the file again") from None
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); expected a readable IDX file; check its permissions"
        ) from None


def _up_to(file: BinaryIO, size: int) -> bytearray:
    """Read at most `size` bytes piece by piece, because one read of a declared size would allocate all of it."""
    content = bytearray()
    while len(content) < size and (chunk := file.read(min(_CHUNK, size - len(content)))):
        content += chunk
    return content
