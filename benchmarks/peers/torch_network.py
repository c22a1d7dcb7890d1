"""The network as a module of PyTorch, for the libraries that take one."""

import torch
from torch import nn


def module(network):
    hidden_weight, hidden_bias, head_weight, head_bias = map(torch.from_numpy, network)
    made = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    weights = {"0.weight": hidden_weight, "0.bias": hidden_bias, "2.weight": head_weight, "2.bias": head_bias}
    made.load_state_dict(weights)
    return made
