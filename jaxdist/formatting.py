"""How numbers are written, with their nouns, units and intervals, and words that several places share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

MISSING = "–"
"""What stands for a number that there is not."""


def number(value: float, digits: int = 1) -> str:
    """A number that may be infinite or missing.

    >>> number(3.46), number(-0.04), number(float("-inf")), number(float("nan"))
    ('3.5', '0.0', '−∞', '–')
    """
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{round(value, digits) + 0.0:.{digits}f}"  # no negative zero


def figures(value: float, digits: int = 3) -> str:
    """A number of any size, to so many significant figures.

    >>> figures(2.302585), figures(0.0), figures(-1234.5), figures(1.2e-7), figures(float("inf"))
    ('2.30', '0', '-1230', '1.2e-07', '∞')
    """
    if value == 0 or not math.isfinite(value):
        return number(value, 0)
    size = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    if not -4 <= size < 6:
        return f"{value:.{digits}g}"
    return f"{round(value, digits - 1 - size):.{max(digits - 1 - size, 0)}f}"


def percent(value: float, digits: int = 2) -> str:
    """A fraction in percent, without the sign.

    >>> percent(0.98333), percent(float("inf")), percent(float("nan"))
    ('98.33', '∞', '–')
    """
    return number(100 * value, digits)


def signed(value: float, digits: int = 2) -> str:
    """A difference with its sign; none where it rounds to zero.

    >>> signed(0.116), signed(-0.001), signed(float("nan"))
    ('+0.12', '0.00', '–')
    """
    text = number(value, digits)
    return text.removeprefix("-") if not text.strip("-0.") else f"+{text}" if value > 0 else text


def points(difference: float) -> str:
    """A difference of fractions in percentage points, with its sign.

    >>> points(0.0116), points(-0.02)
    ('+1.16', '-2.00')
    """
    return signed(100 * difference)


def loss(value: float) -> str:
    """A loss in nats.

    >>> loss(0.06984)
    '0.0698'
    """
    return number(value, 4)


def p_value(value: float) -> str:
    """A p-value.

    >>> p_value(0.0317), p_value(4.5e-19), p_value(float("nan"))
    ('0.032', '4.5e-19', '–')
    """
    if math.isnan(value):
        return MISSING
    return f"{value:.2g}" if value >= 1e-3 or value == 0 else f"{value:.1e}"


def fraction(value: float, unit: str = " %") -> str:
    """The fraction of an edit in percent, as exact as grids are.

    >>> fraction(0.010723), fraction(-0.22), fraction(0.01, "")
    ('1.072 %', '-22 %', '1')
    """
    return f"{100 * value:.4g}{unit}"


def radius(value: float, grid_end: float, side: object) -> str:
    """Where on a side an edit costs too much, in percent with three digits; past the end of the grid, that it is.

    >>> radius(0.0492, 0.01, "below"), radius(float("inf"), 10.0, "above"), radius(float("-inf"), -2.0, "below")
    ('4.92 %', '> 1000 %', '< -200 %')
    """
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return f"{'<' if side == 'below' else '>'} {fraction(grid_end)}"
    return f"{100 * value:.3g} %"


def bracketed(text: str, low: float, high: float, write: Callable[[float], str]) -> str:
    """A number's text with its interval, where it has one.

    Args:
      text: the number as it is written.
      low, high: the ends of its interval, NaN where it has none.
      write: makes the text of an end.

    >>> bracketed("> 0.90", 0.5, float("inf"), percent), bracketed("15.03", float("nan"), float("nan"), percent)
    ('> 0.90 [50.00, ∞]', '15.03')
    """
    return text if math.isnan(low) or math.isnan(high) else f"{text} [{write(low)}, {write(high)}]"


def interval(ends: tuple[float, float, float], write: Callable[[float], str] = percent) -> str:
    """A number and the ends of its interval.

    >>> interval((0.1503, 0.14, 0.16))
    '15.03 [14.00, 16.00]'
    """
    return bracketed(write(ends[0]), ends[1], ends[2], write)


def spread(ends: tuple[float, float], write: Callable[[float], str] = percent) -> str:
    """A mean with its standard deviation.

    >>> spread((0.9712, 0.0012))
    '97.12 ± 0.12'
    """
    return f"{write(ends[0])} ± {write(ends[1])}"


def share(parts: tuple[int, int]) -> str:
    """So many of all.

    >>> share((2, 6))
    '2/6'
    """
    return f"{parts[0]}/{parts[1]}"


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
