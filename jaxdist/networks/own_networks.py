"""A user's own network: what its function is given, what it returns, and where its sites have units and examples."""

from __future__ import annotations

import dataclasses
import itertools
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdist.config import Task
from jaxdist.data import own_data
from jaxdist.errors import InputError
from jaxdist.formatting import counted
from jaxdist.networks import model as networks_model
from jaxdist.networks import site_values
from jaxdist.networks.model import Action, Model, Output, Sites
from jaxdist.types import Apply, Params


class LogitsAndSites(NamedTuple):
    """What a network has for so many examples: its logits, and its sites in the order in which it reaches them."""

    logits: Any  # shape and type
    sites: Sites


def model(
    apply: Apply | Model,
    post: Mapping[str, Action | str] | None,
    unit_axis: int | Mapping[str, int] | None,
    class_axis: int | None,
    output: Output | None = None,
) -> Model:
    """The model of a function and what is said of it.

    Args:
      apply, post, unit_axis, class_axis, output: as `jaxdist.probe` takes them.

    Raises:
      InputError: for what is no function, or cannot be told from another; for axes that are no integers.
    """
    if post is not None and not isinstance(post, Mapping):
        raise InputError(f"post: expected what follows each site, as {{site: activation}}, got {post!r}")
    for site, follows in (post or {}).items():
        if not isinstance(site, str) or not (callable(follows) or isinstance(follows, str)):
            raise InputError(
                f"post: expected the name of a site with a function, or the name of the site after it, got "
                f"{site!r}: {follows!r}"
            )
    if not callable(apply) and not isinstance(apply, Model):
        raise InputError(
            f"apply: expected a function apply(params, x) or a jaxdist.Model, got {type(apply).__name__}; from_linen, "
            "from_nnx, from_equinox and from_haiku make one from a module"
        )
    if not isinstance(apply, Model):
        by_site = unit_axis if isinstance(unit_axis, Mapping) else {}
        units: Any = -1 if unit_axis is None or by_site is unit_axis else unit_axis  # `_axis` sees to it
        of_sites = tuple((site, _axis(f"unit_axis of {site!r}", axis)) for site, axis in by_site.items())
        network = Model(apply, (), units, -1 if class_axis is None else class_axis, output, of_sites)
    elif unit_axis is not None or class_axis is not None or output is not None:
        raise InputError("probe: a Model has its own axes and output; leave out unit_axis, class_axis and output")
    else:
        network = apply
    axes = (_axis("unit_axis", network.unit_axis), _axis("class_axis", network.class_axis))
    network = dataclasses.replace(
        network, post=tuple({**dict(network.post), **(post or {})}.items()), unit_axis=axes[0], class_axis=axes[1]
    )
    try:
        hash(network)
    except TypeError as error:
        raise InputError(
            f"probe: apply and the functions in post must be hashable, so that they are compiled once ({error}); pass "
            "functions or frozen dataclasses"
        ) from None
    return network


def _axis(name: str, axis: object) -> int:
    try:
        if not isinstance(axis, (bool, np.bool_)):
            return operator.index(axis)  # type: ignore[arg-type]  # what it refuses is what is asked
    except TypeError:
        pass
    raise InputError(f"{name}: expected an integer, got {axis!r}")


def stacked(params: Params, *, several: bool) -> tuple[Params, int]:
    """Parameters with a leading S, as arrays of the types JAX gives them, and S: 1 unless they are of `several` seeds.

    Raises:
      InputError: for a leaf that is no array of numbers, and for several seeds without an axis in common.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    if not leaves:
        raise InputError(
            "params: expected a pytree of at least one array, got none; put the weights that apply uses in it"
        )
    arrays = []
    for path, leaf in leaves:
        where = f"params: the values at params{jax.tree_util.keystr(path)}"
        if callable(leaf) and not hasattr(leaf, "dtype"):
            raise InputError(
                f"{where} are a function; expected only arrays, such as those of an Equinox module from "
                "equinox.filter(module, equinox.is_array); jaxdist.from_equinox(module) returns them together with a "
                "function"
            )
        values = own_data.numbers(own_data.array(leaf, where), where, finite=False)
        arrays.append(values if several else values[None])
    leading = {values.shape[:1] for values in arrays}
    if several and (len(leading) != 1 or () in leading or (0,) in leading):
        sizes = sorted("no axis" if not size else str(size[0]) for size in leading)
        raise InputError(
            f"params: expected arrays that share a leading seed axis, got leading sizes {', '.join(sizes)}; for one "
            "network, leave out stacked=True"
        )
    return jax.tree.unflatten(tree, arrays), len(arrays[0]) if several else 1


def as_stacked(made: Model, params: Params, x: Any) -> Params:
    """Parameters of several networks, stacked where they are a list of each one's own.

    A list may be one network's layers as well, each stacked; what the function can be traced with decides.

    Raises:
      InputError: where it can be traced with both.
    """
    if not isinstance(params, list) or not params:
        return params
    kinds = {(jax.tree.structure(each), tuple(map(np.shape, jax.tree.leaves(each)))) for each in params}
    if len(kinds) > 1 or not _runs(made, params[0], x):
        return params
    if all(np.ndim(leaf) for leaf in jax.tree.leaves(params)) and _runs(
        made, jax.tree.map(lambda leaf: np.asarray(leaf)[0], params), x
    ):
        raise InputError(
            "params: could be a list of several networks' parameters or a list of one network's layers, each stacked; "
            "for several networks, pass jax.tree.map(lambda *leaves: jnp.stack(leaves), *params), for layers a tuple"
        )
    return jax.tree.map(lambda *each: np.stack([own_data.array(leaf, "params") for leaf in each]), *params)


def _runs(network: Model, params: Params, x: Any) -> bool:
    """Whether a network's function can be traced with such parameters."""
    try:
        networks_model.trace(network, params, jax.tree.map(lambda leaf: leaf[:1], x))
    except Exception:  # whatever a function of somebody else's raises
        return False
    return True


def traced(
    made: Model, params: Params, x: np.ndarray, split: str, *, several: bool
) -> tuple[LogitsAndSites, LogitsAndSites]:
    """The network on one example and on two; what apply itself raises gets a note of what it was called with.

    Args:
      made: its model.
      params: stacked, with a leading S.
      x: inputs [n, ...], whose shapes alone count.
      split: its name, for the note.
      several: whether a user gave parameters of several seeds, for the note.

    Raises:
      InputError: for anything but one array of logits, with the way to it.
    """

    network = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), params)

    def of(rows: int) -> LogitsAndSites:
        block = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype), x)
        try:
            sites = networks_model.trace(made, network, block)
        except InputError as error:
            raise type(error)(str(error)) from None  # without what JAX adds of its own frames
        except Exception as error:
            axis = "each without its leading seed axis" if several else "for several seeds, pass stacked=True"
            shapes = [f"{leaf.shape} {leaf.dtype}" for leaf in jax.tree.leaves(block)]
            error.add_note(
                f"probe ran apply(params, x) on {split} x of shape {', '.join(shapes)}; {axis}; from_linen, from_nnx, "
                "from_equinox and from_haiku make apply and params from a module"
            )
            raise
        return LogitsAndSites(sites.traced.outputs, sites)

    double = of(2)
    return of(1), double


def without_task(made: Model, task: Task | None) -> tuple[Model, Task | None]:
    """The model whose outputs are as its function returns them, and the task: the one given, or the model's own."""
    return dataclasses.replace(made, task="classes"), task or (None if made.task == "classes" else made.task)


def laid_out(made: Model) -> Model:
    """The model with the axis of classes that its task lays them out along."""
    return made if made.task == "classes" else dataclasses.replace(made, class_axis=-1)


def outputs_of_each(made: Model, single: LogitsAndSites, double: LogitsAndSites) -> tuple[int, ...]:
    """The shape of one example's outputs, of which the last axis is that of classes.

    Raises:
      InputError: for outputs that are not those of so many examples.
    """
    alone, shape = tuple(single.logits.shape), tuple(double.logits.shape)
    if len(shape) == 2 and made.class_axis % 2 == 0:
        return shape[:1]
    if shape[:1] != (2,) or alone != (1, *shape[1:]):
        classes(made, single, double)  # which refuses it
    return shape[1:]


def check_outputs(made: Model, each: tuple[int, ...], single: LogitsAndSites, double: LogitsAndSites) -> int:
    """Refuse outputs that the model's task cannot be told of, and say how many classes they are of: 0 of a regression.

    Args:
      made: the model, with its task.
      each: the shape of one example's outputs.
      single, double: the network on one example and on two, as `traced` gives them.

    Raises:
      InputError: for outputs of another shape or type.
    """
    if made.task == "classes":
        return classes(made, single, double)
    expected = {"tokens": "logits [n, T, C]", "binary": "one logit [n] or [n, 1]", "regression": "values [n] or [n, K]"}
    shape = tuple(double.logits.shape)
    fits = {"tokens": len(each) > 1, "binary": each in ((), (1,)), "regression": len(each) < 2 and 0 not in each}
    if not fits[made.task] or shape != (2, *each):
        raise InputError(
            f"apply: expected {expected[made.task]} for x[n, ...] and task '{made.task}', got shape {shape} for two "
            "examples"
        )
    if made.class_axis % len(shape) != len(shape) - 1:
        raise InputError(
            f"class_axis: expected classes on the last axis of {expected[made.task]}, got {made.class_axis}; move that "
            "axis, for example with jnp.moveaxis, and leave class_axis out"
        )
    _check_type(double)
    if made.task == "tokens" and each[-1] < 2:
        raise InputError(f"apply: expected logits of at least two classes for each token, got {each[-1]}")
    return each[-1] if made.task == "tokens" else 2 if made.task == "binary" else 0


def _check_type(double: LogitsAndSites) -> None:
    if not jnp.issubdtype(double.logits.dtype, jnp.floating) or double.logits.dtype.itemsize < 2:
        raise InputError(
            f"apply: expected logits of floating-point numbers of 16 bits or more, got {double.logits.dtype}; convert "
            "them, for example with logits.astype(jnp.float32) if they are real"
        )


def classes(made: Model, single: LogitsAndSites, double: LogitsAndSites) -> int:
    """How many classes the logits are of.

    Raises:
      InputError: for logits of another shape or type, and for those of a single class.
    """
    shape, axis = tuple(double.logits.shape), made.class_axis
    if not -2 <= axis < 2:
        raise InputError(f"class_axis: expected one of the logits' two axes, from -2 to 1, got {axis}")
    axis %= 2
    alone = tuple(single.logits.shape)
    wrong = {
        rows: got
        for rows, got in {"two examples": shape, "one example": alone}.items()
        if len(got) != 2 or got[1 - axis] != (2 if got is shape else 1)
    }
    if wrong:
        hint = ""
        if len(shape) == 1 and shape == (2,):
            hint = "; for one logit for two classes, pass task='binary', for a regression task='regression'"
        elif len(shape) == 3 and shape[0] == 2:
            hint = (
                "; if each token has logits, pass a label per token, or return the logits of one position, such as "
                "logits[:, -1]"
            )
        elif len(shape) == 2 and shape[axis] == 2 and shape[1 - axis] != 2:
            hint = f"; if the classes are on the other axis, pass class_axis={-1 if axis == 0 else 0}"
        raise InputError(
            f"apply: expected logits {'[n, C]' if axis else '[C, n]'} for x[n, ...], got shape "
            f"{' and '.join(f'{got} for {rows}' for rows, got in wrong.items())}{hint}"
        )
    count = shape[axis]
    if alone[axis] != count:
        raise InputError(
            f"apply: expected the same number of classes for any number of examples, got logits of shape {alone} for "
            f"one example and {shape} for two; return logits that do not compare the examples of a block"
        )
    _check_type(double)
    if count < 2:
        raise InputError(
            f"apply: expected logits of at least two classes, got {count}, of which the largest is always the same; "
            "for one logit for two classes, pass task='binary'"
        )
    return count


def expanded(keys: Sequence[str], sites: Sites) -> Sequence[str]:
    """The keys of sites with each one that is a pattern replaced by a key of each name that it matches.

    Raises:
      InputError: for a key that means no site.
    """
    if isinstance(keys, str) or not all(isinstance(key, str) for key in keys):
        return keys  # refused by `check_sites`
    each = ([site_values.written(site) for site in sites.traced.keys(key)] for key in keys)
    return tuple(itertools.chain(*each))


def with_post_of_each(made: Model, sites: Sites) -> Model:
    """The model with each key of `post` and `axes` that is a pattern replaced by a key of each name that it matches.

    A site that follows another has its units on the same axis, unless it has one of its own.

    Raises:
      InputError: for such a key that means no site, or with one site that follows several.
    """
    post: dict[str, Action | str] = {}
    for key, follows in made.post:
        names = expanded([key], sites) if "*" in key and key not in sites.names else [key]
        if len(names) > 1 and isinstance(follows, str):
            raise InputError(
                f"post: '{key}' matches {counted(len(names), 'site')}, {', '.join(names)}, but '{follows}' cannot "
                "follow all of them; name each with the site that follows it"
            )
        post |= dict.fromkeys(names, follows)
    axes: dict[str, int] = {}
    for key, axis in made.axes:
        axes |= dict.fromkeys(expanded([key], sites), axis)
    behind = {follows: axes[key] for key, follows in post.items() if isinstance(follows, str) and key in axes}
    return dataclasses.replace(made, post=tuple(post.items()), axes=tuple((behind | axes).items()))


def check_sites(made: Model, sites: Sequence[str], traced: tuple[LogitsAndSites, LogitsAndSites]) -> None:
    """Refuse sites that the network does not reach, or that do not have examples and units where they should.

    Raises:
      InputError: for the first of them, with what follows it.
    """
    single, double = (each.sites for each in traced)
    if isinstance(sites, str) or not sites or not all(isinstance(site, str) for site in sites):
        listed = ", ".join(single.names) or "none"
        raise InputError(
            f"sites: expected a list of the model's sites, which are {listed}, got {sites!r}; or say what follows them "
            "with post={site: activation}"
        )
    networks_model.check_editable(single, sites)
    for site in sites:
        if single.of(site)[0].loops != double.of(site)[0].loops:
            raise InputError(
                f"site '{site}': it is inside a loop over the examples, such as jax.lax.map, where its value has no "
                "axis of examples; use jax.vmap instead, or name a value outside the loop"
            )
        _check_axes(site, single.shape(site), double.shape(site), made.axis_of(site))
        after = made.after(site)
        if isinstance(after, str):
            shapes = [single.whole_shape(key, made.axis_of(key)) for key in (after, site)]
            if shapes[0] != shapes[1]:
                raise InputError(
                    f"post: '{after}' has shape {shapes[0]} for one example, but '{site}' has {shapes[1]}, calls and "
                    "iterations included; expected the site right after its activation, in the same calls and "
                    "iterations"
                )
        elif after is not None:
            _check_activation(site, after, double.shape(site))


def check_block(made: Model, sites: Sequence[str], traced: Sites, params: Params, x: Any) -> None:
    """Refuse sites whose calls and iterations do not each have all examples of a block.

    Args:
      traced: the network's sites for one example.
      params: of one network; they and the block `x` may be shapes.

    Raises:
      InputError: as where the network goes over a block of its own examples by ``jax.lax.map``.
    """
    of_block, rows = networks_model.trace(made, params, x), jax.tree.leaves(x)[0].shape[0]
    for site in sites:
        alone = traced.of(site)
        calls = [each for each in of_block.traced.every_site if each.name == alone[0].name]
        shape = calls[0].shape
        examples = 1 if made.axis_of(site) % len(shape) == 0 else 0
        if alone[0].calls != len(calls) or any(each.shape[examples] != rows for each in calls):
            raise InputError(
                f"site '{site}': its values have shape {shape} in each of its calls and iterations, for a block of "
                f"{counted(rows, 'example')}, so the network splits the block, as jax.lax.map with a batch_size does; "
                "pass a function that computes the block as a whole, since a sweep makes its own blocks"
            )


def _check_axes(site: str, single: tuple[int, ...], double: tuple[int, ...], unit_axis: int) -> None:
    problem = None
    if len(double) < 2:
        problem = "expected an axis of examples and one of units; if there is only one unit, name value[:, None]"
    elif not -len(double) <= unit_axis < len(double):
        problem = f"it has no axis {unit_axis}; the last, -1, is the default"
    else:
        rows = 1 if unit_axis % len(double) == 0 else 0
        if (single[rows], double[rows]) != (1, 2) or single[unit_axis] != double[unit_axis]:
            problem = f"with unit_axis {unit_axis}, axis {rows} must be that of examples, one entry each; " + (
                "if units come last, leave unit_axis out" if unit_axis != -1 else "name a value of that form"
            )
    if problem:
        raise InputError(f"site '{site}': its value has shape {double} for two examples; {problem}")


def _check_activation(site: str, action: Action, shape: tuple[int, ...]) -> None:
    after = jax.eval_shape(action, jax.ShapeDtypeStruct(shape, jnp.float32))
    got = (getattr(after, "shape", None), getattr(after, "dtype", jnp.dtype(complex)))
    if got[0] != shape or jnp.issubdtype(got[1], jnp.complexfloating):
        raise InputError(
            f"post: what follows '{site}' turns its values of shape {shape} into {got[1]} of shape {got[0]}; expected "
            "an activation, which returns a real number for each value"
        )
