"""What a run's networks read, beside readers that have learned nothing: what is written, told again, and refused."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jaxdist import cli, config
from jaxdist.analysis import preference, reading
from jaxdist.compute import tuning
from jaxdist.storage import result_files, weights
from jaxdist.sweep import readers

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")

FEW = ("--permutations", "2", "--draws", "2")


def test_tables_and_answers_are_those_of_the_curves(swept, capsys):
    assert cli.main(["controls", str(swept), *FEW, "--json", "c.json"]) == 0
    said = capsys.readouterr().out
    assert "What is read, at a family-wise error of 5 %" in said
    assert "output weights put to other units" in said
    options = config.load(swept / "config.toml")
    curves = result_files.load(swept / "controls" / "curves.nc")
    document = json.loads(Path("c.json").read_text())
    frame = pd.read_csv(swept / "controls" / "readers.csv")
    readers = ["trained", "permuted 1", "permuted 2", "before", "first layers before"]
    assert set(curves.children) == set(options.model.activations) == set(document["networks"])
    assert len(frame) == len(document["readers"])
    read = {}
    for network in options.model.activations:
        data = curves[network].to_dataset()
        assert data.reader.to_numpy().tolist() == readers
        assert dict(data.sizes) == {
            "reader": 5, "seed": options.train.seeds, "edit": 2, "draw": 3, "fraction": 33,
        }  # fmt: skip
        x = {
            reader: [
                reading.contrast(data.dose.sel(reader=reader).to_numpy(), data.flips.sel(reader=reader).to_numpy(), at)
                for at in preference.LEVELS
            ]
            for reader in readers
        }
        for reader, level in itertools.product(readers, preference.LEVELS):
            rows = frame.query("network == @network and reader == @reader and level == @level")
            of = x[reader][preference.LEVELS.index(level)]
            np.testing.assert_allclose(rows.x_low, of.low)
            np.testing.assert_allclose(rows.x_high, of.high)
            for edit in ("small", "large"):
                flips, dose, spread = (
                    data[name].sel(reader=reader, edit=edit).to_numpy() for name in ("flips", "dose", "participation")
                )
                at, where = reading.log_dose_at(dose, flips, level), reading.point_at(flips, level)
                np.testing.assert_allclose(rows[f"dose_{edit}_low"], np.exp(at.low[:, 0]))
                np.testing.assert_allclose(rows[f"dose_{edit}_high"], np.exp(at.high[:, 0]))
                np.testing.assert_allclose(rows[f"dose_{edit}_signs_low"], np.exp(at.low[:, 1:].mean(1)))
                taken = [spread[s, 0, k] if k >= 0 else np.nan for s, k in enumerate(where[:, 0])]
                np.testing.assert_allclose(rows[f"participation_{edit}"], taken)

        def both(*names, x=x):
            ends = (np.mean([[getattr(of, end) for of in x[name]] for name in names], 0) for end in ("low", "high"))
            return preference.LogRatio(*ends)

        read[network] = reading.read(both("trained"), both("permuted 1", "permuted 2"))
        assert document["networks"][network]["distance_t"] == pytest.approx(read[network].distance.t)
        assert document["networks"][network]["equal_flips"] == pytest.approx(read[network].equal.flips)
    for network, decided in reading.decide(read).items():
        assert document["networks"][network]["answer"] == decided.answer
    text = (swept / "controls" / "controls.md").read_text(encoding="utf-8")
    assert text.startswith("# What is read, beside readers that have learned nothing\n")
    for kind in ("png", "svg"):
        assert (swept / "controls" / f"controls.{kind}").stat().st_size > 1000


def test_the_trained_network_is_the_one_that_was_swept(swept):
    """The same flips and doses as the families' own sweep has, on the same images, where no signs are drawn."""
    families = "collapse_small,collapse_large"
    assert cli.main(["sweep", str(swept), "--sweep.families", families, "--sweep.dose", "true", "-q"]) == 0
    result = result_files.load(swept)
    assert cli.main(["controls", str(swept), *FEW, "-q"]) == 0
    curves = result_files.load(swept / "controls" / "curves.nc")
    for network, group in curves.children.items():
        own = group.to_dataset().sel(reader="trained").isel(draw=0)
        for edit in ("small", "large"):
            there = result[f"collapse_{edit}"].to_dataset().sel(network=network, split="test").squeeze(drop=True)
            there = there.isel(fraction=there.fraction > 0)
            total = int(there.total)
            flips = 1 - there.agree.transpose("seed", "fraction").to_numpy() / total
            np.testing.assert_allclose(own.flips.sel(edit=edit), flips, atol=1.01 / total)
            dose = there.dose.transpose("seed", "fraction").to_numpy()
            np.testing.assert_allclose(own.dose.sel(edit=edit), dose, atol=1e-5)


def test_it_is_told_again_the_same_and_the_rest_of_the_run_stays(swept):
    before = (swept / "result.nc").read_bytes()
    kept = []
    for _ in range(2):
        assert cli.main(["controls", str(swept), *FEW, "-q"]) == 0
        kept.append({path.name: path.read_bytes() for path in (swept / "controls").iterdir() if path.suffix != ".nc"})
    assert kept[0] == kept[1]
    assert before == (swept / "result.nc").read_bytes()
    assert cli.main(["report", str(swept), "-q"]) == 0  # whose manifest still fits
    assert (swept / "controls" / "readers.csv").exists()


def test_networks_that_were_imported_have_no_beginning(swept):
    pytest.importorskip("torch")
    assert cli.main(["export-torch", str(swept), "--out", "torch"]) == 0
    assert cli.main(["import-torch", "torch", "--out", "imported"]) == 0
    assert cli.main(["controls", "imported", *FEW, "-q"]) == 0
    frame = pd.read_csv("imported/controls/readers.csv")
    assert set(frame.reader) == {"trained", "permuted 1", "permuted 2"}
    assert "before training" not in Path("imported/controls/controls.md").read_text(encoding="utf-8")


SMALL = ("--train.steps=2", "--model.hidden=8", "-q", "--out=run")


@pytest.mark.parametrize(
    ("trained", "words", "sentence"),
    [
        (("relu", 1), (), "run: readers are compared over seeds, at least 2 of them, but the run has 1"),
        (
            ("gelu", 2),
            (),
            "run: network 'gelu' has an activation of which small values are not those near the",
        ),
        (("relu_l2", 2), (), "run: network 'relu_l2' has an activation behind its last layer, so that its output"),
        (
            ("relu", 2, "--model.hidden=1"),
            (),
            "run: the last hidden layer has a single unit, whose weights have no other",
        ),
        (("relu", 2), ("--permutations", "0"), "permutations: expected at least 1, got 0"),
        (("relu", 2), ("--draws", "x"), "expected a whole number, got 'x'"),
        (("relu", 2), ("--data.dir", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_compared_is_refused(capsys, trained, words, sentence):
    name, seeds, *more = trained
    assert cli.main(["train", f"--model.activations={name}", f"--train.seeds={seeds}", *SMALL, *more]) == 0
    capsys.readouterr()
    assert cli.main(["controls", "run", *words]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not Path("run/controls").exists()


def test_networks_without_any_activation_are_named(capsys, swept):
    path = swept / "weights" / "relu.safetensors"
    kept = weights.load(path)
    kept["dense0"] = {"weight": 0 * kept["dense0"]["weight"], "bias": 0 * kept["dense0"]["bias"] - 1}
    weights.save(kept, path)
    (swept / "manifest.json").unlink()
    assert cli.main(["controls", str(swept), *FEW, "-q"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("jaxdist: network 'relu': 2 of 2 seeds have no dose, as where activations do not vary")
    assert error.count("\n") == 1
    assert not (swept / "controls").exists()


def test_networks_that_have_learned_nothing_and_doses_that_are_not_reached_are_told(capsys):
    assert cli.main(["train", "--train.steps=0", "--train.seeds=3", "--model.hidden=8", "-q", "--out=run"]) == 0
    assert cli.main(["controls", "run", *FEW, "--json", "c.json"]) == 0
    said = capsys.readouterr().out
    notes = json.loads(Path("c.json").read_text())["notes"]
    assert [note.partition(":")[0] for note in notes] == ["relu", "abs"]
    assert all("at chance on test images: they have learned nothing that could be read." in note for note in notes)
    frame = pd.read_csv("run/controls/readers.csv")
    beyond = frame[frame.reader.str.match("trained|permuted") & (frame.x_low != frame.x_high)]
    assert len(beyond)
    assert "each test takes the end against its claim" in " ".join(said.split())
    trained, before = (frame[frame.reader == name].x_low.to_numpy() for name in ("trained", "before"))
    np.testing.assert_array_equal(trained, before)


def test_seeds_without_a_dose_are_left_out_and_counted_once(swept):
    """Of three networks one is dead: two are read, and each kind of reader is told to lack one seed."""
    assert cli.main(["train", "--train.steps=5", "--train.seeds=3", "--model.hidden=8", "-q", "--out=run"]) == 0
    path = Path("run/weights/relu.safetensors")
    kept = weights.load(path)
    kept["dense0"] = {"weight": kept["dense0"]["weight"].copy(), "bias": kept["dense0"]["bias"].copy()}
    kept["dense0"]["weight"][1], kept["dense0"]["bias"][1] = 0, -1
    weights.save(kept, path)
    Path("run/manifest.json").unlink()
    assert cli.main(["controls", "run", *FEW, "-q", "--json", "c.json"]) == 0
    assert any(
        "relu: seed 1 is left out, without a dose" in note for note in json.loads(Path("c.json").read_text())["notes"]
    )
    text = Path("run/controls/controls.md").read_text(encoding="utf-8")
    for words in ("as trained", "output weights put to other units"):
        assert f"At 1 %, 1 seed of '{words}' without a dose, left out." in text


def test_options_of_what_runs_together_arrive(swept, monkeypatch):
    seen = []
    original = readers.measure
    monkeypatch.setattr(readers, "measure", lambda *a, **k: seen.append(tuning.current().points) or original(*a, **k))
    assert cli.main(["controls", str(swept), *FEW, "-q", "--compute.points=3"]) == 0
    assert set(seen) == {3}
