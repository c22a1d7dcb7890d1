"""Folders of IDX files, good and bad, for the tests of data sets."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxdist import data
from jaxdist.config import DataConfig
from jaxdist.data import idx
from jaxdist.errors import InputError

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
TRAIN_IMAGES, TRAIN_LABELS = idx.STEMS["train"]
TEST_IMAGES, TEST_LABELS = idx.STEMS["test"]
STEMS = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, CODES[array.dtype.str[1:]], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def arrays(shape: tuple[int, ...] = (6, 5), kind: str = "u1", train: int = 40, test: int = 12) -> list[np.ndarray]:
    """Images and labels of both splits; all ten labels occur in each."""
    rng = np.random.default_rng(0)
    return [
        part
        for count in (train, test)
        for part in ((rng.normal(size=(count, *shape)) * 70).astype(kind), np.arange(count, dtype=np.uint8) * 7 % 10)
    ]


def put(folder: Path, parts: list[np.ndarray], *, gz: bool = False) -> Path:
    folder.mkdir(exist_ok=True)
    for stem, part in zip(STEMS, parts, strict=True):
        content = idx_bytes(part)
        (folder / f"{stem}{'.gz' if gz else ''}").write_bytes(gzip.compress(content) if gz else content)
    return folder


def load(folder: Path, name: str = "mnist") -> data.Dataset:
    return data.load(DataConfig(name=name, dir=str(folder)))


def prepare(name: str, source: Path | None, data_dir: Path, *, download: bool = False) -> tuple[Path, list[str]]:
    lines: list[str] = []
    return data.prepare(name, source=source, data_dir=data_dir, download=download, report=lines.append), lines


def refused(call: Callable[[], Any], *parts: object) -> str:
    """Check that `call` raises an `InputError` of one line that says every one of `parts`."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message
    return message


def official(name: str) -> Path:
    folder = SHARED / name
    if not idx.present(folder):
        pytest.skip(f"the official IDX files of {name} are not in {folder}")
    return folder
