"""The registry of metrics: their records by name, and their numbers for one network on one block of examples."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array, nn

from jaxdist import registry
from jaxdist.compute import blocks
from jaxdist.errors import InputError
from jaxdist.sweep.metric import Metric

_CHECKED = ((5, 3), (6, 4))
"""Examples and outputs of the shapes that a record's function is tried on."""


def _log_probabilities(outputs: Array) -> Array:
    return nn.log_softmax(outputs.astype(jnp.float32), axis=-1)


def _cross_entropy(outputs: Array, labels: Array) -> Array:
    return -_of_label(_log_probabilities(outputs), labels)


def _kl(outputs: Array, labels: Array, unedited: Array) -> Array:  # noqa: ARG001  (Metric.of)
    before, after = _log_probabilities(unedited), _log_probabilities(outputs)
    probabilities = jnp.exp(before)
    # A class that both rule out adds nothing, where -inf less -inf would be no number.
    return jnp.sum(jnp.where(probabilities > 0, probabilities * (before - after), 0), axis=-1)


def _logit_difference(outputs: Array, labels: Array) -> Array:
    outputs = outputs.astype(jnp.float32)
    others = jnp.where(_one_hot(outputs, labels), -jnp.inf, outputs)
    return _of_label(outputs, labels) - others.max(-1)


def _top_5(outputs: Array, labels: Array) -> Array:
    # Of equal logits the first are taken, as for accuracy; those that are no numbers are never among the largest.
    outputs = jnp.where(jnp.isnan(outputs), -jnp.inf, outputs)
    own = _of_label(outputs, labels)[:, None]
    before = jnp.arange(outputs.shape[-1], dtype=labels.dtype)[None] < labels[:, None]
    ahead = (outputs > own) | ((outputs == own) & before)
    return (ahead.sum(-1) < 5) & jnp.isfinite(own[:, 0])


def _squared_error(outputs: Array, labels: Array) -> Array:
    outputs = outputs.astype(jnp.float32)
    return jnp.mean(jnp.square(outputs - _one_hot(outputs, labels).astype(jnp.float32)), axis=-1)


def _of_label(values: Array, labels: Array) -> Array:
    """The entries [n] of values [n, C] at the labels [n]: by a mask, which no layout of the values hinders."""
    return jnp.sum(jnp.where(_one_hot(values, labels), values, 0), axis=-1)


def _one_hot(values: Array, labels: Array) -> Array:
    return jnp.arange(values.shape[-1], dtype=labels.dtype)[None] == labels[:, None]


_RECORDS = (
    Metric(
        name="cross_entropy", text=registry.METRICS["cross_entropy"], of=_cross_entropy, unit="nats", better="lower",
        chance=math.log,
    ),
    Metric(name="kl", text=registry.METRICS["kl"], of=_kl, unit="nats", compares=True, label="KL divergence"),
    Metric(
        name="logit_difference", text=registry.METRICS["logit_difference"], of=_logit_difference, unit="logits",
        better="higher",
    ),
    Metric(
        name="top_5", text=registry.METRICS["top_5"], of=_top_5, better="higher",
        chance=lambda classes: min(1.0, 5 / classes),
    ),
    Metric(name="squared_error", text=registry.METRICS["squared_error"], of=_squared_error, better="lower"),
)  # fmt: skip


def check_record(metric: Metric) -> None:
    """Refuse a record that cannot be used; raises `InputError` that starts with the metric's name."""
    registry.check_name(metric, Metric, "jaxdist.sweep.Metric", "metric", 32)
    if metric.name in registry.COUNTED:
        raise InputError(f"metric '{metric.name}': is one that every sweep counts; give yours another name")
    problem = _problem(metric)
    if problem:
        raise InputError(f"metric '{metric.name}': {problem}")


def _problem(metric: Metric) -> str:
    """The sentence on what is wrong with a record, empty if nothing is."""
    if not isinstance(metric.text, str) or not metric.text.strip() or "\n" in metric.text:
        return f"text: expected one sentence, got {metric.text!r}"
    if metric.better not in ("higher", "lower", ""):
        return f"better: expected 'higher', 'lower' or '', got {metric.better!r}"
    functions: dict[str, object] = {"of": metric.of, "chance": metric.chance or math.log}
    for name, function in functions.items():
        if not callable(function):
            return f"{name}: expected a function, got {registry.kind_of(function)}"
    for shape in _CHECKED:
        outputs, labels = jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct(shape[:1], jnp.int32)
        try:
            made = jax.eval_shape(metric.of, outputs, labels, *([outputs] if metric.compares else []))
        except Exception as error:  # whatever a function of somebody else's raises
            given = f"outputs {list(shape)}, labels {list(shape[:1])}"
            return f"of: raises {type(error).__name__} for {given}: {str(error).partition(chr(10))[0]}"
        for part in made if isinstance(made, tuple) else (made,):
            if getattr(part, "shape", None) != shape[:1]:
                got = getattr(part, "shape", registry.kind_of(part))
                return f"of: expected a number an example, {list(shape[:1])} for outputs {list(shape)}, got {got}"
        if isinstance(made, tuple) and len(made) != 2:
            return f"of: expected numbers, or a pair of numbers and weights, got a tuple of {len(made)}"
    return ""


REGISTER = registry.Register(
    "metric", Metric, "jaxdist.sweep.Metric", _RECORDS, registry.METRICS, check_record, function="of"
)
"""All metrics that are known in this process, but for those that every sweep counts."""


def of_function(function: Callable[..., Array]) -> Metric:
    """The metric of a function of (outputs[n, C], labels[n]), or (outputs, labels, unedited), with its name."""
    name = getattr(function, "__name__", type(function).__name__).lower().strip("_<>")
    text = (function.__doc__ or "").strip().partition("\n")[0] or f"what {name} makes of outputs and labels"
    required = [
        each
        for each in inspect.signature(function).parameters.values()
        if each.default is each.empty and each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    return Metric(name=name, text=text, of=function, compares=len(required) > 2)


def chosen(names: Sequence[str] | None) -> tuple[Metric, ...]:
    """The records of the metrics that options name, without those that are counted anyway."""
    return tuple(REGISTER.get(name) for name in names or () if name not in registry.COUNTED)


def named(reference: str, where: str) -> str:
    """The name of the metric that a config means; raises as `registry.Register.named` does."""
    return reference if reference in registry.COUNTED else REGISTER.named(reference, where)


def knows(reference: str) -> bool:
    """Whether the metric that a config names is known here already, without an import."""
    return reference in registry.COUNTED or REGISTER.knows(reference)


def of_block(metrics: Sequence[Metric], outputs: Array, unedited: Array, part: blocks.Block) -> tuple[Array, Array]:
    """Every metric's numbers and weights [M, n] on a block, given outputs [n, C] and the unedited network's.

    Weights are 0 where an example does not count.
    """
    numbers, weights = [], []
    for metric in metrics:
        made = metric.of(outputs, part.y, *([unedited] if metric.compares else []))
        number, weight = made if isinstance(made, tuple) else (made, jnp.ones_like(part.valid, jnp.float32))
        weight = jnp.where(part.valid, weight.astype(jnp.float32), 0)
        numbers.append(jnp.where(weight != 0, number.astype(jnp.float32), 0))
        weights.append(weight)
    return jnp.stack(numbers), jnp.stack(weights)
