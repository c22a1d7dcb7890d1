"""A metric of your own: averaged at every point of a sweep, tabulated and drawn, by one record.

Run it with ``python examples/own_metric.py``, or name the record in a config or an option, in the folder of this file:
``jaxdist run --sweep.metrics cross_entropy,own_metric:metric``.
"""

import jax
import jax.numpy as jnp

import jaxdist
from jaxdist.compute import devices
from jaxdist.config import SweepConfig, TrainConfig


def entropy(outputs: jax.Array, labels: jax.Array) -> jax.Array:  # noqa: ARG001  (every metric is given both)
    """How undecided a network is, whatever the label."""
    log_probabilities = jax.nn.log_softmax(outputs, axis=-1)
    return -jnp.sum(jnp.exp(log_probabilities) * log_probabilities, axis=-1)


metric = jaxdist.Metric(
    name="entropy",
    text="the entropy of the network's probabilities, 0 where it is certain",
    of=entropy,
    unit="nats",
    chance=jnp.log,
)

if __name__ == "__main__":
    devices.use_all_cores()
    jaxdist.register(metric)
    config = jaxdist.Config(
        out="runs/own_metric",
        train=TrainConfig(seeds=3, steps=200),
        sweep=SweepConfig(metrics=("cross_entropy", "entropy")),
    )
    jaxdist.show(jaxdist.run(config))
    print("tables/metrics.md and figures/metric_entropy.svg are in runs/own_metric.")
