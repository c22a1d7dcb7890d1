"""A convolutional network of your own in Flax NNX: trained on scikit-learn's digits, then edited at both its layers.

Run it with ``python examples/own_flax_model.py``.
"""

import jax
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

import jaxdist
from jaxdist.analysis import tables
from jaxdist.config import StatisticsConfig

STEPS = 60
TRAIN = 1437  # images; the other 360 test


class Network(nnx.Module):
    """One convolution and one hidden layer, each with a ReLU."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv = nnx.Conv(1, 8, kernel_size=(3, 3), strides=2, rngs=rngs)
        self.hidden = nnx.Linear(4 * 4 * 8, 32, rngs=rngs)
        self.head = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images [n, 8, 8, 1] to logits [n, 10]."""
        maps = nnx.relu(self.conv(x))
        return self.head(nnx.relu(self.hidden(maps.reshape(len(x), -1))))


@nnx.jit
def step(model: Network, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array) -> None:
    """One full-batch update."""

    def loss(model: Network) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

    optimizer.update(model, nnx.grad(loss)(model))


images, labels = load_digits(return_X_y=True)
x, y = (images / 16).astype(np.float32).reshape(-1, 8, 8, 1), labels
train, test = (x[:TRAIN], y[:TRAIN]), (x[TRAIN:], y[TRAIN:])

model = Network(nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(0.01), wrt=nnx.Param)
for _ in range(STEPS):
    step(model, optimizer, *train)

# A site is a submodule; behind both there is a ReLU, which is a function and so has to be told.
apply, params = jaxdist.from_nnx(model)
for site in jaxdist.sites(apply, params, x[:1]):
    print(site)
result = jaxdist.probe(apply, params, train=train, test=test, post={"conv": nnx.relu, "hidden": nnx.relu})
jaxdist.show(result)

reach = tables.tolerance(result, StatisticsConfig())
clips = reach[(reach.family == "clip") & (reach.split == "train")].set_index("site")["median"]
for site in ("conv", "hidden"):
    print(f"{site}: cutting all above {100 * clips[site]:.0f} % of a unit's range costs a point of train accuracy")
