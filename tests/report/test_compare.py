"""Two results side by side: shared networks, and networks of their own seeds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr
from PIL import Image

import jaxdist
from jaxdist import cli, config, data
from jaxdist.errors import InputError
from jaxdist.perturbations import families
from jaxdist.report import compare as compare_package
from jaxdist.report.compare import compare, pictures, saving, sides
from jaxdist.storage import result_files
from jaxdist.storage import weights as stored
from jaxdist.sweep import results
from tests.report.compare_support import copy, draw_nothing, make, shown, subset

# Six networks on all digits compute for longer than they compile.
pytestmark = pytest.mark.usefixtures("optimised", "in_an_empty_folder")


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    return draw_nothing(monkeypatch)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of six seeds each."""
    base = tmp_path_factory.mktemp("runs")
    return {
        name: make(base / name, "--train.seeds", "6", "--train.steps", "40", "--train.seed", seed)
        for name, seed in (("first", "0"), ("second", "9"))
    }


@pytest.mark.slow
def test_a_run_agrees_with_itself(capsys, runs, drawn):
    code, text = shown(capsys, runs["first"], runs["first"] / "result.nc", "--json", "c.json", "--pictures", "p")
    assert code == 0
    assert "weights equal bit for bit" in text
    assert text.splitlines()[-1] == "They agree. The picture is p/picture.png"
    said = json.loads(Path("c.json").read_text())
    assert (said["mode"], said["verdict"], said["exit_code"]) == ("shared", "agree", 0)
    assert len(said["points"]) == 2 * 6 * 325
    assert {point["difference"] for point in said["points"]} == {0}
    assert drawn == [Path("p")]
    assert shown(capsys, runs["first"], "published")[0] == 1
    assert drawn[1] == runs["first"] / "comparisons"


@pytest.mark.slow
def test_the_pictures_of_each_kind_of_comparison(runs):
    for other in ("first", "second"):
        found = compare(runs["first"], runs[other])
        drawn = pictures.picture(found.points, found)
        assert len(drawn.axes) == 4
        assert all(ax.lines or ax.collections for ax in drawn.axes)
    paths = {path.with_suffix(".png") for path in pictures.write(compare(runs["first"], "published"), Path("p"))}
    assert {path.stem for path in paths} == {"published", "figure1-published"}
    for path in paths:
        with Image.open(path) as image:
            assert min(image.size) > 800


@pytest.mark.slow
def test_results_on_different_images_are_said_to_be_experiments(capsys, runs):
    other = with_attrs(runs["second"], "other", {"data.name": "fashion_mnist"}, data_digest="f" * 64)
    _, text = shown(capsys, runs["first"], other, "--json", "c.json")
    note = "on different images (digits, fashion_mnist): this compares experiments, not networks"
    assert json.loads(Path("c.json").read_text())["notes"][0] == note
    assert note in " ".join(text.split())
    assert not any("different images" in said for said in compare(runs["first"], runs["second"]).notes)
    assert "on different images (digits, mnist)" in compare(runs["first"], "published").notes[0]
    again = with_attrs(runs["second"], "again", {}, data_digest="f" * 64)
    assert "(digits " in compare(runs["first"], again).notes[0]


@pytest.mark.slow
def test_a_changed_weight_is_found_and_the_points_are_named(capsys, runs):
    changed = copy(runs["first"], "changed")
    path = changed / "weights" / "abs.safetensors"
    params = stored.load(path)
    bias = params["dense1"]["bias"].copy()
    bias[3, 7] += 0.5
    stored.save(params | {"dense1": params["dense1"] | {"bias": bias}}, path)
    assert cli.main(["sweep", str(changed)]) == 0
    code, text = shown(capsys, runs["first"], changed, "--json", "c.json")
    assert code == 1
    assert "1 of 60 in abs dense1.bias" in " ".join(text.split())
    assert "seed 3 [7]" in " ".join(text.split())
    said = json.loads(Path("c.json").read_text())
    beyond = [point for point in said["points"] if abs(point["difference"]) > 2]
    assert beyond
    assert {(point["network"], point["seed"]) for point in beyond} == {("abs", 3)}
    verdicts = {one["what"]: one["verdict"] for one in said["verdicts"]}
    assert verdicts["offset relu train"] == "agree"
    assert verdicts["offset abs train"] == "differ"
    same = [point["same_class"] for point in said["points"] if point["network"] == "relu"]
    assert set(same) == {1437}
    # Two networks that differ in a count of correct images by d differ in the class of at least d.
    assert all(1437 - point["same_class"] >= abs(point["difference"]) for point in said["points"])
    largest = max(abs(point["difference"]) for point in beyond)
    assert shown(capsys, runs["first"], changed, "--images", largest)[0] == 0


def with_attrs(run, name, changes, **attrs):
    """A copy of a run that says of itself what it is told to."""
    folder = copy(run, name)
    result = jaxdist.load(folder)
    settings = config.override(results.config_of(result), changes)
    result.attrs |= {"config": config.to_toml(settings), **attrs}
    result_files.save(result, folder / "result.nc")
    return folder


@pytest.mark.slow
def test_seeds_that_were_trained_for_longer_are_not_called_the_same_networks(runs):
    near = with_attrs(runs["first"], "near", {"train.steps": "41"})
    path = near / "weights" / "abs.safetensors"
    params = stored.load(path)
    stored.save(params | {"dense1": params["dense1"] | {"bias": params["dense1"]["bias"] + np.float32(1e-3)}}, path)
    assert compare(runs["first"], near).relation.startswith("the same seeds, trained differently: 60 of 60 in abs")
    same = with_attrs(near, "same", {"train.steps": "40"})
    assert compare(runs["first"], same).relation.startswith("the same networks, but their weights are not equal")


@pytest.mark.slow
def test_unlike_protocols_are_listed_and_evaluated(capsys, runs):
    other = copy(runs["first"], "other")
    assert cli.main(["sweep", str(other), "--sweep.clip_formula", "caption", "--sweep.families", "scale,clip"]) == 0
    code, text = shown(capsys, runs["first"], other, "--json", "c.json")
    assert "sweep.clip_formula" in text
    assert "only in first: abs train (offset), relu train (offset)" in " ".join(text.split())
    said = json.loads(Path("c.json").read_text())
    assert said["protocol_differences"] == [{"field": "sweep.clip_formula", "a": "code", "b": "caption"}]
    scale = [point for point in said["points"] if point["family"] == "scale"]
    assert {point["same_class"] for point in scale} == {1437}
    caption = [point for point in said["points"] if point["family"] == "clip"]
    assert min(point["same_class"] for point in caption) < 1437
    assert all(1437 - point["same_class"] >= abs(point["difference"]) for point in said["points"])
    assert code == int(max(abs(point["difference"]) for point in said["points"]) > 2)


FURTHER = ("noise", "floor", "restored_offset")


def with_further_families(run, name, more):
    """A copy of a run with further families' counts, means of draws; `more` images of the first seed at the end."""
    folder = copy(run, name)
    result = jaxdist.load(folder)
    for family in FURTHER:
        group = result["offset"].to_dataset().isel(fraction=slice(80, 90))
        correct = group.correct.astype(float) + 0.25
        correct[:, 0, ..., -1] += more
        result[family] = group.assign(correct=correct)
    result_files.save(result, folder / "result.nc")
    return folder


@pytest.mark.slow
def test_classes_are_evaluated_of_single_affine_edits_only(capsys, runs):
    one = with_further_families(runs["first"], "one", 0)
    other = with_further_families(runs["first"], "other", 2.5)
    path = other / "weights" / "abs.safetensors"
    params = stored.load(path)
    stored.save(params | {"dense1": params["dense1"] | {"bias": params["dense1"]["bias"] + np.float32(1e-3)}}, path)
    code, text = shown(capsys, one, other, "--json", "c.json")
    assert code == 1
    assert "not evaluated for restored_offset, noise, floor, which" in " ".join(text.split())
    said = json.loads(Path("c.json").read_text())
    assert "nan" not in " ".join(verdict["words"] for verdict in said["verdicts"])
    for point in said["points"]:
        assert (point["same_class"] is None) == (point["family"] in FURTHER)
    verdicts = {verdict["what"]: verdict for verdict in said["verdicts"]}
    assert verdicts["noise relu train"]["verdict"] == "differ", "2.5 images are more than 2"
    assert "largest difference 2.5 of" in verdicts["floor abs train"]["words"]
    assert verdicts["scale relu train"]["verdict"] == "agree"
    assert "same class for at least" in verdicts["scale relu train"]["words"]
    assert "+2.5" in text
    alone = compare(runs["first"], other)
    found = compare(one, other)
    kept = found.points[~found.points.family.isin(FURTHER)].reset_index(drop=True)
    np.testing.assert_array_equal(kept.same_class, alone.points.same_class)
    drawn = pictures.picture(found.points, found)
    assert len(drawn.axes) == 4


@pytest.mark.slow
def test_of_further_families_alone_no_class_is_evaluated(runs):
    folders = [with_further_families(runs["first"], name, 0) for name in ("one", "other")]
    for folder, draws in zip(folders, ("4", "8"), strict=True):
        result = jaxdist.load(folder)
        for family in families.PAPER:
            del result[family]
        result.attrs["config"] = config.to_toml(config.override(results.config_of(result), {"sweep.draws": draws}))
        result_files.save(result, folder / "result.nc")
    found = compare(*folders)
    assert [one.field for one in found.protocol] == ["sweep.draws"]
    assert found.points.same_class.isna().all()
    assert found.verdict == "agree"


def with_scale(run, level):
    """A copy of a run whose counts under scale are `level` and a little more, the same in every seed's order."""
    folder = copy(run, str(level))
    result = jaxdist.load(folder)
    group = result["scale"].to_dataset()
    more = xr.DataArray(np.arange(6, dtype=np.int32), dims="seed")
    result["scale"] = group.assign(correct=xr.full_like(group.correct, level) + more)
    result_files.save(result, folder / "result.nc")
    return folder


def test_networks_of_their_own_seeds(capsys, runs):
    code, text = shown(capsys, runs["first"], runs["second"], "--statistics.margin", "0.6", "--json", "c.json")
    assert code == 0
    assert "networks of their own seeds" in text
    said = json.loads(Path("c.json").read_text())
    assert all(one["verdict"] == "agree" for one in said["verdicts"])
    assert not any("would pass" in one["words"] for one in said["verdicts"])
    code, text = shown(capsys, runs["first"], runs["second"], "--statistics.margin", "0.001")
    assert code == 1
    assert "not shown" in text
    better, worse = (with_scale(run, level) for run, level in ((runs["first"], 1300), (runs["second"], 1200)))
    code, text = shown(capsys, better, worse, "--json", "d.json")
    assert code == 1
    assert text.splitlines()[-1].startswith("They differ: 2 of 6 parts; most scale ")
    assert f"{100 * (1200 - 1300) / 1437:+.3g} points. The picture is " in text.splitlines()[-1]
    found = json.loads(Path("d.json").read_text())["verdicts"]
    words = {one["what"]: one["words"] for one in found}["scale relu train"]
    assert words.startswith(f"largest mean difference B - A {100 * (1200 - 1300) / 1437:+.2f} points, at ")
    assert "; shown within 1 point at 0 of 100 points; a margin of " in words
    verdicts = {one["what"]: one["verdict"] for one in found}
    assert verdicts["scale abs train"] == verdicts["scale relu train"] == "differ"
    assert verdicts["clip relu train"] != "differ"


def test_unlike_grids_are_refused(runs):
    other = copy(runs["first"], "other")
    result = jaxdist.load(other)
    result["clip"] = result["clip"].to_dataset().assign_coords(fraction=np.linspace(0.1, 1, 100))
    result_files.save(result, other / "result.nc")
    with pytest.raises(ValueError, match="have different grids"):
        compare(runs["first"], other)


@pytest.mark.parametrize("points", [slice(None, None, 3), slice(10, 80), [0, 66]])
def test_of_two_grids_the_coarser_is_compared(runs, points):
    other = copy(runs["first"], "coarse")
    result = jaxdist.load(other)
    result["clip"] = result["clip"].to_dataset().isel(fraction=points)
    result_files.save(result, other / "result.nc")
    for pair in ((runs["first"], other), (other, runs["first"])):
        both = compare(*pair)
        assert both.verdict == "agree"
        count = len(np.arange(100)[points])
        assert f"clip: unlike grids, compared at the {count} points of both" in both.notes
        assert (both.points.family == "clip").sum() == count * 2 * 6
        assert (both.points.difference == 0).all()
    bare = Path("alone")
    shutil.rmtree(bare, ignore_errors=True)
    bare.mkdir()
    shutil.copy(other / "result.nc", bare)
    independent = compare(runs["second"], bare)
    assert (independent.points.family == "clip").sum() == count * 2


def test_without_weights_the_networks_are_their_own_unless_said_otherwise(runs):
    bare = Path("bare")
    bare.mkdir()
    shutil.copy(runs["first"] / "result.nc", bare)
    assert compare(runs["first"], bare).mode == "independent"
    assert compare(runs["first"], bare, weights="shared").verdict == "agree"
    with pytest.raises(ValueError, match="hold some of the same networks"):
        compare(runs["first"], runs["first"], weights="independent")


def test_ensembles_that_overlap_are_compared_on_the_seeds_in_common(runs):
    found = compare(runs["first"], subset(runs["first"], "some", [1, 4]))
    assert found.mode == "shared"
    assert found.verdict == "agree"
    assert found.relation.startswith("2 seeds in common")
    assert sorted(set(found.points.seed)) == [1, 4]


@pytest.mark.slow
def test_each_side_sees_the_images_in_its_own_scaling(runs):
    """The same weights on raw and on normalised pixels are two functions; only their weights are equal."""
    for name in ("raw", "standard"):
        path = runs["first"] / "weights" / "relu.safetensors"
        options = ["--model.activations", "relu", "--data.normalisation", name, "--sweep.splits", "train"]
        assert cli.main(["import-torch", str(path), "--out", name, *options]) == 0
        assert cli.main(["sweep", name]) == 0
    found = compare("raw", "standard")
    assert [one.field for one in found.protocol] == ["data.normalisation"]
    unedited = found.points[(found.points.family == "scale") & (found.points.fraction == 1)]
    assert (unedited.difference != 0).all()
    assert (unedited.total - unedited.same_class >= unedited.difference.abs()).all()
    sides_ = [sides.open_side(name) for name in ("raw", "standard")]
    logits = []
    for side in sides_:
        x, _ = data.scaled(data.load(side.config.data), side.config.data)
        params = jax.tree.map(lambda leaf: np.asarray(leaf[0], np.float64), sides.networks(side)["relu"])
        h = np.maximum(x.reshape(len(x), -1) @ params["dense0"]["weight"].T + params["dense0"]["bias"], 0)
        logits.append(h @ params["dense1"]["weight"].T + params["dense1"]["bias"])
    expected = (logits[0].argmax(1) == logits[1].argmax(1)).sum()
    assert abs(int(unedited.same_class.iloc[0]) - expected) <= 1


def test_runs_of_several_layers_keep_their_sites_apart(capsys, runs):
    deep = copy(runs["first"], "deep")
    result = jaxdist.load(deep)
    for family in families.PAPER:
        group = result[family].to_dataset()
        second = group[["correct", "agree"]].assign_coords(site=["dense1/pre"])
        result[family] = xr.concat([group[["correct", "agree"]], second], "site").assign(
            unperturbed=group.unperturbed, total=group.total
        )
        result[family].attrs = group.attrs
    result_files.save(result, deep / "result.nc")
    code, text = shown(capsys, deep, deep)
    assert code == 0
    for site in ("dense0/pre", "dense1/pre"):
        assert f"scale relu {site} train" in " ".join(text.split())
    assert "at 100 points of 6 networks" in " ".join(text.split())


@pytest.mark.parametrize("against", ["itself", "published"])
def test_files_that_cannot_be_written_do_not_change_the_answer(against, capsys, runs, monkeypatch):
    monkeypatch.setattr(compare_package, "save", saving.save)
    Path("file").write_text("in the way")
    other = runs["first"] if against == "itself" else against
    code, text = shown(capsys, runs["first"], other, "--pictures", "file")
    assert code == (0 if against == "itself" else 1)
    assert "not everything could be written to file (" in text
    assert "are in file" not in text


def test_a_stored_name_cannot_leave_the_folder(capsys, runs):
    evil = copy(runs["first"], "evil")
    result = jaxdist.load(evil)
    result.attrs["config"] = result.attrs["config"].replace('"abs"', '"../../escaped"')
    result_files.save(result, evil / "result.nc")
    assert shown(capsys, evil, runs["first"])[0] == 2
    assert cli.main(["export-torch", str(evil), "--out", "a/b/c"]) == 2
    assert not Path("a/escaped").exists()


@pytest.mark.slow
def test_what_cannot_be_compared(capsys, runs):
    one = subset(runs["second"], "one", [0])
    code, text = shown(capsys, one, runs["first"])
    assert code == 2
    assert "need two or more on each side" in text
    assert shown(capsys, "published", "published")[0] == 2
    assert shown(capsys, runs["first"], "nowhere")[0] == 2
    code, text = shown(capsys, runs["first"], "publishd")
    assert (code, "did you mean 'published'?" in text) == (2, True)
    code, text = shown(capsys, one, "published")
    assert code == 2
    assert "one seed has no standard error" in " ".join(text.split())
    assert shown(capsys, one, one, "--images", "-1")[0] == 2
    trained = copy(runs["second"], "trained")
    result = jaxdist.load(trained)
    for family in families.PAPER:
        del result[family]
    result_files.save(result, trained / "result.nc")
    code, text = shown(capsys, trained, runs["first"])
    assert code == 2
    assert "not swept yet, so there is nothing to compare" in text


@pytest.mark.slow
def test_networks_are_paired_by_seed_where_one_is_not_finite(tmp_path, capsys):
    run = make(tmp_path / "run", "--train.seeds", "4", "--train.steps", "3", "--sweep.families", "clip")
    other = copy(run, tmp_path / "other")
    for network in ("relu", "abs"):
        path = run / "weights" / f"{network}.safetensors"
        params = stored.load(path)
        for layer in params.values():
            layer["weight"][1] *= np.float32(1e30)  # finite itself, but not the logits
        stored.save(params, path)
    assert cli.main(["sweep", str(run)]) == 0
    found = compare(run, other, images=0)
    assert (found.mode, found.verdict) == ("shared", "agree")
    assert set(zip(found.points.seed, found.points.seed_b, strict=True)) == {(0, 0), (2, 2), (3, 3)}
    assert any("seed 1 is not finite" in note for note in found.notes)
    alone = compare(run, run)
    assert set(alone.points.seed) == {0, 2, 3}


@pytest.mark.slow
def test_seeds_at_chance_are_named_where_too_few_are_left(tmp_path):
    run = make(tmp_path / "run", "--train.seeds", "3", "--train.steps", "30", "--sweep.families", "clip")
    low = make(tmp_path / "low", "--train.seeds", "3", "--train.steps", "30", "--train.seed", "9")
    params = {name: stored.load(low / "weights" / f"{name}.safetensors") for name in ("relu", "abs")}
    for name, layers in params.items():
        layers["dense1"]["weight"][:2] = 0
        stored.save(layers, low / "weights" / f"{name}.safetensors")
    assert cli.main(["sweep", str(low), "--sweep.families", "clip"]) == 0
    with pytest.raises(InputError, match=r"one side has 3 seeds, the other 1; .* not counting those at chance"):
        compare(run, low)
