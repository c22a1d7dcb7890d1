"""The images that the benchmarks run on, as plain arrays and laid out for jaxdist."""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np

from jaxdist import config as configs
from jaxdist import data
from jaxdist.compute import Backend, Examples, devices, products
from jaxdist.data import in_cache_lines, nonzero
from jaxdist.formatting import counted

FEATURES, CLASSES = 784, 10


class Images(NamedTuple):
    """Both splits; pixels are raw, 0..255 for MNIST."""

    train_x: np.ndarray  # [N, D] float32
    train_y: np.ndarray  # [N] int32
    test_x: np.ndarray  # [N, D] float32
    test_y: np.ndarray  # [N] int32
    source: str

    @property
    def used(self) -> np.ndarray:
        """[D] bool: the inputs that a run in float32 keeps, of those that are zero in every image only a few."""
        return in_cache_lines(self.nonzero)

    @property
    def nonzero(self) -> np.ndarray:
        """[D] bool: the inputs that are not zero in every image of both splits."""
        return nonzero((self.train_x, self.test_x))

    def first(self, count: int) -> Images:
        """The first `count` training images, and a sixth as many test images, MNIST's own proportion."""
        test = max(1, count // 6)
        return self._replace(
            train_x=self.train_x[:count],
            train_y=self.train_y[:count],
            test_x=self.test_x[:test],
            test_y=self.test_y[:test],
            source=f"first {counted(f'{count:,}', 'training image')} of {self.source}",
        )


def load(folder: str | None, name: str = "mnist") -> Images:
    """Read a data set by name, or MNIST's IDX files from a folder."""
    config = configs.DataConfig(name=name, dir=folder or "")
    dataset = data.load(config)
    train_x, test_x = (x.reshape(len(x), -1) for x in data.scaled(dataset, config))
    source = f"{name}, {len(train_x):,} training and {counted(f'{len(test_x):,}', 'test image')}"
    return Images(train_x, dataset.train.labels, test_x, dataset.test.labels, source)


def for_speed(options: argparse.Namespace) -> Images:
    """What the command line asks for: a folder's images or made-up ones, 60,000 or, for --quick, 3,000."""
    if options.data_dir:
        images = load(options.data_dir)
        return images.first(3_000) if options.quick else images
    return made_up(3_000, 500) if options.quick else made_up(60_000, 10_000)


def made_up(train: int, test: int) -> Images:
    """Images of MNIST's shape that need no download: ten random patterns, one a class, under heavy noise."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 256, (CLASSES, FEATURES)) * (rng.random((CLASSES, FEATURES)) < 0.2)

    def split(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, CLASSES, count).astype(np.int32)
        noise = rng.integers(0, 256, (count, FEATURES)) * (rng.random((count, FEATURES)) < 0.2)
        return np.maximum(patterns[labels] // 2, noise).astype(np.float32), labels

    return Images(
        *split(train),
        *split(test),
        f"made up, {train:,} training and {counted(f'{test:,}', 'test image')} of MNIST's shape",
    )


def place(
    images: Images, *, seeds: int = 1, drop_unused: bool = True, backend: Backend = "float32"
) -> tuple[Examples, Examples]:
    """Lay both splits out over all of JAX's devices, as a run does for so many seeds and a backend.

    Raises `InputError` if a backend other than float32 is to multiply what are no integers 0..255.
    """
    mesh = devices.make_mesh(seeds=seeds)
    kept = images.used if drop_unused else np.ones(images.train_x.shape[1], bool)

    def split(x: np.ndarray, y: np.ndarray) -> Examples:
        stored = x[:, kept] if backend == "float32" else products.pack(products.as_pixels(x[:, kept]), backend)
        return devices.place(stored, y, mesh, dtype=stored.dtype)

    return split(images.train_x, images.train_y), split(images.test_x, images.test_y)
