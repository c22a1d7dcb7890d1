"""Parts of a value as sites of their own: some units, token positions or channels, by their indices along its axes.

A network with parts is the same network, in whose program a part is taken out of the value, marked as a site, and put
back. So whatever is measured of a site is measured of the part alone, and an edit of it leaves all other entries as
they are, bit for bit. The part of ``att`` that is entry 4 of axis 1 and entries 0 and 3 of axis 2 is the site
``att[:, 4, [0, 3]]``; it keeps all axes.
"""

from __future__ import annotations

import dataclasses
import itertools
import operator
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdist.errors import InputError
from jaxdist.formatting import counted
from jaxdist.networks import model as networks_model
from jaxdist.networks import site_programs, site_values
from jaxdist.networks.model import Model, Sites
from jaxdist.networks.site_primitives import site_p
from jaxdist.networks.site_programs import Action, Job, Key
from jaxdist.types import Params

Where: TypeAlias = Mapping[int, int | Sequence[int]]
"""The entries of a part: by axis of the value an index, or several; whole along all other axes."""

MOST_RUNS = 6
"""So many runs of indices of an axis stand in a part's name at most."""


@dataclasses.dataclass(frozen=True)
class Part:
    """Some entries of the value at a key of one name."""

    key: Key
    axes: tuple[tuple[int, tuple[int, ...]], ...]
    """By axis, counted from the first and increasing, the indices along it, as they were given."""

    @property
    def name(self) -> str:
        """Of the site that it is, which has the iterations that the key names, if any."""
        by_axis = dict(self.axes)
        along = [_indices(by_axis[axis]) if axis in by_axis else ":" for axis in range(self.axes[-1][0] + 1)]
        return f"{site_values.written(self.key._replace(iteration=None))}[{', '.join(along)}]"

    @property
    def text(self) -> str:
        """The key of the part."""
        return site_values.written(Key(self.name, None, self.key.iteration))

    def overlaps(self, other: Part) -> bool:
        """Whether an entry is of both, which are parts of one value."""
        mine, others = dict(self.axes), dict(other.axes)
        return all(not {*mine[axis]}.isdisjoint(others[axis]) for axis in mine.keys() & others.keys())

    def indices(self, shape: tuple[int, ...]) -> list[tuple[Any, ...]]:
        """What indexes the part in a value of this shape, one axis after the other.

        Raises:
          InputError: for an index that there is not.
        """
        each: list[tuple[Any, ...]] = []
        for axis, entries in self.axes:
            wrong = [k for k in entries if not -shape[axis] <= k < shape[axis]]
            if wrong:
                raise InputError(
                    f"only: site '{site_values.written(self.key)}' has {counted(shape[axis], 'entry', 'entries')} "
                    f"along axis {axis} of shape {shape}; expected indices from 0 to {shape[axis] - 1}, got {wrong[0]}"
                )
            along = np.arange(shape[axis])[list(entries)]
            first, stop = int(along[0]), int(along[-1]) + 1
            each.append((*[slice(None)] * axis, slice(first, stop) if len(along) == stop - first else along))
        return each

    def of(self, value: Array) -> Array:
        """The part of a value."""
        for index in self.indices(value.shape):
            value = value[index]
        return value

    def action(self, value: Array) -> Array:
        """The value, its part marked."""

        def marked(value: Array, indices: Sequence[tuple[Any, ...]]) -> Array:
            if not indices:
                return _marking(self.name)(value)
            return value.at[indices[0]].set(marked(value[indices[0]], indices[1:]))

        return marked(value, self.indices(value.shape))


def _marking(name: str) -> Action:
    return lambda value: site_p.bind(value, name=name, batched=0, kind="named")


@dataclasses.dataclass(frozen=True)
class _WithParts:
    """The logits of a model whose parts are sites, beside the sites that are `kept`."""

    model: Model
    parts: tuple[Part, ...]
    kept: tuple[str, ...]

    def __call__(self, params: Params, x: Any) -> Any:
        traced = site_values.trace(self.model.logits, params, x)
        actions: list[tuple[Key, Action]] = [(Key(name, None, None), _marking(name)) for name in self.kept]
        # A part is marked in every iteration, once: which of them an edit is of is said by its key.
        marked = dict.fromkeys(dataclasses.replace(each, key=each.key._replace(iteration=None)) for each in self.parts)
        actions += [(part.key, part.action) for part in marked]
        leaves = traced.leaves(params, x)
        return traced.output(site_programs.run(traced.program.jaxpr, traced.program.consts, leaves, Job(actions))[0])


def with_parts(
    model: Model, sites: Sequence[str], only: Mapping[str, Where | Sequence[Where]], listed: Sites, *, together: bool
) -> tuple[Model, list[str]]:
    """A model with parts of its sites as sites of their own, and the keys to edit in place of `sites`.

    Args:
      model: whose keys of `post` and `axes` are of one name each.
      sites: keys of one name each, of values that can be edited.
      only: for some of them, or for keys that mean them among others, a part, or several.
      listed: the model's sites for one example.
      together: whether they are edited together, which parts that overlap cannot be.

    Raises:
      InputError: for what names no part, or a site that is not edited or has no parts.
    """
    by_name = _of_each_name(only, listed)
    for text, (key, _) in by_name.items():
        if not any(networks_model.of_key({text: True}, site) for site in sites):
            raise InputError(
                f"only: '{key}' is not one of the sites that are edited, {', '.join(sites)}; add it to sites"
            )
    keys: list[str] = []
    names: dict[str, None] = {}
    parts: dict[Part, None] = {}
    post, axes = dict(model.post), dict(model.axes)
    for site in sites:
        site_places = networks_model.of_key({text: places for text, (_, places) in by_name.items()}, site)
        follows = model.after(site)
        if site_places is None:
            keys.append(site)
            names |= dict.fromkeys(site_values.parsed(key).name for key in (site, follows) if isinstance(key, str))
            continue
        own = [_part(model, listed, site, where) for where in site_places]
        for first, second in itertools.combinations(own, 2):
            if first == second or (together and first.overlaps(second)):
                raise InputError(
                    f"only: '{first.text}' and '{second.text}' have entries in common, so they cannot be edited "
                    "together; choose parts that do not overlap, or edit each by itself, with layers='each'"
                )
        for part in own:
            keys.append(part.text)
            axes[part.text] = model.axis_of(site)
            if isinstance(follows, str):
                after = _part(model, listed, follows, dict(part.axes))
                parts[after], post[part.text], axes[after.text] = None, after.text, axes[part.text]
            elif follows is not None:
                _check_by_entry(site, follows, part, listed.shape(site))
                post[part.text] = follows
        parts |= dict.fromkeys(own)
    extended = dataclasses.replace(
        model,
        apply=_WithParts(model, tuple(parts), tuple(name for name in names if name in listed.names)),
        post=tuple(post.items()),
        axes=tuple(axes.items()),
        output=None,
    )
    return extended, keys


def _of_each_name(only: Mapping[str, Where | Sequence[Where]], listed: Sites) -> dict[str, tuple[str, Sequence[Where]]]:
    """What is given for each site: the key that it is given by, and its parts."""
    if not isinstance(only, Mapping):
        raise InputError(f"only: expected parts of sites, as {{site: {{axis: indices}}}}, got {only!r}")
    by_name: dict[str, tuple[str, Sequence[Where]]] = {}
    for text, where in only.items():
        places = [where] if isinstance(where, Mapping) else where
        if not isinstance(places, (list, tuple)) or not places:
            raise InputError(f"only: expected {{axis: indices}} for '{text}', or a list of these, got {where!r}")
        names = [site_values.written(key) for key in listed.traced.keys(text)]
        by_name |= dict.fromkeys(names, (text, places))
    return by_name


def _part(model: Model, listed: Sites, site: str, where: Where) -> Part:
    """The part of a site's value that is meant, checked."""
    shape, (key,) = listed.shape(site), listed.traced.keys(site)
    if key.name in listed.traced.differentiated:
        raise InputError(
            f"only: the network takes derivatives through site '{site}', so no part of it can be edited by itself; "
            "edit all of it, or choose another site"
        )
    if not isinstance(where, Mapping) or not where:
        raise InputError(f"only: expected {{axis: indices}} for '{site}', got {where!r}")
    examples = 1 if model.axis_of(site) % len(shape) == 0 else 0
    axes: dict[int, tuple[int, ...]] = {}
    for number, indices in where.items():
        axis = _integer(number, f"only: expected axes of '{site}' as integers")
        if not -len(shape) <= axis < len(shape) or axis % len(shape) == examples:
            raise InputError(
                f"only: site '{site}' has values of shape {shape} for one example, of which axis {examples} is that "
                f"of examples, got axis {axis}; choose another axis, from {-len(shape)} to {len(shape) - 1}"
            )
        if axis % len(shape) in axes:
            raise InputError(f"only: axis {axis % len(shape)} of site '{site}' is named twice; name it once")
        axes[axis % len(shape)] = _chosen(indices, f"only: indices along axis {axis} of '{site}'", shape[axis])
    part = Part(key, tuple(sorted(axes.items())))
    part.indices(shape)
    return part


def _chosen(value: Any, where: str, size: int) -> tuple[int, ...]:
    """Indices in the order of the value's entries, each once."""
    several = value.tolist() if isinstance(value, np.ndarray | Array) else value
    listed = list(several) if isinstance(several, Sequence) and not isinstance(several, str) else [several]
    if not listed:
        raise InputError(f"{where}: expected at least one, got none")
    indices = [_integer(each, f"{where}: expected integers") for each in listed]
    if len({index % size if -size <= index < size else index for index in indices}) < len(indices):
        raise InputError(f"{where}: expected each entry once, got {value!r}")
    return tuple(sorted(indices, key=lambda index: index % size if -size <= index < size else index))


def _integer(value: Any, where: str) -> int:
    if isinstance(value, bool | np.bool_) or not hasattr(value, "__index__"):
        raise InputError(f"{where}, got {value!r}")
    return operator.index(value)


def _indices(indices: tuple[int, ...]) -> str:
    """Indices as text, those that follow each other as a slice.

    >>> _indices((4,)), _indices((0, 3)), _indices((0, 1, 2, 3, 9))
    ('4', '[0, 3]', '[0:4, 9]')
    """
    breaks = [k for k in range(1, len(indices)) if indices[k] != indices[k - 1] + 1]
    runs = [(indices[a], indices[b - 1]) for a, b in itertools.pairwise([0, *breaks, len(indices)])]
    texts = [str(first) if first == last else f"{first}:{last + 1}" for first, last in runs]
    texts = [text.replace(":0", ":") if text.startswith("-") else text for text in texts]
    if len(texts) > MOST_RUNS:
        told = zlib.crc32(",".join(map(str, indices)).encode())  # so that no other part has this name
        texts = [*texts[: MOST_RUNS - 1], f"... {texts[-1]}", f"{len(indices)} in all", f"{told:08x}"]
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def _check_by_entry(site: str, follows: Action, part: Part, shape: tuple[int, ...]) -> None:
    """Refuse an activation that is not one of each entry by itself, so that a part of it is not known by itself."""
    values = jax.random.normal(jax.random.key(0), shape, jnp.float32)
    try:
        together, alone = np.asarray(part.of(follows(values))), np.asarray(follows(part.of(values)))
        same = together.shape == alone.shape and np.allclose(together, alone, rtol=1e-5, atol=1e-6, equal_nan=True)
    except (TypeError, ValueError):
        same = False
    if not same:
        raise InputError(
            f"post: what follows '{site}' computes something else for '{part.text}' alone than for all its values; "
            f"name the site after it, as post={{'{site}': 'its name'}}, or leave post out"
        )
