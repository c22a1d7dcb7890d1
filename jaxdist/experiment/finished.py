"""What is done with a finished run: its tables and figures again, by other statistics, and the verdict on it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import xarray as xr

from jaxdist import config as configs
from jaxdist import files
from jaxdist.analysis import FairComparison, dose_tables, dosed
from jaxdist.config import StatisticsConfig
from jaxdist.errors import InputError
from jaxdist.experiment import running
from jaxdist.report import pages, writing
from jaxdist.storage import folders, manifests, result_files
from jaxdist.sweep import results


def report_folder(folder: Path, changes: Mapping[str, str] | None = None) -> xr.DataTree:
    """Write the tables and figures of a swept run folder; `changes` overrides fields of the statistics.

    Raises:
      InputError: if the folder is not a run or holds no sweep, or a change is not allowed.
    """
    with folders.held(folders.with_result(folder)) as folder:
        result = _swept(folder)
        if changes:
            _keep(running.changed(result, changes, ("statistics.",)).statistics, result, folder)
        writing.write(result, results.options_of(result).statistics, folder)
    return result


def report_folders(given: Sequence[Path], out: Path, changes: Mapping[str, str] | None = None) -> Path:
    """Write one page of several swept run folders, over each other, into the folder `out`; returns the page.

    All are told by the statistics of the first, with `changes`; the runs' folders stay as they are.

    Raises:
      InputError: if one of them is not a run or holds no sweep, is given twice, or a change is not allowed; or if `out`
        is a run's folder, which has a page of its own.
    """
    if folders.is_run(files.expanded(out)):
        raise InputError(
            f"{out}: is a run folder, which already holds the page of that run; choose another folder with --out"
        )
    trees = []
    for folder in map(folders.with_result, given):
        if sum(folder.resolve() == files.expanded(other).resolve() for other in given) > 1:
            raise InputError(f"{folder}: is named twice; name each run once")
        trees.append(_swept(folder))
    statistics = results.options_of(trees[0]).statistics
    if changes:
        statistics = running.changed(trees[0], changes, ("statistics.",)).statistics
    (page,) = writing.write_page(given, trees, statistics, files.expanded(out))
    return page


def verdict_folder(
    folder: Path, flips: float | None = None, site: str | None = None
) -> tuple[xr.DataTree, FairComparison, StatisticsConfig]:
    """Compare the edits of a run folder at equal dose and write tables and figure of it; returns what it is made of.

    Args:
      folder: a run folder.
      flips: replaces the margin in the result's own statistics, a fraction: later reports say the same.
      site: whose comparison is returned, all sites' if None; what is written has all.

    Raises:
      InputError: if the folder is not a run, or was not swept for what a verdict needs, naming the command; or if there
        is no such site. Nothing is written then.
    """
    with folders.held(folders.with_result(folder)) as folder:
        result = result_files.load(folder)
        # What lacks only some of what a verdict needs has doses to show, and says that there is no verdict.
        if not dosed.has_doses(result):
            raise InputError(
                f"{folder}: holds no doses of {', '.join(dosed.lacking(result))}; {dosed.remedy(result, folder)}"
            )
        statistics = results.options_of(result).statistics
        if flips is not None:
            statistics = dataclasses.replace(statistics, flips=flips)
        comparison = dose_tables.compare(result, statistics)
        wanted = comparison if site is None else comparison.at(site)
        if flips is not None:
            _keep(statistics, result, folder)
        writing.write_verdict(result, comparison, statistics, folder)
        if (folder / pages.FILE).exists():  # `report` makes it; it must not say otherwise
            with manifests.recording(folder):
                writing.write_page([folder], [result], statistics, folder)
    return result, wanted, statistics


def _swept(folder: Path) -> xr.DataTree:
    result = result_files.load(folder)
    if not running.is_swept(result):
        raise InputError(f"{folder}: not swept yet; run 'jaxdist sweep {folder}' first")
    return result


def _keep(statistics: StatisticsConfig, result: xr.DataTree, folder: Path) -> None:
    """Make these a result's own statistics, in its file too."""
    if "config" in result.attrs:
        config = dataclasses.replace(results.config_of(result), statistics=statistics)
        result.attrs["config"] = configs.to_toml(config)
        folders.save(folder, config, result, anew=False)
    else:
        options = dataclasses.replace(results.options_of(result), statistics=statistics)
        result.attrs["options"] = json.dumps(configs.to_dict(options))
        result_files.save(result, folder / result_files.FILE)
