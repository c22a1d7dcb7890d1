"""The fair comparison from the command line to the verdict, on a run that grows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jaxdist import cli
from jaxdist import config as configs
from jaxdist.experiment import running

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("in_an_empty_folder")]

SWEEP = {
    "families": ["clip", "offset", "noise", "floor", "dead_zone", "clip_both"],
    "splits": ["test"],
    "dose": True,
    "draws": 4,
    "gauges": ["as_is", "averaged"],
}


def config(out, seeds):
    tree = {
        "out": out,
        "model": {"activations": ["abs"], "hidden": [8]},
        "train": {"seeds": seeds, "steps": 20},
        "sweep": SWEEP,
    }
    return configs.from_dict(tree)


def test_a_run_with_doses_grows_to_the_run_of_all_seeds_and_has_a_verdict(capsys, monkeypatch):
    monkeypatch.setattr(running.writing, "write", lambda *_: [])  # pictures have tests of their own
    running.run(config("grown", 2))
    grown = running.run(config("grown", 4))
    whole = running.run(config("whole", 4))
    assert {"averaged_clip", "averaged_offset", *SWEEP["families"]} <= set(whole.children)
    assert set(grown.children) == set(whole.children)
    for name in whole.children:
        for variable, values in whole[name].data_vars.items():
            other = grown[name][variable]
            assert other.dims == values.dims
            np.testing.assert_array_equal(other, values, err_msg=f"{name} {variable}")
    assert cli.main(["verdict", "whole", "--json", "verdict.json"]) == 0
    shown = capsys.readouterr().out
    assert "digits abs, dense0/pre, test images" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80
    assert json.loads(Path("verdict.json").read_text(encoding="utf-8"))
    for name in ("tables/doses.csv", "tables/verdict.md", "figures/doses.png"):
        assert (Path("whole") / name).stat().st_size > 0
