"""A user's own network, measured as the paper's are: one call from a function and images to the labelled result."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array
from jax.sharding import Mesh
from rich.console import Console

from jaxdist import config as configs
from jaxdist import counting, devices, folders, hosts, report, results, study, taps, unedited
from jaxdist.config import Options
from jaxdist.counting import Context
from jaxdist.devices import Examples
from jaxdist.errors import InputError
from jaxdist.progress import Show, shown, silent
from jaxdist.taps import Action, Model
from jaxdist.types import AnyArray, Apply, Params
from jaxdist.waves import Subject

Labelled: TypeAlias = tuple[AnyArray, AnyArray]
"""Inputs [N, ...] and labels [N]."""


def probe(
    apply: Apply | Model,
    params: Params,
    *,
    train: Labelled,
    test: Labelled | None = None,
    sites: Sequence[str] | None = None,
    post: Mapping[str, Action | str] | None = None,
    stacked: bool = False,
    name: str = "network",
    unit_axis: int | None = None,
    class_axis: int | None = None,
    out: str | Path | None = None,
    show: Show | None = None,
    **options: Any,
) -> xr.DataTree:
    """Sweep edits at sites of a network of your own, and return the labelled result of `jaxdist.results`.

    Args:
      apply: ``apply(params, x[n, ...], tap) -> logits [n, C]``; `jaxdist.from_linen` and `jaxdist.from_nnx` make one.
      params: its parameters, a pytree of arrays; with `stacked`, those of several seeds, with a leading S.
      train: inputs [N, ...] and labels [N] on which the ranges are measured, and counts made.
      test: the same, to count on as well.
      sites: which values to edit, each by itself and all together; by default those that `post` names.
      post: what follows a site: its activation, a function, or the name of the site behind it. The paper's ranges are
        measured there. Without it give ``measured_on="pre"``.
      stacked: intervals are over seeds then; those of one network are over its images, and speak of it only.
      name: of the network, in tables and figures.
      unit_axis, class_axis: of a site's value and of the logits; by default the last.
      show: called with the progress; by default a terminal shows bars, and nothing else anything.
      out: new or empty folder to write the result, tables and figures to, if any.
      options: fields of a config's sections `ranges`, `sweep`, `statistics` and `compute` by their name alone, such as
        ``families=("offset",)``, ``grid=True``, ``rule="quantile"``; `ranges` is short for `rule`.

    Raises:
      InputError: for a site that the network does not reach exactly once, labels or logits that do not fit, an unknown
        option, or a range rule that means nothing at a site.
    """
    chosen = _options(options, test)
    model = _model(apply, post, unit_axis, class_axis)
    params = jax.tree.map(np.asarray if stacked else lambda leaf: np.asarray(leaf)[None], params)
    seeds = _seeds(params, stacked=stacked)
    images = {split: _checked(pair, split) for split, pair in (("train", train), ("test", test)) if pair is not None}
    x = images["train"][0]
    for split, (here, y) in images.items():
        classes = _classes(model, params, here, split, stacked=stacked)
        if y.min() < 0 or y.max() >= classes:
            raise InputError(
                f"{split}: expected labels from 0 to {classes - 1}, one of the network's {classes} classes, "
                f"got {y.min()} to {y.max()}"
            )
    sites = tuple(dict(model.post)) if sites is None else sites
    _check_sites(model, params, x, sites)
    _refuse_dependent(model, params, x)

    def measured(show: Show) -> xr.DataTree:
        began = time.perf_counter()
        # Networks that are not finite are left out, so the mesh is that of the others.
        mesh = devices.make_mesh(seeds=unedited.not_finite_weights(params).count("") or seeds)
        splits = _placed(images, mesh)
        context = Context(splits, counting.targets_of(sites, chosen.sweep.layers), chosen, range(seeds), show, _at_once)
        groups = study.study({name: Subject(model, params)}, context)
        return results.tree(groups, _attrs(chosen, images, time.perf_counter() - began))

    console = Console(stderr=True)
    bars = shown(console) if show is None and console.is_terminal else contextlib.nullcontext(show or silent)
    if out is None:
        with bars as tell:
            return measured(tell)
    with folders.held(Path(out), new=True) as folder:
        with bars as tell:
            result = measured(tell)
        if hosts.writes():
            results.save(result, folder / results.FILE)
        report.write(result, chosen.statistics, folder)
    return result


def _options(given: Mapping[str, Any], test: Labelled | None) -> Options:
    given = dict(given)
    if "ranges" in given:
        given["rule"] = given.pop("ranges")
    if "splits" not in given:
        given["splits"] = ("train",) if test is None else ("train", "test")
    chosen = configs.options_by_name(given, where="probe")
    if "test" in chosen.sweep.splits and test is None:
        raise InputError("probe: splits names 'test', but no test images are given; give test=(x, y)")
    if chosen.compute.precision != "float32":
        raise InputError("probe: precision 'exact' is for the perceptrons of a config; leave it out")
    if chosen.sweep.scale_shortcut:
        raise InputError("probe: scale_shortcut is for the perceptrons of a config; leave it out")
    return chosen


def _model(
    apply: Apply | Model, post: Mapping[str, Action | str] | None, unit_axis: int | None, class_axis: int | None
) -> Model:
    if post is not None and not isinstance(post, Mapping):
        raise InputError(f"post: expected what follows each site, as {{site: activation}}, got {post!r}")
    if not isinstance(apply, Model):
        model = Model(apply, (), -1 if unit_axis is None else unit_axis, -1 if class_axis is None else class_axis)
    elif unit_axis is not None or class_axis is not None:
        raise InputError("probe: a Model has axes of its own; leave out unit_axis and class_axis")
    else:
        model = apply
    model = dataclasses.replace(model, post=tuple({**dict(model.post), **(post or {})}.items()))
    try:
        hash(model)
    except TypeError as error:
        raise InputError(
            f"probe: apply and the functions in post must be hashable, so that they are compiled once ({error}); "
            "give functions, or frozen dataclasses"
        ) from None
    return model


def _at_once(name: str, compute: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:  # noqa: ARG001  (counting.Once)
    return compute()


def _seeds(params: Params, *, stacked: bool) -> int:
    leaves = jax.tree.leaves(params)
    if not leaves:
        raise InputError("params: expected a pytree of at least one array, got none; pass the weights to apply in it")
    leading = {leaf.shape[:1] for leaf in leaves}
    if stacked and (len(leading) != 1 or () in leading):
        sizes = sorted("no axis" if not size else str(size[0]) for size in leading)
        raise InputError(
            f"params: expected arrays that share a leading seed axis, got leading sizes {', '.join(sizes)}; "
            "for one network leave out stacked=True"
        )
    return int(leaves[0].shape[0])


def _checked(pair: Labelled, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of the type JAX would give them, and int32 labels."""
    try:
        x, y = (np.asarray(part) for part in pair)
    except (TypeError, ValueError):
        raise InputError(f"{split}: expected inputs and labels, as ({split}_x, {split}_y)") from None
    x = x.astype(jax.dtypes.canonicalize_dtype(x.dtype), copy=False)
    if not (jnp.issubdtype(x.dtype, jnp.number) or x.dtype == bool) or not x.ndim:
        raise InputError(f"{split}: expected inputs [N, ...] of numbers, got {x.dtype} of shape {x.shape}")
    if jnp.issubdtype(x.dtype, jnp.floating) and not np.isfinite(x.astype(np.float32)).all():
        raise InputError(f"{split}: the inputs hold values that are not finite; expected finite numbers")
    if y.shape != x.shape[:1] or not len(y) or y.dtype.kind not in "iu":
        raise InputError(
            f"{split}: expected one integer label for each of {len(x)} inputs, got {y.dtype} of shape {y.shape}"
        )
    return x, y


def _placed(images: Mapping[str, tuple[np.ndarray, np.ndarray]], mesh: Mesh) -> dict[str, Examples]:
    """The splits laid out in shared arrays where they are alike; images of another size or type lie by themselves."""
    kinds = {(x.shape[1:], x.dtype) for x, _ in images.values()}
    if len(kinds) == 1:
        return devices.place_splits(images, mesh, dtype=next(iter(kinds))[1])
    return {name: devices.place(x, y, mesh, dtype=x.dtype) for name, (x, y) in images.items()}


def _one(params: Params) -> Params:
    return jax.tree.map(lambda leaf: leaf[0], params)


def _classes(model: Model, params: Params, x: np.ndarray, split: str, *, stacked: bool) -> int:
    """How many classes the logits are of; what apply itself raises gets a note of what it was called with."""
    block = jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype)
    try:
        logits = jax.eval_shape(lambda p, b: model.apply(p, b, taps.identity), _one(params), block)
    except InputError:
        raise
    except Exception as error:
        axis = "each without its leading seed axis" if stacked else "for several seeds give stacked=True"
        error.add_note(
            f"probe ran apply(params, x, tap) on {split} x of shape {block.shape} {block.dtype}; {axis}; of a Flax "
            "module from_linen or from_nnx makes apply and params"
        )
        raise
    shape = tuple(getattr(logits, "shape", ()))
    classes = model.class_axis % 2
    if len(shape) != 2 or shape[1 - classes] != 2:
        expected = "[n, C]" if classes else "[C, n]"
        raise InputError(f"apply: expected logits {expected} for x[n, ...], got shape {shape} for two examples")
    return int(shape[classes])


def _check_sites(model: Model, params: Params, x: np.ndarray, sites: Sequence[str]) -> None:
    found = taps.sites_for_one(model.apply, params, jnp.asarray(x[:1]))
    if isinstance(sites, str) or not sites:
        known = ", ".join(site.name for site in found) or "none"
        raise InputError(
            f"sites: expected a list of the model's sites, which are {known}, got {sites!r}; or say what follows them "
            "with post={site: activation}"
        )
    taps.sites_for_one(model.apply, params, jnp.asarray(x[:1]), sites)
    shapes = {site.name: site.shape for site in found}
    for site in sites:
        behind = model.after(site)
        if isinstance(behind, str) and behind in shapes and shapes[behind] != shapes[site]:
            raise InputError(
                f"post: '{behind}' has shape {shapes[behind]} for one example where '{site}' has {shapes[site]}; "
                "expected the site right behind its activation"
            )


def _refuse_dependent(model: Model, params: Params, x: np.ndarray) -> None:
    """Raise `InputError` where an example's logits depend on the others, so that they would on how blocks are cut."""
    rows = min(len(x), 16)
    among, alone = (
        np.asarray(_logits(_one(params), part, model=model), np.float32).take(0, 1 - model.class_axis % 2)
        for part in (x[:rows], np.repeat(x[:1], rows, axis=0))
    )
    if not np.allclose(among, alone, rtol=1e-3, atol=1e-3 * max(1e-6, float(np.abs(among).max()))):
        raise InputError(
            "apply: the logits of an example depend on the other examples of its block, as with batch statistics; give "
            "the network in evaluation mode"
        )


@functools.partial(jax.jit, static_argnames="model")
def _logits(params: Params, x: Array, *, model: Model) -> Array:
    with jax.default_matmul_precision("float32"):
        return model.apply(params, x, taps.identity)


def _attrs(options: Options, images: Mapping[str, tuple[np.ndarray, np.ndarray]], seconds: float) -> dict[str, Any]:
    digest = hashlib.sha256()
    for part in (array for pair in images.values() for array in pair):
        digest.update(f"{part.dtype.str}{part.shape}".encode())
        digest.update(np.ascontiguousarray(part).data.cast("B"))
    counts = ", ".join(f"{len(y)} {name}" for name, (_, y) in images.items())
    return {
        "schema": results.SCHEMA,
        "options": json.dumps(configs.to_dict(options)),
        "data_name": "own",
        "data_source": f"{counts} examples given in Python",
        "data_digest": digest.hexdigest(),
        "precision": options.compute.precision,
        "timings": json.dumps({"sweep_s": seconds}),
    }
