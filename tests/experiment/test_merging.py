"""Parts of a run, made apart and merged, are the run bit for bit; what is no part of it is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxdist
from jaxdist import cli, config
from jaxdist.storage import manifests, result_files, weights
from jaxdist.sweep import results

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")

SMALL = ("--train.steps=4", "--model.hidden=6", "--train.learning_rate=0.001", "-q")
SWEPT = ("--sweep.families=scale,offset,noise", "--sweep.dose=true", "--sweep.draws=2", "--sweep.units=true")


def made(command, out, *options):
    assert cli.main([command, *SMALL, *options, "--out", out]) == 0
    return Path(out)


def assert_same(first, second, *, but=("made", "made_before")):
    """Every array and weight of two run folders has the same bits, and every attribute that is not of the making."""
    results = [jaxdist.load(folder) for folder in (first, second)]
    assert [*results[0].children] == [*results[1].children]
    for name, group in results[0].children.items():
        one, other = group.to_dataset(), results[1][name].to_dataset()
        assert one.sizes == other.sizes, name
        assert set(one.variables) == set(other.variables)
        for variable in one.variables:
            assert one[variable].dtype.kind == other[variable].dtype.kind
            np.testing.assert_array_equal(one[variable].to_numpy(), other[variable].to_numpy(), f"{name} {variable}")
        kept = [{key: value for key, value in group.attrs.items() if key not in but} for group in (one, other)]
        np.testing.assert_equal(kept[0], kept[1])
    files = sorted(path.name for path in (first / "weights").iterdir())
    assert files == sorted(path.name for path in (second / "weights").iterdir())
    for name in files:
        trees = [jax.tree.leaves_with_path(weights.load(folder / "weights" / name)) for folder in (first, second)]
        assert [path for path, _ in trees[0]] == [path for path, _ in trees[1]]
        for (_, one), (_, other) in zip(*trees, strict=True):
            np.testing.assert_array_equal(one, other)


def refused(capsys, sentence, *runs, out="merged"):
    """Merging is refused in one sentence, and nothing is written."""
    assert cli.main(["merge", *runs, "--out", out]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.strip().splitlines()) == 1
    assert not Path("merged").exists()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of four seeds of two networks, and the same in parts, swept."""
    root = tmp_path_factory.mktemp("merging")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr("jaxdist.compute.devices.use_all_cores", lambda: None)
        patch.setattr("jaxdist.report.figures.save", lambda *_: [])
        made("run", "whole", "--train.seeds=4", "--train.snapshots=true", *SWEPT)
        for k in range(4):
            made("run", f"quarter{k}", f"--train.seeds={k}:{k + 1}", "--train.snapshots=true", *SWEPT)
        for name in ("relu", "abs"):
            made("run", name, "--train.seeds=4", f"--model.activations={name}", "--train.snapshots=true", *SWEPT)
    return root


@pytest.fixture
def parts(folder, in_an_empty_folder):
    for path in folder.iterdir():
        shutil.copytree(path, path.name)


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1)])
def test_four_quarters_are_the_whole_bit_for_bit(order):
    assert cli.main(["merge", *(f"quarter{k}" for k in order), "--out", "merged", "-q"]) == 0
    assert_same(Path("merged"), Path("whole"))
    merged, whole = (config.load(Path(name) / "config.toml") for name in ("merged", "whole"))
    assert merged.train == whole.train
    assert merged.model == whole.model
    manifests.check_whole(Path("merged/result.nc"))
    told = json.loads(jaxdist.load("merged").attrs["merged"])
    assert [part["seeds"] for part in told] == [[k, k + 1] for k in order]


@pytest.mark.usefixtures("parts")
def test_each_activation_by_itself_is_the_whole_bit_for_bit():
    assert cli.main(["merge", "relu", "abs", "--out", "merged", "-q"]) == 0
    assert_same(Path("merged"), Path("whole"))
    assert config.load(Path("merged/config.toml")).model.activations == ("relu", "abs")


@pytest.mark.usefixtures("parts")
def test_what_is_merged_is_a_run_like_others(capsys):
    """It is reported, swept again, grows, and is merged again."""
    assert cli.main(["merge", "quarter1", "quarter2", "--out", "middle", "-q"]) == 0
    assert config.load(Path("middle/config.toml")).train.numbers == range(1, 3)
    assert list(jaxdist.load("middle")["scale"].seed.to_numpy()) == [1, 2]
    assert cli.main(["report", "middle", "-q"]) == 0
    assert cli.main(["merge", "quarter3", "middle", "quarter0", "--out", "merged", "-q"]) == 0
    assert_same(Path("merged"), Path("whole"))
    grown = made("run", "middle", "--train.seeds=1:4", "--train.snapshots=true", *SWEPT)
    assert list(jaxdist.load(grown)["scale"].seed.to_numpy()) == [1, 2, 3]
    assert cli.main(["merge", "quarter0", "middle", "--out", "again", "-q"]) == 0
    assert_same(Path("again"), Path("whole"))
    assert cli.main(["sweep", "merged", "-q"]) == 0
    assert_same(Path("merged"), Path("whole"), but=("made", "made_before"))


@pytest.mark.slow
def test_parts_with_every_option_are_the_whole_bit_for_bit():
    """Two layers, two families at once, units, doses, gauges, metrics, slopes, and all of it along training."""
    switches = ("grid", "units", "dose", "sensitivity")
    options = (
        *("--model.hidden=5,4", "--model.activations=abs", "--train.snapshots=true", "--train.steps=12"),
        *("--train.learning_rate=0.01", "--sweep.families=scale,offset,noise", "--sweep.draws=2"),
        *("--sweep.metrics=cross_entropy,logit_difference", "--sweep.gauges=as_is,averaged,absolute"),
        *(f"--sweep.{name}=true" for name in switches),
    )
    for name, seeds in (("whole", "3"), ("a", "0:1"), ("b", "1:3")):
        made("run", name, f"--train.seeds={seeds}", *options)
    assert cli.main(["merge", "b", "a", "--out", "merged", "-q"]) == 0
    assert_same(Path("merged"), Path("whole"))
    assert cli.main(["report", "merged", "-q"]) == 0


def test_activations_are_in_the_order_of_the_first_part():
    for name, seeds, activations in (("a", "0:1", "relu,abs"), ("b", "1:2", "abs,relu"), ("whole", "2", "abs,relu")):
        made("run", name, f"--train.seeds={seeds}", f"--model.activations={activations}", "--sweep.families=offset")
    assert cli.main(["merge", "b", "a", "--out", "merged", "-q"]) == 0
    assert_same(Path("merged"), Path("whole"))


def test_trained_parts_are_merged_and_swept():
    for name, seeds in (("a", "0:2"), ("b", "2:3"), ("whole", "3")):
        made("train", name, f"--train.seeds={seeds}")
    assert cli.main(["merge", "a", "b", "--out", "merged", "-q"]) == 0
    assert_same(Path("merged"), Path("whole"))
    assert cli.main(["sweep", "merged", "-q", "--sweep.families=scale"]) == 0
    assert jaxdist.load("merged")["scale"].sizes["seed"] == 3


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        (["quarter0"], "at least two runs"),
        (["quarter0", "quarter2"], "seed 1 of relu and abs is missing between quarter0 and quarter2"),
        (["quarter0", "whole"], "seed 0 of relu and abs is in both quarter0 and whole"),
        (["whole", "quarter2"], "seed 2 of relu and abs is in both whole and quarter2"),
        (["relu", "relu"], "relu: is named twice; name each run once"),
        (["relu", "quarter0"], "both hold relu"),
        (["quarter0", "nowhere"], "nowhere: no result found"),
        (["quarter0", "other"], "train.learning_rate 0.001, not 0.002"),
        (["quarter0", "trained"], "trained: is not swept"),
    ],
)
def test_what_is_no_part_of_a_run_is_refused(capsys, runs, sentence):
    if "other" in runs:
        made("run", "other", "--train.seeds=1:2", "--train.snapshots=true", *SWEPT, "--train.learning_rate=0.002")
    if "trained" in runs:
        made("train", "trained", "--train.seeds=1:2", "--train.snapshots=true", *SWEPT)
    refused(capsys, sentence, *runs)


@pytest.mark.usefixtures("parts")
def test_parts_of_other_images_or_code_are_refused(capsys):
    result = jaxdist.load("quarter1")
    for name, attrs in {"images": {"data_digest": "0" * 64}, "code": {"code": '{"module:optimizer": "0"}'}}.items():
        shutil.copytree("quarter1", name)
        changed = result.copy()
        changed.attrs = {**result.attrs, **attrs}
        result_files.save(changed, Path(name) / "result.nc")
        Path(name, "manifest.json").unlink()
        what = "images" if name == "images" else "code of your own"
        refused(capsys, f"{name}: was made with other {what}", "quarter0", name)


@pytest.mark.usefixtures("parts")
def test_imported_networks_are_no_part(capsys):
    pytest.importorskip("torch")
    assert cli.main(["export-torch", "relu", "--out", "torch"]) == 0
    assert cli.main(["import-torch", "torch", "--out", "imported", "--allow-chance", "true"]) == 0
    capsys.readouterr()
    refused(capsys, "imported: holds networks that were not trained from a config", "imported", "abs")


@pytest.mark.usefixtures("parts")
def test_a_part_that_is_at_work_or_would_hold_the_whole_is_refused(capsys):
    for out in ("relu/whole", "relu/weights/whole"):
        refused(capsys, f"--out: {out} lies in relu, a part", "relu", "abs", out=out)
        assert not Path(out).exists()
    Path("abs/unfinished").mkdir()
    refused(capsys, "abs: holds unfinished work", "relu", "abs")


@pytest.mark.usefixtures("parts")
def test_what_changes_no_counts_is_of_the_first_part():
    for name, seeds, margin in (("late", "2:4", "0.02"), ("early", "0:2", "0.05")):
        made("train", name, f"--train.seeds={seeds}", f"--statistics.margin={margin}")
    assert cli.main(["merge", "late", "early", "--out", "merged", "-q"]) == 0
    assert config.load(Path("merged/config.toml")).statistics.margin == 0.02


@pytest.mark.usefixtures("parts")
def test_a_part_without_a_group_is_refused(capsys):
    result = jaxdist.load("quarter1")
    shutil.copytree("quarter1", "older")
    groups = {name: child.to_dataset() for name, child in result.children.items() if name != "noise"}
    result_files.save(results.tree(groups, result.attrs), Path("older/result.nc"))
    Path("older/manifest.json").unlink()
    for order in (["quarter0", "older"], ["older", "quarter0"]):
        refused(capsys, "older: lacks noise, which another part has", *order)


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda kept: jax.tree.map(lambda leaf: leaf[:0], kept),
            "changed/weights/relu.safetensors: expected the weights",
        ),
        (lambda kept: jax.tree.map(lambda leaf: leaf[..., :4], kept), "'relu' weights of other shapes than"),
        (lambda kept: {**kept, "dense0": {"weight": kept["dense0"]["weight"]}}, "'relu' weights of other shapes than"),
    ],
)
def test_weights_of_another_number_or_shape_are_refused(capsys, change, sentence):
    shutil.copytree("quarter1", "changed")
    path = Path("changed/weights/relu.safetensors")
    weights.save(change(weights.load(path)), path)
    Path("changed/manifest.json").unlink()
    for runs in (["quarter0", "changed"], ["changed", "quarter0"], ["quarter2", "changed", "quarter0"]):
        refused(capsys, sentence, *runs)


@pytest.mark.usefixtures("parts")
def test_what_was_merged_is_told_after_merging_again_and_growing():
    for name in ("relu", "abs"):
        for k in (0, 1):
            made("run", f"{name}{k}", f"--train.seeds={2 * k}:{2 * k + 2}", f"--model.activations={name}", *SWEPT)
    assert cli.main(["merge", "abs1", "relu0", "relu1", "abs0", "--out", "product", "-q"]) == 0
    product = jaxdist.load("product")
    for family in ("scale", "offset", "noise"):
        for network in ("relu", "abs"):
            one, whole = (run[family].to_dataset().sel(network=network) for run in (product, jaxdist.load("whole")))
            np.testing.assert_array_equal(one.correct, whole.correct)
    told = json.loads(product.attrs["merged"])
    assert [(part["activations"], part["seeds"]) for part in told] == [
        (["abs"], [2, 4]), (["relu"], [0, 2]), (["relu"], [2, 4]), (["abs"], [0, 2])
    ]  # fmt: skip
    assert len(product["scale"].attrs["made_before"]) == 3
    grown = made("run", "product", "--train.seeds=5", "--model.activations=abs,relu", *SWEPT)
    assert json.loads(jaxdist.load(grown).attrs["merged"]) == told


@pytest.mark.usefixtures("parts")
def test_activations_with_other_seeds_and_folders_in_use_are_refused(capsys):
    made("run", "few", "--train.seeds=3", "--model.activations=abs", "--train.snapshots=true", *SWEPT)
    refused(capsys, "seeds 0 to 2 of abs, but seeds 0 to 3 of relu", "relu", "few")
    refused(capsys, "whole: already holds a result or a run", "relu", "abs", out="whole")
    assert cli.main(["merge", "relu", "abs"]) == 2
    assert "--out" in capsys.readouterr().err


@pytest.mark.parametrize("seeds", ["3:3", "4:2", "-1:2", "a:b", "1:", ":2", "0:1:2", "1:99999999999", "3 : 5", "٣:٥"])
def test_a_range_that_is_none_is_refused(capsys, seeds):
    assert cli.main(["train", f"--train.seeds={seeds}", "--out", "run"]) == 2
    assert "train.seeds: expected an integer at least 1, or a range such as 20:40" in capsys.readouterr().err


def test_the_networks_of_the_papers_code_end_at_twenty(capsys):
    words = ["train", "--model.init=paper_cuda", "--train.seeds=15:21", "--data.name=digits", "--out", "run"]
    assert cli.main(words) == 2
    assert "20 networks per activation" in capsys.readouterr().err
