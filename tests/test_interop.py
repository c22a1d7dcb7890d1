"""PyTorch networks into a run folder and out of one."""

from __future__ import annotations

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxdist
from jaxdist import cli, config, data, devices, folders, mlp, results, weights
from tests.torch_support import network, run, torch

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two seeds of three networks, trained here."""
    folder = tmp_path_factory.mktemp("runs") / "own"
    options = ["--train.seeds", "2", "--train.steps", "5", "--model.hidden", "12", "--out", str(folder)]
    options += ["--model.activations", "relu,abs,relu2_neg"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "use_all_cores", lambda: None)
        assert cli.main(["train", *options]) == 0
    return folder


def test_a_state_dict_becomes_a_run_that_sweeps_and_reports():
    module = network()
    torch.save(module.state_dict(), "mine.pt")
    assert run("import-torch", "mine.pt", "--model.activations", "relu", "--out", "mine") == 0
    assert run("sweep", "mine") == 0
    assert run("report", "mine") == 0
    result = jaxdist.load("mine")
    assert "training" not in result.children
    dataset = data.load(config.DataConfig())
    x = torch.tensor(dataset.train.images.reshape(len(dataset.train.images), -1).astype(np.float32))
    with torch.no_grad():
        correct = int((module(x).argmax(1).numpy() == dataset.train.labels).sum())
    assert abs(int(result["scale"]["unperturbed"].sel(split="train").squeeze()) - correct) <= 1


def test_an_export_that_cannot_be_whole_leaves_nothing(trained):
    broken = Path("broken")
    shutil.copytree(trained, broken)
    path = folders.weights_path(broken, "abs")
    weights.save(jax.tree.map(lambda leaf: leaf[:1], weights.load(path)), path)
    assert run("export-torch", broken, "--out", "torch") == 2
    assert not Path("torch").exists()
    assert not list(Path().glob(".torch*"))


def test_export_loads_into_torch_and_comes_back_bit_equal(trained):
    assert run("export-torch", trained, "--out", "torch") == 0
    params = folders.load_networks(results.config_of(jaxdist.load(trained)), trained)
    x = np.random.default_rng(0).uniform(0, 16, (40, 64)).astype(np.float32)
    for name, activation in (("relu", torch.nn.ReLU), ("abs", Absolute)):
        for seed in range(2):
            module = network(activation=activation)
            module.load_state_dict(torch.load(f"torch/{name}/{seed}.pt", weights_only=True))
            with torch.no_grad():
                expected = module(torch.tensor(x)).numpy()
            one = jax.tree.map(lambda leaf, seed=seed: leaf[seed], params[name])
            with jax.default_matmul_precision("float32"):
                logits = np.asarray(mlp.apply(one, x, activation=name)).T
            assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()
    for suffix in ("pt", "safetensors"):
        shutil.copytree("torch", f"only-{suffix}")
        for path in Path(f"only-{suffix}").glob("*/*"):
            if path.suffix != f".{suffix}":
                path.unlink()
        assert run("import-torch", f"only-{suffix}", "--out", f"back-{suffix}") == 0
        for name in ("relu", "abs", "relu2_neg"):
            stored = weights.load(folders.weights_path(Path(f"back-{suffix}"), name))
            jax.tree.map(np.testing.assert_array_equal, stored, params[name])
        assert results.config_of(jaxdist.load(f"back-{suffix}")).train.steps == 5


class Absolute(torch.nn.Module):
    def forward(self, x):
        return x.abs()


def test_stacked_safetensors_of_a_run_import_as_all_its_seeds(trained):
    path = folders.weights_path(trained, "abs")
    assert run("import-torch", path, "--model.activations", "abs", "--out", "stacked") == 0
    stored = weights.load(folders.weights_path(Path("stacked"), "abs"))
    jax.tree.map(np.testing.assert_array_equal, stored, weights.load(path))
