"""Two sides with the same networks: the images by which their counts differ, and on which their classes agree."""

from __future__ import annotations

import jax
import numpy as np
import pandas as pd

from jaxdist import config as configs
from jaxdist.data import Inputs, load_inputs
from jaxdist.errors import InputError
from jaxdist.formatting import counted
from jaxdist.networks import mlp, models
from jaxdist.perturbations import families, ranges, rules
from jaxdist.report.compare.pairs import ComparisonVerdict, Pairs, by_series
from jaxdist.report.compare.sides import SeriesKey, Side
from jaxdist.sweep import ensemble_sweep
from jaxdist.types import Params


def points(pairs: Pairs) -> pd.DataFrame:
    """One row a pair, seed and point: correctly classified images of both sides, and `difference`, b minus a.

    Raises:
      InputError: if a pair has not as many seeds or images on both sides.
    """
    frames = []
    for a, b in pairs.values():
        if a.total != b.total or len(a.seeds) != len(b.seeds):
            raise InputError(
                f"{a.network}, {a.split}: one side has {counted(len(a.seeds), 'seed')} and "
                f"{counted(a.total, 'image')}, the other "
                f"{len(b.seeds)} and {b.total}; the same networks on the same images are needed"
            )
        # Counts that are means over draws are no whole numbers.
        kind = np.result_type(a.correct, b.correct, np.int64)
        for s, (seed_a, seed_b) in enumerate(zip(a.seeds, b.seeds, strict=True)):
            frames.append(
                pd.DataFrame(
                    {
                        **a.labels,
                        "seed": seed_a,
                        "seed_b": seed_b,
                        "fraction": a.fraction,
                        "total": a.total,
                        "a": a.correct[s],
                        "b": b.correct[s],
                        "difference": np.subtract(b.correct[s], a.correct[s], dtype=kind),
                    }
                )
            )
    return pd.concat(frames, ignore_index=True)


def verdicts(points: pd.DataFrame, images: int) -> list[ComparisonVerdict]:
    """Of each series: agree where no count differs by more than `images`."""
    judgements = []
    for what, part in by_series(points):
        largest, total = part.difference.abs().max(), int(part.total.iloc[0])
        places = counted(part.fraction.nunique(), "point")
        words = f"largest difference {largest:g} of {counted(total, 'image')} at {places}"
        if part.seed.nunique() > 1:
            words += f" of {counted(part.seed.nunique(), 'network')}"
        if "same_class" in part and part.same_class.notna().all():
            words += f"; same class for at least {100 * (part.same_class / part.total).min():.3f} %"
        judgements.append(ComparisonVerdict(what, "differ" if largest > images else "agree", words))
    return judgements


def same_classes(
    sides: tuple[Side, Side], networks: tuple[dict[str, Params], dict[str, Params]], pairs: Pairs, data_dir: str | None
) -> dict[SeriesKey, np.ndarray]:
    """Images [S, P] to which both sides' networks give the same class at each point, each side by its own protocol.

    Of families that are known here and whose points are single affine edits: others take random numbers, or edit more
    than the site. Both are evaluated here, in float32, on the images in each side's own scaling. A side whose images
    are not known, as of the paper's result file, is evaluated on the other's.

    Args:
      sides: both.
      networks: of each side, stacked parameters by activation, with the same S seeds.
      pairs: the series of both, by family, network, site and split.
      data_dir: the folder of the images; None: where each side had them.

    Raises:
      InputError: if the images cannot be read, or are not those of the results.
    """
    pairs = {key: pair for key, pair in pairs.items() if key[0] in families.ALL and families.get(key[0]).alone}
    if not pairs:
        return {}
    seeds = jax.tree.leaves(networks[0])[0].shape[0]
    inputs = [_inputs(side, other, data_dir, seeds) for side, other in (sides, sides[::-1])]
    grids = {key[0]: pair[0].fraction for key, pair in pairs.items()}
    agreements: dict[SeriesKey, np.ndarray] = {}
    targets = models.targets_of(sides[0].config)
    for network, target, split in dict.fromkeys(key[1:] for key in pairs):
        sites = targets.get(target, (target,))
        model = models.model_of(sides[0].config, network, None)
        edited = []
        for side, of, side_inputs in zip(sides, networks, inputs, strict=True):
            params = mlp.narrow(of[network], side_inputs.used)
            how = side.config.ranges
            measured = ranges.measure(
                model,
                params,
                side_inputs.splits["train"],
                sites,
                measured_on=how.measured_on,
                rule=rules.rule_of(how),
            )
            edits = {site: families.joined(measured[site], grids, side.config.sweep) for site in sites}
            edited.append((params, edits))
        examples = (inputs[0].splits[split], inputs[1].splits[split])
        matching = ensemble_sweep.matches(model, edited[0], edited[1], examples)
        for family, span in families.slices(grids).items():
            agreements[family, network, target, split] = matching[:, span]
    return agreements


def _inputs(side: Side, other: Side, data_dir: str | None, seeds: int) -> Inputs:
    where = {"data.dir": data_dir if data_dir is not None else (side if side.digest else other).config.data.dir}
    # Both sides on one mesh, for the seeds that they have in common.
    where |= {"compute.precision": "float32", "train.seeds": str(seeds)}
    config = configs.override(side.config, where | {"data.name": (side if side.digest else other).config.data.name})
    # Each side's scaling has its own background, and both see an image at once.
    inputs = load_inputs(config, in_order=True)
    if inputs.dataset.digest != (side.digest or other.digest):
        raise InputError(
            f"{side.name}: was made with other images than these ({inputs.dataset.source.removesuffix('.')}); pass "
            "its own images with --data.dir"
        )
    return inputs
