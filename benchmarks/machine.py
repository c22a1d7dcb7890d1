"""What this machine is, and how fast it multiplies matrices and maps elements: the floor under every measurement."""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxdist.compute import DATA, devices, elementwise

RELEVANT_FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "amx_tile")


def have_torch() -> bool:
    """Whether PyTorch can be imported; says how to get it where not."""
    if importlib.util.find_spec("torch") is not None:
        return True
    print("PyTorch is not installed, so nothing is compared with it; get it with: pip install 'jaxdist[torch]'")
    return False


def facts() -> dict[str, Any]:
    """What a reader needs to know about where the numbers come from."""
    found: dict[str, Any] = {
        **_processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("jax", "jaxlib", "numpy")},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }
    if importlib.util.find_spec("torch") is not None:
        import torch

        found["versions"]["torch"] = torch.__version__
        found["torch_threads"] = torch.get_num_threads()
    return found


def _processor() -> dict[str, Any]:
    """Model name and the flags that decide how fast matrices are multiplied; from Linux, where it says."""
    lines: dict[str, str] = {}
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            lines.setdefault(name.strip(), value.strip())
    flags = lines.get("flags", "").split()
    return {
        "processor": lines.get("model name") or platform.processor() or platform.machine(),
        "processor_model": " ".join(lines.get(key, "") for key in ("cpu family", "model", "stepping")).strip(),
        "flags": [flag for flag in RELEVANT_FLAGS if flag in flags],
    }


class Rates(NamedTuple):
    """The best that was measured here, in operations a second."""

    gemm: float
    """Float32 floating-point operations of a large matrix product; the better of JAX and PyTorch."""
    elementwise: float
    """Elements edited and activated, read from and written to cache, by JAX on all devices."""

    def seconds(self, flops: float, elements: float) -> float:
        """The floor: this many operations in products and this many elements, at those rates, one after the other."""
        return flops / self.gemm + elements / self.elementwise


def measure_rates(size: int = 2048, tries: int = 5) -> Rates:
    """Measure both rates: the best of several tries each."""
    mesh = devices.make_mesh()
    a = jnp.ones((size, size)) / size
    whole = jax.jit(functools.partial(jnp.matmul, precision="float32"))
    split = jax.jit(jax.shard_map(whole, mesh=mesh, in_specs=(P(DATA), P()), out_specs=P(DATA)))
    flops = 2.0 * size**3
    gemm = [_best(lambda: whole(a, a), flops, tries), _best(lambda: split(a, a), flops, tries)]
    if importlib.util.find_spec("torch") is not None:
        import torch

        b = torch.ones(size, size)
        gemm.append(_best(lambda: torch.mm(b, b), flops, tries))
    return Rates(max(gemm), max(_elementwise_rate(mesh, block, tries) for block in (64, 256, 512)))


def _elementwise_rate(mesh: Mesh, block: int, tries: int) -> float:
    """Elements a second, edited and activated in a block of so many examples a device; small ones stay in cache."""
    passes, units = 2**18 // block, 128

    def edit_and_activate(h: jax.Array, s: jax.Array) -> jax.Array:
        def body(_: int, value: jax.Array) -> jax.Array:
            return elementwise.relu(elementwise.at_most(s * value + s, 9 * s))

        return lax.fori_loop(0, passes, body, h)

    run = jax.jit(jax.shard_map(edit_and_activate, mesh=mesh, in_specs=(P(None, DATA), P()), out_specs=P(None, DATA)))
    h, s = jnp.ones((units, block * mesh.size)), jnp.ones((units, 1))
    return _best(lambda: run(h, s), float(passes * h.size), tries)


def _best(work: Callable[[], Any], operations: float, tries: int) -> float:
    """Operations a second in the fastest of several calls, after one that compiles."""
    jax.block_until_ready(work())
    seconds = []
    for _ in range(tries):
        started = time.perf_counter()
        jax.block_until_ready(work())
        seconds.append(time.perf_counter() - started)
    return operations / min(seconds)
