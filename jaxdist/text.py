"""Words for narrow places."""

from __future__ import annotations

from collections.abc import Sequence


def shortened(text: str, width: int) -> str:
    """Leave out the middle of a text that is longer than `width`.

    >>> shortened("Block_0/MultiHeadDotProductAttention_0/query", 24), shortened("dense0/pre", 24)
    ('Block_0/Mult…ion_0/query', 'dense0/pre')
    """
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def listed(words: Sequence[str]) -> str:
    """Join words as a sentence does.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
