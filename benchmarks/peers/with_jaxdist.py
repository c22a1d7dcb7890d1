"""jaxdist's ``probe``."""

import jax

from jaxdist import probe, site


def logits(network, x):
    hidden_weight, hidden_bias, head_weight, head_bias = network
    hidden = site("hidden", x @ hidden_weight.T + hidden_bias)
    return jax.nn.relu(hidden) @ head_weight.T + head_bias


def ensemble(networks, x, y, factors):
    result = probe(
        logits,
        networks,
        train=(x, y),
        post={"hidden": jax.nn.relu},
        families=("scale",),
        fractions={"scale": factors},
        stacked=True,
    )
    return result["scale"].correct.isel(network=0, site=0, split=0).to_numpy().tolist()


def scales(network, x, y, factors):
    return ensemble([network], x, y, factors)[0]
