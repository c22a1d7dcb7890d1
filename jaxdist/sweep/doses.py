"""How much an edit disturbs what the logits are made of: doses, from moments and outgoing weights.

With v_j the outgoing weights of unit j, centred over the classes, and <A, B> = sum_j |v_j|^2 E[a_j b_j], the angular
dose of an edit that makes A' of the activations A is sqrt(1 - cos^2(A', A)). docs/method.md gives the reasons.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from jaxdist.compute import Examples
from jaxdist.errors import InputError
from jaxdist.networks import Model, heads
from jaxdist.networks import model as networks_model
from jaxdist.sweep.kernel import Watch
from jaxdist.sweep.moments import DoseMoments
from jaxdist.types import Params, Values


class Doses(NamedTuple):
    """Doses of every network and point, [S, P]; NaN where a network has no activation at all, or an edit gives NaN."""

    angular: Values
    """From 0, for one scale common to all units, to 1, where nothing of the unedited activations is left."""
    rms: Values
    """Root mean square of the change over that of the unedited activations, in the norm of the outgoing weights."""
    rms_plain: Values
    """The same with all units alike."""


class Weights(NamedTuple):
    """What each unit counts for."""

    squared: Values  # [S, H] of |v_j|^2
    outgoing: bool
    """Whether they are the outgoing weights; else all are 1."""


def watch(model: Model, site: str) -> Watch:
    """Where the activations behind a site are: the site's own values where the model does not say what follows it."""
    follows = model.after(site)
    if follows is None:
        return Watch(site)
    return Watch(follows) if isinstance(follows, str) else Watch(site, follows)


def weights(model: Model, params: Params, site: str, watch: Watch, examples: Examples) -> Weights:
    """Squared norms of the outgoing weights of a site's units.

    Ones where the site does not reach the logits through an activation and one linear map (`heads.is_linear`).

    Args:
      model: the networks' function.
      params: stacked, with a leading S.
      site: its key.
      watch: where the activations behind it are.
      examples: of a split, some of which are looked at.
    """
    try:
        outgoing = heads.weights(model, params, site, examples).astype(np.float64)
    except InputError:  # the head is not linear
        sites = networks_model.sites_for_one(model, params, examples.x, [watch.site])
        units = sites.shape(watch.site)[model.axis_of(watch.site)]
        return Weights(np.ones((jax.tree.leaves(params)[0].shape[0], units)), outgoing=False)
    centred = outgoing - outgoing.mean(-1, keepdims=True)  # what all classes get alike decides nothing
    return Weights((centred**2).sum(-1), outgoing=True)


def of(moments: DoseMoments, squared: Values) -> Doses:
    """Doses from an ensemble's moments and its units' `squared` weights [S, H]."""
    angular, rms = _doses(moments, squared)
    return Doses(angular, rms, _doses(moments, np.ones_like(squared))[1])


def _doses(moments: DoseMoments, squared: Values) -> tuple[Values, Values]:
    factor, rest, overlap, power = (np.asarray(leaf, np.float64) for leaf in moments)
    squares = np.einsum("sph,sh->sp", rest, squared)
    along = np.einsum("sph,sh->sp", overlap, squared)
    unedited = np.einsum("sh,sh->s", power, squared)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        across = squares - along**2 / unedited
        edited = factor**2 * unedited + 2 * factor * along + squares
        changed = (factor - 1) ** 2 * unedited + 2 * (factor - 1) * along + squares
        # Where nothing is left there is no direction: all of it is lost.
        share = np.where((edited == 0) & (unedited > 0), 1.0, across / edited)
        return np.sqrt(np.clip(share, 0, 1)), np.sqrt(np.maximum(changed, 0) / unedited)
