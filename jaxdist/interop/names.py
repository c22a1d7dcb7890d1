"""What the names of checkpoint files tell: the activation, a seed's number, and when in a training a file was saved."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxdist import activations, forms


def _set(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split())


_COUNTERS = _set(
    "e ep epoch epochs step steps globalstep global it iter iters iteration iterations update updates",
    "checkpoint checkpoints ckpt ckpts chkpt batch",
)
"""Words that count the progress of a training, with the number behind them."""

_MOMENTS = _set("best last final latest early late init initial start end ema swa")
"""Words for a moment of a training, or for weights averaged along it."""

_SCORES = _set("loss acc accuracy score error err metric")
"""Words for what was measured when a file was saved, with the number behind them."""

_OF = _set("val valid validation train test")
"""Words that may stand before those."""

_PLAIN = _set("model models pytorch torch network networks net weights state dict params file checkpoint ckpt")
"""Words that any checkpoint may be called by."""

_SUFFIX = re.compile(r"(\.(pt|pth|bin|ckpt|safetensors|pkl|tar))+$", re.IGNORECASE)

_COMPANIONS = re.compile(r"(optimizer|scheduler|scaler|rng_state|random_states|training_args|trainer_state)([_.-].*)?$")
"""Stems of what training scripts save beside a network's weights."""


class Told(NamedTuple):
    """What the place of one file tells."""

    activation: str
    """The name of a network, "" where there is none or more than one."""
    key: tuple[str, ...]
    """The words and numbers that are left when activation, progress and plain words are taken away."""
    progress: bool
    """Whether it also says when in a training the file was saved."""

    @property
    def number(self) -> int | None:
        """The one number of the key, as that of a seed."""
        numbers = [int(word) for word in self.key if word.isdecimal()]
        return numbers[0] if len(numbers) == 1 else None


def companion(path: Path) -> bool:
    """Whether a file is what a training script keeps beside the weights, such as an optimiser's state."""
    return bool(_COMPANIONS.match(path.stem))


def told(place: Path) -> Told:
    """What a file's place below the folder that was given tells.

    >>> told(Path("seed3/LeakyReLU/epoch=9-step=990.ckpt"))
    Told(activation='leaky_relu', key=('seed', '3'), progress=True)
    """
    *outer, name = place.parts
    parts = [*outer, _SUFFIX.sub("", name)]
    named: set[str] = set()
    key: list[str] = []
    progress = False
    for k, part in enumerate(parts):
        # A number at the end of a file's name is rather a seed's than part of 'relu2', unless a folder tells the seed.
        form = _FORMS.get(part.lower())
        numbered = any(re.search(r"\d", folder) for folder in outer if folder.lower() not in _FORMS)
        if form and (k < len(outer) or numbered or not re.search(r"\d$", part)):
            named.add(form)
            continue
        words = list(_words(part))
        while words:
            word = words.pop(0)
            if pair := _ACTIVATIONS.get(word + words[0] if words else ""):
                named.add(pair)
                words.pop(0)
            elif word in _ACTIVATIONS:
                named.add(_ACTIVATIONS[word])
            elif word in _COUNTERS | _SCORES and words and words[0][0].isdecimal():
                words.pop(0)
                progress = True
            elif word in _OF and words and words[0] in _SCORES:
                continue
            elif word in _MOMENTS:
                progress = True
            elif word not in _PLAIN:
                key.append(word)
    return Told(named.pop() if len(named) == 1 else "", tuple(key), progress)


def of_one_training(places: Sequence[Path]) -> tuple[int, int] | None:
    """Two of several places whose names differ only in when they were saved, if any do; by their positions."""
    first: dict[tuple[str, ...], int] = {}
    read = [told(place) for place in places]
    for k, each in enumerate(read):
        other = first.setdefault(each.key, k)
        if other != k and (each.progress or read[other].progress):
            return other, k
    nameless = first.get(())
    if nameless is not None and read[nameless].progress and len(places) > 1:
        return (nameless, 1) if nameless == 0 else (0, nameless)
    return None


def _words(part: str) -> Iterator[str]:
    return (word.lower() for word in re.findall(r"[A-Za-z]+|\d+(?:\.\d+)?", part))


# The last two are words of their own in names of files.
_ACTIVATIONS = {name.replace("_", ""): name for name in activations.names() if name not in ("sine", "identity")}
_FORMS = {name.lower(): name for name in forms.names()}
