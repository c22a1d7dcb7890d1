"""Networks that are not finite enter no number; those at chance have no radius and no verdict of accuracy."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

import jaxdist
from jaxdist import config
from jaxdist.analysis import breakdowns, dose_tables, tables
from jaxdist.compute import devices
from jaxdist.compute.progress import silent
from jaxdist.errors import InputError
from jaxdist.networks import targets
from jaxdist.networks.model import Model
from jaxdist.perturbations import ranges, rules
from jaxdist.report import documents, markdown, summary, verdicts, writing
from jaxdist.storage import result_files
from jaxdist.sweep import counting, fitness, results, study, unedited
from jaxdist.sweep.waves import Subject
from jaxdist.version import SCHEMA
from tests import results_support

OPTIONS = config.StatisticsConfig()
FRAMES = {
    "points": lambda r: tables.points(r, OPTIONS),
    "tolerance": lambda r: tables.tolerance(r, OPTIONS),
    "flips": lambda r: tables.tolerance(r, OPTIONS, "flips"),
    "units": breakdowns.units,
    "matched": breakdowns.matched,
    "grid": lambda r: next(breakdowns.pairs(r)).points,
    "doses": lambda r: dose_tables.compare(r, OPTIONS).doses,
    "costs": lambda r: dose_tables.compare(r, OPTIONS).costs,
    "robust": lambda r: dose_tables.compare(r, OPTIONS).robust,
    "rhos": lambda r: dose_tables.rho_frame(dose_tables.compare(r, OPTIONS).rhos),
}
EVERYTHING = {"dose": True, "units": True, "matched": (0.2,), "grid": True, "sensitivity": True}


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 8))
    y = np.repeat(np.arange(4), (90, 70, 70, 70))
    return (centres[y] + 0.6 * rng.normal(size=(300, 8))).astype(np.float32), y


def apply(params, x, tap):
    return jax.nn.relu(tap("h", x @ params["w"] + params["b"][None])) @ params["v"]


@pytest.fixture(scope="module")
def networks(images):
    """Seven networks whose last layers are fitted, [7, ...]."""
    x, y = images

    def one(seed):
        rng = np.random.default_rng(seed)
        w, b = rng.normal(size=(8, 6)).astype(np.float32), np.full(6, 0.1, np.float32)
        hidden = np.maximum(x @ w + b, 0)
        return {"w": w, "b": b, "v": np.linalg.lstsq(hidden, np.eye(4)[y], rcond=None)[0].astype(np.float32)}

    return jax.tree.map(lambda *leaves: np.stack(leaves), *map(one, range(7)))


def probed(networks, images, **options):
    families = options.pop("families", ("scale", "clip", "offset"))
    return jaxdist.probe(
        apply, networks, train=images, post={"h": jax.nn.relu}, stacked=True, families=families, **options
    )


def without(networks, seed):
    return jax.tree.map(lambda leaf: np.delete(leaf, seed, axis=0), networks)


def changed(networks, seed, **leaves):
    copied = jax.tree.map(np.copy, networks)
    for name, value in leaves.items():
        copied[name][seed] = value
    return copied


def renumbered(frame, seed):
    """The seeds of an ensemble that one was taken from, numbered as before."""
    return frame.assign(seed=frame.seed + (frame.seed >= seed)) if "seed" in frame else frame


@pytest.fixture(scope="module")
def reference(networks, images):
    return {seed: probed(without(networks, seed), images, **EVERYTHING) for seed in (2, 6)}


NOT_FINITE = {
    "nan in all weights": {"w": np.nan, "b": np.nan, "v": np.nan},
    "nan in one bias": {"b": np.array([0, 0, np.nan, 0, 0, 0])},
    "infinite outgoing weights": {"v": np.inf},
    "a weight of minus infinity": {"b": np.array([-np.inf, 0, 0, 0, 0, 0])},
    "finite weights whose products overflow": {"w": 1e30, "v": 1e30},
}


class TestNotFinite:
    @pytest.mark.parametrize("seed", [2, 6])
    @pytest.mark.parametrize("leaves", NOT_FINITE.values(), ids=list(NOT_FINITE))
    def test_every_number_equals_that_of_the_ensemble_without_it(self, leaves, seed, networks, images, reference):
        result = probed(changed(networks, seed, **leaves), images, **EVERYTHING)
        for name, frame in FRAMES.items():
            # Where only the logits tell, the examples already lie on the mesh of all seven.
            exactly = {} if leaves.keys() == {"w", "v"} else {"check_exact": True}
            pd.testing.assert_frame_equal(frame(result), renumbered(frame(reference[seed]), seed), **exactly, obj=name)
        (note,) = fitness.notes(result)
        assert note.startswith(f"network: seed {seed} is not finite (")
        assert note.endswith("6 of 7 seeds are left")
        reasons = [*(f"weights '{name}'" for name in leaves), "logits of "]
        assert any(reason in note for reason in reasons)

    def test_tables_and_page_say_which_network_they_are_without(self, networks, images, tmp_path):
        result = probed(changed(networks, 2, w=np.nan), images, out=tmp_path / "run", dose=True)
        (note,) = fitness.notes(result)
        for name in ("report.html", "tables/verdict.md", "tables/corrected.md", "tables/tolerance.md"):
            text = (tmp_path / "run" / name).read_text(encoding="utf-8").replace("&#39;", "'")
            assert note in text, name

    def test_an_ensemble_of_nothing_else_is_refused_in_a_sentence(self, networks, images):
        broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), networks)
        with pytest.raises(InputError, match=r"network 'network': seeds 0, 1, .* and 6 are not finite \(weights 'b'\)"):
            probed(broken, images)

    def test_a_single_network_is_refused_whatever_is_measured(self, networks, images):
        one = jax.tree.map(lambda leaf: leaf[0], changed(networks, 0, v=np.nan))
        for families in (("scale",), ("offset",), ("noise",)):
            with pytest.raises(InputError, match=r"seed 0 is not finite \(weights 'v'\)"):
                jaxdist.probe(apply, one, train=images, post={"h": jax.nn.relu}, families=families)

    def test_classes_that_a_network_rules_out_are_no_fault(self, networks, images):
        def ruling_out(params, x, tap):
            return jnp.pad(apply(params, x, tap), ((0, 0), (0, 1)), constant_values=-jnp.inf)

        options = {"train": images, "post": {"h": jax.nn.relu}, "stacked": True, "families": ("scale",)}
        result, plain = (jaxdist.probe(each, networks, **options) for each in (ruling_out, apply))
        assert fitness.notes(result) == []
        np.testing.assert_array_equal(result["scale"].correct, plain["scale"].correct)

    def test_where_another_network_has_the_seed_its_place_is_empty(self, networks, images):
        """Two networks of the same seeds, each of which has lost another: as each measured without it."""
        lost = {"first": 1, "second": 4}
        ensembles = {name: changed(networks, seed, w=np.nan) for name, seed in lost.items()}
        measured = _studied(ensembles, images)
        for name, seed in lost.items():
            alone = _studied({name: without(networks, seed)}, images)
            for key, frame in FRAMES.items():
                if key in ("grid", "matched"):
                    continue
                here, there = frame(measured), renumbered(frame(alone), seed)
                here = here[here.network == name].reset_index(drop=True)
                if key == "rhos":
                    here = here[here.against == ""].reset_index(drop=True)
                pd.testing.assert_frame_equal(here, there, check_exact=False, rtol=1e-6, obj=f"{name} {key}")
        assert [note.split(" is ")[0] for note in fitness.notes(measured)] == ["first: seed 1", "second: seed 4"]


def _studied(ensembles, images):
    options = config.options_by_name(
        {"families": ("scale", "clip", "offset"), "dose": True, "units": True, "splits": ("train",)}, where="test"
    )
    model = Model(apply, (("h", jax.nn.relu),))
    seeds = len(next(iter(ensembles.values()))["w"])
    splits = devices.place_splits({"train": images}, devices.make_mesh(seeds=seeds))
    subjects = {name: Subject(model, params) for name, params in ensembles.items()}
    context = counting.Context(
        splits, targets.targets_of(["h"], "each"), options, range(seeds), silent, lambda _, compute: compute()
    )
    attrs = {"schema": SCHEMA, "options": json.dumps(config.to_dict(options))}
    return results.tree(study.study(subjects, context), attrs)


AT_CHANCE = {
    "one class by its logits": {"v": 0.0},
    "one class by its bias, which no unit gets over": {"w": 0.0, "v": np.eye(6, 4)},
    "classes in another order": None,
}


@pytest.fixture(scope="module", params=AT_CHANCE)
def result(request, networks, images):
    leaves = AT_CHANCE[request.param]
    if leaves is None:
        leaves = {"v": np.roll(networks["v"][6], 1, axis=1)}
    return probed(changed(networks, 6, **leaves), images, **EVERYTHING)


class TestAtChance:
    def test_every_radius_and_verdict_of_accuracy_is_that_of_the_ensemble_without_it(self, result, reference):
        for name in ("tolerance", "flips", "grid"):
            with_it, alone = FRAMES[name](result), FRAMES[name](reference[6])
            pd.testing.assert_frame_equal(
                with_it.drop(columns="left_out", errors="ignore"), alone.drop(columns="left_out", errors="ignore")
            )
            assert name == "grid" or set(with_it.left_out) == {"6"}
        with_it, alone = tables.points(result, OPTIONS), tables.points(reference[6], OPTIONS)
        judged = ["drop", "drop_low", "drop_high", "t", "p", "p_holm", "effect_size", "noninferiority_p"]
        judged += ["noninferior", "smallest_margin", "published_t", "published_p", "judged"]
        pd.testing.assert_frame_equal(with_it[judged], alone[judged])
        with_it, alone = (FRAMES["robust"](each) for each in (result, reference[6]))
        of_accuracy = with_it.outcome == "accuracy"
        pd.testing.assert_frame_equal(
            with_it[of_accuracy].drop(columns="left_out"), alone[of_accuracy].drop(columns="left_out")
        )

    def test_counts_flips_and_doses_stand(self, result, reference):
        counts, others = result["clip"].to_dataset(), reference[6]["clip"].to_dataset()
        assert counts.sizes["seed"] == 7
        for name in ("correct", "agree", "kept"):
            np.testing.assert_array_equal(counts[name].isel(seed=slice(6)), others[name])
        points = tables.points(result, OPTIONS)
        assert (points.seeds == 7).all()
        clip = points[points.family == "clip"]
        np.testing.assert_allclose(clip.accuracy, counts.correct.mean("seed").squeeze() / 300)
        np.testing.assert_allclose(clip.agree, counts.agree.mean("seed").squeeze() / 300)
        assert set(FRAMES["doses"](result).seed) == set(range(7))

    def test_every_place_that_it_would_have_entered_says_so(self, result, capsys, tmp_path):
        (note,) = fitness.notes(result)
        assert note.startswith("network: seed 6 is at chance on train images (")
        assert "6 of 7 seeds are left" in note
        beside = "without seed 6, at chance; 6 of 7 seeds are left"
        summary.show(result)
        printed = " ".join(capsys.readouterr().out.split())
        assert note in printed
        assert beside in printed
        points, reach = tables.points(result, OPTIONS), tables.tolerance(result, OPTIONS)
        for text in (markdown.corrected(points, OPTIONS), markdown.tolerance(reach, OPTIONS)):
            assert beside in text
        found = dose_tables.compare(result, OPTIONS)
        assert note in json.loads(verdicts.json_of(result, found, OPTIONS))["notes"]
        numbers = documents.main_numbers(result, OPTIONS)
        assert numbers["notes"] == [note]
        assert all(row["left_out"] == [6] for row in numbers["tolerance"])
        writing.write(result, OPTIONS, tmp_path)
        for name in ("report.html", "tables/verdict.md", "tables/corrected.md", "tables/tolerance.md"):
            assert beside in (tmp_path / name).read_text(encoding="utf-8"), name

    def test_alone_it_is_a_note_and_no_error(self, networks, images, capsys):
        one = jax.tree.map(lambda leaf: leaf[6], changed(networks, 6, v=0.0))
        result = jaxdist.probe(apply, one, train=images, post={"h": jax.nn.relu}, families=("offset",), dose=True)
        reach = tables.tolerance(result, OPTIONS)
        assert reach["median"].isna().all()
        assert (reach.seeds == 0).all()
        points = tables.points(result, OPTIONS)
        assert points["drop"].isna().all()
        assert not points.noninferior.any()
        np.testing.assert_allclose(points.accuracy, result["offset"].correct.squeeze() / 300)
        summary.show(result)
        assert "no radius and no verdict of accuracy" in " ".join(capsys.readouterr().out.split())


class TestDefinition:
    @pytest.mark.parametrize(("total", "largest"), [(10, 1), (300, 90), (60000, 6742), (20, 20), (7, 4)])
    def test_at_chance_is_the_one_sided_binomial_test(self, total, largest):
        correct = np.unique(np.linspace(0, total, 41).astype(int))
        p = [stats.binomtest(int(k), total, largest / total, alternative="greater").pvalue for k in correct]
        np.testing.assert_array_equal(fitness.at_chance(correct, total, largest), np.array(p) > 0.05)

    @pytest.mark.parametrize(("total", "largest"), [(300, 90), (60000, 6742), (10**9, 10**8)])
    def test_the_last_count_at_chance_is_that_of_the_binomial_distribution(self, total, largest):
        last = int(stats.binom.isf(0.05, total, largest / total)) + 1
        near = np.arange(last - 3, last + 4)
        expected = stats.binom.sf(near - 1, total, largest / total) > 0.05
        assert 0 < expected.sum() < len(near)
        np.testing.assert_array_equal(fitness.at_chance(near, total, largest), expected)

    def test_whoever_gives_all_images_one_class_is_at_chance(self):
        for labels in np.random.default_rng(1).multinomial(200, [0.4, 0.3, 0.2, 0.1], size=50):
            assert fitness.at_chance(labels, 200, labels.max()).all()

    @pytest.mark.parametrize("block", [None, 1, 7, 300])
    def test_counts_are_those_of_numpy_whatever_the_blocks(self, block, networks, images):
        x, y = images
        examples = devices.place(x, y, devices.make_mesh(seeds=7))
        counts = unedited.measure(Model(apply), changed(networks, 3, w=np.nan), examples, block=block)
        hidden = np.maximum(np.einsum("nd,sdh->snh", x.astype(float), networks["w"]) + networks["b"][:, None], 0)
        classes = np.einsum("snh,shc->snc", hidden, networks["v"]).argmax(-1)
        fine = np.arange(7) != 3
        np.testing.assert_array_equal(counts.correct[fine], (classes == y).sum(1)[fine])
        expected = np.stack([np.bincount(row, minlength=4) for row in classes])
        np.testing.assert_array_equal(counts.predicted[fine], expected[fine])
        np.testing.assert_array_equal(counts.labels, np.bincount(y))
        np.testing.assert_array_equal(counts.not_finite, np.where(fine, 0, 300))
        assert counts.correct[3] == 0
        assert not counts.predicted[3].any()

    @pytest.mark.parametrize("rule", [rules.Rule(), rules.Rule("sd"), rules.Rule("quantile", 0.05)])
    @pytest.mark.parametrize("task", ["classes", "regression"])
    def test_ranges_of_the_same_walk_are_those_of_one_of_their_own(self, rule, task, networks, images):
        x, y = images
        labels = y if task == "classes" else np.eye(4, dtype=np.float32)[y]
        data = {"train": (x, labels), "test": (x[:71], labels[:71])}
        splits = devices.place_splits(data, devices.make_mesh(seeds=7))
        model = Model(apply, (("h", jax.nn.relu),), task=task)
        params = changed(networks, 3, w=np.nan)
        counts, measured = unedited.measure_with_ranges(
            model, params, splits, ("h",), measured_on="post", rule=rule, block=64
        )
        for split, examples in splits.items():
            jax.tree.map(
                np.testing.assert_array_equal, counts[split], unedited.measure(model, params, examples, block=64)
            )
        expected = ranges.measure(model, params, splits["train"], ("h",), rule=rule, block=64)
        assert (measured is None) == (rule.kind == "quantile")
        if measured is not None:
            jax.tree.map(np.testing.assert_array_equal, measured, expected)

    def test_an_older_result_says_nothing_of_chance(self):
        result = results_support.made_up()
        assert fitness.notes(result) == []
        assert fitness.chances(result) == {}
        assert (tables.tolerance(result, OPTIONS).left_out == "").all()


def with_unedited(result, correct, labels):
    """A made-up result with the group that judges its networks; `correct` [network, seed] on every split."""
    clip = result["clip"].to_dataset()
    splits, seeds, names = clip.split.to_numpy(), clip.seed.to_numpy(), clip.network.to_numpy()
    counts = {
        name: {
            split: unedited.Unedited(np.array(of), np.tile(labels, (len(seeds), 1)), np.zeros(len(seeds), int), labels)
            for split in splits
        }
        for name, of in zip(names, correct, strict=True)
    }
    group = fitness.group(counts, {name: [""] * len(seeds) for name in names}, seeds)
    groups = {str(name): child.to_dataset() for name, child in result.children.items()}
    return results.tree({**groups, fitness.GROUP: group}, result.attrs)


class TestControlsAndSnapshots:
    LABELS = np.array([300, 250, 250])

    @pytest.fixture
    def low(self):
        result = results_support.made_up(full=True)
        return with_unedited(result, [[310] * 6, [700] * 5 + [300]], self.LABELS)

    def test_a_network_all_of_whose_seeds_are_at_chance_has_no_radius_and_others_keep_theirs(self, low, tmp_path):
        reach = tables.tolerance(low, OPTIONS)
        relu, abs_ = (reach[reach.network == name] for name in ("relu", "abs"))
        assert relu["median"].isna().all()
        assert (relu.seeds == 0).all()
        assert abs_["median"].notna().all()
        assert (abs_.seeds == 5).all()
        writing.write(low, OPTIONS, tmp_path)
        assert "relu: seeds 0, 1, 2, 3, 4 and 5 are at chance" in (tmp_path / "report.html").read_text("utf-8")

    def test_declared_controls_are_shown_with_the_note(self, low, tmp_path):
        low.attrs["config"] = config.to_toml(config.from_dict({"train": {"steps": 0, "seeds": 6}}, where="test"))
        reach, plain = tables.tolerance(low, OPTIONS), tables.tolerance(results_support.made_up(full=True), OPTIONS)
        pd.testing.assert_frame_equal(reach, plain)
        assert all("untrained, shown as controls" in note for note in fitness.notes(low))
        writing.write(low, OPTIONS, tmp_path)
        for name in ("tables/tolerance.md", "tables/corrected.md", "report.html"):
            text = (tmp_path / name).read_text(encoding="utf-8")
            assert all(note in text.replace("&#39;", "'") for note in fitness.notes(low)), name

    def test_snapshots_at_chance_are_shown_and_counted(self, low):
        points, reach = breakdowns.along_training(low, OPTIONS)
        plain_points, plain_reach = breakdowns.along_training(results_support.made_up(full=True), OPTIONS)
        shown = points.drop(columns="at_chance"), reach.drop(columns="at_chance")
        for frame, plain in zip(shown, (plain_points, plain_reach), strict=True):
            pd.testing.assert_frame_equal(frame, plain.drop(columns="at_chance"))
        # Of 800 images at most a tenth, where the largest class has three eighths.
        assert (points[points.threshold == 0.1].at_chance == 6).all()
        assert (points[points.threshold > 0.6].at_chance == 0).all()
        assert any("6 trained to 10 %" in note for note in breakdowns.stage_notes(points))


@pytest.mark.slow
def test_growing_a_run_of_an_older_version_judges_all_of_its_networks(tmp_path):
    out = str(tmp_path / "run")
    small = {"train": {"steps": 4, "seeds": 2}, "model": {"hidden": [8], "activations": ["relu"]}, "out": out}
    first = jaxdist.run(config.from_dict(small, where="test"))
    groups = {str(k): v.to_dataset() for k, v in first.children.items() if k != fitness.GROUP}
    result_files.save(results.tree(groups, first.attrs), tmp_path / "run" / result_files.FILE)
    small["train"]["seeds"] = 3
    grown = jaxdist.run(config.from_dict(small, where="test"))
    whole = jaxdist.run(config.from_dict({**small, "out": f"{out}-whole"}, where="test"))
    for name in ("correct", "predicted", "labels", "not_finite"):
        xr.testing.assert_equal(grown[fitness.GROUP][name], whole[fitness.GROUP][name])


class TestFewAreLeft:
    """What is said where two seeds or one remain of those at chance, or none."""

    LABELS = np.array([300, 250, 250])

    def judged(self, *correct, seeds=None):
        result = results_support.made_up(networks=("relu",), seeds=len(correct), full=True)
        return with_unedited(result, [list(correct)], self.LABELS)

    @pytest.mark.parametrize("correct", [(300, 310), (300, 310, 300)])
    def test_seeds_at_chance_are_not_said_to_be_alike(self, correct, tmp_path):
        writing.write(self.judged(*correct), OPTIONS, tmp_path)
        for name in ("tables/corrected.md", "tables/published.md", "report.html"):
            assert "are alike" not in (tmp_path / name).read_text(encoding="utf-8"), name

    def test_tests_from_two_of_three_seeds_say_that_they_are_from_two(self):
        points = tables.points(self.judged(700, 720, 300), OPTIONS)
        assert (points.judged == 2).all()
        assert any("from two seeds" in sentence for sentence in tables.cautions(points, "p"))

    def test_bands_of_all_seeds_are_not_those_of_the_one_that_is_judged(self):
        result = self.judged(700, 300)
        points = tables.points(result, OPTIONS)
        assert set(points.over) == {"seeds"}
        assert set(points.tested_over) == {"images"}
        assert not tables.over_images(points)
        text = markdown.corrected(points, OPTIONS)
        assert "McNemar" in text
        assert "Student t" not in text

    def test_intervals_over_images_and_over_seeds_are_told_apart(self):
        one = tables.tolerance(self.judged(700, 300), OPTIONS)
        two = tables.tolerance(self.judged(700, 710), OPTIONS).assign(network="abs")
        words = summary.interval_words(pd.concat([one, two], ignore_index=True), OPTIONS)
        assert words.startswith("Median of 2 seeds (too few for a 95 % interval), of relu 95 % over images")

    def test_runs_on_one_page_have_their_own_notes(self):
        frames = [
            tables.tolerance(self.judged(*correct), OPTIONS).assign(label=label)
            for label, correct in (("a: relu", (700, 300, 710)), ("b: relu", (300, 700, 710, 720)))
        ]
        assert tables.left_out_notes(pd.concat(frames, ignore_index=True)) == [
            f"{label}, {split} images: without seed {seed}, at chance; {left} are left"
            for label, seed, left in (("a: relu", 1, "2 of 3 seeds"), ("b: relu", 0, "3 of 4 seeds"))
            for split in ("train", "test")
        ]


def test_reasons_are_given_for_each_network_that_is_not_finite(networks, images):
    broken = changed(changed(networks, 2, w=np.nan), 4, w=1e30, v=1e30)
    x = images[0].copy()
    x[1:] = 0
    note = fitness.notes(probed(broken, (x, images[1])))[0]
    assert note == (
        "network: seeds 2 and 4 are not finite (seed 2: weights 'w'; seed 4: logits of 1 train image); they enter no "
        "number, 5 of 7 seeds are left"
    )


def test_dead_units_are_counted_of_networks_that_are_finite():
    result = results_support.made_up(networks=("relu",), seeds=3)
    ranges = result["ranges"].to_dataset()
    for name in ("low", "high"):
        ranges[name][:, 1] = np.nan
    result["ranges"] = ranges
    printed = [note for note in summary._notes(result, OPTIONS) if "dead unit" in note]
    assert printed == ["relu: 1 dead unit in 1 of 2 networks; such are left as they are"]


def test_weights_that_are_not_those_of_the_training_are_noticed():
    result = with_unedited(
        results_support.made_up(networks=("relu",), seeds=3), [[700, 710, 300]], np.array([400, 400])
    )
    accuracy = np.array([[700, 710, 720]]) / 800
    recorded = dict.fromkeys(("train_accuracy", "test_accuracy"), (("network", "seed", "step"), accuracy[..., None]))
    coords = {"network": ["relu"], "seed": range(3), "step": [0]}
    result["training"] = xr.Dataset(recorded | {"loss": recorded["train_accuracy"]}, coords)
    notes = [note for note in fitness.notes(result) if "its training ended" in note]
    assert [note.split(" is right on ")[0] for note in notes] == ["relu: seed 2"] * 2
    assert "37.50 % of the train images, where its training ended with 90.00 %" in notes[0]


def test_figures_of_means_say_how_many_networks_they_hold_or_lack(networks, images):
    mixed = changed(changed(networks, 2, w=np.nan), 6, v=0.0)
    assert fitness.remark(probed(mixed, images)) == "1 network not finite, left out\n1 network at chance, shown"
    assert fitness.remark(results_support.made_up()) == ""
