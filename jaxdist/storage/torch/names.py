"""What the names of checkpoint files tell: the activation, a seed's number, and when in a training a file was saved."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxdist.networks import forms
from jaxdist.storage.torch import paper


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

_SEEDS = _set("seed seeds run runs trial trials")
"""Words for one training of several, with its number behind them."""

_LABELS = _set("act activation mlp mlps nn perceptron mnist fashion digits")
"""Words that may stand beside an activation and leave it what it is: what the network is, and the images."""

_SETTINGS = _set("slope alpha beta approximate threshold")
"""Words for what makes an activation another one."""

_SUFFIX = re.compile(r"(\.(pt|pth|bin|ckpt|safetensors|pkl|tar))+$", re.IGNORECASE)

_COMPANIONS = re.compile(r"(optimizer|scheduler|scaler|rng_state|random_states|training_args|trainer_state)([_.-].*)?$")
"""Stems of what training scripts save beside a network's weights."""


class Told(NamedTuple):
    """What the place of one file tells."""

    activation: str
    """The name of a network, "" where none is certain."""
    key: tuple[str, ...]
    """The words and numbers that are left when activation, progress and plain words are taken away."""
    progress: bool
    """Whether it also says when in a training the file was saved."""
    if_seed: str = ""
    """The activation if the number behind it is a seed's and not its own, as in relu_2; "" elsewhere."""

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

    An activation is taken only where all else in the name that has it is a number or word of seeds, progress, networks
    or images: hard_tanh is not tanh, and relu2.pt may be relu2 or the second seed of relu.

    >>> told(Path("seed3/LeakyReLU/epoch=9-step=990.ckpt"))
    Told(activation='leaky_relu', key=('seed', '3'), progress=True, if_seed='')
    >>> [told(Path(name)).activation for name in ("relu2_seed0.pt", "relu6_seed0.pt", "hard_tanh_0.pt")]
    ['relu2', '', '']
    """
    *outer, name = place.parts
    parts = [_parse_part(part) for part in (*outer, _SUFFIX.sub("", name))]
    naming = [part for part in parts if part.forms]
    if any(word in _SETTINGS for part in parts for word in part.words):
        naming = []  # an activation with a setting of its own is another one
    named = {form for part in naming for form in part.forms}
    activation = if_seed = ""
    if len(named) == 1 and all(part.clear for part in naming):
        (form,) = named
        numbers = [number for part in parts for number in part.numbers]
        bare = [number for part in naming for number in part.bare]
        if len(numbers) > 1 and bare:
            pass  # One of them is the seed's, and the other may be the activation's own.
        elif bare and f"{form}{bare[0]}" in _NUMBERED:
            if_seed = form
        elif numbers or not (form in _NUMBERED and any(part.numbered for part in naming)):
            activation = form
    key = [word for part in parts for word in (part.others if activation else part.words)]
    return Told(activation, tuple(key), any(part.progress for part in parts), if_seed)


def spelled(name: str) -> str | None:
    """The network that a name is a spelling of, such as ReLU, leaky-relu or LeakyReLU; None if of none."""
    return _SPELLINGS.get(re.sub(r"[_-]", "", name).lower())


class _Part(NamedTuple):
    """What the name of one folder or file tells."""

    forms: list[str]
    """The networks that it names."""
    words: list[str]
    """All words and numbers, but for progress and plain words."""
    others: list[str]
    """The same without the networks."""
    numbers: list[str]
    """Whole numbers that belong neither to progress nor to a network's name."""
    bare: list[str]
    """Those that no word says to be a seed's."""
    clear: bool
    """Whether all that stands beside a network's name leaves it what it is."""
    progress: bool
    numbered: bool
    """Whether a network's name ends with a digit here."""


def _parse_part(part: str) -> _Part:
    matches = list(_WORD.finditer(part))
    tokens = [match[0].lower() for match in matches]
    # Whether a token follows the one before it without anything between them.
    joined = [False, *(a.end() == b.start() for a, b in itertools.pairwise(matches)), False]
    read = _Part([], [], [], [], [], bool(_SEPARATORS.fullmatch(_WORD.sub("", part))), False, False)
    before, k = "", 0
    while k < len(tokens):
        word, following = tokens[k], tokens[k + 1] if k + 1 < len(tokens) else ""
        end = k + 1
        if spelled := _spelled(part, tokens, joined, k):
            form, end = spelled
            read.forms.append(form)
            read.words.extend(tokens[k:end])
            numbered = tokens[end - 1].isdecimal()
            read = read._replace(
                clear=read.clear and not joined[k] and not joined[end], numbered=read.numbered or numbered
            )
        elif word in _COUNTERS | _SCORES and following[:1].isdecimal():
            end += 1
            read = read._replace(progress=True)
        elif word in _OF and following in _SCORES:
            pass
        elif word in _MOMENTS:
            read = read._replace(progress=True)
        elif word not in _PLAIN:
            read.words.append(word)
            read.others.append(word)
            integer = word.isdecimal()
            if integer:
                read.numbers.append(word)
                if before not in _SEEDS:
                    read.bare.append(word)
            # Numbers with letters behind them, such as 1e-3, are not a seed's.
            harmless = not joined[end] if integer else word in _SEEDS | _LABELS | _COUNTERS | _SCORES | _OF
            read = read._replace(clear=read.clear and harmless)
        before, k = tokens[end - 1], end
    return read


def _spelled(part: str, tokens: Sequence[str], joined: Sequence[bool], start: int) -> tuple[str, int] | None:
    """The network with the longest name that begins at a token, across `_` and `-`, and where the name ends."""
    for end in range(min(len(tokens), start + _LONGEST), start, -1):
        # A digit is a name's own only where nothing lies before it: relu_2 is no relu2.
        own = all(joined[k] for k in range(start + 1, end) if tokens[k].isdecimal())
        form = _SPELLINGS.get("".join(tokens[start:end])) if own else None
        if form and (form not in _WHOLE or part.lower() == form):
            return form, end
    return None


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


_WORD = re.compile(r"[^\W\d_]+|\d+(?:\.\d+)?")

_SEPARATORS = re.compile(r"[\s_.,=-]*")
"""What may lie between a network's name and other words; a sign such as ^ may change what it is."""

_WHOLE = ("sine", "identity")
"""Activations whose names are words of their own, and tell one only as the whole name of a folder or file."""

_SPELLINGS = {name.replace("_", ""): name for name in forms.names()} | {
    name.lower(): form for name, form in paper.NETWORKS.items()
}

_LONGEST = 4
"""Words and numbers of the longest name, relu_l2_neg."""

_NUMBERED = {name for name in forms.names() if name[-1].isdecimal() and name[:-1] in forms.names()} | {"relu6"}
"""Networks whose names are those of others with a digit behind them; PyTorch has ReLU6."""
