"""Do neural networks read their activations as intensity or as distance?

A functional JAX reimplementation of Oursland's "Neural Networks Use Distance Metrics" (arXiv:2411.17932), made into
a tool. A whole run is ``jaxdist.run(config)``; a network of your own is measured by ``jaxdist.probe``; a result is read
again by ``jaxdist.load(path)`` and shown by ``jaxdist.show(result)``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from jaxdist.version import __version__ as __version__

if TYPE_CHECKING:
    from jaxdist.adapters import from_linen as from_linen
    from jaxdist.adapters import from_nnx as from_nnx
    from jaxdist.config import Config as Config
    from jaxdist.experiment import run as run
    from jaxdist.interop import load as load
    from jaxdist.probes import probe as probe
    from jaxdist.summary import show as show
    from jaxdist.taps import Model as Model
    from jaxdist.taps import sites as sites

_EXPORTS = {
    "Config": "config",
    "Model": "taps",
    "from_linen": "adapters",
    "from_nnx": "adapters",
    "load": "interop",
    "probe": "probes",
    "run": "experiment",
    "show": "summary",
    "sites": "taps",
}

__all__ = ["Config", "Model", "from_linen", "from_nnx", "load", "probe", "run", "show", "sites"]


def __dir__() -> list[str]:
    """What completion offers: the public names, also those that are not imported yet."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that the command line answers before JAX has loaded."""
    if name not in _EXPORTS:
        raise AttributeError(f"module 'jaxdist' has no attribute '{name}'")
    return getattr(importlib.import_module(f"jaxdist.{_EXPORTS[name]}"), name)
