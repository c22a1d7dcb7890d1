"""How a result was made, as a page says it: config, data, versions, device, timings, and the command to repeat it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from jaxdist.report.pages.parts import Section
from jaxdist.report.table import Column, Table
from jaxdist.sweep import results


def sections(name: str, result: xr.DataTree, folder: Path) -> Iterator[Section]:
    """The protocol of one result."""
    code = []
    if "config" in result.attrs:
        code.append(("Config", str(result.attrs["config"])))
        code.append(("The same again", _command(result, folder)))
    elif "options" in result.attrs:
        code.append(("Options of jaxdist.probe", json.dumps(json.loads(result.attrs["options"]), indent=2)))
    listed = [Table("How it was made", [Column("what"), Column("value")], list(_facts(result)))]
    yield Section(f"Protocol: {name}", tables=listed, code=code, open=False)


def _command(result: xr.DataTree, folder: Path) -> str:
    folder = folder if folder.name else folder.resolve()
    path = shlex.quote(str(folder))
    if "origin" in result.attrs:
        return f"jaxdist sweep {path}  # its networks were imported"
    return f"jaxdist run {shlex.quote(str(folder / 'config.toml'))} --out {shlex.quote(f'{folder}-again')}"


def _facts(result: xr.DataTree) -> Iterator[tuple[str, str]]:
    attrs = result.attrs
    for key, label in (
        ("data_name", "data"),
        ("data_source", "read from"),
        ("data_digest", "digest of the images"),
        ("precision", "precision"),
    ):
        if key in attrs:
            yield label, str(attrs[key])
    for note in results.data_notes_of(result):
        yield "note on the data", note
    if sentence := results.untrained(result):
        yield "networks", sentence
    if unknown := json.loads(attrs.get("origin", "{}")).get("unknown"):
        yield "imported", f"what the config says of {', '.join(unknown)} is not known of these networks"
    for stage, seconds in json.loads(attrs.get("timings", "{}")).items():
        yield f"{stage.removesuffix('_s').replace('_', ' ')} took", f"{float(np.sum(seconds)):.1f} s"
    for stage, group in result.children.items():
        if "made" not in group.attrs:
            continue
        record = json.loads(group.attrs["made"])
        versions = [f"{package} {version}" for package, version in record.get("versions", {}).items()]
        # Older results do not say all of it.
        words = [
            str(record.get("at", "")),
            f"{record['devices']} x {record['device']} ({record['platform']})" if "devices" in record else "",
            f"Python {record['python']}" if "python" in record else "",
            *versions,
        ]
        yield f"{stage} made", ", ".join(filter(None, words))
