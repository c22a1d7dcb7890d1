"""PyTorch checkpoints and the paper's own results, in and out; nothing read from a file is ever executed."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from jaxdist import files
from jaxdist.storage import result_files
from jaxdist.storage.torch import paper
from jaxdist.storage.torch.checkpoints import TORCH_SUFFIXES
from jaxdist.storage.torch.code import torch_code
from jaxdist.storage.torch.transfer import export_run, import_run

__all__ = ["export_run", "import_run", "load", "torch_code"]


def load(path: str | Path) -> xr.DataTree:
    """Read a result: a run folder, its result file, or the paper's ``perturbation_results.pt`` or tree that holds it.

    Raises:
      InputError: if there is none, it is broken, or another version of jaxdist wrote it.
    """
    path = files.expanded(path)
    if path.suffix in TORCH_SUFFIXES and not path.is_dir():
        return paper.read_result(path)
    if (path / paper.RESULT_FILE).is_file():
        return paper.read_result(path / paper.RESULT_FILE)
    return result_files.load(path)
