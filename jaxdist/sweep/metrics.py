"""The registry of metrics: their records by name, and their numbers for one network on one block of examples."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, nn

from jaxdist import registry
from jaxdist.compute import blocks, elementwise
from jaxdist.config import Task
from jaxdist.errors import InputError
from jaxdist.networks import site_programs
from jaxdist.sweep import averages
from jaxdist.sweep.metric import Metric

Shape: TypeAlias = tuple[int, ...]

_CHECKED: tuple[tuple[Task, Shape], ...] = (
    ("classes", (3,)), ("tokens", (7, 3)), ("binary", ()), ("regression", ()), ("regression", (4,)),
)  # fmt: skip
"""Tasks and shapes of one example's outputs on which a record's function is tried: it has to be of one."""


def _logits(outputs: Array, labels: Array) -> Array:
    """Logits [n, C], or [n, T, C] of tokens, of float32: those of a single one are 0 and itself.

    Raises:
      InputError: for the real targets of a regression.
    """
    if jnp.issubdtype(labels.dtype, jnp.floating):
        raise InputError("needs classes, but these targets are real numbers; use squared_error or a metric of your own")
    outputs = outputs.astype(jnp.float32)
    return jnp.stack([jnp.zeros_like(outputs), outputs], -1) if outputs.ndim == labels.ndim else outputs


def _cross_entropy(outputs: Array, labels: Array) -> Array:
    return -_of_label(nn.log_softmax(_logits(outputs, labels), axis=-1), labels)


def _kl(outputs: Array, labels: Array, unedited: Array) -> Array:
    before, after = (nn.log_softmax(_logits(of, labels), axis=-1) for of in (unedited, outputs))
    probabilities = jnp.exp(before)
    # A class that both rule out adds nothing, where -inf less -inf would be no number.
    return jnp.sum(jnp.where(probabilities > 0, probabilities * (before - after), 0), axis=-1)


def _logit_difference(outputs: Array, labels: Array) -> Array:
    logits = _logits(outputs, labels)
    others = jnp.where(_one_hot(logits, labels), -jnp.inf, logits)
    return _of_label(logits, labels) - others.max(-1)


def _top_5(outputs: Array, labels: Array) -> Array:
    # Of equal logits the first are taken, as for accuracy; those that are no numbers are never among the largest.
    logits = _logits(outputs, labels)
    logits = jnp.where(jnp.isnan(logits), -jnp.inf, logits)
    own = _of_label(logits, labels)[..., None]
    ahead = (logits > own) | ((logits == own) & (_places(logits, labels) < labels[..., None]))
    return (ahead.sum(-1) < 5) & jnp.isfinite(own[..., 0])


def _squared_error(outputs: Array, labels: Array) -> Array:
    outputs = outputs.astype(jnp.float32)
    if outputs.ndim > labels.ndim:
        return jnp.mean(jnp.square(outputs - _one_hot(outputs, labels).astype(jnp.float32)), axis=-1)
    squares = jnp.square(outputs - labels.astype(jnp.float32))
    return squares.mean(-1) if squares.ndim > 1 else squares


def _accuracy(outputs: Array, labels: Array) -> Array:
    return _named(outputs, labels) == labels


def _flips(outputs: Array, labels: Array, unedited: Array) -> Array:
    return _named(outputs, labels) != _named(unedited, labels)


def _named(outputs: Array, labels: Array) -> Array:
    """The classes that outputs name, as they are counted."""
    return elementwise.argmax(_logits(outputs, labels), -1).astype(labels.dtype)


def _of_label(values: Array, labels: Array) -> Array:
    """The entries [n] of values [n, C] at the labels [n]: by a mask, which no layout of the values hinders."""
    return jnp.sum(jnp.where(_one_hot(values, labels), values, 0), axis=-1)


def _one_hot(values: Array, labels: Array) -> Array:
    return _places(values, labels) == labels[..., None]


def _places(values: Array, labels: Array) -> Array:
    """The numbers of the classes, to broadcast along values [..., C]."""
    return jnp.arange(values.shape[-1], dtype=labels.dtype).reshape([1] * labels.ndim + [-1])


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
        raise InputError(
            f"metric '{metric.name}': this name is that of a metric that every sweep counts; choose another"
        )
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
    problems = [_problem_of(metric, *of) for of in _CHECKED]
    return problems[0] if all(problems) else ""


def _problem_of(metric: Metric, task: Task, each: Shape) -> str:
    """The sentence on what is wrong with a record for a task and the shape of one example's outputs, empty if nothing.

    Two numbers of examples are tried.
    """
    kind = "float32" if task == "regression" else "int32"
    for rows in (5, 6):
        shape = (rows, *each)
        of_labels = shape[:-1] if task in ("classes", "tokens") else shape
        outputs, labels = jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct(of_labels, kind)
        try:
            result = jax.eval_shape(metric.of, outputs, labels, *([outputs] if metric.compares else []))
        except InputError as error:  # a built-in's own
            return str(error)
        except Exception as error:  # whatever a function of somebody else's raises
            shapes = f"outputs {list(shape)}, labels {list(of_labels)}"
            return f"of: raises {type(error).__name__} for {shapes}: {str(error).partition(chr(10))[0]}"
        fitting = [of_labels[:1], of_labels] if task == "tokens" else [of_labels[:1]]
        for part in result if isinstance(result, tuple) else (result,):
            if getattr(part, "shape", None) not in fitting:
                got = getattr(part, "shape", registry.kind_of(part))
                words = f"per example, {list(of_labels[:1])}" + f", or per token, {list(of_labels)}," * (
                    task == "tokens"
                )
                return f"of: expected a number {words} for outputs {list(shape)}, got {got}"
        if isinstance(result, tuple) and (len(result) != 2 or result[0].shape != result[1].shape):
            return f"of: expected numbers, or a pair of numbers and weights, got a tuple of {len(result)}"
        if isinstance(result, tuple) and _weights_depend(metric, outputs, labels):
            return (
                "of: its weights depend on the outputs, which an edit changes, so the change of each example is "
                "undefined; let them depend only on the labels or the unedited outputs, or weight the numbers instead"
            )
    return ""


def _weights_depend(metric: Metric, outputs: jax.ShapeDtypeStruct, labels: jax.ShapeDtypeStruct) -> bool:
    """Whether a record's weights depend on the edited outputs."""
    unedited = [outputs] if metric.compares else []
    program = jax.make_jaxpr(lambda *arguments: metric.of(*arguments)[1])(outputs, labels, *unedited)
    return any(site_programs.dependence(program.jaxpr, [True, *[False] * (1 + len(unedited))]))


def check_task(metrics: Sequence[Metric], task: Task, each: Shape) -> None:
    """Refuse metrics that mean nothing for a task's outputs, of which those of one example have a shape.

    Raises:
      InputError: that starts with the metric's name.
    """
    for metric in metrics:
        problem = _problem_of(metric, task, () if each == (1,) else each)
        if problem:
            raise InputError(f"metric '{metric.name}': {problem}")


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


AVERAGED = {
    "accuracy": Metric(name="accuracy", text=registry.COUNTED["accuracy"], of=_accuracy, better="higher"),
    "flips": Metric(name="flips", text=registry.COUNTED["flips"], of=_flips, better="lower", compares=True),
}
"""The metrics that are counted, as means over examples: of tokens these have the intervals that counts have not."""


def chosen(names: Sequence[str] | None, counted: Sequence[str] = ()) -> tuple[Metric, ...]:
    """The records of the metrics that options name, without those that are counted anyway but for some of these."""
    averaged = [AVERAGED[name] for name in AVERAGED if name in counted]
    return (*averaged, *(REGISTER.get(name) for name in names or () if name not in registry.COUNTED))


def named(reference: str, where: str) -> str:
    """The name of the metric that a config means; raises as `registry.Register.named` does."""
    return reference if reference in registry.COUNTED else REGISTER.named(reference, where)


def knows(reference: str) -> bool:
    """Whether the metric that a config names is known here already, without an import."""
    return reference in registry.COUNTED or REGISTER.knows(reference)


def of_block(metrics: Sequence[Metric], outputs: Array, unedited: Array, part: blocks.Block) -> tuple[Array, Array]:
    """Every metric's numbers and weights [M, n] on a block.

    Weights are 0 where an example does not count; of tokens they are sums, and numbers means, over those of an example.

    Args:
      metrics: M of them.
      outputs: as `Model.outputs` gives them, such as [n, C].
      unedited: the unedited network's, of the same shape.
      part: the block, with labels [n, ...].
    """
    numbers, weights = [], []
    for metric in metrics:
        result = metric.of(outputs, part.y, *([unedited] if metric.compares else []))
        if isinstance(result, tuple):
            number, weight = result
        else:
            number, weight = result, part.y >= 0 if result.ndim > 1 else jnp.ones_like(part.valid)
        weight = jnp.where(jnp.expand_dims(part.valid, tuple(range(1, weight.ndim))), weight.astype(jnp.float32), 0)
        number = jnp.where(weight != 0, number.astype(jnp.float32), 0)
        if number.ndim > 1:
            number, weight = _by_example(number, weight)
        numbers.append(number)
        weights.append(weight)
    return jnp.stack(numbers), jnp.stack(weights)


def _by_example(numbers: Array, weights: Array) -> tuple[Array, Array]:
    """The weighted means [n] of the tokens' numbers [n, T], and the sums of their weights."""
    numbers, weights = (each.reshape(len(each), -1) for each in (numbers, weights))
    total = averages.pairwise_sum(weights)
    return averages.pairwise_sum(numbers * weights) / jnp.where(total != 0, total, 1), total
