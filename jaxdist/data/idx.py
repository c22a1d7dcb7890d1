"""The IDX file format, as defined at the foot of yann.lecun.com/exdb/mnist, plain or compressed with gzip.

A file is two zero bytes, a type byte, the number of dimensions, each dimension as a big-endian uint32, then the values,
big-endian, the last dimension fastest.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, cast

import numpy as np

from jaxdist.data.dataset import RawSplit
from jaxdist.errors import InputError

STEMS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
"""The standard file names, images then labels, of each split."""

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: "i2", 0x0C: "i4", 0x0D: "f4", 0x0E: "f8"}
_CHUNK = 1 << 20


def find(folder: Path, stem: str) -> Path | None:
    """Return the file of a standard name in `folder`: with a dot for the second dash, or '.gz' at the end, or both."""
    spellings = (stem, stem.replace("-idx", ".idx"))
    candidates = (folder / f"{spelling}{suffix}" for suffix in ("", ".gz") for spelling in spellings)
    return next((path for path in candidates if path.exists()), None)


def present(folder: Path) -> bool:
    """Whether `folder` holds any of the four IDX files."""
    return any(find(folder, stem) for stems in STEMS.values() for stem in stems)


def read_split(folder: Path, split: Literal["train", "test"]) -> RawSplit:
    """Read the images and labels of one split; raises `InputError` for a file that is missing or malformed."""
    images, labels = (_required(folder, stem) for stem in STEMS[split])
    return RawSplit(read(images), read(labels), str(images), str(labels))


def read(path: Path) -> np.ndarray:
    """Return the array in an IDX file, in native byte order; raises `InputError` naming the file for any defect."""
    with _opened(path) as file:
        start = _up_to(file, 4)
        if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _TYPES or not start[3]:
            packed = start[:2] == b"\x1f\x8b"
            raise InputError(
                f"{path}: starts with '{start.hex(' ')}', which is not an IDX header; expected '00 00', "
                f"a type of 08, 09, 0b, 0c, 0d or 0e, and the number of dimensions, "
                f"so {'end its name in .gz, as it is compressed' if packed else 'get the file again'}"
            )
        kind = np.dtype(_TYPES[start[2]]).newbyteorder(">")
        sizes = _up_to(file, 4 * start[3])
        if len(sizes) < 4 * start[3]:
            raise InputError(f"{path}: ends inside its header; expected {start[3]} dimensions, so get the file again")
        shape = tuple(int(n) for n in np.frombuffer(sizes, ">u4"))
        expected = math.prod(shape) * kind.itemsize
        # One byte more than expected shows that there are trailing bytes; nothing is allocated by what a header says.
        values = _up_to(file, expected + 1)
    if len(values) != expected:
        amount = f"only {len(values):,}" if len(values) < expected else "more"
        raise InputError(
            f"{path}: its header declares {' x '.join(map(str, shape))} values of {kind.itemsize} bytes, "
            f"so expected {expected:,} bytes after it, got {amount}; get the file again"
        )
    return np.frombuffer(values, kind).reshape(shape).astype(kind.newbyteorder("="), copy=False)


def digest(path: Path) -> str:
    """Return the SHA-256 in hex of the file's decompressed bytes; raises `InputError` for one that cannot be read."""
    found = hashlib.sha256()
    with _opened(path) as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def _required(folder: Path, stem: str) -> Path:
    path = find(folder, stem)
    if path is None:
        names = ", ".join(name for stems in STEMS.values() for name in stems)
        raise InputError(
            f"{folder}: no file {stem}, with or without .gz; expected the four IDX files {names}, so add it"
        )
    return path


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a plain or gzip file for reading its bytes; what goes wrong inside becomes an `InputError`."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield cast(BinaryIO, file)
    except EOFError:
        raise InputError(f"{path}: the gzip data is cut short; expected a whole file, so get it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: not intact gzip data ({error}); expected gzip, so get the file again") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a readable IDX file") from None


def _up_to(file: BinaryIO, size: int) -> bytearray:
    """Read at most `size` bytes piece by piece, because one read of a declared size would allocate all of it."""
    found = bytearray()
    while len(found) < size and (chunk := file.read(min(_CHUNK, size - len(found)))):
        found += chunk
    return found
