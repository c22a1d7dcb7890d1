"""PyTorch networks into a run folder and out of one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxdist
from jaxdist import cli, config, data
from jaxdist.compute import devices
from jaxdist.networks import mlp
from jaxdist.storage import folders, weights
from jaxdist.storage.torch import transfer
from jaxdist.sweep import results
from tests.storage.torch_support import network, refused, run, save_file, torch

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")

RELU = ("--model.activations", "relu", "--allow-chance", "true")  # the networks here are as PyTorch begins with them


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


@pytest.mark.slow
def test_a_state_dict_becomes_a_run_that_sweeps_and_reports():
    module = network()
    torch.save(module.state_dict(), "mine.pt")
    assert run("import-torch", "mine.pt", *RELU, "--out", "mine") == 0
    assert run("sweep", "mine") == 0
    assert run("report", "mine") == 0
    result = jaxdist.load("mine")
    assert "training" not in result.children
    dataset = data.load(config.DataConfig())
    x = torch.tensor(dataset.train.images.reshape(len(dataset.train.images), -1).astype(np.float32))
    with torch.no_grad():
        correct = int((module(x).argmax(1).numpy() == dataset.train.labels).sum())
    assert abs(int(result["scale"]["unperturbed"].sel(split="train").squeeze()) - correct) <= 1


@pytest.mark.slow
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


SEEDS = ("b10.pt", "b9.safetensors", "a.pt")


@pytest.fixture
def seeds():
    """A folder with a network each of three seeds, and something else; their first biases in the order of `SEEDS`."""
    folder = Path("seeds")
    folder.mkdir()
    modules = [network(seed=seed) for seed in range(3)]
    for name, module in zip(SEEDS, modules, strict=True):
        save = save_file if name.endswith(".safetensors") else torch.save
        save(module.state_dict(), folder / name)
    (folder / "notes.txt").write_text("three seeds")
    return [module[0].bias.detach().numpy() for module in modules]


def biases(run_folder):
    return weights.load(folders.weights_path(Path(run_folder), "relu"))["dense0"]["bias"]


def test_several_files_are_a_seed_each_in_their_order(seeds):
    paths = [Path("seeds") / name for name in SEEDS]
    assert run("import-torch", *paths, *RELU, "--out", "out") == 0
    np.testing.assert_array_equal(biases("out"), seeds)
    result = jaxdist.load("out")
    assert results.seeds_of(result) == [0, 1, 2]
    assert results.config_of(result).train.seeds == 3
    assert set(json.loads(result.attrs["origin"])["sha256"]) == set(SEEDS)


def test_a_plain_folder_is_a_seed_a_file_by_name(seeds):
    assert run("import-torch", "seeds", *RELU, "--out", "out") == 0
    np.testing.assert_array_equal(biases("out"), [seeds[k] for k in (2, 1, 0)])


def test_files_of_one_name_in_several_folders_keep_their_digests():
    for seed in ("0", "1"):
        Path(seed).mkdir()
        torch.save(network(seed=int(seed)).state_dict(), f"{seed}/model.pt")
    found = transfer.read_networks([Path("0/model.pt"), Path("1/model.pt")], {"model.activations": "relu"})
    assert set(found.origin["sha256"]) == {"0/model.pt", "1/model.pt"}


def test_files_that_are_no_seeds_of_one_network_are_refused(capsys, seeds):
    options = ("--model.activations", "relu", "--out", "out")
    refused(capsys, "import-torch", "seeds/a.pt", "seeds/../seeds/a.pt", *options, message="is named twice")
    refused(capsys, "import-torch", "seeds/a.pt", "seeds", *options, message="seeds: this is a folder")
    refused(capsys, "import-torch", "seeds/a.pt", "seeds/no.pt", *options, message="seeds/no.pt: no such file")
    torch.save(network(hidden=13).state_dict(), "seeds/c.pt")
    refused(capsys, "import-torch", "seeds", *options, message="seeds/c.pt: has weights ((13, 64), (10, 13)), expected")
    refused(capsys, "import-torch", "seeds", "--out", "out", message="using --model.activations, one of relu")


def test_what_the_images_went_through_is_asked_for_unless_it_is_said(capsys, trained):
    torch.save(network().state_dict(), "mine.pt")
    options = ("--allow-chance", "true", "--model.activations", "relu", "--out")
    asked = "note: images are read as stored"
    assert run("import-torch", "mine.pt", *options, "raw") == 0
    assert asked in capsys.readouterr().out
    for name in ("raw", "unit"):
        assert run("import-torch", "mine.pt", *options, f"said-{name}", "--data.normalisation", name) == 0
        assert asked not in capsys.readouterr().out
    assert run("export-torch", trained, "--out", "torch") == 0
    assert run("import-torch", "torch", "--out", "again") == 0
    assert asked not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"), [((), False), (("--data.name", "mnist"), True), (("--data.name=mnist", "--data.dir=x"), False)]
)
def test_where_the_images_are_is_asked_for_where_that_is_open(capsys, options, said):
    torch.save(network().state_dict(), "mine.pt")
    options = (*options, "--allow-chance", "true")
    assert run("import-torch", "mine.pt", "--model.activations", "relu", "--out", "out", *options) == 0
    assert ("add --data.dir FOLDER" in capsys.readouterr().out) == said
