"""The file of a result: saved whole or not at all, with a checksum, and read again."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import xarray as xr

from jaxdist import files
from jaxdist.errors import DAMAGED, InputError
from jaxdist.storage import manifests, places
from jaxdist.version import READABLE, SCHEMA

FILE = places.RESULT

_LARGE = 8192
"""Bytes of an array from which compressing it saves more than its index in chunks takes."""


def save(result: xr.DataTree, path: Path) -> None:
    """Write a result as one netCDF-4 file, its larger arrays compressed, with a checksum behind its end."""
    result = result.map_over_datasets(lambda group: group.drop_encoding())  # that of the file it was read from
    encoding = {
        node.path: {
            name: {"zlib": True, "complevel": 4}
            for name, data in node.to_dataset().variables.items()
            if data.nbytes >= _LARGE
        }
        for node in result.subtree
        if node.data_vars
    }
    result.attrs = {"schema": SCHEMA, **result.attrs}
    # In memory first: the HDF5 library does not survive a disk that is full.
    content = result.to_netcdf(None, engine="h5netcdf", encoding=encoding)
    with manifests.renewing(path), files.aside(path) as temporary:
        temporary.write_bytes(files.sealed(content))


def load(path: str | Path) -> xr.DataTree:
    """Read a result, given its file or its run folder.

    Raises:
      InputError: if there is none, it is broken, or another version of jaxdist wrote it.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE
    if not path.is_file():
        raise InputError(f"{path}: no result found; pass a run folder made by 'jaxdist run' or 'jaxdist train'")
    try:
        files.check_seal(path)  # the HDF5 library takes some damage for content, and never comes back from some
        # h5netcdf, of a file whose root is damaged, also complains on stderr.
        with h5py.File(path) as file:
            list(file)
        with xr.open_datatree(path, engine="h5netcdf") as opened:
            result = opened.load()
        schemas = np.ravel(result.attrs.get("schema", "none")).tolist()
    except (OSError, *DAMAGED) as error:
        raise InputError(
            f"{path}: not a readable result file ({type(error).__name__}: {error}); restore it from an intact copy, "
            "or repeat the run"
        ) from None
    if schemas not in [[schema] for schema in READABLE]:
        raise InputError(
            f"{path}: expected a result of schema {SCHEMA}, got {', '.join(map(str, schemas))}; "
            "use the version of jaxdist that wrote it"
        )
    result.attrs["schema"] = SCHEMA  # what older ones have otherwise is told by their dimensions
    return result
