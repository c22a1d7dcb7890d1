"""Plans: the arithmetic by hand, and that a plan leaves nothing behind. How near it comes is measured, not tested."""

from __future__ import annotations

import jax
import pytest

from jaxdist import cli, config
from jaxdist.data.inputs import load_inputs
from jaxdist.errors import InputError
from jaxdist.experiment import planning
from jaxdist.report import writing

TREE = {
    "model": {"hidden": [8], "activations": ["relu", "abs"]},
    "train": {"seeds": 2, "steps": 5},
    "sweep": {"families": ["scale"], "splits": ["test"]},
}


@pytest.fixture(scope="module")
def found() -> planning.Plan:
    return planning.plan(config.from_dict(TREE))


def test_the_work_is_that_of_the_products(found):
    first, head = 2.0 * 64 * 8, 2.0 * 8 * 10  # operations an image forward, all inputs counted
    step = 1437 * (2 * first + 3 * head) + 360 * (first + head)
    assert found.train_flops == 4 * 6 * step  # four networks; five updates, and the last weights measured
    assert found.sweep_flops == 4 * 360 * (first + head + 100 * head)
    assert found.networks == 4


def test_every_stage_takes_time_and_memory_is_this_process_at_least(found):
    assert set(found.seconds) == {"load", "compile", "train", "sweep", "report"}
    assert all(seconds >= 0 for seconds in found.seconds.values())
    assert found.total_s > 0
    assert found.memory > 100e6
    assert found.devices == jax.device_count()


def test_more_devices_share_seeds_first_and_then_images(found):
    wanted = config.override(config.from_dict(TREE), {"train.seeds": "20"})
    assert "on 8 cpu devices: 4 share the networks, 2 the images" in planning.rendered(
        found._replace(devices=8), wanted
    )
    with pytest.raises(InputError, match="--devices: expected at least 1, got 0"):
        planning.plan(wanted, 0)


def test_a_plan_for_other_devices_says_so(found):
    more = found._replace(devices=8)
    assert "measured on 2 devices, taken to be shared evenly" in planning.rendered(more, config.from_dict(TREE))
    assert "taken to be" not in planning.rendered(found, config.from_dict(TREE))


@pytest.mark.parametrize("asked", [{}, {"sweep.dose": "true"}, {"sweep.matched": "0.1,0.2"}])
def test_a_report_of_doses_is_timed_where_there_will_be_one(asked, monkeypatch):
    wanted = config.override(config.from_dict(TREE), {"sweep.families": "scale,noise", **asked})
    written = []
    whole = writing.write
    monkeypatch.setattr(writing.figures, "save", lambda *_: [])
    monkeypatch.setattr(writing, "write", lambda *given: written.extend(path.name for path in whole(*given)))
    assert planning._report_seconds(wanted, load_inputs(wanted), 2) > 0
    assert ("verdict.md" in written) == ("doses.csv" in written) == bool(asked)


def test_what_is_not_measured_is_named(found):
    wanted = config.override(config.from_dict(TREE), {"sweep.matched": "0.1", "sweep.grid": "true"})
    assert "without sweep.matched, sweep.grid" in planning.rendered(found, wanted)
    assert "without" not in planning.rendered(found, config.from_dict(TREE))


@pytest.mark.usefixtures("in_an_empty_folder")
def test_the_command_says_it_in_80_columns_and_writes_nothing(monkeypatch, capsys, found, tmp_path):
    asked = []
    monkeypatch.setattr(planning, "plan", lambda *given: asked.append(given) or found)
    assert cli.main(["plan", "--devices", "4", "--train.seeds", "7"]) == 0
    ((wanted, devices),) = asked
    assert (wanted.train.seeds, devices) == (7, 4)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["networks", "work", "split", "memory", "time", "load"]
    assert max(map(len, lines)) <= 80
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("in_an_empty_folder")
def test_a_number_of_devices_that_is_none(capsys):
    assert cli.main(["plan", "--devices", "some"]) == 2
    assert "expected a whole number, got 'some'" in capsys.readouterr().err
