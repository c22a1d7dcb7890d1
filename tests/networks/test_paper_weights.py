"""The initial weights of the paper's code: those of PyTorch's streams, and of a run of that code on a CPU."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest
import xarray as xr

import jaxdist
from jaxdist import cli, config, data, errors, fields
from jaxdist.networks import models, paper_weights, philox
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


MASK = 0xFFFFFFFF
RANDOM123 = (
    ((0, 0, 0, 0), 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((MASK, MASK, MASK, MASK), 2**64 - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), 0x299F31D0A4093822, "d16cfe09 94fdcceb 5001e420 24126ea1"),
)
"""Counters, key and the four words: the known answers of philox4x32-10 that Random123 is distributed with."""


@pytest.mark.parametrize(("counters", "key", "words"), RANDOM123)
def test_philox_gives_the_known_answers_of_random123(counters, key, words):
    drawn = philox.philox(np.array([counters]), key)
    assert " ".join(f"{word:08x}" for word in drawn[0]) == words


@pytest.mark.parametrize(("seed", "printed"), [(0, [0.3990, 0.5167, 0.0249]), (42, [0.6130, 0.0101, 0.3984])])
def test_the_stream_is_what_others_have_printed_on_cuda(seed, printed):
    """``torch.manual_seed(seed); torch.rand(3, device="cuda")``, to the four digits that it prints."""
    drawn = philox.Stream(seed, 864).uniform(3, 0.5) + np.float32(0.5)
    np.testing.assert_allclose(drawn, printed, atol=5.1e-5, rtol=0)


def words_one_by_one(counters: list[int], key: int) -> list[int]:
    """Philox4x32-10 in Python's integers, as its paper writes it."""
    a, b, c, d = counters
    low, high = key & MASK, key >> 32
    for _ in range(10):
        left, right = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = right >> 32 ^ b ^ low, right & MASK, left >> 32 ^ d ^ high, left & MASK
        low, high = (low + 0x9E3779B9) & MASK, (high + 0xBB67AE85) & MASK
    return [a, b, c, d]


@pytest.mark.parametrize("blocks", [1, 2, 3, 864])
def test_threads_take_turns_where_a_gpu_holds_fewer_than_elements(blocks):
    """Element by element, as the threads of the kernel do: four words each a turn, a block of elements apart."""
    stream, turns = philox.Stream(7, blocks), 0
    for size in (5000, 10, 1024, 1025, 2600):
        grid = min(-(-size // 256), blocks)
        threads, expected = 256 * grid, np.empty(size, np.float32)
        for thread in range(threads):
            for turn in range(-(-size // (4 * threads))):
                for place, word in enumerate(words_one_by_one([turns + turn, 0, thread, 0], 7)):
                    element = (4 * turn + place) * threads + thread
                    if element < size:
                        unit = np.float32(float(np.float32(word)) * 2.0**-32 + 2.0**-33)
                        value = np.float32(float(unit) * 2 - 1)
                        expected[element] = -1 if value == 1 else value
        turns += -(-size // (4 * threads))
        np.testing.assert_array_equal(stream.uniform(size, 1.0), expected)


def test_a_gpus_networks_follow_one_another_in_one_stream():
    """Call by call: the first layer twice, of which the second stays, then the last one."""
    sizes = (784, 128, 10)
    stream, drawn = philox.Stream(411713593, 864), {}
    layers = {"dense0": (784, 128), "dense1": (128, 10)}
    for run in range(22):
        for name in ("dense0", "dense0", "dense1"):
            fan_in, units = layers[name]
            drawn[run, name, "weight"] = stream.uniform(units * fan_in, fan_in**-0.5)
            drawn[run, name, "bias"] = stream.uniform(units, fan_in**-0.5)
    for activation, runs, first in (("relu", [3, 0], 0), ("abs", [1], 20)):
        ours = paper_weights.initial(activation, runs, sizes, 864)
        for name, (fan_in, units) in layers.items():
            assert ours[name]["weight"].shape == (len(runs), units, fan_in)
            for kind in ("weight", "bias"):
                theirs = np.stack([drawn[first + run, name, kind].reshape(ours[name][kind].shape[1:]) for run in runs])
                # Bounds differ by a rounding.
                np.testing.assert_allclose(ours[name][kind], theirs, rtol=1e-6, atol=1e-9)


def test_only_a_gpu_of_few_threads_draws_the_papers_first_layer_otherwise():
    sizes = (784, 128, 10)
    usual, larger, smaller = (paper_weights.initial("abs", [19], sizes, blocks) for blocks in (392, 2112, 276))
    for layer, arrays in usual.items():
        for name, values in arrays.items():
            np.testing.assert_array_equal(values, larger[layer][name])
            same = (values == smaller[layer][name]).mean()
            assert same == 1 if (layer, name) != ("dense0", "weight") else 0.6 < same < 0.8


def test_a_config_begins_with_a_gpus_weights():
    settings = config.override(config.Config(), {"model.init": '{name = "paper_cuda", blocks = 276}'})
    assert settings.model.init == fields.Call("paper_cuda", (("blocks", 276),))
    assert config.from_toml(config.to_toml(settings)) == settings
    for init, blocks in ((settings.model.init, 276), ("paper_cuda", 864), ("paper_code", None)):
        chosen = dataclasses.replace(settings.model, init=init, hidden=(6,))
        assert chosen.from_paper
        assert paper_weights.blocks_of(chosen.init) == blocks
        given = dataclasses.replace(settings, model=chosen)
        drawn = models.initial(given, data.load_inputs(given), range(2), "abs")
        theirs = paper_weights.initial("abs", range(2), (64, 6, 10), blocks)
        jax.tree.map(np.testing.assert_array_equal, drawn, theirs)
    assert not config.ModelConfig().from_paper


@pytest.mark.parametrize(
    "init",
    ['{name = "paper_cuda"}', '{name = "paper_cuda", blocks = 0}', '{name = "mine"}', '{name = "x", blocks = 3}'],
)
def test_a_gpu_that_is_none_is_refused(init, tmp_path, capsys):
    assert cli.main(["train", "--model.init", init, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith('jaxdist: model.init: expected {name = "paper_cuda", blocks = 864}, or ')
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


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
        ("model.hidden", "12,12", "networks have one hidden layer, not 2"),
        ("train.seeds", "21", "20 networks per activation, not 21"),
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
        ("abs", [20], "20 networks per activation, not 21"),
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
