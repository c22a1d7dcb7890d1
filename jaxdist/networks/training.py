"""Full-batch training of an ensemble: one network's loss on one block, then blocks, seeds, steps and devices."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from jaxdist.compute import (
    SEED,
    Examples,
    Reducer,
    Tuning,
    blocks,
    each_network,
    elementwise,
    filled,
    group,
    mesh_of,
    same,
    spread,
    to_host,
    tuning,
)
from jaxdist.errors import TrainingDivergedError
from jaxdist.formatting import counted
from jaxdist.networks import model as networks_model
from jaxdist.networks import sizes
from jaxdist.networks.model import Model
from jaxdist.networks.optimizers import optimizer as optimizer
from jaxdist.types import AnyArray, Params

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Training accuracies at which weights are kept, as fractions: the paper's (K of them)."""

NEVER = -1


class Passed(NamedTuple):
    """The weights whose training accuracy was the first above each threshold."""

    step: AnyArray  # [S, K] int32, updates made by then; NEVER where it was not passed
    params: Params  # leading [S, K]; zeros where not


class State(NamedTuple):
    """What training carries from step to step."""

    step: Array  # [] int32, updates made
    params: Params  # leading S
    optimizer: optax.OptState  # leading S
    passed: Passed | None = None  # None where no such weights are wanted


class Metrics(NamedTuple):
    """What a step reports, all three measured on the same weights, before the step's update."""

    loss: AnyArray  # [..., S] mean cross-entropy over the training images
    train_accuracy: AnyArray  # [..., S] fraction
    test_accuracy: AnyArray  # [..., S] fraction


class Snapshot(NamedTuple):
    """All that training needs to go on from a step, and all that it has recorded before it."""

    state: State
    metrics: Metrics  # [steps + 1, S]; zeros from state.step on


class Trained(NamedTuple):
    """What training ends with, on the host."""

    params: Params  # leading S
    metrics: Metrics  # [steps + 1, S]; entry k belongs to the weights after k updates
    passed: Passed | None


class TrainingSums(NamedTuple):
    """Sums over examples."""

    loss: Array
    correct: Array  # int32


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where training stands; what is on devices is fetched when it is asked for, which takes time."""

    step: int
    """Updates made when the newest metrics were measured."""
    metrics: Metrics
    """[steps + 1, S]; zeros after `step`, and written on while training goes on."""
    state: State

    @property
    def steps(self) -> int:
        """Updates in all."""
        return len(self.metrics.loss) - 1

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.step == self.steps

    @property
    def mean(self) -> Metrics:
        """The newest metrics, means over the networks."""
        return Metrics(*(np.asarray(np.mean(leaf[self.step])) for leaf in self.metrics))

    def snapshot(self) -> Snapshot:
        """All that is needed to go on from here, on the host."""
        step, *of_seeds = to_host(self.state)
        seeds = self.metrics.loss.shape[1]
        return Snapshot(State(step, *jax.tree.map(lambda leaf: leaf[:seeds], of_seeds)), self.metrics)

    def trained(self) -> Trained:
        """What training ends with."""
        state = self.snapshot().state
        return Trained(state.params, self.metrics, state.passed)


def block_sums(model: Model, params: Params, x: Any, part: blocks.Block) -> tuple[Array, TrainingSums]:
    """Summed cross-entropy of one network on one block, to differentiate, and the sums to report.

    Args:
      model: the network's function.
      params: of one network.
      x: the block's inputs [n, ...], perhaps without the last columns (`blocks.Block.with_inputs`).
      part: the block, with labels [n].
    """
    logits = model.logits(params, x)
    each = optax.softmax_cross_entropy_with_integer_labels(logits, part.y, axis=model.class_axis)
    loss = jnp.sum(jnp.where(part.valid, each, 0))
    correct = (elementwise.argmax(logits, model.class_axis) == part.y) & part.valid
    return loss, TrainingSums(loss, jnp.sum(correct, dtype=jnp.int32))


@dataclasses.dataclass(frozen=True)
class Gradient(Reducer):
    """The gradient of one network's mean loss over all examples, and the sums."""

    model: Model

    def init(self, params: Params, given: None, x: Array) -> tuple[Params, TrainingSums]:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), params), TrainingSums(
            jnp.float32(0), jnp.int32(0)
        )

    def update(
        self, state: tuple[Params, TrainingSums], params: Params, given: None, block: blocks.Block
    ) -> tuple[Params, TrainingSums]:
        gradient = jax.grad(functools.partial(block_sums, self.model), has_aux=True)
        return block.with_inputs(lambda x: jax.tree.map(jnp.add, state, gradient(params, x, block)), every=1)

    def result(self, state: tuple[Params, TrainingSums], total: Array) -> tuple[Params, TrainingSums]:
        return jax.tree.map(lambda leaf: leaf / total.astype(jnp.float32), state[0]), state[1]


@dataclasses.dataclass(frozen=True)
class Evaluation(Reducer):
    """The sums of one network over all examples."""

    model: Model

    def init(self, params: Params, given: None, x: Array) -> TrainingSums:
        return TrainingSums(jnp.float32(0), jnp.int32(0))

    def update(self, state: TrainingSums, params: Params, given: None, block: blocks.Block) -> TrainingSums:
        sums = block.with_inputs(lambda x: block_sums(self.model, params, x, block)[1])
        return jax.tree.map(jnp.add, state, sums)


def train(
    model: Model,
    params: Params,
    train_set: Examples,
    test_set: Examples,
    *,
    steps: int,
    optimizer: optax.GradientTransformation,
    precision: str = "float32",
    block: int | None = None,
    snapshots: bool = False,
) -> Trained:
    """Train stacked parameters (leading S) for `steps` full-batch updates; what it returns is on the host.

    Args:
      snapshots: keep the weights that were the first above each of `THRESHOLDS`.

    Raises:
      TrainingDivergedError: as `advance` does.
    """
    begin = start(params, steps, optimizer, snapshots=snapshots)
    *_, last = advance(model, begin, train_set, test_set, optimizer=optimizer, precision=precision, block=block)
    return last.trained()


def advance(
    model: Model,
    begin: Snapshot,
    train_set: Examples,
    test_set: Examples,
    *,
    optimizer: optax.GradientTransformation,
    precision: str = "float32",
    block: int | None = None,
    seeds: Sequence[int] | None = None,
) -> Iterator[Progress]:
    """Train from where a training begins (`start`) or stood, and say every fraction of a second where it stands.

    From a snapshot it goes on to the same bits as if it had never stopped. What is yielded last is finished.

    Args:
      begin: what `start` gives, or a `Progress.snapshot` of the same training; its metrics are written on.
      seeds: numbers of the networks [S], by which an error names them; by default 0, 1, ...

    Raises:
      TrainingDivergedError: as soon as a network's loss is not finite; it names the networks and the step.
    """
    mesh = mesh_of(train_set)
    step, steps = int(begin.state.step), len(begin.metrics.loss) - 1
    metrics = Metrics(*(np.require(leaf, requirements="W") for leaf in begin.metrics))
    params = begin.state.params
    leaves = jax.tree.leaves(params)
    count = leaves[0].shape[0]
    chex.assert_tree_shape_prefix(begin.state[1:], (count,))
    chex.assert_shape(list(begin.metrics), (steps + 1, count))
    state = State(same(step, mesh), *spread(filled(begin.state[1:], group(count, None, mesh)), mesh))
    if step > steps:
        yield Progress(steps, metrics, state)
        return
    # Two operations a weight and example forward, four backward.
    step_flops = 6.0 * sum(leaf.size for leaf in leaves) * int(to_host(train_set.total))
    chosen = tuning.current()
    length = _steps_together(step_flops)
    size = sizes.of_block(block, networks_model.sites_for_one(model, params, train_set.x))
    while step <= steps:
        state, measured = _steps(
            state,
            train_set,
            test_set,
            np.int32(steps),
            model=model,
            update=optimizer.update,
            length=length,
            chosen=chosen,
            precision=precision,
            size=size,
            mesh=mesh,
        )
        last = min(step + length, steps + 1)
        new = jax.tree.map(lambda leaf, n=last - step: leaf[:n, :count], to_host(measured))
        _check_finite(new.loss, step, range(count) if seeds is None else seeds)
        for recorded, these in zip(metrics, new, strict=True):
            recorded[step:last] = these
        step = last
        yield Progress(step - 1, metrics, state)


def start(params: Params, steps: int, optimizer: optax.GradientTransformation, *, snapshots: bool = False) -> Snapshot:
    """Where a training begins.

    Args:
      params: stacked, with a leading S.
      steps: updates in all.
      optimizer: from optax.
      snapshots: also keep the weights that are the first above each of `THRESHOLDS`.
    """
    seeds = jax.tree.leaves(params)[0].shape[0]
    empty = Metrics(*(np.zeros((steps + 1, seeds), np.float32) for _ in Metrics._fields))
    none = nothing_passed(params) if snapshots else None
    return Snapshot(State(jnp.int32(0), params, jax.vmap(optimizer.init)(params), none), empty)


def nothing_passed(params: Params) -> Passed:
    """What is kept along training before it begins."""

    def zeros(leaf: AnyArray) -> Array:
        return jnp.zeros((leaf.shape[0], len(THRESHOLDS), *leaf.shape[1:]), leaf.dtype)

    seeds = jax.tree.leaves(params)[0].shape[0]
    return Passed(jnp.full((seeds, len(THRESHOLDS)), NEVER, jnp.int32), jax.tree.map(zeros, params))


def noticed(passed: Passed, params: Params, accuracy: Array, step: Array) -> Passed:
    """Keep the weights whose training accuracies are the first above a threshold.

    Args:
      passed: those kept before.
      params: stacked, with a leading S.
      accuracy: of these on the training images, [S], fractions.
      step: [] updates made by then.
    """
    now = (accuracy[:, None] > jnp.asarray([THRESHOLDS], jnp.float32)) & (passed.step == NEVER)

    def write() -> Passed:
        def updated(old: Array, new: Array) -> Array:
            return jnp.where(jnp.expand_dims(now, tuple(range(2, old.ndim))), new[:, None], old)

        return Passed(jnp.where(now, step, passed.step), jax.tree.map(updated, passed.params, params))

    # Most steps pass nothing, and then nothing is copied.
    return lax.cond(now.any(), write, lambda: passed)


def _steps_together(step_flops: float) -> int:
    """Steps a compiled call, so that a call takes a fraction of a second: short to watch, long beside its overhead."""
    return int(np.clip(tuning.current().flops / step_flops, 1, 100))


def _check_finite(loss: AnyArray, first_step: int, numbers: Sequence[int]) -> None:
    bad = ~np.isfinite(np.asarray(loss))
    if bad.any():
        first_bad = int(np.argmax(bad.any(axis=1)))
        step, seeds = first_step + first_bad, [numbers[int(k)] for k in np.flatnonzero(bad[first_bad])]
        listed = ", ".join(map(str, seeds[:8])) + (", ..." if len(seeds) > 8 else "")
        raise TrainingDivergedError(
            f"training diverged: the loss of seed {listed} is not finite after {counted(step, 'update')}; "
            "try a smaller train.learning_rate"
        )


@functools.partial(jax.jit, static_argnames=("model", "update", "length", "chosen", "precision", "size", "mesh"))
def _steps(
    state: State,
    train_set: Examples,
    test_set: Examples,
    steps: AnyArray,
    *,
    model: Model,
    update: Callable[..., tuple[optax.Updates, optax.OptState]],
    length: int,
    chosen: Tuning,
    precision: str,
    size: int,
    mesh: Mesh,
) -> tuple[State, Metrics]:
    """Measure and update `length` times; once `steps` updates are made only measure, and after that do nothing."""

    def network(
        pair: tuple[Params, optax.OptState], train_set: Examples, test_set: Examples
    ) -> tuple[Params, optax.OptState, Metrics]:
        params, optimizer = pair
        grads, sums = Gradient(model)(params, None, train_set, size)
        correct = Evaluation(model)(params, None, test_set, size).correct
        updates, optimizer = update(grads, optimizer, params)
        trained_on, tested_on = (split.total.astype(jnp.float32) for split in (train_set, test_set))
        right = sums.correct.astype(jnp.float32)
        metrics = Metrics(sums.loss / trained_on, right / trained_on, correct.astype(jnp.float32) / tested_on)
        return optax.apply_updates(params, updates), optimizer, metrics

    def one_step(state: State, train_set: Examples, test_set: Examples) -> tuple[State, Metrics]:
        before = (state.params, state.optimizer)
        each = functools.partial(network, train_set=train_set, test_set=test_set)
        *after, metrics = each_network(each, before, chosen.networks)
        more = state.step < steps
        params, optimizer = jax.tree.map(lambda new, old: jnp.where(more, new, old), tuple(after), before)
        seen = state.passed
        passed = None if seen is None else noticed(seen, state.params, metrics.train_accuracy, state.step)
        return State(state.step + 1, params, optimizer, passed), metrics

    def run(state: State, train_set: Examples, test_set: Examples) -> tuple[State, Metrics]:
        seeds = jax.tree.leaves(state.params)[0].shape[0]
        idle = Metrics(*(blocks.varying(jnp.zeros(seeds, jnp.float32), SEED) for _ in Metrics._fields))

        def body(state: State, _: None) -> tuple[State, Metrics]:
            return lax.cond(state.step <= steps, lambda s: one_step(s, train_set, test_set), lambda s: (s, idle), state)

        return lax.scan(body, state, length=length)

    with jax.default_matmul_precision(precision):
        of_seeds = PartitionSpec(SEED)
        states = State(PartitionSpec(), of_seeds, of_seeds, of_seeds)  # type: ignore[arg-type]
        specs, out = (states, blocks.specs(train_set), blocks.specs(test_set)), (states, PartitionSpec(None, SEED))
        return jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=out)(state, train_set, test_set)
