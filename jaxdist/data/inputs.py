"""A config's data set as the networks see it: scaled, without most empty pixels, stored and laid out for computing."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from jaxdist import data
from jaxdist.compute import Backend, Examples, backends, devices, products, staircases, tuning
from jaxdist.config import Config, StatisticsConfig
from jaxdist.errors import InputError

CACHE_LINE = 16
"""Float32 values of a cache line. CPUs multiply rows of 720 inputs faster than those of 719, with AVX2 most of all."""


SMALLEST = np.finfo(np.float32).tiny
"""The smallest number that processors need not take for 0: smaller ones, with fewer digits, are flushed."""


class Inputs(NamedTuple):
    """A data set and its splits as the networks see them.

    Inputs that are zero in every image, such as the corners of raw MNIST, are left out of the splits, all but the few
    of `in_cache_lines`. But for rounding, nothing depends on it, nor on the order of the others.
    """

    dataset: data.Dataset
    splits: Mapping[str, Examples]  # x is stored as `products.pack` does, of all `used` inputs that are ever set
    used: np.ndarray  # [K] the inputs that are used, in the order of the networks' weights
    background: float | None  # what has been taken from all inputs (`mlp.apply`); None where they lie in order
    products: Mapping[str, Any]  # how the first layer's are computed, and what was measured to choose that

    @property
    def size(self) -> int:
        """The inputs of an image, D."""
        return int(np.prod(self.dataset.train.images.shape[1:]))


def load_inputs(
    config: Config, backend: Backend | None = None, seeds: int | None = None, *, in_order: bool = False
) -> Inputs:
    """Read and scale the data, and lay it out over a mesh.

    Args:
      config: the run's.
      backend: computes exact products, where the config asks for them; by default the fastest here.
      seeds: S of the ensembles that the mesh is for; by default the config's.
      in_order: the images lie in their given order; otherwise perhaps in that of a staircase.

    Raises:
      InputError: if the data cannot be used, or exact products are wanted of inputs that are not integers 0..255; or
        if several processes were given different data or configs.
    """
    dataset = data.load(config.data)
    flat = [x.reshape(len(x), -1) for x in data.scaled(dataset, config.data)]
    used = nonzero(flat)
    _refuse_empty(dataset, flat, used)
    mesh = devices.make_mesh(seeds=config.train.seeds if seeds is None else seeds)
    _check_alike(config, dataset, mesh)
    how: dict[str, Any] = {"backend": "float32"}
    if config.compute.precision == "exact":
        if backend is None:
            how = backends.choose(products.as_pixels(flat[0][:, used]), config.model.hidden[0], mesh)._asdict()
        else:
            how = {"backend": backend}
    splits = {"train": (flat[0], dataset.train.labels), "test": (flat[1], dataset.test.labels)}
    laid_out = lay_out(splits, mesh, how["backend"], in_order=in_order)
    return Inputs(dataset, laid_out.splits, laid_out.used, laid_out.background, how)


class LaidOut(NamedTuple):
    """Images laid out for networks; fields are those of `Inputs`."""

    splits: Mapping[str, Examples]
    used: np.ndarray
    background: float | None


def lay_out(
    splits: Mapping[str, tuple[np.ndarray, np.ndarray]], mesh: Mesh, backend: Backend, *, in_order: bool = False
) -> LaidOut:
    """Lay images out over a mesh for one way to multiply them.

    Args:
      splits: by name, images [N, D], flat, scaled, float32, with labels [N].
      mesh: from `make_mesh`.
      backend: computes the products of the first layer.
      in_order: the images lie in their given order; otherwise perhaps in that of a staircase.

    Raises:
      InputError: if exact products are wanted of inputs that are not integers 0..255.
    """
    flat = [x for x, _ in splits.values()]
    background = _background(flat) if backend == "float32" else 0.0
    stairs = None if in_order else _staircase(flat, backend, background)
    if stairs is None:
        mask = nonzero(flat)
        used = np.flatnonzero(in_cache_lines(mask) if backend == "float32" else mask)
        pairs = {name: (_stored(x, used, backend), y) for name, (x, y) in splits.items()}
        return LaidOut(_placed(pairs, mesh, None), used, None)
    set_ever = stairs.columns[: stairs.widths[-1]]
    pairs = {name: (_stored(x, set_ever, backend, background), y) for name, (x, y) in splits.items()}
    steps = None
    if tuning.current().staircases:
        each = {name: stairs.steps(x != np.float32(background)) for name, (x, _) in splits.items()}
        steps = devices.Stairs(products.stored_widths(stairs.widths, backend), each)
    # Where something has been taken from all inputs, their weights are used in all.
    return LaidOut(_placed(pairs, mesh, steps), stairs.columns if background else set_ever, background)


def _stored(x: np.ndarray, which: np.ndarray, backend: Backend, background: float = 0.0) -> np.ndarray:
    """Some inputs of images [N, D], as `backend` multiplies them, with a constant taken from each."""
    some = np.take(x, which, axis=1)  # three times as fast as by an index
    if backend != "float32":
        return products.pack(products.as_pixels(some), backend)
    return some - np.float32(background) if background else some


def _placed(
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], mesh: Mesh, stairs: devices.Stairs | None
) -> dict[str, Examples]:
    return devices.place_splits(pairs, mesh, dtype=next(iter(pairs.values()))[0].dtype, stairs=stairs)


def _background(flat: Sequence[np.ndarray]) -> float:
    """What most inputs are, if that is 0, the least or the largest of the first split."""
    candidates = np.array([0, flat[0].min(), flat[0].max()], np.float32)
    return float(candidates[np.argmax([np.count_nonzero(flat[0] == value) for value in candidates])])


def _staircase(flat: Sequence[np.ndarray], backend: Backend, background: float) -> staircases.Staircase | None:
    on = np.concatenate([x != np.float32(background) for x in flat])
    if backend == "digits":
        together = products.NEIGHBOURS
        return staircases.plan(on, tile=products.TILE, before=together, together=together)
    return staircases.plan(on, tile=CACHE_LINE)


def _refuse_empty(dataset: data.Dataset, flat: Iterable[np.ndarray], used: np.ndarray) -> None:
    """Raise `InputError` for images [n, D] of which nothing can be told."""
    if not used.any():
        raise InputError(f"{dataset.source} Every pixel of every image is 0; expected pictures; check the files")
    if max(max(x.max(), -x.min()) for x in flat) < SMALLEST:
        raise InputError(
            f"{dataset.source} Every pixel is below {SMALLEST:.2g} and so counts as 0 in float32; use "
            "data.normalisation 'unit'"
        )
    _ = dataset.notes  # raises where the images or their labels are all the same


def nonzero(splits: Iterable[np.ndarray]) -> np.ndarray:
    """Which inputs of splits [n, D] are not zero in every image, [D] bool."""
    return np.asarray(np.any([x.any(axis=0) for x in splits], axis=0))


def in_cache_lines(used: np.ndarray) -> np.ndarray:
    """Mark further inputs as used [D] (bool), the first that are not, until rows fill whole cache lines or all are."""
    others = np.flatnonzero(~used)[: -np.count_nonzero(used) % CACHE_LINE]
    filled = used.copy()
    filled[others] = True
    return filled


def _check_alike(config: Config, dataset: data.Dataset, mesh: Mesh) -> None:
    """Refuse processes of different images or configs; where images lie and the run goes may differ by host."""
    same = dataclasses.replace(
        config,
        out="",
        data=dataclasses.replace(config.data, dir=""),
        train=dataclasses.replace(config.train, save_every=0.0),
        statistics=StatisticsConfig(),
    )
    refuse_unlike([repr((dataset.digest, same)).encode()], mesh, "images or configs")


def refuse_unlike(content: Iterable[bytes], mesh: Mesh, what: str) -> None:
    """Refuse processes that hold different content: at best they would wait for each other for ever."""
    checksum = 0
    for part in content:
        checksum = zlib.crc32(part, checksum)
    if len(np.unique(devices.of_each(np.array([checksum & 0x7FFFFFFF], np.int32), mesh))) > 1:
        raise InputError(
            f"the processes were given different {what}; start all of them with the same command and files"
        )
