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
"""Networks nearer than this are meant to be the same: other seeds are about 1.4 times a weight matrix's norm away."""


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
        distance, where = _farthest(a.networks, b.networks)
        if distance == 0:
            return Relation(
                asked != "independent", "the same networks, weights equal bit for bit", asked != "independent"
            )
        if asked == "shared" or (asked == "auto" and distance < _CLOSE):
            return Relation(True, f"the same networks, but their weights are not equal: {where}", False)
        return Relation(False, "networks of their own seeds", False)
    imported = {a.origin.get("kind"), b.origin.get("kind")} == {"paper-tree", "paper-result"}
    if asked == "shared" or (asked == "auto" and imported):
        return Relation(True, "taken for the same networks; one side has no weights to check that with", False)
    return Relation(False, "networks of their own seeds", False)


def _farthest(a: dict[str, Params], b: dict[str, Params]) -> tuple[float, str]:
    """The largest relative distance of a tensor of the networks that both have, and the weight that differs most."""
    worst, where = 0.0, ""
    for network in [name for name in a if name in b]:
        leaves = jax.tree_util.tree_leaves_with_path(a[network])
        others = jax.tree.leaves(b[network])
        if [leaf.shape for _, leaf in leaves] != [leaf.shape for leaf in others]:
            return np.inf, f"{network} has other shapes"
        for (key, one), other in zip(leaves, others, strict=True):
            one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
            distance = float(np.linalg.norm(one - other)) / max(float(np.linalg.norm(one)), 1e-30)
            if distance > worst:
                seed, *index = np.unravel_index(np.abs(one - other).argmax(), one.shape)
                name = jax.tree_util.keystr(key, simple=True, separator=".")
                count = int((one != other).sum())
                values = f"{one[(seed, *index)]:.6g} and {other[(seed, *index)]:.6g}"
                place = f"seed {seed} {[int(i) for i in index]}"
                worst, where = distance, f"{count} of {one.size} in {network} {name}, most at {place} ({values})"
    return worst, where
