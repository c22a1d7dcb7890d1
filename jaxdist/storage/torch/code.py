"""The lines with which PyTorch loads what is exported for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxdist.networks import forms
from jaxdist.storage import folders, result_files
from jaxdist.sweep import results

_MODULES = {
    "relu": "nn.ReLU()",
    "leaky_relu": "nn.LeakyReLU(0.01)",
    "prelu": "nn.PReLU()",
    "elu": "nn.ELU()",
    "gelu": "nn.GELU()",
    "silu": "nn.SiLU()",
    "softplus": "nn.Softplus()",
    "tanh": "nn.Tanh()",
    "sigmoid": "nn.Sigmoid()",
    "identity": "nn.Identity()",
    "abs": "Function(torch.abs)",
    "sine": "Function(torch.sin)",
}

_FUNCTION = """class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)"""

_SCALED = {
    "raw": "images as stored",
    "unit": "images divided by their largest pixel value",
    "standard": "images divided by their largest pixel value, less the mean, divided by the standard deviation",
}


def torch_code(run: Path, out: Path) -> str:
    """Python code that makes each network of an exported run in PyTorch, and loads the first seed's weights.

    Args:
      run: the run folder that was exported.
      out: the folder that was written, as `export_run` does.
    """
    run = folders.of(run)
    result = result_files.load(run)
    config, seed = results.config_of(result), int(results.seeds_of(result)[0])
    lines = []
    for network, params in folders.load_networks(config, run).items():
        shapes = [np.shape(layer["weight"])[-2:] for layer in params.values()]
        lines += [
            f"{network} = nn.Sequential({', '.join(_modules(network, shapes))})",
            f'{network}.load_state_dict(torch.load("{out.as_posix()}/{network}/{seed}.pt"))',
        ]
    code = "\n".join(lines)
    head = ["import torch", "from torch import nn", ""]
    if "Function(" in code:
        head += ["", _FUNCTION, "", ""]
    inputs = f"# {_SCALED[config.data.normalisation]}, as float32 [N, {shapes[0][1]}]"
    return "\n".join([*head, inputs, code])


def _modules(network: str, shapes: list[tuple[int, ...]]) -> list[str]:
    """The modules of a network of layers [units, inputs], in order."""
    form = forms.get(network)
    modules: list[str] = []
    for (units, inputs), (layer, act) in zip(shapes, form.layers(len(shapes)), strict=True):
        bias = "" if "bias" in layer.parameters else ", bias=False"
        modules.append(f"nn.Linear({inputs}, {units}{bias})")
        if act:
            modules.append(_MODULES[act.name])
    return [*modules, "Function(torch.neg)"] if form.sign < 0 else modules
