"""JAX alone: ``vmap`` over the factors, one network after the other."""

import jax
import jax.numpy as jnp


def logits(network, x, factor):
    hidden_weight, hidden_bias, head_weight, head_bias = network
    return jax.nn.relu(factor * (x @ hidden_weight.T + hidden_bias)) @ head_weight.T + head_bias


@jax.jit
def correct(network, x, y, factors):
    def count(factor):
        return jnp.sum(jnp.argmax(logits(network, x, factor), axis=1) == y)

    return jax.vmap(count)(factors)


def scales(network, x, y, factors):
    return correct(network, x, y, factors).tolist()
