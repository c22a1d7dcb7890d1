"""The paper's network as a Flax module: what `mlp` computes, in the form that people know.

`mlp` keeps values with units first, which on a CPU is faster (docs/performance.md); a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from jax import Array

from jaxdist.networks.mlp import MLPParams


class Perceptron(linen.Module):
    """Linear layers with an activation between them; the submodules `dense0`, `dense1`, ... are the sites."""

    hidden: Sequence[int]
    classes: int
    activation: Callable[[Array], Array] = jax.nn.relu

    @linen.compact
    def __call__(self, x: Array) -> Array:
        """Logits [n, C] of inputs x[n, ...]."""
        value = x.reshape(len(x), -1)
        for k, units in enumerate(self.hidden):
            value = self.activation(linen.Dense(units, name=f"dense{k}")(value))
        return linen.Dense(self.classes, name=f"dense{len(self.hidden)}")(value)


def variables(params: MLPParams) -> dict[str, MLPParams]:
    """The variables of a `Perceptron` with the weights of a plain `mlp`, stacked or not; layers are named alike."""
    layers = {
        name: {"kernel": jnp.swapaxes(layer["weight"], -1, -2), "bias": layer["bias"]} for name, layer in params.items()
    }
    return {"params": layers}


def params(variables: Mapping[str, Any]) -> MLPParams:
    """Undo `variables`."""
    return {
        name: {"weight": jnp.swapaxes(layer["kernel"], -1, -2), "bias": layer["bias"]}
        for name, layer in variables["params"].items()
    }
