"""Two sides with the same networks: the images by which their counts differ, and on which their classes agree."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from jaxdist import config as configs
from jaxdist import edits, experiment, mlp, ranges, sweep
from jaxdist.compare.sides import Side
from jaxdist.errors import InputError
from jaxdist.tables import Series

Pairs = dict[tuple[str, str, str, str], tuple[Series, Series]]
"""The series that both sides have, by family, network, site and split."""


def points(pairs: Pairs) -> pd.DataFrame:
    """One row a pair, seed and point: correctly classified images of both sides, and `difference`, b minus a.

    Raises:
      InputError: if a pair has not as many seeds or images on both sides.
    """
    frames = []
    for (family, network, site, split), (a, b) in pairs.items():
        if a.total != b.total or len(a.seeds) != len(b.seeds):
            raise InputError(
                f"{network}, {split}: one side has {len(a.seeds)} seeds and {a.total} images, the other "
                f"{len(b.seeds)} and {b.total}; the same networks on the same images are needed"
            )
        for s, (seed_a, seed_b) in enumerate(zip(a.seeds, b.seeds, strict=True)):
            frames.append(
                pd.DataFrame(
                    {
                        "family": family,
                        "network": network,
                        "site": site,
                        "split": split,
                        "seed": seed_a,
                        "seed_b": seed_b,
                        "fraction": a.fraction,
                        "total": a.total,
                        "a": a.correct[s],
                        "b": b.correct[s],
                        "difference": b.correct[s].astype(int) - a.correct[s].astype(int),
                    }
                )
            )
    return pd.concat(frames, ignore_index=True)


def same_classes(
    a: Side, b: Side, pairs: Pairs, changes: Mapping[str, str]
) -> dict[tuple[str, str, str, str], np.ndarray]:
    """Images [S, P] to which both sides' networks give the same class at each point, each side by its own protocol.

    Both are evaluated here, on the images of `a`, whose folder `changes` may give.

    Raises:
      InputError: if the images cannot be read, or are not those of the results.
    """
    assert a.networks is not None
    assert b.networks is not None
    config = configs.override(a.config, {key: value for key, value in changes.items() if key == "data.dir"})
    inputs = experiment.load_inputs(config)
    if inputs.dataset.digest != a.result.attrs["data_digest"]:
        raise InputError(f"{inputs.dataset.source} these are not the images of {a.name}; give them with --data.dir")
    families = {key[0]: pair[0].fraction for key, pair in pairs.items()}
    found = {}
    for network, site, split in dict.fromkeys(key[1:] for key in pairs):
        model = experiment.network_model(a.config, network)
        edited = []
        for side in (a, b):
            params = mlp.narrow((side.networks or {})[network], inputs.used)
            measured = ranges.measure(
                model, params, inputs.splits["train"], (site,), measured_on=side.config.ranges.measured_on
            )[site]
            made = [edits.build(family, measured, grid, side.config.sweep) for family, grid in families.items()]
            edited.append((params, {site: edits.concatenate(made)}))
        matching = np.asarray(sweep.matches(model, edited[0], edited[1], inputs.splits[split]))
        first = 0
        for family, grid in families.items():
            found[family, network, site, split] = matching[:, first : first + len(grid)]
            first += len(grid)
    return found
