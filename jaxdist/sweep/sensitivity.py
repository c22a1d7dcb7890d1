"""How the logit margin answers to small edits of each unit: derivatives at the unedited network."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Float32, Int

from jaxdist.compute import Examples, Reducer, blocks, elementwise, over_networks
from jaxdist.errors import InputError
from jaxdist.networks import Model, sizes
from jaxdist.networks import model as networks_model
from jaxdist.types import AnyArray, Params


class Sensitivity(NamedTuple):
    """The mean logit margin and its derivatives; the edit is ``exp(l) * h + t``, at l = t = 0."""

    offset: Float32[AnyArray, "*S H"]  # by each unit's t: logits per unit of the site's value
    log_scale: Float32[AnyArray, "*S H"]  # by each unit's l: logits per unit of the scale's logarithm
    margin: Float32[AnyArray, "*S"]  # the logit of the label less the largest other, mean over the examples


class Small(NamedTuple):
    """Offset and log-scale of each unit, [H]."""

    offset: Float32[Array, " H"]
    log_scale: Float32[Array, " H"]

    def apply(self, value: Float[Array, "*shape"], unit_axis: int) -> Float[Array, "*shape"]:
        """Edit a value whose axis `unit_axis` has H entries."""
        others = [axis for axis in range(value.ndim) if axis != unit_axis % value.ndim]
        offset, log_scale = (jnp.expand_dims(leaf, others) for leaf in self)
        wide = elementwise.single(value)
        edited = jnp.exp(log_scale).astype(wide.dtype) * wide + offset.astype(wide.dtype)
        return edited.astype(value.dtype)


def margins(logits: Float[Array, "C n"], labels: Int[Array, " n"]) -> Float[Array, " n"]:
    """The logit [C, n] of each label less the largest other, [n]."""
    label = lax.broadcasted_iota(jnp.int32, logits.shape, 0) == labels[None]
    return jnp.where(label, logits, 0).sum(0) - jnp.where(label, -jnp.inf, logits).max(0)


def block_margin(model: Model, site: str, params: Params, edit: Small, part: blocks.Block) -> Float32[Array, ""]:
    """The sum of one network's margins over a block's valid examples.

    Args:
      model: the network's function.
      site: the key of the one that is edited.
      params: of one network.
      edit: of the site's units, leaves [H].
      part: the block, n examples with labels [n].

    Raises:
      InputError: while tracing, if the model does not reach the site.
    """
    logits = networks_model.edit(
        model, params, part.x, {site: functools.partial(edit.apply, unit_axis=model.axis_of(site))}
    )
    each = margins(elementwise.single(jnp.moveaxis(logits, model.class_axis, 0)), part.y)
    return jnp.where(part.valid, each, 0).astype(jnp.float32).sum()


@dataclasses.dataclass(frozen=True)
class Slopes(Reducer):
    """One network's mean margin and its derivatives."""

    model: Model
    site: str

    def init(self, params: Params, given: None, x: Array) -> Sensitivity:
        value = jax.eval_shape(
            lambda p, x: networks_model.read(self.model, p, x, (self.site,))[1][self.site], params, x
        )
        none = jnp.zeros(value.shape[self.model.axis_of(self.site)], jnp.float32)
        return Sensitivity(none, none, jnp.float32(0))

    def update(self, state: Sensitivity, params: Params, given: None, block: blocks.Block) -> Sensitivity:
        def margin(edit: Small) -> Array:
            return block_margin(self.model, self.site, params, edit, block)

        value, slope = jax.value_and_grad(margin)(Small(*(jnp.zeros_like(leaf) for leaf in state[:2])))
        return jax.tree.map(jnp.add, state, Sensitivity(slope.offset, slope.log_scale, value))

    def result(self, state: Sensitivity, total: Array) -> Sensitivity:
        return jax.tree.map(lambda leaf: leaf / total.astype(jnp.float32), state)


def check_differentiable(model: Model, params: Params, examples: Examples, site: str) -> None:
    """Refuse a site through which the logits cannot be differentiated; nothing is computed.

    Args:
      model: the networks' function.
      params: stacked, with a leading S.
      examples: of a split, for the shape of one.
      site: its key.

    Raises:
      InputError: as where a while loop comes after it, or where `model.check_editable` refuses it.
    """
    sites = networks_model.sites_for_one(model, params, examples.x, [site])
    none = jnp.zeros(sites.shape(site)[model.axis_of(site)], jnp.float32)

    def slope(params: Params, x: Array) -> Small:
        def total(edit: Small) -> Array:
            act = functools.partial(edit.apply, unit_axis=model.axis_of(site))
            return networks_model.edit(model, params, x, {site: act}).sum()

        return jax.grad(total)(Small(none, none))

    network = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), params)
    try:
        jax.eval_shape(slope, network, networks_model.shapes_of_one(examples.x))
    except InputError:
        raise
    except (ValueError, TypeError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
        raise InputError(
            f"site '{site}': the sensitivity needs derivatives of the logits with respect to its values, which JAX "
            f"cannot take ({reason}); leave sensitivity out, or choose a site after that"
        ) from error


def measure(
    model: Model,
    params: Params,
    examples: Examples,
    site: str,
    *,
    precision: str = "float32",
    block: int | None = None,
) -> Sensitivity:
    """Differentiate an ensemble's mean margin by small edits of each unit of a site, and fetch it.

    A site with positions has one offset and one log-scale a unit: the derivatives sum over positions. Of one with
    several calls or iterations they sum over these as well, each edited alike.

    Args:
      model: the networks' function.
      params: stacked, with a leading S.
      examples: of a split.
      site: its key.
      precision: of matrix products.
      block: examples a block; chosen by default.

    Raises:
      InputError: if the model does not reach the site, or `check_differentiable` refuses it.
    """
    check_differentiable(model, params, examples, site)
    listed = networks_model.sites_for_one(model, params, examples.x, [site])
    size = sizes.of_block(block, listed)
    measured: Sensitivity = over_networks(Slopes(model, site), params, None, examples, size=size, precision=precision)
    return measured
