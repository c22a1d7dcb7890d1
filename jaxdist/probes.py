"""A user's own network, measured as the paper's are: one call from a function and images to the labelled result."""

from __future__ import annotations

import dataclasses
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

from jaxdist import config as configs
from jaxdist import devices, folders, report, results, study, taps
from jaxdist.config import Options
from jaxdist.devices import Examples
from jaxdist.errors import InputError
from jaxdist.progress import Show, silent
from jaxdist.study import Context
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
    unit_axis: int = -1,
    class_axis: int = -1,
    out: str | Path | None = None,
    show: Show = silent,
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
      unit_axis, class_axis: of a site's value and of the logits.
      out: folder to write the result, tables and figures to, if any.
      options: fields of a config's sections `ranges`, `sweep`, `statistics` and `compute` by their name alone, such as
        ``families=("offset",)``, ``grid=True``, ``rule="quantile"``; `ranges` is short for `rule`.

    Raises:
      InputError: for a site that the network does not reach exactly once, labels or logits that do not fit, an unknown
        option, or a range rule that means nothing at a site.
    """
    if "ranges" in options:
        options["rule"] = options.pop("ranges")
    chosen = configs.options_by_name(options, where="probe")
    if chosen.compute.precision != "float32":
        raise InputError("probe: precision 'exact' is for the perceptrons of a config; leave it out")
    model = apply if isinstance(apply, Model) else Model(apply, (), unit_axis, class_axis)
    model = dataclasses.replace(model, post=tuple({**dict(model.post), **(post or {})}.items()))
    chosen = dataclasses.replace(chosen, sweep=dataclasses.replace(chosen.sweep, splits=_splits(chosen, test)))
    params = jax.tree.map(np.asarray if stacked else lambda leaf: np.asarray(leaf)[None], params)
    seeds = _seeds(params)
    images = {split: _checked(pair, split) for split, pair in (("train", train), ("test", test)) if pair is not None}
    shapes = _shapes(model, params, images["train"][0], stacked=stacked)
    _check_labels(images, shapes, model.class_axis)
    if sites is None:
        sites = tuple(dict(model.post))
    if isinstance(sites, str) or not sites:
        known = ", ".join(
            site.name for site in taps.sites_for_one(model.apply, params, jnp.asarray(images["train"][0][:1]))
        )
        raise InputError(f"sites: expected a list of at least one of the model's sites, which are {known or 'none'}")
    mesh = devices.make_mesh(seeds=seeds)
    splits = {split: devices.place(x, y, mesh, dtype=x.dtype) for split, (x, y) in images.items()}
    began = time.perf_counter()
    context = Context(splits, study.targets_of(sites, chosen.sweep.layers), chosen, range(seeds), show, _at_once)
    groups = study.study({name: Subject(model, params)}, context)
    result = results.tree(groups, _attrs(chosen, splits, images, time.perf_counter() - began))
    if out is not None:
        _write(result, chosen, Path(out))
    return result


def _splits(options: Options, test: Labelled | None) -> tuple[Any, ...]:
    return tuple(split for split in options.sweep.splits if split == "train" or test is not None) or ("train",)


def _at_once(name: str, compute: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:  # noqa: ARG001  (study.Once)
    return compute()


def _seeds(params: Params) -> int:
    leading = {leaf.shape[0] if leaf.ndim else None for leaf in jax.tree.leaves(params)}
    if len(leading) != 1 or None in leading:
        raise InputError(
            f"params: expected arrays that share a leading seed axis, got leading sizes {sorted(map(str, leading))}; "
            "for one network leave out stacked=True"
        )
    return next(leaf.shape[0] for leaf in jax.tree.leaves(params))


def _checked(pair: Labelled, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of the type JAX would give them, and int32 labels."""
    try:
        x, y = (np.asarray(part) for part in pair)
    except (TypeError, ValueError):
        raise InputError(f"{split}: expected inputs and labels, as ({split}_x, {split}_y)") from None
    x = x.astype(jax.dtypes.canonicalize_dtype(x.dtype), copy=False)
    if x.dtype.kind not in "fiub" or not x.ndim:
        raise InputError(f"{split}: expected inputs [N, ...] of numbers, got {x.dtype} of shape {x.shape}")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise InputError(f"{split}: the inputs hold values that are not finite; expected finite numbers")
    if y.shape != x.shape[:1] or not len(y) or y.dtype.kind not in "iu":
        raise InputError(
            f"{split}: expected one integer label for each of {len(x)} inputs, got {y.dtype} of shape {y.shape}"
        )
    return x, y.astype(np.int32)


def _shapes(model: Model, params: Params, x: np.ndarray, *, stacked: bool) -> tuple[int, ...]:
    """The logits' shape for two examples."""
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), params)
    block = jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype)
    try:
        logits = jax.eval_shape(lambda p, b: model.apply(p, b, taps.identity), one, block)
    except InputError:
        raise
    except Exception as error:
        axis = "each without its leading seed axis" if stacked else "for several seeds give stacked=True"
        error.add_note(f"probe ran apply(params, x, tap) on x of shape {block.shape} {block.dtype}; {axis}")
        raise
    shape = getattr(logits, "shape", None)
    if shape is None or len(shape) != 2:
        raise InputError(f"apply: expected logits of two axes, examples and classes, got {shape or type(logits)}")
    return tuple(shape)


def _check_labels(images: Mapping[str, tuple[np.ndarray, np.ndarray]], logits: tuple[int, ...], axis: int) -> None:
    classes = logits[axis]
    for split, (_, y) in images.items():
        if y.min() < 0 or y.max() >= classes:
            raise InputError(
                f"{split}: expected labels from 0 to {classes - 1}, one of the network's {classes} classes, "
                f"got {y.min()} to {y.max()}"
            )


def _attrs(
    options: Options,
    splits: Mapping[str, Examples],
    images: Mapping[str, tuple[np.ndarray, np.ndarray]],
    seconds: float,
) -> dict[str, Any]:
    digest = hashlib.sha256()
    for part in (array for pair in images.values() for array in pair):
        digest.update(f"{part.dtype.str}{part.shape}".encode())
        digest.update(np.ascontiguousarray(part).data.cast("B"))
    counts = ", ".join(f"{int(split.total)} {name}" for name, split in splits.items())
    return {
        "schema": results.SCHEMA,
        "options": json.dumps(configs.to_dict(options)),
        "data_name": "own",
        "data_source": f"{counts} examples given in Python",
        "data_digest": digest.hexdigest(),
        "precision": options.compute.precision,
        "timings": json.dumps({"sweep_s": seconds}),
    }


def _write(result: xr.DataTree, options: Options, out: Path) -> None:
    """Write the result, tables and figures to a folder that holds none yet."""
    with folders.held(out) as folder:
        if (folder / results.FILE).exists():
            raise InputError(f"{folder}: holds a result already; choose another folder with out=")
        results.save(result, folder / results.FILE)
        report.write(result, options.statistics, folder)
