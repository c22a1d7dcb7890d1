"""Interventions of pyvene."""

import pyvene
import torch
from torch import nn
from transformers import PretrainedConfig


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
        self.config = PretrainedConfig()  # pyvene asks every model for one

    def forward(self, x):
        return self.layers(x)


def module(network):
    hidden_weight, hidden_bias, head_weight, head_bias = map(torch.from_numpy, network)
    made = Network()
    weights = {"0.weight": hidden_weight, "0.bias": hidden_bias, "2.weight": head_weight, "2.bias": head_bias}
    made.layers.load_state_dict(weights)
    return made


@torch.no_grad()
def scales(network, x, y, factors):
    made, x, y = module(network), torch.from_numpy(x), torch.from_numpy(y)
    counts = []
    for factor in factors:
        scaled = {"component": "layers.0.output", "intervention": lambda base, _, factor=factor: float(factor) * base}
        _, logits = pyvene.IntervenableModel(scaled, model=made)({"x": x})
        counts.append(int((logits.argmax(1) == y).sum()))
    return counts


def ensemble(networks, x, y, factors):
    return [scales(network, x, y, factors) for network in networks]
