"""Hook points of TransformerLens, whose own models are transformers."""

import torch
from torch import nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint


class Network(HookedRootModule):
    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.Linear(784, 128), nn.Linear(128, 10)
        self.hook_hidden = HookPoint()
        self.setup()

    def forward(self, x):
        return self.head(torch.relu(self.hook_hidden(self.hidden(x))))


def module(network):
    hidden_weight, hidden_bias, head_weight, head_bias = map(torch.from_numpy, network)
    made = Network()
    made.hidden.load_state_dict({"weight": hidden_weight, "bias": hidden_bias})
    made.head.load_state_dict({"weight": head_weight, "bias": head_bias})
    return made


@torch.no_grad()
def scales(network, x, y, factors):
    made, x, y = module(network), torch.from_numpy(x), torch.from_numpy(y)
    counts = []
    for factor in factors:
        hooks = [("hook_hidden", lambda value, hook, factor=factor: float(factor) * value)]  # noqa: ARG005 (given by its name)
        counts.append(int((made.run_with_hooks(x, fwd_hooks=hooks).argmax(1) == y).sum()))
    return counts


def ensemble(networks, x, y, factors):
    return [scales(network, x, y, factors) for network in networks]
