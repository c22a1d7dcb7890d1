"""Interventions of pyvene."""

import pyvene
import torch
from torch import nn
from transformers import PretrainedConfig

from benchmarks.peers.torch_network import module


class Network(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.layers = module(network)
        self.config = PretrainedConfig()  # pyvene asks every model for one

    def forward(self, x):
        return self.layers(x)


@torch.no_grad()
def scales(network, x, y, factors):
    made, x, y = Network(network), torch.from_numpy(x), torch.from_numpy(y)
    counts = []
    for factor in factors:
        scaled = {"component": "layers.0.output", "intervention": lambda base, _, factor=factor: float(factor) * base}
        _, logits = pyvene.IntervenableModel(scaled, model=made)({"x": x})
        counts.append(int((logits.argmax(1) == y).sum()))
    return counts
