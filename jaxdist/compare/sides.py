"""The two things that are compared, each with its result, its protocol and, where they are known, its networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from jaxdist import edits, folders, interop, results, tables
from jaxdist.config import Config
from jaxdist.errors import InputError
from jaxdist.interop import transfer
from jaxdist.tables import Series
from jaxdist.types import Params

TRAINING_FIELDS = ("model.init", "train.steps", "train.optimizer", "train.learning_rate")
_CLOSE = 0.1
"""Networks nearer than this are meant to be the same: those of other seeds are about 1.4 times their norm away."""

_OWN = "networks of their own seeds"


class Side(NamedTuple):
    """One side of a comparison."""

    name: str
    folder: Path | None
    """Its run folder, if it is one."""
    result: xr.DataTree
    config: Config
    networks: dict[str, Params] | None
    """Stacked parameters by activation; None where only results are known."""
    origin: dict[str, Any]
    """Where imported networks or results came from; empty for a run of jaxdist's own."""

    def series(self) -> dict[tuple[str, str, str, str], Series]:
        """Every series by family, network, site and split."""
        return {tuple(one.labels.values()): one for one in tables.series(self.result)}  # type: ignore[misc]

    def unknown(self) -> tuple[str, ...]:
        """Config fields that say nothing here, since the networks came without their history."""
        return TRAINING_FIELDS if self.origin.get("kind") == "file" else ()


def open_side(text: str) -> Side:
    """Open a run folder, a result file, or the paper's result file.

    Raises:
      InputError: if it is none of these, or holds no sweep.
    """
    path = Path(text).expanduser()
    result = interop.load(path)
    if not set(edits.FAMILIES) & set(result.children):
        raise InputError(f"{path}: holds no sweep to compare; make one with 'jaxdist sweep {path}'")
    config = results.config_of(result)
    origin = json.loads(result.attrs.get("origin", "{}"))
    if origin.get("kind") == "paper-result":
        return Side(path.resolve().name, None, result, config, _networks_beside(Path(origin["path"])), origin)
    folder = folders.of(path)
    if not (folder / "weights").is_dir():
        return Side(path.resolve().name, None, result, config, None, origin)
    return Side(path.resolve().name, folder, result, config, folders.load_networks(config, folder), origin)


def _networks_beside(file: Path) -> dict[str, Params] | None:
    """The networks behind the paper's result file, if the tree it lies in still has them all."""
    tree = file.absolute().parent.parent
    if not (tree / "models").is_dir():
        return None
    return transfer.read(tree, {}).networks


class Relation(NamedTuple):
    """How the networks of two sides are related."""

    shared: bool
    words: str
    equal: bool
    """Their weights are known to be equal bit for bit."""


def relate(a: Side, b: Side, asked: str) -> Relation:
    """Say whether two sides hold the same networks, by their weights where both are known.

    `asked` is shared or independent to say so, auto to find out. Without weights on one side, imported networks are
    taken for those of the paper's result file.
    """
    if a.networks and b.networks:
        found = _distance(a.networks, b.networks)
        if found.distance == 0:
            same = "the same networks, weights equal bit for bit"
            return Relation(True, same, True) if asked != "independent" else Relation(False, _OWN, False)
        # A few weights that were changed leave most of them equal; a network trained on elsewhere stays near.
        near = found.distance < _CLOSE or found.equal > 0.5
        if asked == "shared" or (asked == "auto" and near):
            return Relation(True, f"the same networks, but their weights are not equal: {found.where}", False)
        return Relation(False, _OWN, False)
    imported = {a.origin.get("kind"), b.origin.get("kind")} == {"paper-tree", "paper-result"}
    if asked == "shared" or (asked == "auto" and imported):
        return Relation(True, "taken for the same networks; one side has no weights to check that with", False)
    return Relation(False, _OWN, False)


class _Distance(NamedTuple):
    distance: float  # norm of the difference of all weights over the norm of the first side's
    equal: float  # share of the weights that are equal bit for bit
    where: str  # the tensor that differs most


def _distance(a: dict[str, Params], b: dict[str, Params]) -> _Distance:
    """How far the networks that both sides have are apart; infinitely, if their shapes differ."""
    square, norm, equal, size, worst, where = 0.0, 0.0, 0, 0, 0.0, ""
    for network in [name for name in a if name in b]:
        leaves = jax.tree_util.tree_leaves_with_path(a[network])
        others = jax.tree.leaves(b[network])
        if [leaf.shape for _, leaf in leaves] != [leaf.shape for leaf in others]:
            return _Distance(np.inf, 0.0, f"{network} has other shapes")
        for (key, one), other in zip(leaves, others, strict=True):
            apart = np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64))
            square, norm = square + float((apart**2).sum()), norm + float((np.asarray(one, np.float64) ** 2).sum())
            equal, size = equal + int((apart == 0).sum()), size + apart.size
            relative = float(np.linalg.norm(apart)) / max(float(np.linalg.norm(one)), 1e-30)
            if relative > worst:
                seed, *index = (int(i) for i in np.unravel_index(apart.argmax(), apart.shape))
                values = f"{one[(seed, *index)]:.6g} and {other[(seed, *index)]:.6g}"
                name = jax.tree_util.keystr(key, simple=True, separator=".")
                count = f"{int((apart != 0).sum())} of {apart.size} in {network} {name}"
                worst, where = relative, f"{count}, most at seed {seed} {index} ({values})"
    return _Distance((square / max(norm, 1e-30)) ** 0.5, equal / max(size, 1), where)
