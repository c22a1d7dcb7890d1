"""The primitives that mark named values in a traced program, and how JAX's transformations treat them.

``site_p`` is the identity with a name. It stays in the program that JAX traces, whatever transformation of the
network's own it lies in, where `jaxdist.networks.site_values` finds it. Semi-private parts of JAX: ``jax.extend.core``
and the tables of rules in ``jax.interpreters``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.interpreters import ad, batching, mlir

from jaxdist.errors import InputError
from jaxdist.registry import kind_of

Kind = Literal["named", "call", "sown", "fixed"]
"""How a value came by its name: by `site`, as what a submodule's call returned, or as a value that a module sowed;
the network does not go on with what `site` returned for a sown one. A "fixed" one is sown, and cannot be edited."""

site_p = core.Primitive("jaxdist_site")
"""x -> x. Static: `name`; `batched`, how many axes ``jax.vmap`` of the network's own has put in front; `kind`."""

tangent_p = core.Primitive("jaxdist_site_tangent")
"""x, t -> t: the tangent t of the value x at a site, where the network differentiates itself.

Linear in t. An edit of the site is applied to t by the edit's own derivative at x; without it such an edit would change
energies, say, and not the forces. Static, beside those of `site_p`: `order`, how often it is differentiated, and
`transposed`, whether t is a cotangent.
"""

guard_p = core.Primitive("jaxdist_guard")
"""x -> x, which cannot be differentiated. Static: `reason`, the sentence with which it is refused."""


def site(name: str, value: Any) -> Any:
    """Give a value in a network a name, by which it can be read and edited; returns the value, with which to go on.

    A pytree's arrays have names of their own: of ``site("cell", (carry, output))`` the first is "cell[0]".

    >>> import jax.numpy as jnp
    >>> float(site("hidden", jnp.float32(3)))
    3.0

    Raises:
      InputError: if the name is not a string, or there is no array in the value.
    """
    return tag(name, value, "named")


def tag(name: str, value: Any, kind: Kind) -> Any:
    """Do as `site` does for a value of another kind; what holds no array goes through as it is, except for "named"."""
    if not isinstance(name, str) or not name:
        raise InputError(f"site: expected a site's name, as in site('hidden', value), got {name!r}")
    if _is_array(value):
        return site_p.bind(value, name=name, batched=0, kind=kind)
    paths, tree = jax.tree_util.tree_flatten_with_path(value)
    if not any(_is_array(leaf) for _, leaf in paths):
        if kind == "named":
            raise InputError(f"site '{name}': expected an array or a pytree of arrays, got {kind_of(value)}")
        return value
    tagged = [
        site_p.bind(leaf, name=name + jax.tree_util.keystr(path), batched=0, kind=kind) if _is_array(leaf) else leaf
        for path, leaf in paths
    ]
    return jax.tree.unflatten(tree, tagged)


def _is_array(value: object) -> bool:
    return isinstance(value, (jax.Array, np.ndarray))


def guarded(value: Any, reason: str) -> Any:
    """The value, whose derivative is refused with this sentence."""
    return guard_p.bind(value, reason=reason)


def _first(value: Any, *_: Any, **__: Any) -> Any:
    return value


def _last(*values: Any, **_: Any) -> Any:
    return values[-1]


for primitive, returned in ((site_p, _first), (tangent_p, _last), (guard_p, _first)):
    primitive.def_impl(returned)
    primitive.def_abstract_eval(returned)
    mlir.register_lowering(primitive, lambda ctx, *values, _returned=returned, **_: [_returned(*values)])  # noqa: ARG005


def _batch_site(values: Sequence[Any], axes: Sequence[int], *, name: str, batched: int, kind: Kind) -> tuple[Any, int]:
    if kind == "sown" and axes[0] != 0:
        kind = "fixed"  # the network goes on with the value itself, not with the one whose axis is moved
    return site_p.bind(jnp.moveaxis(values[0], axes[0], 0), name=name, batched=batched + 1, kind=kind), 0


def _batch_tangent(
    values: Sequence[Any], axes: Sequence[int | None], *, batched: int, **static: Any
) -> tuple[Any, int]:
    size = next(value.shape[axis] for value, axis in zip(values, axes, strict=True) if axis is not None)
    moved = (
        jnp.broadcast_to(value, (size, *value.shape)) if axis is None else jnp.moveaxis(value, axis, 0)
        for value, axis in zip(values, axes, strict=True)
    )
    return tangent_p.bind(*moved, batched=batched + 1, **static), 0


def _batch_guard(values: Sequence[Any], axes: Sequence[int], **static: Any) -> tuple[Any, int]:
    return guard_p.bind(*values, **static), axes[0]


def _is_zero(tangent: Any) -> bool:
    return type(tangent) is ad.Zero


def _jvp_site(
    primals: Sequence[Any], tangents: Sequence[Any], *, name: str, batched: int, kind: Kind
) -> tuple[Any, Any]:
    if kind in ("sown", "fixed"):  # the network goes on with a tangent that no mark is on
        return site_p.bind(*primals, name=name, batched=batched, kind="fixed"), tangents[0]
    value = site_p.bind(*primals, name=name, batched=batched, kind=kind)
    if _is_zero(tangents[0]):
        return value, tangents[0]
    return value, tangent_p.bind(*primals, *tangents, name=name, batched=batched, kind=kind, order=1, transposed=False)


def _jvp_tangent(primals: Sequence[Any], tangents: Sequence[Any], *, order: int, **static: Any) -> tuple[Any, Any]:
    value = tangent_p.bind(*primals, order=order, **static)
    if _is_zero(tangents[1]):
        return value, tangents[1]
    # The derivative of the identity: an edit would need its second derivative, and is refused from the second order on.
    return value, tangent_p.bind(primals[0], tangents[1], order=order + 1, **static)


def _jvp_guard(*_: Any, reason: str) -> tuple[Any, Any]:
    raise InputError(reason)


def _transpose_site(cotangent: Any, *_: Any, **__: Any) -> list[Any]:
    return [cotangent]


def _transpose_tangent(cotangent: Any, value: Any, _: Any, *, transposed: bool, **static: Any) -> list[Any]:
    if _is_zero(cotangent):
        return [None, cotangent]
    return [None, tangent_p.bind(value, cotangent, transposed=not transposed, **static)]


batching.primitive_batchers[site_p] = _batch_site
batching.primitive_batchers[tangent_p] = _batch_tangent
batching.primitive_batchers[guard_p] = _batch_guard
ad.primitive_jvps[site_p] = _jvp_site
ad.primitive_jvps[tangent_p] = _jvp_tangent
ad.primitive_jvps[guard_p] = _jvp_guard
ad.primitive_transposes[site_p] = _transpose_site
ad.primitive_transposes[tangent_p] = _transpose_tangent
