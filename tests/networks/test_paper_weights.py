"""The initial weights of the paper's code on a CPU: those of PyTorch's stream, and of a run of that code."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

import jaxdist
from jaxdist import cli, config, errors
from jaxdist.networks import paper_weights
from jaxdist.report.compare import protocol, sides
from jaxdist.storage import published

PAPER_CODE = ("--model.init", "paper_code", "--quiet")


@pytest.mark.parametrize("sizes", [(784, 128, 10), (9, 4, 3)])
def test_all_forty_networks_are_those_that_pytorch_draws(sizes):
    torch = pytest.importorskip("torch", reason="PyTorch is an optional extra: pip install 'jaxdist[torch]'")
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("without AVX2 PyTorch rounds a product before it adds to it, which we do not")
    ours = {name: paper_weights.initial(name, range(20), sizes) for name in ("relu", "abs")}
    torch.manual_seed(411713593)
    first, last = torch.nn.Linear(*sizes[:2]), torch.nn.Linear(*sizes[1:])
    torch.manual_seed(411713593)
    for name in ("relu", "abs"):
        for run in range(20):
            for layer in (first, first, last):
                layer.reset_parameters()
            for at, layer in (("dense0", first), ("dense1", last)):
                for kind in ("weight", "bias"):
                    drawn = getattr(layer, kind).detach().numpy()
                    np.testing.assert_array_equal(ours[name][at][kind][run], drawn, f"{name} {run} {at} {kind}")


def test_draws_are_uniform_within_pytorchs_bounds():
    drawn = paper_weights.initial("abs", range(20), (30, 40, 10))
    for layer, fan_in in (("dense0", 30), ("dense1", 40)):
        for values in drawn[layer].values():
            assert values.dtype == np.float32
            assert np.abs(values).max() <= np.float32(1 / fan_in**0.5)
            share = np.histogram(values, 4, (-(fan_in**-0.5), fan_in**-0.5))[0] / values.size
            assert np.abs(share - 0.25).max() < 5 * (0.25 * 0.75 / values.size) ** 0.5


def test_a_run_depends_on_its_number_alone():
    some, all_of_them = (paper_weights.initial("abs", runs, (9, 4, 3)) for runs in ((7, 2), range(20)))
    for layer, arrays in some.items():
        for name, values in arrays.items():
            np.testing.assert_array_equal(values, all_of_them[layer][name][[7, 2]])
    relu = paper_weights.initial("relu", [2], (9, 4, 3))
    assert not np.isin(relu["dense0"]["weight"], some["dense0"]["weight"]).any()


def test_inputs_that_are_never_lit_kept_these_weights_in_a_run_of_the_papers_code(shared):
    with np.load(shared / "reference" / "relu_seed0_weights.npz") as stored:
        trained = stored["w0"]
    drawn = paper_weights.initial("relu", [0], (784, 128, 10))["dense0"]["weight"][0]
    assert (trained == drawn).all(axis=0).sum() == 67


@pytest.mark.slow
def test_training_from_them_is_that_of_the_papers_code(shared, tmp_path):
    """Its entry k of loss and training accuracy is ours of k - 1, of test accuracy ours of k."""
    mnist = ("--data.dir", str(shared / "data" / "mnist"), "--out", str(tmp_path / "run"))
    few = ("--train.seeds", "1", "--train.steps", "4")
    assert cli.main(["train", "configs/paper.toml", *few, *PAPER_CODE, "--model.activations", "relu", *mnist]) == 0
    ours = jaxdist.load(tmp_path / "run")["training"].to_dataset().squeeze()
    place = shared / "reference" / "results" / "models" / "PerturbationReLU" / "0" / "metrics.json"
    theirs = json.loads(place.read_text())
    np.testing.assert_allclose(ours.loss, theirs["loss"][1:6], rtol=1e-5)
    np.testing.assert_allclose(100 * ours.train_accuracy, theirs["train_acc"][1:6], atol=2 / 600 + 1e-5)
    np.testing.assert_allclose(100 * ours.test_accuracy, theirs["test_acc"][:5], atol=2 / 100 + 1e-5)


@pytest.mark.slow
def test_a_grown_run_has_the_networks_of_one_made_at_once(tmp_path):
    few = ["--train.steps", "2", "--model.hidden", "6", *PAPER_CODE]
    for out, seeds in (("grown", "2"), ("grown", "3"), ("once", "3")):
        run = ["train", "configs/quickstart.toml", "--train.seeds", seeds, *few, "--out", str(tmp_path / out)]
        assert cli.main(run) == 0
    grown, once = (jaxdist.load(tmp_path / out)["training"].to_dataset() for out in ("grown", "once"))
    np.testing.assert_allclose(grown.loss, once.loss, rtol=1e-6)
    # Other weights for each network, unlike the other ways to draw them.
    assert len(np.unique(once.loss.values[..., 0])) == 6


@pytest.mark.parametrize("command", ["train", "plan"])
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("model.activations", "relu,tanh", "the paper's code has no network 'tanh'"),
        ("model.hidden", "12,12", "networks of one hidden layer, not 2"),
        ("train.seeds", "21", "20 networks an activation, not 21"),
    ],
)
def test_networks_that_the_papers_code_does_not_have_are_refused(command, option, value, message, tmp_path, capsys):
    place = tmp_path / "run"
    words = [command, "configs/quickstart.toml", "--model.init", "paper_code", f"--{option}", value, "--out"]
    assert cli.main([*words, str(place)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("jaxdist: model.init paper_code: ")
    assert message in error
    assert error.count("\n") == 1
    assert not place.exists()


@pytest.mark.parametrize(
    ("activation", "runs", "message"),
    [
        ("tanh", [0], "has no network 'tanh'"),
        ("abs", [20], "20 networks an activation, not 21"),
        ("abs", [-1], "expected some of 0 to 19"),
        ("relu", [], "expected some of 0 to 19"),
    ],
)
def test_a_library_user_is_refused_too(activation, runs, message):
    with pytest.raises(errors.InputError, match=message):
        paper_weights.initial(activation, runs, (9, 4, 3))


def test_they_are_the_papers_protocol_whatever_the_seed():
    def side(**changes):
        settings = config.override(published.PROTOCOL, {"model.init": "paper_code", **changes})
        result = xr.DataTree(xr.Dataset(attrs={"data_digest": "d", "config": config.to_toml(settings)}))
        return sides.Side("a run", None, result, settings, {})

    assert not protocol.to_published(side())
    (one,) = protocol.to_published(side(**{"train.steps": "9"}))
    assert (one.field, one.a, one.b) == ("train.steps", "9", "5000")
    assert sides._trained_differently(side(**{"train.seed": "3"}), side(**{"train.steps": "9"}))
