"""What this machine is, and how fast it multiplies matrices and maps elements: the floor under every measurement."""

from __future__ import annotations

import importlib.util
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

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
