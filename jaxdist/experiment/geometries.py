"""Where the boundaries of a run's units lie among the training images, beside those before training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxdist import data
from jaxdist.analysis import geometry
from jaxdist.compute import Show, silent
from jaxdist.config import Config
from jaxdist.data import load_inputs
from jaxdist.experiment import running
from jaxdist.networks import models, read
from jaxdist.report import boundaries
from jaxdist.storage import folders, result_files
from jaxdist.sweep import results
from jaxdist.types import Params, Values


class Described(NamedTuple):
    """What is found of a run."""

    units: pd.DataFrame
    """`geometry.frame` of every network, trained and, where it began from drawn weights, before."""
    summary: pd.DataFrame
    """`geometry.summary` of them."""


def describe_folder(folder: Path, changes: Mapping[str, str] | None = None, *, show: Show = silent) -> Described:
    """Describe the units of a run's networks, and write tables and a figure of them into its folder.

    Args:
      folder: a run folder, swept or only trained.
      changes: of the config, where the data is and how intervals are made.
      show: is called with the progress.

    Raises:
      InputError: if the folder is not a run, its data is not the data it was trained on, or a change is not allowed.
    """
    with folders.held(folders.with_result(folder)) as folder:
        earlier = result_files.load(folder)
        config = running.changed(earlier, changes or {}, ("data.dir", "statistics."))
        inputs = load_inputs(config, "float32", in_order=True)
        running.check_data(earlier, inputs, folder)
        networks = running.load_trained(config, inputs, folder, earlier).networks
        seeds = [int(seed) for seed in results.seeds_of(earlier)]
        drawn = "origin" not in earlier.attrs  # imported networks began from weights that are not known
        before = {name: models.initial(config, inputs, seeds, name) for name in networks} if drawn else {}
        flat = data.scaled(inputs.dataset, config.data)[0].reshape(len(inputs.dataset.train.images), -1)
        labels = np.asarray(inputs.dataset.train.labels)
        frames: list[pd.DataFrame] = []
        examples: list[boundaries.Example | None] = []
        readers = {name: _reader(config, name) for name in networks}
        jobs = [
            (when, name, k)
            for when, stacked in (("trained", networks), ("before", before))
            for name in stacked
            for k in range(len(seeds))
        ]
        total = len(jobs)
        for number, (when, name, k) in enumerate(jobs):
            show("geometry", number, total, name)
            params = jax.tree.map(lambda leaf, k=k: leaf[k], (networks if when == "trained" else before)[name])
            for site, values in readers[name](params, flat).items():
                described = geometry.describe(values, labels)
                frames.append(geometry.frame(described, network=name, site=site, seed=seeds[k], when=when))
                if when == "trained" and k == 0:
                    examples.append(boundaries.Example.of(name, site, described, values, labels))
        show("geometry", total, total, "")
        units = pd.concat(frames, ignore_index=True)
        described_folder = Described(units, geometry.summary(units, config.statistics.confidence))
        boundaries.write(units, described_folder.summary, examples, folder)
    return described_folder


def _reader(config: Config, network: str) -> Callable[[Params, Values], dict[str, Values]]:
    """What reads the preactivations [H, N] at the sites of one network's hidden layers, compiled once."""
    model = models.model_of(config, network, None)
    sites = [f"dense{k}/pre" for k in range(len(config.model.hidden))]
    values_of = jax.jit(lambda params, x: read(model.apply, params, x, sites)[1])

    def values(params: Params, x: Values) -> dict[str, Values]:
        parts = [values_of(params, jnp.asarray(part)) for part in np.array_split(x, -(-len(x) // BLOCK))]
        # Examples are on the axis that units are not on.
        return {
            site: np.concatenate([np.asarray(part[site]) for part in parts], axis=1 - model.axis_of(site))
            for site in sites
        }

    return values


BLOCK = 10_000
"""Images whose values are computed at once."""
