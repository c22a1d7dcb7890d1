"""From IDX files, on disk or on the web, to a prepared TFDS data set."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from jaxdist import files
from jaxdist.data import download as web
from jaxdist.data import idx, prepared, tfds_sets
from jaxdist.data.dataset import accessible
from jaxdist.data.loading import from_files
from jaxdist.errors import InputError, nearest
from jaxdist.formatting import counted


@accessible()
def prepare(
    name: str, *, source: Path | None, data_dir: Path | None, download: bool, report: Callable[[str], None]
) -> Path:
    """Make a prepared TFDS data set and return its folder; no TensorFlow is needed.

    The images keep the order of the IDX files. A set that is prepared already is left as it is.

    Args:
      name: of the data set, lower_snake_case.
      source: the folder of its IDX files; None with `download`.
      data_dir: the folder of prepared sets; None: TFDS's default.
      download: fetch the official files, of a known name, instead.
      report: is given one line a step.

    Raises:
      InputError: for a request or files that cannot be used; nothing that looks prepared is left then.
    """
    _check_request(name, source, download)
    data_dir = files.expanded(data_dir or prepared.default_dir())
    done = prepared.find(data_dir, name)
    if done is not None:
        report(f"{name} is already prepared in {done}")
        return done
    with tempfile.TemporaryDirectory() as incoming:
        folder = Path(incoming) if source is None else files.expanded(source)
        if source is None:
            web.fetch(name, folder, base_url=web.MIRRORS[name], digests=web.DIGESTS[name], report=report)
        dataset = from_files(name, folder)
        if dataset is None:
            what = "holds no data set of a known kind" if folder.exists() else "no such file or folder"
            raise InputError(
                f"{folder}: {what}; expected IDX or NumPy files, a table with a column of labels, or pictures by "
                "class; correct --from"
            )
        if source is not None and not _official(name, folder):
            report(f"note: the files in {folder} are not the official {name} files; they are prepared as they are")
    report(
        f"writing {len(dataset.train.images):,} train and "
        f"{counted(f'{len(dataset.test.images):,}', 'test image')} of {name}"
    )
    done = tfds_sets.write(dataset, data_dir)
    report(f"{name} is prepared in {done}")
    return done


def _check_request(name: str, source: Path | None, download: bool) -> None:
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise InputError(f"'{name}' is not a valid data set name; expected lower_snake_case, such as mnist")
    if name == "digits":
        raise InputError(
            "digits comes with scikit-learn and needs no preparation; choose another data set, such as mnist"
        )
    if download == (source is not None):
        got = "both" if download else "neither"
        raise InputError(f"prepare {name}: expected either --from FOLDER or --download, got {got}")
    if download and name not in web.MIRRORS:
        raise InputError(
            f"'{name}' cannot be downloaded; put its four IDX files in a folder and run 'jaxdist data prepare {name} "
            f"--from FOLDER'{nearest(name, web.MIRRORS)}"
        )


def _official(name: str, folder: Path) -> bool:
    """Whether the files are the official ones; any file will do for a name that has none."""
    paths = ((idx.find(folder, stem), expected) for stem, expected in web.DIGESTS.get(name, {}).items())
    return all(path is not None and web.official(path, expected) for path, expected in paths)
