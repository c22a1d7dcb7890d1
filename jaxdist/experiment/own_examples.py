"""The examples that a user's own network is measured on: arrays, which are held, or batches, read in every pass."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, TypeAlias, cast

import jax
import numpy as np
from jax.sharding import Mesh

from jaxdist.compute import Examples, Streamed, devices, streams
from jaxdist.config import Options, Task
from jaxdist.data import batches, oddities, own_data, own_labels
from jaxdist.errors import InputError
from jaxdist.perturbations import families


@dataclasses.dataclass(frozen=True)
class OwnSplit:
    """A split as it was given, and its labels as numbers once the task is known."""

    name: str
    x: Any
    """Inputs [n, ...]: all of them, or those of the first batch."""
    given: np.ndarray
    """Their labels as they are."""
    batches: batches.Batches | None = None
    y: np.ndarray | None = None
    """All labels as numbers, where they are held."""
    source: Any = None
    """Other inputs like `x`, one for each example, where there are any."""

    def labelled(self, task: Task, each: tuple[int, ...]) -> OwnSplit:
        """The same with labels of a task, given the shape of one example's outputs; all batches are read for it.

        Raises:
          InputError: for labels that do not fit, and batches that cannot be used.
        """

        def labels(y: np.ndarray, rows: int, where: str) -> np.ndarray:
            return own_labels.of_task(task, y, rows, each, where)

        if self.batches is None:
            return dataclasses.replace(self, y=labels(self.given, devices.count(self.x), self.name))
        self.batches.survey(labels)
        return self

    @property
    def total(self) -> int:
        """How many examples it has."""
        return self.batches.total if self.batches else devices.count(self.x)

    @property
    def digest(self) -> str:
        """Of all inputs and labels, the same however they were given."""
        if self.batches:
            return self.batches.digest
        assert self.y is not None
        digest = batches.Digest()
        digest.add(self.x, self.y)
        return digest.hexadecimal

    def tokens(self) -> int:
        """How many labels count, of tokens; raises `InputError` as `own_labels.counted_tokens` does."""
        return own_labels.counted_tokens(self.batches.tokens if self.batches else self.y, self.name)


OwnSplits: TypeAlias = Mapping[str, OwnSplit]


def split_of(given: Any, name: str) -> OwnSplit:
    """A split of arrays, or of batches of which the first is read.

    Raises:
      InputError: for what is neither, or cannot be used.
    """
    batched = batches.batches_of(given, name)
    return OwnSplit(name, *own_data.pair(given, name)) if batched is None else OwnSplit(name, *batched.sample, batched)


def check_single_pass(splits: OwnSplits, options: Options) -> None:
    """Refuse options that need more than one walk over examples that are given in batches.

    Raises:
      InputError: for the first of them.
    """
    if not any(split.batches for split in splits.values()):
        return
    sweep, rule = options.sweep, options.ranges.rule
    asked = {"rule 'quantile'": rule == "quantile", "units": sweep.units, "dose": sweep.dose, "matched": sweep.matched}
    asked |= {
        f"family '{name}'": families.target_of(name) in ("example", "source") or families.get(name).kind == "collapse"
        for name in sweep.families
    }
    for option, is_asked in asked.items():
        if is_asked:
            raise InputError(f"{option}: needs all examples in memory; pass arrays instead of batches")


def with_sources(splits: OwnSplits, given: Any) -> dict[str, OwnSplit]:
    """The splits with other inputs beside their own.

    Raises:
      InputError: for batches, and inputs that are not like those of a split.
    """
    if any(split.batches for split in splits.values()):
        raise InputError("source: needs all examples in memory; pass train and test as arrays instead of batches")
    sources = own_data.sources(given, {name: split.x for name, split in splits.items()})
    return {name: dataclasses.replace(split, source=sources[name]) for name, split in splits.items()}


def at_once(splits: OwnSplits, options: Options, why: str) -> tuple[Options, str]:
    """Options by which each split is one block, for a network whose outputs depend on an example's place in it.

    They are then those of a call with the whole split. Returns them, and a sentence that says so.

    Raises:
      InputError: for what cannot be had at once: batches, doses, and values of other examples.
    """
    sweep = options.sweep
    asked = {"batches": any(split.batches for split in splits.values()), "dose": sweep.dose, "matched": sweep.matched}
    asked |= {f"family '{name}'": families.target_of(name) == "example" for name in sweep.families}
    for name, is_asked in asked.items():
        if is_asked:
            raise InputError(
                f"apply: an example's outputs depend on its place in the block ({why}), which {name} would change; "
                f"draw with a key for each example, as jax.vmap over keys does, or do without {name}"
            )
    block = max(split.total for split in splits.values())
    compute = dataclasses.replace(options.compute, block=block)
    return dataclasses.replace(options, compute=compute), f"each split is computed as one block, since {why}"


def notes(splits: OwnSplits, classes: int) -> tuple[str, ...]:
    """What is odd of examples that are all held, as `oddities.notes` says; raises as it does."""
    pairs = {name: (split.x, split.y) for name, split in splits.items() if split.y is not None}
    return oddities.notes(pairs, classes, what="examples", one_class=True) if len(pairs) == len(splits) else ()


def placed(splits: OwnSplits, mesh: Mesh, *, apart: bool = False) -> dict[str, Examples]:
    """The splits laid out, in shared arrays where they are alike and not to lie `apart`; others lie by themselves."""
    held = {name: ((split.x, split.source), split.y) for name, split in splits.items() if split.y is not None}
    alike = not apart and len({devices.kind_of(pair) for pair in held.values()}) == 1
    laid_out = devices.place_splits(held, mesh, dtype=None) if alike else {}
    for name, (both, y) in held.items() if not alike else ():
        laid_out[name] = devices.place(both, y, mesh, dtype=None)
    laid_out = {name: dataclasses.replace(of, x=of.x[0], source=of.x[1]) for name, of in laid_out.items()}
    for name, split in splits.items():
        if split.batches:
            laid_out[name] = cast(Examples, _streamed(split.batches, mesh))  # which stands where these do
    return {name: laid_out[name] for name in splits}


def _streamed(of: batches.Batches, mesh: Mesh) -> Streamed:
    first = next(iter(of.read()))
    x, y = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((of.total, *leaf.shape[1:]), leaf.dtype), first)
    return Streamed(x, y, of.total, of.read, mesh, streams.rows_of(x, y, of.total, mesh))


def digest(splits: OwnSplits) -> str:
    """Of all splits."""
    return hashlib.sha256("\n".join(f"{name} {split.digest}" for name, split in splits.items()).encode()).hexdigest()
