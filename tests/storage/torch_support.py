"""Small PyTorch networks, and commands that are refused, for the tests of what PyTorch wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaxdist import cli

torch = pytest.importorskip("torch", reason="PyTorch is an optional extra: pip install 'jaxdist[torch]'")
# It imports PyTorch, so that it comes after what skips where there is none.
save_file = pytest.importorskip("safetensors.torch").save_file


def network(hidden=12, inputs=64, classes=10, activation=torch.nn.ReLU, seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(inputs, hidden), activation(), torch.nn.Linear(hidden, classes))


def run(*arguments):
    return cli.main([*map(str, arguments)])


def refused(capsys, *arguments, message):
    """The command ends with code 2 and one sentence, and makes no run folder."""
    capsys.readouterr()
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("jaxdist: ")
    assert error.count("\n") == 1
    assert message in error
    assert not Path("out").exists()
