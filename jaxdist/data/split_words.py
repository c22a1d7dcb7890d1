"""Words in names of files, folders and arrays that tell a split."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

Part: TypeAlias = Literal["train", "test", "validation"]

BOTH: tuple[Part, Part] = ("train", "test")
"""The splits that are read."""

PARTS: dict[str, Part] = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("test", "testing", "t10k", "te"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
}


def words(name: str) -> list[str]:
    """The words and numbers of a name, in small letters.

    >>> words("X_train-t10k")
    ['x', 'train', 't10k']
    """
    return re.findall(r"[a-z]+\d*k?|\d+", name.lower())
