"""Traces of nnsight."""

import torch
from nnsight import NNsight
from torch import nn


def module(network):
    hidden_weight, hidden_bias, head_weight, head_bias = map(torch.from_numpy, network)
    made = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    weights = {"0.weight": hidden_weight, "0.bias": hidden_bias, "2.weight": head_weight, "2.bias": head_bias}
    made.load_state_dict(weights)
    return made


@torch.no_grad()
def scales(network, x, y, factors):
    traced, x, y = NNsight(module(network)), torch.from_numpy(x), torch.from_numpy(y)
    counts = []
    for factor in factors:
        with traced.trace(x):
            traced[0].output = float(factor) * traced[0].output
            logits = traced.output.save()
        counts.append(int((logits.argmax(1) == y).sum()))
    return counts


def ensemble(networks, x, y, factors):
    return [scales(network, x, y, factors) for network in networks]
