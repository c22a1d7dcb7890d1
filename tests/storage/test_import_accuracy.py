"""What imports say of how often networks are right: counts with their nouns and verbs, seeds at chance by name."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

import jaxdist
from jaxdist.config import Config
from jaxdist.data.dataset import Dataset, Split
from jaxdist.errors import InputError
from jaxdist.storage.torch import accuracy
from tests.storage.torch_support import refused, run, save_file, torch

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")

CHECK = (
    "check the order of {0} layers (--layers), {0} activation (--model.activations), how {0} images were scaled "
    "(--data.normalisation), and whether {0} weights are [units, inputs] and the labels are {0} own, or, if this is "
    "intended, pass --allow-chance true"
)
ONE, SEVERAL = CHECK.format("its"), CHECK.format("their")


def made(*, images=40, classes=4, bad=(), constant=(), seeds=1):
    """A data set with a pixel a class, and networks that are right on it, name the next class, or always class 0."""
    labels = np.arange(images) % classes
    pixels = np.eye(classes, dtype=np.float32)[labels].reshape(images, 1, classes)
    split = Split(pixels, labels.astype(np.int32))
    last = np.repeat(np.eye(classes, dtype=np.float32)[None], seeds, 0)
    bias = np.zeros((seeds, classes), np.float32)
    for s in bad:
        last[s] = np.roll(last[s], 1, 0)
    for s in constant:
        last[s], bias[s, 0] = 0, 1
    first = np.repeat(np.eye(classes, dtype=np.float32)[None], seeds, 0)
    params = {"dense0": {"weight": first, "bias": 0 * bias}, "dense1": {"weight": last, "bias": bias}}
    return params, Dataset("made", split, split, classes, 1.0, "made")


def sentence(networks, dataset, seeds, files=()):
    """Why networks are refused, without what they are expected to be."""
    measured = accuracy.measure(networks, Config(), dataset)
    with pytest.raises(InputError) as error:
        accuracy.refuse_chance(measured, networks, Config(), dataset, where="nets", seeds=seeds, files=files)
    return str(error.value)


def read_otherwise(monkeypatch, right, as_read=0):
    """As if so many images were right with pixels in another scaling."""

    def tried(name, params, seed, config, dataset, *, activation):
        of = len(dataset.train.labels)
        return accuracy._Tried(as_read, of, (accuracy._Reading(right, of, "data.normalisation", "unit"),))

    monkeypatch.setattr(accuracy, "_tried", tried)


@pytest.mark.parametrize(
    ("options", "seeds", "expected"),
    [
        (
            {"bad": [0]},
            [0],
            "network 'relu' is right on 0 of 40 unedited train images and is at chance, since the largest class alone "
            f"has 10 images; expected a trained network; {ONE}",
        ),
        (
            {"constant": [0]},
            [0],
            f"network 'relu' is right on 10 of 40 unedited train images and gives all of them the same class; "
            f"expected a trained network; {ONE}",
        ),
        (
            {"images": 1, "bad": [0]},
            [0],
            "network 'relu' is right on 0 of 1 unedited train image and is at chance, since the largest class alone "
            f"has 1 image; expected a trained network; {ONE}",
        ),
        (
            {"images": 2, "classes": 2, "bad": [0]},
            [0],
            "network 'relu' is right on 0 of 2 unedited train images and is at chance, since the largest class alone "
            f"has 1 image; expected a trained network; {ONE}",
        ),
        (
            {"images": 3, "classes": 1},
            [0],
            "network 'relu' is right on 3 of 3 unedited train images and gives all of them the same class; "
            f"expected a trained network; {ONE}",
        ),
        (
            {"bad": [1], "seeds": 2},
            [3, 5],
            "network 'relu': seed 5 is right on 0 of 40 unedited train images and is at chance, since the largest "
            "class alone has 10 images, where the other seed is not at chance but right on 40; expected a trained "
            f"network; import without b.pt, or {ONE}",
        ),
        (
            {"constant": [0], "seeds": 3},
            [3, 5, 7],
            "network 'relu': seed 3 is right on 10 of 40 unedited train images and gives all of them the same class, "
            "where the other 2 seeds are not at chance but right on 40; expected a trained network; import without "
            f"a.pt, or {ONE}",
        ),
        (
            {"constant": [0], "bad": [2], "seeds": 4},
            [3, 5, 7, 9],
            "network 'relu': seeds 3 and 7 are right on 0 to 10 of 40 unedited train images and are at chance, since "
            "the largest class alone has 10 images, where the other 2 seeds are not at chance but right on 40; "
            f"expected trained networks; import without a.pt and c.pt, or {SEVERAL}",
        ),
        (
            {"constant": [0, 1], "seeds": 2},
            [0, 1],
            "network 'relu': both seeds are right on 10 of 40 unedited train images and each give all of them "
            f"the same class; expected trained networks; {SEVERAL}",
        ),
        (
            {"bad": range(10), "seeds": 11},
            range(11),
            "network 'relu': 10 seeds are right on 0 of 40 unedited train images and are at chance, since the largest "
            "class alone has 10 images, where the other seed is not at chance but right on 40; expected trained "
            f"networks; import without the 10 files of 10 such seeds, or {SEVERAL}",
        ),
    ],
)
def test_seeds_at_chance_are_named_beside_the_others(options, seeds, expected, monkeypatch):
    read_otherwise(monkeypatch, 0)
    params, dataset = made(**options)
    files = [f"{letter}.pt" for letter in "abcdefghijk"[: len(seeds)]]
    assert sentence({"relu": params}, dataset, seeds, files) == f"nets: {expected}"


@pytest.mark.parametrize(("bad", "seeds", "which"), [([0], [0], "it"), ([1], [3, 5], "seed 5 of 'relu'")])
@pytest.mark.parametrize(("better", "expected"), [(30, True), (21, True), (20, False), (0, False)])
def test_another_reading_is_named_where_more_than_half_of_the_images_are_right_by_it(
    bad, seeds, which, better, expected, monkeypatch
):
    read_otherwise(monkeypatch, better)
    params, dataset = made(bad=bad, seeds=len(seeds))
    message = sentence({"relu": params}, dataset, seeds)
    assert (f"; with --data.normalisation unit {which} is right on {better} of 40; expected" in message) == expected
    assert ("; with " in message) == expected


def test_a_reading_that_is_no_better_is_not_named(monkeypatch):
    read_otherwise(monkeypatch, 3, as_read=3)
    params, dataset = made(images=3, classes=1)
    assert "; with " not in sentence({"relu": params}, dataset, [0])


@pytest.mark.parametrize("pixel", [-1, 0, 1])
def test_images_that_cannot_be_scaled_otherwise_are_not(pixel):
    params, dataset = made()
    same = Split(np.full_like(dataset.train.images, pixel), dataset.train.labels)
    dataset = dataclasses.replace(dataset, train=same, test=same, largest=float(pixel))
    message = sentence({"relu": params}, dataset, [0])
    assert message.startswith(
        "nets: network 'relu' is right on 10 of 40 unedited train images and gives all of them the"
    )


def test_networks_of_several_activations_are_left_out_with_the_seeds_of_all(monkeypatch):
    read_otherwise(monkeypatch, 0)
    networks = {"relu": made(bad=[1], seeds=3)[0], "abs": made(seeds=3)[0], "elu": made(constant=[2], seeds=3)[0]}
    dataset = made()[1]
    files = [f"{name}/{seed}.pt" for name in networks for seed in (0, 4, 6)]
    message = sentence(networks, dataset, [0, 4, 6], files)
    assert "network 'relu': seed 4 is right on 0 of 40" in message
    assert "; network 'elu': seed 6 is right on 10 of 40" in message
    assert "'abs'" not in message
    assert "import without relu/4.pt, relu/6.pt, abs/4.pt, abs/6.pt, elu/4.pt and elu/6.pt, or check" in message


@pytest.mark.parametrize("files", [[], ["all.safetensors"]])
def test_what_has_no_file_of_its_own_cannot_be_left_out(files, monkeypatch):
    read_otherwise(monkeypatch, 0)
    params, dataset = made(bad=[1], seeds=3)
    assert "expected a trained network; check the order" in sentence({"relu": params}, dataset, [0, 1, 2], files)


@pytest.mark.parametrize(
    ("correct", "total", "expected"),
    [
        ({"train": [7]}, {"train": 10}, "relu: right on 7 of 10 train images (70.00 %) unedited"),
        ({"test": [1]}, {"test": 1}, "relu: right on 1 of 1 test image (100.00 %) unedited"),
        ({"test": [0, 1]}, {"test": 1}, "relu: right on 0 to 1 of 1 test image (mean 50.00 %) unedited"),
        (
            {"train": [7, 7, 7], "test": [3, 5, 4]},
            {"train": 10, "test": 10},
            "relu: right on 7 of 10 train images each (70.00 %) and 3 to 5 of 10 test images (mean 40.00 %) unedited",
        ),
    ],
)
def test_counts_read_right_of_one_seed_and_of_one_image(correct, total, expected):
    none = np.zeros(len(next(iter(correct.values()))), bool)
    assert accuracy.words("relu", accuracy.Accuracy(correct, total, 1, none, none)) == expected


@pytest.mark.parametrize("seeds", [1, 3])
def test_notes_say_whether_they_are_of_the_network_or_of_its_first_seed(seeds):
    params, dataset = made(seeds=seeds)
    (note,) = accuracy.advice({"relu": params}, Config(), dataset, activation=True)
    assert f"it: the {'first seed' if seeds > 1 else 'network'} is right on 40 of 40 train images, and with " in note


def test_images_without_a_positive_pixel_have_no_other_scaling():
    params, dataset = made()
    negative = Split(dataset.train.images - 2, dataset.train.labels)
    dataset = dataclasses.replace(dataset, train=negative, test=negative, largest=-1.0)
    assert accuracy.advice({"relu": params}, Config(), dataset, activation=False) == []


def digits_network(path, *, trained=True):
    """Weights of a network whose hidden units stand for the means of the digits' classes, or of one that is none."""
    dataset = jaxdist.data.load(jaxdist.config.DataConfig())
    x, y = dataset.train.images.reshape(-1, 64).astype(np.float32), dataset.train.labels
    means = np.stack([x[y == k].mean(0) for k in range(10)])
    noise = np.random.default_rng(sum(str(path).encode())).normal(size=means.shape) * 0.3
    first = means + noise if trained else np.roll(means, 1, 0)
    state = {
        "0.weight": torch.tensor(first, dtype=torch.float32),
        "0.bias": torch.tensor(-(first**2).sum(1) / 2 + 3000, dtype=torch.float32),
        "2.weight": torch.eye(10),
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(state | {"2.bias": torch.zeros(10)}, path)


LAYOUTS = ["nets/relu_seed{}.safetensors", "nets/relu/{}.safetensors", "nets/{}.safetensors"]


@pytest.mark.parametrize(
    ("layout", "way_out"), [*((layout, "without") for layout in LAYOUTS), (LAYOUTS[0], "--allow-chance")]
)
def test_an_ensemble_with_a_seed_at_chance_is_refused_with_a_way_out_that_works(capsys, layout, way_out):
    for seed in (0, 3, 4):
        digits_network(layout.format(seed), trained=seed != 3)
    named = ("--model.activations", "relu")
    command = ("import-torch", "nets", *named, "--as-seeds", "true", "--out", "out")
    file = Path(layout.format(3)).relative_to("nets")
    assert run(*command) == 2
    error = capsys.readouterr().err
    assert "network 'relu': seed 3 is right on " in error
    assert "where the other 2 seeds are not at chance but right on " in error
    assert f"import without {file}, or check" in error
    assert not Path("out").exists()
    if way_out == "without":
        shutil.move(f"nets/{file}", "elsewhere.safetensors")
    else:
        command = (*command, "--allow-chance", "true")
    assert run(*command) == 0
    assert jaxdist.load("out").attrs["seeds"].tolist() == ([0, 4] if way_out == "without" else [0, 3, 4])


@pytest.mark.parametrize(
    "place",
    [
        *("relu6_seed0", "hard_tanh_0", "log_sigmoid_1", "abs_neg_seed0", "relu6/0", "quick_gelu/0", "relu2", "relu_2"),
        *("my_relu_mlp", "leaky_relu_seed0_slope0.2"),
    ],
)
def test_names_that_leave_the_activation_open_ask_for_it_and_take_it(capsys, place):
    digits_network(f"nets/{place}.safetensors")
    message = f"{Path(place).name}.safetensors: does not say for certain which activation it has"
    refused(capsys, "import-torch", "nets", "--out", "out", message=message)
    assert run("import-torch", "nets", "--model.activations", "elu", "--out", "out") == 0
    assert jaxdist.sweep.results.config_of(jaxdist.load("out")).model.activations == ("elu",)


@pytest.mark.parametrize(
    ("name", "form"),
    [("relu2_seed0", "relu2"), ("ReLU2-seed3", "relu2"), ("abs2_neg_seed1", "abs2_neg"), ("seed1_abs2", "abs2")],
)
@pytest.mark.parametrize("named", [False, True])
def test_a_network_with_a_longer_name_is_never_taken_for_one_with_a_shorter(name, form, named):
    digits_network(f"{name}.safetensors")
    option = ("--model.activations", form) if named else ()
    assert run("import-torch", f"{name}.safetensors", *option, "--allow-chance", "true", "--out", "out") == 0
    assert jaxdist.sweep.results.config_of(jaxdist.load("out")).model.activations == (form,)


@pytest.mark.parametrize("name", ["relu_l2_seed1", "abs-l2-neg_0"])
def test_networks_with_other_layers_are_refused_by_what_those_hold(capsys, name):
    digits_network(f"{name}.safetensors")
    refused(capsys, "import-torch", f"{name}.safetensors", "--out", "out", message="besides weights and biases")
