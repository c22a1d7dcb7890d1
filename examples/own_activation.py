"""A hidden activation of your own: trained on scikit-learn's digits, then edited as the paper edits ReLU and Abs.

Run it with ``python examples/own_activation.py``. The function here is a smooth Abs: it is even, as Abs is, but has no
kink at the decision boundary. Any elementwise JAX function can stand in its place.
"""

import jax
import jax.numpy as jnp
import pandas as pd

import jaxdist
from jaxdist import data
from jaxdist.analysis import tables
from jaxdist.compute import devices
from jaxdist.config import DataConfig, StatisticsConfig
from jaxdist.networks import mlp, training

SEEDS = range(6)
STEPS = 400


def smooth_abs(h: jax.Array) -> jax.Array:
    """Like Abs far from the boundary, like h²/2 at it."""
    return jnp.sqrt(h**2 + 1) - 1


devices.use_all_cores()
digits = data.load(DataConfig())
train_x, test_x = data.scaled(digits, DataConfig())
splits = {"train": (train_x, digits.train.labels), "test": (test_x, digits.test.labels)}
placed = devices.place_splits(splits, devices.make_mesh(seeds=len(SEEDS)))

# Both networks begin with the same weights and are trained together with all their seeds, by full-batch steps.
initial = mlp.init_ensemble(jax.random.key(0), SEEDS, (train_x[0].size, 128, digits.classes))
found = []
for name, activation in {"smooth_abs": smooth_abs, "abs": jnp.abs}.items():
    model = mlp.model(activation)
    optimizer = training.optimizer("sgd", 0.01)
    trained = training.train(model, initial, placed["train"], placed["test"], steps=STEPS, optimizer=optimizer)
    accuracy = 100 * trained.metrics.test_accuracy[-1].mean()
    print(f"{name}: test accuracy {accuracy:.1f} %, mean of {len(SEEDS)} seeds")
    result = jaxdist.probe(model, trained.params, train=splits["train"], stacked=True, name=name)
    found.append(tables.tolerance(result, StatisticsConfig()))

reach = pd.concat(found).pivot(index=["family", "side"], columns="network", values="median")
print("How far each edit goes before a point of train accuracy is lost, in %, median over seeds (inf: never):")
print((100 * reach).round(1))
