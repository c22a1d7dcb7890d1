"""Useful arithmetic a second in training and sweep, beside the machine's own matrix-product rate in the same run.

    python -m benchmarks train [--data-dir FOLDER] [--seeds 2] [--repeats 10] [--quick] [--json FILE]

Without a folder of MNIST's IDX files the images are random numbers of the same shape; the work is the same.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdist import config as configs
from jaxdist import data, devices, edits, mlp, ranges, sweep, training
from jaxdist.devices import Examples

HIDDEN, CLASSES = 128, 10
SITE = "dense0/pre"


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("what", choices=["train", "sweep"])
    parser.add_argument("--data-dir", help="folder of MNIST's IDX files")
    parser.add_argument("--seeds", type=int, default=2, help="networks at once [2]")
    parser.add_argument("--repeats", type=int, default=10, help="timed repeats, after one that compiles [10]")
    parser.add_argument("--quick", action="store_true", help="2,000 images and 3 repeats: only to see that it runs")
    parser.add_argument("--json", type=Path, help="also write the numbers to a file")
    options = parser.parse_args()
    devices.use_all_cores()
    repeats = 3 if options.quick else options.repeats
    train_set, test_set, features = images(options.data_dir, 2_000 if options.quick else 60_000)
    measure = train if options.what == "train" else sweep_all_points
    found = measure(train_set, test_set, options.seeds, features, repeats)
    found["machine"] = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "jax": jax.__version__,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }
    for name, value in found.items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def images(folder: str | None, count: int) -> tuple[Examples, Examples, int]:
    """MNIST, or noise of its shape; the splits without the pixels that are zero everywhere, and D with them."""
    if folder:
        config = configs.DataConfig(name="mnist", dir=folder)
        dataset = data.load(config)
        flat = [x.reshape(len(x), -1) for x in data.scaled(dataset, config)]
        labels = [dataset.train.labels, dataset.test.labels]
    else:
        rng = np.random.default_rng(0)
        flat = [rng.integers(0, 256, (n, 784)).astype(np.float32) for n in (60_000, 10_000)]
        labels = [rng.integers(0, CLASSES, len(x)).astype(np.int32) for x in flat]
    used = np.any([x.any(axis=0) for x in flat], axis=0)
    mesh = devices.make_mesh()
    placed = [devices.place(x[:count, used], y[:count], mesh) for x, y in zip(flat, labels, strict=True)]
    return placed[0], placed[1], used.size


def train(train_set: Examples, test_set: Examples, seeds: int, features: int, repeats: int) -> dict[str, Any]:
    """Time a step with all that it records, alternating with the matrix product."""
    model, optimizer = mlp.model("relu"), training.optimizer("sgd", 1e-6)
    params = mlp.init_ensemble(jax.random.key(0), range(seeds), (train_set.x.shape[1], HIDDEN, CLASSES))

    def steps(count: int) -> None:
        training.train(model, params, train_set, test_set, steps=count, optimizer=optimizer)

    # One compiled call may hold several steps; the time a step is the difference of two lengths.
    few, many = 1, 9
    compile_s = timed(lambda: steps(few))
    rate = gemm_rate()
    each, rates = [], []
    for _ in range(repeats):
        short = timed(lambda: steps(few))
        each.append((timed(lambda: steps(many)) - short) / (many - few))
        rates.append(rate())
    step_s = statistics.median(each)
    # Forward and weight gradient of the first layer for every image, with the pixels that are left out: the work that
    # a straightforward implementation does.
    useful = 4 * int(train_set.total) * features * HIDDEN * seeds
    return {
        "first_call_s": compile_s,
        "step_s": step_s,
        "step_spread_s": max(each) - min(each),
        "useful_gflops": useful / step_s / 1e9,
        "gemm_gflops": max(rates),
        "useful_share_of_gemm": useful / step_s / 1e9 / max(rates),
    }


def sweep_all_points(train_set: Examples, _: Examples, seeds: int, __: int, repeats: int) -> dict[str, Any]:
    """Time all 325 points of an ensemble on the training images."""
    model = mlp.model("relu")
    params = mlp.init_ensemble(jax.random.key(0), range(seeds), (train_set.x.shape[1], HIDDEN, CLASSES))
    measured = ranges.measure(model, params, train_set, (SITE,))[SITE]
    made = [edits.build(name, measured, edits.get(name).grid(), configs.SweepConfig()) for name in edits.FAMILIES]
    joined = {SITE: edits.concatenate(made)}

    def once() -> None:
        jax.block_until_ready(sweep.sweep(model, params, joined, train_set))

    first = timed(once)
    each = [timed(once) / seeds for _ in range(repeats)]
    return {"first_call_s": first, "network_s": statistics.median(each), "network_spread_s": max(each) - min(each)}


def gemm_rate() -> Callable[[], float]:
    """Best float32 matrix-product rate in GFLOP/s at a size that fills the cores: 2,048 cubed, several in a row."""
    size, products = 2048, 4

    @jax.jit
    def run(a: jax.Array, b: jax.Array) -> jax.Array:
        def body(_: int, c: jax.Array) -> jax.Array:
            return jnp.matmul(a, c, precision="highest") * (1 / size)

        return jax.lax.fori_loop(0, products, body, b)

    a, b = jnp.ones((size, size)), jnp.ones((size, size))
    jax.block_until_ready(run(a, b))
    return lambda: products * 2 * size**3 / timed(lambda: jax.block_until_ready(run(a, b))) / 1e9


def timed(work: Callable[[], Any]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
