"""In which order a network computes its linear layers, where that is certain; it is never guessed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from jaxdist.errors import InputError
from jaxdist.formatting import counted

MOST = 200
"""Layers of one network; a perceptron has a few."""

_STEPS = 20_000
"""Steps of the search for orders; where it does not end by then, the order is asked for."""

_OWN = re.compile(r"dense\d+$")
"""The names of layers in weights that jaxdist itself stores, which have a leading S."""


class Shape(NamedTuple):
    """What of one layer its neighbours must fit."""

    inputs: int
    units: int
    stacked: bool


def of(shapes: Mapping[str, Shape], where: str, *, asked: Sequence[str] = (), certain: bool = False) -> tuple[str, ...]:
    """The names of the layers in the order in which they are computed.

    Args:
      shapes: by name, in the file's order.
      asked: the names in order, as a user says them; what they have in common may be left out.
      certain: the file's order is that of a module that computes its layers in turn.

    Raises:
      InputError: if the names that a user says are not the layers, or without them more than one order is possible.
    """
    if len(shapes) > MOST:
        raise InputError(
            f"{where}: holds {counted(len(shapes), 'layer')}; expected at most {MOST}, those of a perceptron"
        )
    short = dict(zip(shapes, _shortened(tuple(shapes)), strict=True))
    if asked:
        order = _asked(short, asked, where)
        if certain and order != tuple(shapes):
            raise InputError(
                f"{where}: the module computes its layers in the order {', '.join(short.values())}, not "
                f"{', '.join(asked)}; leave out --layers"
            )
        return order
    if certain:
        return tuple(shapes)
    if all(shape.stacked and _OWN.match(name) for name, shape in shapes.items()):
        return tuple(sorted(shapes, key=lambda name: int(name.removeprefix("dense"))))
    _refuse_neighbours(short, where)
    possible, exhausted = _orders(shapes)
    if len(possible) > 1 or exhausted:
        raise InputError(
            f"{where}: its layers ({', '.join(short.values())}) fit together in more than one order, and their names "
            "do not say which; list them in the order in which the network computes them, with --layers NAME,NAME,..."
        )
    # Where none fits, the first place where the file's order does not is told by whoever joins the layers.
    return possible[0] if possible else tuple(shapes)


def _shortened(names: tuple[str, ...]) -> list[str]:
    """The names without the outer parts that all have in common."""
    parts = [name.split(".") for name in names]
    while len(names) > 1 and all(len(each) > 1 for each in parts) and len({each[0] for each in parts}) == 1:
        parts = [each[1:] for each in parts]
    return [".".join(each) for each in parts]


def _asked(short: Mapping[str, str], asked: Sequence[str], where: str) -> tuple[str, ...]:
    full = {**{name: name for name in short}, **{brief: name for name, brief in short.items()}}
    order = [full.get(name) for name in asked]
    problems = [f"{name!r} is not one of them" for name, each in zip(asked, order, strict=True) if each is None]
    problems += [f"{short[name]!r} is missing" for name in short if name not in order]
    problems += [f"{short[name]!r} is named {order.count(name)} times" for name in short if order.count(name) > 1]
    if problems:
        raise InputError(
            f"--layers: expected the layers of {where} ({', '.join(short.values())}), each once, in the order in "
            f"which they are computed, but {' and '.join(problems)}"
        )
    return tuple(name for name in order if name is not None)


def _numbered_before(first: str, second: str) -> bool:
    """Whether one container of numbered members, such as a Sequential, holds the first layer before the second."""
    for a, b in zip(first.split("."), second.split("."), strict=False):
        if a != b:
            return a.isdecimal() and b.isdecimal() and int(a) < int(b)
    return False


def _refuse_neighbours(short: Mapping[str, str], where: str) -> None:
    """Refuse members of a Sequential with nothing between them, where between others there is an activation."""
    members: dict[str, list[int]] = {}
    for name in short:
        container, _, member = name.rpartition(".")
        if member.isdecimal():
            members.setdefault(container, []).append(int(member))
    for container, numbers in members.items():
        steps = [(a, b - a) for a, b in zip(sorted(numbers), sorted(numbers)[1:], strict=False)]
        if len({step == 1 for _, step in steps}) > 1:
            first = next(a for a, step in steps if step == 1)
            inside = f" of {container!r}" if container else ""
            raise InputError(
                f"{where}: layers {first} and {first + 1}{inside} follow each other with nothing between them, unlike "
                "the others; expected an activation after each layer but the last; multiply the two into one layer, "
                f"or, if there is an activation between them, list the layers ({', '.join(short.values())}) in order, "
                "with --layers NAME,NAME,..."
            )


def _orders(shapes: Mapping[str, Shape]) -> tuple[list[tuple[str, ...]], bool]:
    """At most two orders in which every layer takes what the one before gives, and whether the search was cut short."""
    names = list(shapes)
    before = {name: {other for other in names if _numbered_before(other, name)} for name in names}
    steps = 0

    def longer(chain: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        nonlocal steps
        if len(chain) == len(names):
            yield chain
            return
        for name in names:
            steps += 1
            if steps > _STEPS:
                return
            fits = not chain or shapes[name].inputs == shapes[chain[-1]].units
            if name not in chain and fits and before[name] <= set(chain):
                yield from longer((*chain, name))

    possible: list[tuple[str, ...]] = []
    for chain in longer(()):
        possible.append(chain)
        if len(possible) > 1:
            break
    return possible, steps > _STEPS
