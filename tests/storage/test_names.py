"""Names of files are bounded, whatever they are made of, and no two things share one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from jaxdist import cli, files
from jaxdist import config as configs
from jaxdist.compute import devices
from jaxdist.errors import InputError
from jaxdist.experiment import running
from jaxdist.report import writing
from jaxdist.storage import result_files, unfinished
from jaxdist.sweep import counting
from tests.results_support import made_up

LONG = ["a" * 300, "é" * 200, "层" * 120, "layers[0]/" * 40, "x." * 150, "." + "y" * 254, "z" * 240 + "." + "q" * 14]


@pytest.mark.parametrize("text", LONG)
def test_any_text_names_a_file_that_can_be_written(text, tmp_path):
    names = f"{files.named(text)}.npz", f"{files.parts([text])[text]}.png", files.fitted(text.replace("/", "-"), ".csv")
    for name in names:
        with files.aside(tmp_path / name) as aside:
            aside.write_bytes(b"-")
            assert files.is_temporary(aside.name)
    assert {path.name for path in tmp_path.iterdir()} == set(names)


@pytest.mark.parametrize(
    "name", ["n" * 255, "n" * 251 + ".csv", "层" * 85, "n" * 200 + "." + "s" * 54, "two\nlines.md"]
)
def test_every_name_that_a_disk_allows_is_written_aside_and_cleaned_up(name, tmp_path, monkeypatch):
    files.write_text(tmp_path / name, "whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with files.aside(tmp_path / name) as temporary:
        temporary.write_text("half")
        assert temporary.suffix == (".csv" if name.endswith(".csv") else temporary.suffix)
        left = tmp_path / f"{temporary.name[:-1]}{'0' if temporary.name[-1] != '0' else '1'}"
        if not temporary.suffix:
            left.write_text("of a killed process")
    files.remove_left_over(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


ALIKE = ["a/b", "a_b", "A_b", "a:b", "a\\b", "b", *("c" * 100 + end for end in ("", "d", "/d", "_d", "D"))]


def test_no_two_labels_share_a_part_of_names_also_where_capitals_are_not_told():
    parts = files.parts(ALIKE)
    assert list(parts) == ALIKE
    assert len({part.casefold() for part in parts.values()}) == len(ALIKE)
    assert parts["b"] == "b"
    assert not any(set(part) & set('/\\:*?"<>|') for part in parts.values())


def test_no_two_arrays_share_a_name():
    jobs, sites = ("sweep", "sweep means", "match 1", "match"), ("a/b", "a-b", "a b", 'a", "b', "all", "1-2")
    seeds = ([0], [1], [0, 1], [0, 2], [10], range(300), range(299), [*range(299), 300], [])
    every = list(itertools.product(jobs, ("relu", "relu2"), sites, ("train", "test"), seeds))
    names = {files.named(counting.kept_as(*parts, seeds=these)) for *parts, these in every}
    assert len(names) == len(every)
    assert max(map(len, names)) < 100


@pytest.mark.parametrize("numbers", [[], [5], [3, 4, 5], [0, 2, 4], [9, 8, 7], [1, 2, 10**12, 10**12 + 1]])
def test_spans_say_every_number(numbers):
    numbers_read = []
    for part in filter(None, counting.spans(numbers).split(",")):
        first, _, last = part.partition("-")
        numbers_read += range(int(first), int(last or first) + 1)
    assert numbers_read == numbers


def test_an_array_of_something_else_is_not_taken(tmp_path):
    store = unfinished.Store(tmp_path, configs.Config())
    store.kept_or_computed("one thing", lambda: (np.arange(3),))
    (path,) = (tmp_path / unfinished.FOLDER / "sweep").iterdir()
    path.rename(path.with_name(f"{files.named('another')}.npz"))
    with pytest.raises(InputError, match=r"holds something else.*delete it, then repeat the command"):
        store.kept_or_computed("another", lambda: (np.arange(4),))


def test_pictures_of_sites_with_long_and_like_names_are_all_written(tmp_path, monkeypatch):
    stems = []
    monkeypatch.setattr(writing.figures, "save", lambda figure, folder, stem: stems.append(stem) or [])
    sites = ("m/" * 150 + "x", "m/" * 150 + "y", "a/b", "a_b")
    given = made_up(networks=("relu",), sites=sites)
    writing.write(given, configs.StatisticsConfig(), tmp_path)
    assert len(set(stems)) == len(stems)
    assert sum(stem.startswith("figure1-") for stem in stems) == 4
    assert max(len(f"{stem}.svg") for stem in stems) <= files.LONGEST_NAME


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--train.seeds=300"], ["--train.seeds=20", "--train.snapshots=true"]])
def test_a_run_of_many_seeds_goes_to_its_end(options, tmp_path, monkeypatch):
    """By 73 seeds a batch, or 7 with weights kept along training, their numbers are longer than a name may be."""
    monkeypatch.setattr(devices, "use_all_cores", lambda: None)
    monkeypatch.setattr(running.writing, "write", lambda *_: [])
    small = ["--train.steps=2", "--model.hidden=4", "--model.activations=abs", "--sweep.splits=test"]
    command = ["run", "--out", str(tmp_path / "run"), "-q", *small, *options]
    assert cli.main([*command, "--sweep.families=clip,restored_offset"]) == 0
    assert not (tmp_path / "run" / unfinished.FOLDER).exists()
    assert result_files.load(tmp_path / "run")["clip"].sizes["seed"] == int(options[0].partition("=")[2])
