"""Edits as data: the paper's grids, formulas and conventions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdist.config import SweepConfig
from jaxdist.errors import InputError
from jaxdist.perturbations import edits, families
from jaxdist.types import Ranges

LOW, HIGH = np.array([0.0, 1.0, 0.0], np.float32), np.array([4.0, 3.0, 0.0], np.float32)
RANGES = Ranges(jnp.asarray(LOW), jnp.asarray(HIGH), jnp.asarray([False, False, True]))
H = jnp.asarray([[-2.0, 0.5, -1.0], [4.0, 3.0, -3.0]])  # [n, H]


def apply(family, p, options=None):
    made = families.build(family, RANGES, np.array([p]), options or SweepConfig())
    one = jax.tree.map(lambda leaf: leaf[0], made)
    return np.asarray(one.apply(H, jnp.arange(2), unit_axis=-1))


def test_the_papers_grids():
    grid, offsets = families.intensity_grid(), families.offset_grid()
    assert (len(grid), grid[0], grid[66], grid[-1]) == (100, 0.01, 1.0, 10.0)
    assert (grid >= 1).sum() == 34
    assert (len(offsets), offsets[0], offsets[72], offsets[-1]) == (125, -2.0, 0.0, 1.0)
    # The published analysis takes index 50 as its baseline.
    assert grid[50] == pytest.approx(0.32745, abs=1e-5)
    assert offsets[50] == pytest.approx(-0.22)
    for values in (grid, offsets):
        assert (np.diff(values) > 0).all()


def test_grids_are_those_of_a_run_of_the_papers_code(shared):
    import json

    ran = json.loads((shared / "reference" / "relu_seed0_sweep_counts.json").read_text())["PerturbationReLU"][0]
    for family in map(families.get, families.PAPER):
        np.testing.assert_allclose(family.grid(), ran[f"{family.name}_values"], rtol=1e-12, atol=1e-12)


def test_scale_multiplies_live_units():
    np.testing.assert_allclose(apply("scale", 0.5), [[-1.0, 0.25, -1.0], [2.0, 1.5, -3.0]])
    np.testing.assert_allclose(apply("scale", 0.5, SweepConfig(dead_units="nan")), 0.5 * np.asarray(H))


@pytest.mark.parametrize(("formula", "ceilings"), [("code", (2.0, 2.0)), ("text", (2.0, 1.0)), ("caption", (2.0, 1.5))])
def test_clip_formulas_by_hand_at_one_half(formula, ceilings):
    """Unit 0 has range 0..4, unit 1 has range 1..3."""
    found = apply("clip", 0.5, SweepConfig(clip_formula=formula))
    np.testing.assert_allclose(found[1, :2], ceilings)
    np.testing.assert_allclose(found[0, :2], [-2.0, 0.5])


def test_clip_by_the_code_at_one_is_exactly_no_edit():
    rng = np.random.default_rng(0)
    low = rng.random(1000).astype(np.float32)
    high = low + rng.random(1000).astype(np.float32) * 100
    ranges = Ranges(jnp.asarray(low), jnp.asarray(high), jnp.zeros(1000, bool))
    made = families.build("clip", ranges, np.array([1.0]), SweepConfig())
    np.testing.assert_array_equal(made.high[0], high)


def test_offset_formulas_by_hand_at_one_quarter():
    """r = (4, 2): shifts (1, 0.5); slopes 3/4 and 2.5/3 by the code, 3/4 as intended, (3, 1.5) literally."""
    for formula, slopes in (("code", (0.75, 2.5 / 3)), ("intended", (0.75, 0.75)), ("literal", (3.0, 1.5))):
        found = apply("offset", 0.25, SweepConfig(offset_formula=formula))
        expected = np.array(slopes) * np.asarray(H)[:, :2] + [1.0, 0.5]
        np.testing.assert_allclose(found[:, :2], expected, rtol=1e-6)


@pytest.mark.parametrize("p", [-2.0, -0.3, 0.4, 1.0])
def test_offset_by_the_code_keeps_the_largest_value_and_moves_the_boundary(p):
    found = apply("offset", p)
    np.testing.assert_allclose(found[1, :2], HIGH[:2], rtol=1e-6)
    made = families.build("offset", RANGES, np.array([p]), SweepConfig())
    if p < 1:
        boundary = -np.asarray(made.offset)[0, 0] / np.asarray(made.scale)[0, 0]
        assert np.sign(boundary) == -np.sign(p), "the boundary moves against the sign of p"
    else:
        np.testing.assert_array_equal(made.scale[0, 0], 0)


def test_dead_units_stay_as_they_are_or_become_nan():
    for family in families.PAPER:
        np.testing.assert_array_equal(apply(family, 0.3)[:, 2], np.asarray(H)[:, 2])
    assert np.isnan(apply("offset", 0.0, SweepConfig(dead_units="nan"))[:, 2]).all()
    assert not np.isnan(apply("offset", 0.0, SweepConfig(dead_units="nan"))[:, :2]).any()


def test_each_family_is_unedited_at_its_identity_but_the_literal_offset_nowhere():
    for family in families.PAPER:
        point = families.identity(family, SweepConfig())
        assert point is not None
        np.testing.assert_allclose(apply(family, point), np.minimum(np.asarray(H), [4, 3, np.inf]), rtol=1e-6)
    assert families.identity("offset", SweepConfig(offset_formula="literal")) is None


def test_the_texts_clip_reaches_no_edit_only_where_it_exceeds_every_largest_value():
    """Unit 1 has range 1..3: at p = 1 the text clips it at 2."""
    text = SweepConfig(clip_formula="text")
    np.testing.assert_allclose(apply("clip", 1.0, text)[1, 1], 2.0)
    point = families.identity("clip", text)
    assert point == 10
    np.testing.assert_array_equal(apply("clip", point, text), H)


def test_an_infinite_clip_is_no_edit_also_for_a_unit_without_a_range():
    flat = Ranges(jnp.asarray([2.0]), jnp.asarray([2.0]), jnp.asarray([False]))
    for formula in ("code", "text", "caption"):
        made = families.build("clip", flat, np.array([np.inf]), SweepConfig(clip_formula=formula))
        assert np.isposinf(made.high).all()


def test_an_edit_applies_along_the_declared_unit_axis():
    made = jax.tree.map(lambda leaf: leaf[0], families.build("offset", RANGES, np.array([0.25]), SweepConfig()))
    by_row = made.apply(H, jnp.arange(2), unit_axis=-1)
    np.testing.assert_array_equal(made.apply(H.T, jnp.arange(2), unit_axis=0), by_row.T)
    images = jnp.stack([H, 2 * H], axis=1)  # [n, positions, H], as behind a convolution
    np.testing.assert_array_equal(made.apply(images, jnp.arange(2), unit_axis=-1)[:, 0], by_row)


def test_an_ensembles_edits_are_its_networks_edits():
    two = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), RANGES)._replace(
        high=jnp.stack([RANGES.high, RANGES.high * 2])
    )
    both = families.build("clip", two, families.intensity_grid(), SweepConfig())
    for k in range(2):
        one = families.build(
            "clip", jax.tree.map(lambda leaf, k=k: leaf[k], two), families.intensity_grid(), SweepConfig()
        )
        jax.tree.map(lambda a, b, k=k: np.testing.assert_array_equal(a[k], b), both, one)


def test_an_unknown_family_is_named_with_the_nearest_known_one():
    with pytest.raises(InputError, match="unknown family 'ofset'; did you mean 'offset'"):
        families.get("ofset")


def test_units_for_which_a_formula_means_nothing_follow_the_dead_ones():
    mixed = Ranges(jnp.array([-3.0, -1.0, -2.0]), jnp.array([-1.0, 2.0, 0.0]), jnp.array([False, False, True]))
    for family, options in (("offset", {}), ("clip", {"clip_formula": "caption"})):
        np.testing.assert_array_equal(
            families.without_meaning(family, mixed, SweepConfig(**options)), [True, False, False]
        )
        made = families.build(family, mixed, np.array([0.3]), SweepConfig(**options))
        none = edits.unedited(3)
        for leaf, plain in zip(made, none, strict=True):
            np.testing.assert_array_equal(leaf[0, [0, 2]], plain[jnp.array([0, 2])])
        assert (made.scale[0, 1], made.high[0, 1]) != (1, np.inf)
        literal = families.build(family, mixed, np.array([0.3]), SweepConfig(dead_units="nan", **options))
        assert (literal.scale[0, 0], literal.high[0, 0]) != (1, np.inf)
    assert not np.any(families.without_meaning("offset", mixed, SweepConfig(offset_formula="intended")))
    assert not np.any(families.without_meaning("scale", mixed, SweepConfig()))


def test_a_formula_that_means_nothing_for_a_whole_network_is_refused_with_the_way_out():
    flat = Ranges(np.array([[-3.0, -1.0]] * 2), np.array([[-1.0, 2.0], [-1.0, -2.0]]), np.array([[False, False]] * 2))
    with pytest.raises(InputError, match=r"site: offset_formula 'code' .* use sweep.offset_formula 'intended'"):
        families.check_meaning("offset", flat, SweepConfig(), "site")
    with pytest.raises(InputError, match=r"clip_formula 'caption' needs .* use sweep.clip_formula 'code'"):
        families.check_meaning("clip", flat, SweepConfig(clip_formula="caption"))
    families.check_meaning("offset", flat, SweepConfig(offset_formula="intended"))
    families.check_meaning("clip", flat, SweepConfig())
    families.check_meaning("scale", flat, SweepConfig())
    first = jax.tree.map(lambda leaf: leaf[0], flat)  # one of its units is positive
    families.check_meaning("offset", first, SweepConfig())
    for family in families.PAPER:
        families.check_meaning(family, RANGES, SweepConfig(clip_formula="caption"))


def test_a_clip_of_quantiles_or_deviations_edits_nothing_only_at_the_end_of_the_grid():
    for rule in ("quantile", "sd"):
        assert families.identity("clip", SweepConfig(), rule) == families.intensity_grid()[-1]
        assert families.identity("scale", SweepConfig(), rule) == 1
        assert families.identity("offset", SweepConfig(), rule) == 0
    assert families.identity("clip", SweepConfig(), "minmax") == 1
    assert families.identity("clip", SweepConfig(), "minmax", reached=False) == families.intensity_grid()[-1]


def test_each_network_may_have_fractions_of_its_own():
    two = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), RANGES)._replace(
        high=jnp.stack([RANGES.high, RANGES.high * 2])
    )
    own = np.array([[0.1, 0.2, 0.7], [0.3, -0.5, 1.0]])
    for family in families.PAPER:
        both = families.build(family, two, own, SweepConfig())
        for k in range(2):
            alone = jax.tree.map(lambda leaf, k=k: leaf[k], two)
            one = families.build(family, alone, own[k], SweepConfig())
            jax.tree.map(lambda a, b, k=k: np.testing.assert_array_equal(a[k], b), both, one)
    with pytest.raises(ValueError, match="one row a network"):
        families.build("scale", RANGES, own, SweepConfig())


@pytest.mark.parametrize(
    ("leading", "fractions"), [((), (2, 3)), ((2,), (3, 3)), ((2, 2), (2, 3))], ids=["one network", "others", "stacked"]
)
def test_fractions_of_each_network_need_networks_as_many(leading, fractions):
    zeros = jnp.zeros((*leading, 4))
    bounds = Ranges(zeros, zeros + 1, zeros > 0)
    with pytest.raises(ValueError, match=r"fractions: expected \[P\] or one row a network, got \("):
        families.build("clip", bounds, np.full(fractions, 0.5), SweepConfig())
