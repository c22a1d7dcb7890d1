"""A config's data set as the networks see it: scaled, without most empty pixels, stored and laid out for computing."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from jaxdist import data
from jaxdist.compute import Backend, Examples, backends, devices, products
from jaxdist.config import Config, StatisticsConfig
from jaxdist.errors import InputError

CACHE_LINE = 16
"""Float32 values of a cache line. CPUs multiply rows of 720 inputs faster than those of 719, with AVX2 most of all."""


SMALLEST = np.finfo(np.float32).tiny
"""The smallest number that processors need not take for 0: smaller ones, with fewer digits, are flushed."""


class Inputs(NamedTuple):
    """A data set and its splits as the networks see them.

    Inputs that are zero in every image, such as the corners of raw MNIST, are left out of the splits, all but the few
    of `in_cache_lines`; `used` says which are kept. But for rounding, nothing depends on it.
    """

    dataset: data.Dataset
    splits: Mapping[str, Examples]  # x is [N, number used], stored as `products.pack` does
    used: np.ndarray  # [D] bool
    products: Mapping[str, Any]  # how the first layer's are computed, and what was measured to choose that


def load_inputs(config: Config, backend: Backend | None = None, seeds: int | None = None) -> Inputs:
    """Read and scale the data, and lay it out over a mesh for so many seeds, by default the config's.

    Exact products are computed by `backend`, or the fastest here.

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
        pixels = [products.as_pixels(x[:, used]) for x in flat]
        if backend is None:
            how = backends.choose(pixels[0], config.model.hidden[0], mesh)._asdict()
        else:
            how = {"backend": backend}
    if how["backend"] == "float32":
        used = in_cache_lines(used)
        stored = [x[:, used] for x in flat]
    else:  # which fills the rows itself, where that helps
        stored = [products.pack(x, how["backend"]) for x in pixels]
    labels = dataset.train.labels, dataset.test.labels
    pairs = dict(zip(("train", "test"), zip(stored, labels, strict=True), strict=True))
    return Inputs(dataset, devices.place_splits(pairs, mesh, dtype=stored[0].dtype), used, how)


def _refuse_empty(dataset: data.Dataset, flat: Iterable[np.ndarray], used: np.ndarray) -> None:
    """Raise `InputError` for images [n, D] of which nothing can be told."""
    if not used.any():
        raise InputError(f"{dataset.source} Every pixel of every image is 0; expected pictures, so check the files")
    if max(max(x.max(), -x.min()) for x in flat) < SMALLEST:
        raise InputError(
            f"{dataset.source} No pixel is as large as {SMALLEST:.2g}, and smaller ones count as 0 in float32; "
            "expected larger ones, so give data.normalisation 'unit'"
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
