"""The images that the benchmarks run on, as plain arrays and laid out for jaxdist."""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np

from jaxdist import config as configs
from jaxdist import data
from jaxdist.compute import Backend, devices
from jaxdist.data import LaidOut, in_cache_lines, lay_out, nonzero
from jaxdist.formatting import counted

SIDE, CLASSES = 28, 10
FEATURES = SIDE * SIDE


class Images(NamedTuple):
    """Both splits; pixels are raw, 0..255 for MNIST."""

    train_x: np.ndarray  # [N, D] float32
    train_y: np.ndarray  # [N] int32
    test_x: np.ndarray  # [N, D] float32
    test_y: np.ndarray  # [N] int32
    source: str

    @property
    def used(self) -> np.ndarray:
        """[D] bool: the inputs that are kept where every image has all of them, with a few that are zero in all."""
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
    """Images of MNIST's shape that need no download: ten random patterns, one a class, under heavy noise.

    Each is black beyond some distance from its middle, so that as many pixels are needed as of MNIST's.
    """
    rng = np.random.default_rng(0)
    middle = (SIDE - 1) / 2
    distance = np.hypot(*np.indices((SIDE, SIDE)) - middle).ravel()
    patterns = rng.integers(0, 256, (CLASSES, FEATURES)) * (rng.random((CLASSES, FEATURES)) < 0.2)

    def split(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, CLASSES, count).astype(np.int32)
        noise = rng.integers(0, 256, (count, FEATURES)) * (rng.random((count, FEATURES)) < 0.2)
        within = distance <= rng.normal(11, 1.5, (count, 1))
        return (np.maximum(patterns[labels] // 2, noise) * within).astype(np.float32), labels

    return Images(
        *split(train),
        *split(test),
        f"made up, {train:,} training and {counted(f'{test:,}', 'test image')} of MNIST's shape",
    )


def place(images: Images, *, seeds: int = 1, backend: Backend = "float32", in_order: bool = False) -> LaidOut:
    """Lay both splits, train and test, out over all of JAX's devices, as a run does for so many seeds and a backend.

    Raises `InputError` if a backend other than float32 is to multiply what are no integers 0..255.
    """
    splits = {"train": (images.train_x, images.train_y), "test": (images.test_x, images.test_y)}
    return lay_out(splits, devices.make_mesh(seeds=seeds), backend, in_order=in_order)


def multiplied(images: Images, laid_out: LaidOut) -> float:
    """The pixels of a training image that are multiplied, on average."""
    examples = laid_out.splits["train"]
    if not examples.widths:
        return float(examples.x.shape[1])
    return float(np.asarray(examples.widths)[steps(images, laid_out)].mean())


def steps(images: Images, laid_out: LaidOut) -> np.ndarray:
    """The step of the staircase that each training image is on, [N], in the images' own order."""
    examples = laid_out.splits["train"]
    total, mesh = len(images.train_y), devices.mesh_of(examples)
    share, first = devices.share_of(total, mesh), int(examples.first)
    each = np.asarray(examples.step).reshape(mesh.shape[devices.DATA], -1)[:, first : first + share].ravel()[:total]
    return each[np.asarray(examples.places)[:total]]
