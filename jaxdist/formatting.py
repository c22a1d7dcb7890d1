"""Words that several places share: for narrow ones, of numbers, and of samples that allow little."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def counted(count: object, noun: str, plural: str | None = None) -> str:
    """A number, or the text of one, with its noun, which is `plural` or has an s unless the number says 1.

    >>> [counted(count, "dead unit") for count in (0, 1, 2)], counted(1, "class", "classes"), counted("+1", "image")
    (['0 dead units', '1 dead unit', '2 dead units'], '1 class', '+1 image')
    """
    return f"{count} {noun if str(count).lstrip('+-') == '1' else plural or f'{noun}s'}"


TWO_SEEDS = "from two seeds, 1 degree of freedom"
"""Said of intervals and tests where a sample is no larger: they are wide, and hang on how near the two happen to be."""


def cautions(tested: Iterable[int], untested: Iterable[int]) -> list[str]:
    """Sentences on the intervals and tests of a table, from the seeds behind each row that has them, or has not.

    None where all have them, of more than two seeds; one seed is spoken of elsewhere.

    >>> print(*cautions([6, 6, 2], [6, 1]), sep="\\n")
    Intervals and tests are from two seeds, 1 degree of freedom.
    – where all 6 seeds are alike: no test, no interval.
    >>> cautions([], [2, 2])
    ['– where both seeds are alike: no test, no interval.']
    """
    sentences = [f"Intervals and tests are {TWO_SEEDS}."] if 2 in set(tested) else []
    alike = sorted({seeds for seeds in untested if seeds > 1})
    if alike:
        sentences.append(f"– where {' or '.join(map(all_seeds, alike))} are alike: no test, no interval.")
    return sentences


def all_seeds(count: int) -> str:
    """All of several seeds.

    >>> all_seeds(2), all_seeds(6)
    ('both seeds', 'all 6 seeds')
    """
    return "both seeds" if count == 2 else f"all {count} seeds"


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
