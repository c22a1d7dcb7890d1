"""What is measured of images in the order of a staircase is what is measured of them in their own."""

import jax
import numpy as np
import pytest

from jaxdist.compute import devices
from jaxdist.config import Options, SweepConfig
from jaxdist.data import inputs
from jaxdist.networks import mlp, training
from jaxdist.sweep import counting, family_sweeps, labels, means, unedited
from jaxdist.sweep.counting import Context
from jaxdist.sweep.waves import Subject
from tests.staircase_support import shifted

pytestmark = pytest.mark.usefixtures("optimised")

SITE = "dense0/pre"
COUNT = 4097
FAMILIES = ("scale", "clip", "noise", "resample", "mean_position")
SCALED = {
    "black": lambda x: x / 16,
    "standard": lambda x: (x / 255 - np.float32(0.13)) / np.float32(0.3),
}


def silent(*_):
    pass


def at_once(name, compute):
    return compute()


@pytest.fixture(scope="module", params=SCALED)
def pair(request, digits):
    """Networks on images in the order of a staircase and in their own: the subject and what is measured of it."""
    x, y = shifted(digits.train, COUNT, seed=0)
    splits = {"train": (SCALED[request.param](x), y)}
    mesh = devices.make_mesh()
    sweep = SweepConfig(families=FAMILIES, dose=True, draws=2, splits=("train",))
    initial = mlp.init_ensemble(jax.random.key(1), range(2), (256, 24, 10))
    made, params = [], None
    for in_order in (True, False):
        laid_out = inputs.lay_out(splits, mesh, "float32", in_order=in_order)
        assert bool(laid_out.splits["train"].widths) != in_order
        model, examples = mlp.model("relu", background=laid_out.background), laid_out.splits["train"]
        if params is None:
            optimizer = training.optimizer("sgd", {"black": 0.02, "standard": 0.3}[request.param])
            narrow = mlp.narrow(initial, laid_out.used)
            trained = training.train(model, narrow, examples, examples, steps=150, optimizer=optimizer)
            params = mlp.widen(trained.params, laid_out.used, initial)
        subject = Subject(model, mlp.narrow(params, laid_out.used))
        context = Context(
            {"train": examples}, {SITE: (SITE,)}, Options(sweep=sweep), range(2), silent, at_once, classes=10
        )
        made.append((subject, context))
    return made[::-1]


def both(pair, measure):
    return [measure(subject, context) for subject, context in pair]


def test_ranges_means_and_classes(pair):
    for cut, whole in zip(*both(pair, lambda s, c: counting.measure_ranges(s, c, "relu")[SITE]), strict=True):
        np.testing.assert_allclose(cut, whole, rtol=1e-4, atol=1e-3)
    cut, whole = both(pair, lambda s, c: means.measure(s.model, s.params, c.splits["train"], (SITE,))[SITE])
    np.testing.assert_allclose(cut, whole, rtol=1e-4, atol=1e-3)
    cut, whole = both(pair, lambda s, c: unedited.measure(s.model, s.params, c.splits["train"]))
    assert whole.correct.min() > COUNT / 3
    np.testing.assert_array_equal(cut.labels, whole.labels)
    np.testing.assert_array_equal(cut.predicted, whole.predicted)


def test_counts_and_doses_of_every_kind_of_edit(pair):
    """Random numbers and other images go by an image's own number: in another order nearly all would be others."""

    def swept(subject, context):
        subjects = {"relu": subject}
        measured = {"relu": counting.measure_ranges(subject, context, "relu")}
        dosings = counting.dosings(subjects, context)
        every = family_sweeps.sweep(subjects, measured, context, dosings)
        return {name: labels.over_draws(each) for name, each in every.items()}

    cut, whole = both(pair, swept)
    assert set(whole) == set(FAMILIES)
    for family in FAMILIES:
        difference = np.abs(cut[family].correct.astype(int) - whole[family].correct)
        assert float(difference.max()) <= 2, family
        assert float(whole[family].correct.max() - whole[family].correct.min()) > 100, family
        np.testing.assert_allclose(cut[family].rms, whole[family].rms, rtol=1e-3, atol=1e-4, err_msg=family)
