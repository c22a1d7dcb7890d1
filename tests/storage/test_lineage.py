"""Which files are seeds, and which are moments of one training: by names, entries and weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jaxdist.errors import InputError
from jaxdist.networks import forms
from jaxdist.storage.torch import lineage, names, sources
from jaxdist.storage.torch.contents import Network
from jaxdist.storage.torch.lineage import Source


@pytest.mark.parametrize(
    "places",
    [
        ("epoch_20.pt", "epoch_60.pt", "epoch_99.pt"),
        ("epoch=9-step=990.ckpt", "last.ckpt"),
        ("epoch=1-val_loss=0.30.ckpt", "epoch=7-val_loss=0.11.ckpt"),
        ("best.pt", "last.pt"),
        ("best_model.pth", "final_model.pth"),
        ("checkpoint-500/model.safetensors", "checkpoint-1000/model.safetensors"),
        ("checkpoint-500/model.safetensors", "model.safetensors"),
        ("step_1000.pt", "step_2000.pt"),
        ("step1000.pt", "step2000.pt"),
        ("iter_10.pth", "iter_20.pth"),
        ("ckpt_10.pt", "ckpt_20.pt"),
        ("checkpoint.pth.tar", "model_best.pth.tar"),
        ("e5.pt", "e10.pt"),
        ("seed0_best.pt", "seed1_best.pt", "seed1_last.pt"),
        ("0/epoch_1.pt", "1/epoch_1.pt", "1/epoch_2.pt"),
        ("0.pt", "1.pt", "2.pt", "last.pt"),
        ("relu_epoch3.pt", "relu_epoch4.pt"),
    ],
)
def test_names_that_differ_in_when_a_file_was_saved_tell_of_one_training(places):
    assert names.of_one_training([Path(place) for place in places])
    with pytest.raises(InputError, match=r"to come from one training, since their names .* --as-seeds true"):
        lineage.check_places([source(place) for place in places], "folder")


@pytest.mark.parametrize(
    "places",
    [
        ("0.pt", "1.pt", "2.pt"),
        ("a.pt", "b9.safetensors", "b10.pt"),
        ("seed_0.pt", "seed_1.pt"),
        ("seed0/best.ckpt", "seed1/best.ckpt"),
        ("0/epoch_40.pt", "1/epoch_37.pt"),
        ("seed0_epoch99.pt", "seed1_epoch99.pt"),
        ("run0/model.pt", "run1/model.pt"),
        ("0/checkpoint-500/model.safetensors", "1/checkpoint-500/model.safetensors"),
        ("model.pt",),
        ("last.ckpt",),
        ("epoch_99.pt",),
        ("abs_seed0.pt", "abs_seed1.pt"),
    ],
)
def test_names_of_seeds_tell_of_none(places):
    assert names.of_one_training([Path(place) for place in places]) is None
    lineage.check_places([source(place) for place in places], "folder")


@pytest.mark.parametrize(
    ("place", "activation", "number"),
    [
        ("relu/0.pt", "relu", 0),
        ("ReLU/12.pt", "relu", 12),
        ("seed3/abs.pt", "abs", 3),
        ("abs/seed_4.pt", "abs", 4),
        ("leaky_relu_seed5.pt", "leaky_relu", 5),
        ("LeakyReLU-6.ckpt", "leaky_relu", 6),
        ("relu2_neg/7.pt", "relu2_neg", 7),
        ("seed1/relu2.pt", "relu2", 1),
        ("relu2_seed0.pt", "relu2", 0),
        ("relu_2/0.pt", "", None),
        ("seed1_abs2.pt", "abs2", 1),
        ("abs2/7/best.ckpt", "abs2", 7),
        ("relu2-neg_seed3.pt", "relu2_neg", 3),
        ("ReLU2_NEG.pt", "relu2_neg", None),
        ("relu_l2_seed1.safetensors", "relu_l2", 1),
        ("relu-l2-neg-4.pt", "relu_l2_neg", 4),
        ("abs_l2_neg/5.pt", "abs_l2_neg", 5),
        ("relu_seed0.pt", "relu", 0),
        ("seed0/relu.pt", "relu", 0),
        ("relu_model_3.pt", "relu", 3),
        ("0_relu.pt", "relu", 0),
        ("run3_relu_best.pt", "relu", 3),
        ("relu_epoch3_val_loss=0.2.ckpt", "relu", None),
        ("act=gelu-seed=4.ckpt", "gelu", 4),
        ("mnist_tanh_mlp_1.pt", "tanh", 1),
        ("leaky-relu 2.pt", "leaky_relu", 2),
        ("PerturbationReLU.pt", "relu", None),
        ("PerturbationAbs_3.pt", "abs", 3),
        ("sine/0.pt", "sine", 0),
        ("tanh/8/best.ckpt", "tanh", 8),
        ("tanh/seed_9_epoch_100.pt", "tanh", 9),
        ("relu_vs_abs_1.pt", "", 1),
        ("identity_seed1.pt", "", 1),
        ("labs/1.pt", "", 1),
        ("mine.pt", "", None),
    ],
)
def test_a_place_tells_activation_and_number(place, activation, number):
    told = names.told(Path(place))
    assert (told.activation, told.number) == (activation, number)


UNCERTAIN = (
    "relu6_seed0 relu6 relu6/0 ReLU6/0 LeakyReLU6/0 relu_6 relu_6_seed0 relu-6/seed0 seed0/relu_6 relu0 0relu",
    "relu2 relu2/model relu2_epoch9 relu_2 abs_2 abs2 relu3_seed7 relu^2_seed0 relu^3 relu²_0 relu_1_of_20",
    "hard_tanh_0 hard-tanh/0 HARD_TANH_seed1 hardtanh_0 log_sigmoid_1 logsigmoid_1 hard_sigmoid/3 tanh_shrink_0",
    "quick_gelu/0 QuickGELU/0 gelu_tanh_0 gelu_new_0 tanh_gelu/0 gelu_fast_seed3 c_relu_1 s_elu_0 selu_0 celu_1",
    "abs_neg_seed0 relu_neg/0 neg_relu_0 minus_abs_seed2 relu_squared_seed0 squared_relu_0 relu+noise_0",
    "leaky_relu_0.2 leaky_relu_seed0_slope0.2 leaky_relu_1e-3 elu_seed0_alpha2 softplus_beta_2 my_relu_mlp no_relu_0",
    "relu0/model relu6/relu_0 swish_0 ñrelu_0 hard_tanh/tanh_0 relu_x_seed0 relu_vs_tanh/relu/0 sine_seed0",
)


@pytest.mark.parametrize("name", [name for line in UNCERTAIN for name in line.split()])
def test_an_activation_is_taken_only_where_nothing_beside_it_may_make_it_another(name, tmp_path):
    assert names.told(Path(f"{name}.pt")).activation == ""
    put(tmp_path / f"{name}.pt")
    located = sources.locate([tmp_path])
    if located.kind == "files":
        assert list(located.by_network) == [""]
    else:
        pytest.fail(f"{name} is read as an exported run of {list(located.by_network)}")


@pytest.mark.parametrize("form", forms.names())
@pytest.mark.parametrize("place", ["{}/3.pt", "seed3/{}.pt", "{}_seed3.pt", "seed_3-{}.pt"])
def test_every_network_is_told_by_its_own_name_and_by_no_shorter_one(form, place):
    told = names.told(Path(place.format(form)))
    word_alone = form in ("sine", "identity") and "/" not in place
    assert (told.activation, told.number) == ("" if word_alone else form, 3)
    for changed in (form.replace("_", "-"), form.upper()):
        assert names.told(Path(place.format(changed))).activation == told.activation
    for beside in ("hard_{}", "{}_hard", "{}6", "quick-{}", "{}_neg_neg"):
        assert names.told(Path(place.format(beside.format(form)))).activation == ""


def test_numbers_behind_an_activation_are_seeds_where_other_files_have_other_numbers(tmp_path):
    for number in range(8):
        put(tmp_path / f"relu_{number}.pt")
    assert list(sources.locate([tmp_path]).by_network["relu"]) == list(range(8))
    put(tmp_path / "relu6.pt")
    with pytest.raises(InputError, match=r"relu6\.pt: its name or folder does not say for certain"):
        sources.locate([tmp_path])


@pytest.mark.parametrize(
    "entries", [({"epoch": 9.0}, {"epoch": 19.0}), ({}, {"global_step": 5.0}, {"global_step": 6.0})]
)
def test_entries_on_progress_tell_of_one_training_unless_names_tell_of_seeds(entries):
    with pytest.raises(InputError, match=r"they say so by (epoch 9 and epoch 19|global_step 5 and global_step 6)"):
        lineage.check_places([source(f"{'abc'[k]}.pt", each) for k, each in enumerate(entries)], "folder")
    lineage.check_places([source(f"seed{k}.pt", each) for k, each in enumerate(entries)], "folder")
    same = [source(f"{'abc'[k]}.pt", entries[-1]) for k in range(3)]
    lineage.check_places(same, "folder")


def test_numbers_that_are_the_progress_are_no_seeds():
    with pytest.raises(InputError, match="from one training"):
        lineage.check_places([source(f"{k}.pt", {"step": float(k)}) for k in (500, 1000)], "folder")


def source(place, progress=None):
    return Source(Path(place), Path(place), Network({}, progress=progress or {}))


def ensemble(seeds, hidden=64, inputs=30, classes=10):
    rng = np.random.default_rng(0)
    shapes = {"dense0": (hidden, inputs), "dense1": (classes, hidden)}
    weights = {name: rng.normal(size=(seeds, *shape)).astype(np.float32) for name, shape in shapes.items()}
    return {name: {"weight": weight, "bias": np.zeros(weight.shape[:2])} for name, weight in weights.items()}


def check(params, *places, as_seeds=False):
    lineage.check_weights([source(place) for place in places], params, "folder", as_seeds=as_seeds)


@pytest.mark.parametrize("hidden", [1, 3, 16, 64, 256])
def test_independent_weights_are_seeds_however_few(hidden):
    check(ensemble(6, hidden=hidden), *"abcdef")


@pytest.mark.parametrize("shift", [0.1, 0.5, 1.0])
def test_weights_that_begin_alike_are_of_one_training_unless_it_is_said(shift):
    params = ensemble(3)
    for layer in params.values():
        weight = layer["weight"]
        moved = np.random.default_rng(1).normal(size=weight[0].shape)
        weight[2] = weight[0] + shift * moved
    with pytest.raises(InputError, match="a and c seem to come from one training, since their weights begin alike"):
        check(params, "a", "b", "c")
    check(params, "a", "b", "c", as_seeds=True)


def test_what_all_units_have_in_common_does_not_count():
    params = ensemble(4)
    params["dense0"]["weight"] += 3 * np.random.default_rng(2).normal(size=30).astype(np.float32)
    params["dense1"]["weight"] -= 2
    check(params, *"abcd")


@pytest.mark.parametrize("as_seeds", [False, True])
def test_equal_weights_are_never_seeds(as_seeds):
    params = ensemble(4)
    for layer in params.values():
        layer["weight"][3] = layer["weight"][1]
    with pytest.raises(InputError, match="folder: b and d hold the same weights, which count only once"):
        check(params, *"abcd", as_seeds=as_seeds)
    with pytest.raises(InputError, match=r"network 1 of all\.safetensors and network 3 of all\.safetensors hold"):
        check(params, "all.safetensors", as_seeds=as_seeds)


@pytest.mark.parametrize(
    "layout",
    [
        "{act}/{seed}.pt",
        "{act}/seed_{seed}.pt",
        "seed{seed}/{act}.pt",
        "{act}_seed{seed}.pt",
        "{ACT}/{seed}.pt",
        "{act}/run{seed}/model.pt",
        "{act}/{seed}/best.ckpt",
        "{act}/seed{seed}/checkpoint-500/pytorch_model.bin",
        "{act}-{seed}.pth.tar",
    ],
)
def test_a_folder_of_seeds_is_read_whatever_its_layout(tmp_path, layout):
    for act, name in (("relu", "ReLU"), ("abs", "Abs")):
        for seed in (0, 2, 11):
            put(tmp_path / layout.format(act=act, ACT=name, seed=seed))
    located = sources.locate([tmp_path])
    assert {name: list(by_seed) for name, by_seed in located.by_network.items()} == {
        "relu": [0, 2, 11],
        "abs": [0, 2, 11],
    }
    for name, by_seed in located.by_network.items():
        for seed, file in by_seed.items():
            assert file == tmp_path / layout.format(act=name, ACT={"relu": "ReLU", "abs": "Abs"}[name], seed=seed)


def put(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"")


def test_what_lies_beside_weights_is_left_out_and_named(tmp_path):
    beside = ["optimizer.pt", "rng_state.pth", "rng_state_0.pth", "scheduler.pt", "scaler.pt", "training_args.bin"]
    for name in ("model.safetensors", *beside, "trainer_state.json", ".hidden/a.pt"):
        put(tmp_path / name)
    located = sources.locate([tmp_path])
    assert [file.name for file in located.by_network[""].values()] == ["model.safetensors"]
    assert sorted(file.name for file in located.left_out) == sorted(beside)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("relu/0.pt", "relu/1.pt", "relu/last.pt"), "holds relu/last.pt next to numbered files"),
        (("relu_0.pt", "b_0.pt"), "b_0.pt: its name or folder does not say for certain which activ"),
        (("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"), "saved in several files"),
    ],
)
def test_folders_that_are_not_clear_are_refused(tmp_path, files, message):
    for name in files:
        put(tmp_path / name)
    with pytest.raises(InputError, match=message):
        sources.locate([tmp_path])
