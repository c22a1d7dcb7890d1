"""A family of edits of your own: swept, tabulated and drawn beside the paper's, by one record.

Run it with ``python examples/own_family.py``, or name the record in a config or an option, in the folder of this file:
``jaxdist run --sweep.families scale,own_family:family``.
"""

import jax
import numpy as np

import jaxdist
from jaxdist.compute import devices
from jaxdist.config import SweepConfig, TrainConfig
from jaxdist.perturbations import Affine, edits
from jaxdist.types import Ranges


def towards_the_middle(ranges: Ranges, fraction: jax.Array) -> Affine:
    """Pull every unit to the middle of its range."""
    middle = (ranges.low + ranges.high) / 2
    return edits.unedited(ranges.low.size)._replace(scale=1 - fraction, offset=fraction * middle)


family = jaxdist.Family(
    name="squeeze",
    text="every unit is pulled to the middle of its range, until at p = 1 a constant is left",
    edit=towards_the_middle,
    grid=lambda: np.linspace(0, 1, 21),
    above="squeezed by",
    few=(0.25, 0.5, 1.0),
    label="squeeze: towards the middle",
)

if __name__ == "__main__":
    devices.use_all_cores()
    jaxdist.register(family)
    config = jaxdist.Config(
        out="runs/own_family",
        train=TrainConfig(seeds=3, steps=200),
        sweep=SweepConfig(families=("scale", "clip", "offset", "squeeze")),
    )
    jaxdist.show(jaxdist.run(config))
    print("The tables, the figures and report.html are in runs/own_family.")
