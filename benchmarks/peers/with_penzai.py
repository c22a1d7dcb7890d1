"""Models of penzai, which are data: a layer is put into them, and the factor is an argument of one program."""

import jax
import jax.numpy as jnp
from penzai import pz


@pz.pytree_dataclass
class Scale(pz.nn.Layer):
    factor: jax.Array

    def __call__(self, argument, /, **side_inputs):
        return self.factor * argument


def model(network):
    axes = {"hidden": ("unit", "pixel"), "head": ("class", "unit")}
    values = {}
    for name, weight, bias in (("hidden", *network[:2]), ("head", *network[2:])):
        values[f"{name}/Linear.weights"] = pz.nx.wrap(jnp.asarray(weight)).tag(*axes[name])
        values[f"{name}/AddBias.bias"] = pz.nx.wrap(jnp.asarray(bias)).tag(axes[name][0])
    layers = [
        pz.nn.Affine.from_config("hidden", None, {"pixel": 784}, {"unit": 128}),
        Scale(jnp.float32(1)),
        pz.nn.Elementwise(jax.nn.relu),
        pz.nn.Affine.from_config("head", None, {"unit": 128}, {"class": 10}),
    ]
    slots = pz.select(pz.nn.Sequential(layers)).at_instances_of(pz.ParameterSlot)
    return slots.apply(lambda slot: pz.ParameterValue(label=slot.label, value=values[slot.label]))


@jax.jit
def correct(made, x, y, factor):
    scaled = pz.select(made).at_instances_of(Scale).apply(lambda _: Scale(factor))
    logits = scaled(pz.nx.wrap(x).tag("image", "pixel")).unwrap("image", "class")
    return jnp.sum(jnp.argmax(logits, axis=1) == y)


def scales(network, x, y, factors):
    made, x, y = model(network), jnp.asarray(x), jnp.asarray(y)
    return jax.vmap(correct, (None, None, None, 0))(made, x, y, factors).tolist()
