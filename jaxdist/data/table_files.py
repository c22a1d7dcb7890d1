"""Tables of examples, a row each: a column of labels, and numbers or pictures in the others; CSV, Parquet and Arrow."""

from __future__ import annotations

import dataclasses
import gzip
import io
import itertools
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxdist.data.dataset import RawSplit
from jaxdist.errors import DAMAGED, InputError
from jaxdist.formatting import counted, listed

_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".parquet", ".arrow")
_LABELS = ("label", "labels", "class", "target", "y", "digit", "species", "category", "fine_label")
_LEAST_PIXELS = 16
_PICTURES = ("image", "img", "picture")
_BESIDE = ("", "id", "index", "imageid", "unnamed: 0")
"""Columns that number the rows."""


@dataclasses.dataclass(frozen=True)
class Table:
    """The examples of one split."""

    values: np.ndarray
    label: np.ndarray | None
    """Of each row, as it is in the table; None where there is no such column."""
    names: tuple[str, ...]
    """What the classes are called, where the labels are words."""
    where: str
    columns: tuple[str, ...]

    def split(self, of: Table) -> RawSplit:
        """The examples with their classes as numbers, those of the training table."""
        assert self.label is not None
        if self.columns != of.columns:
            raise InputError(
                f"{self.where}: has other columns than {of.where}, such as "
                f"{listed(sorted(set(self.columns) ^ set(of.columns))[:3]) or 'in another order'}; expected the same"
            )
        labels = self.label
        if of.names:
            numbers = {name: k for k, name in enumerate(of.names)}
            words = [str(word) for word in labels]
            if (unknown := next((word for word in words if word not in numbers), None)) is not None:
                raise InputError(f"{self.where}: class {unknown!r} does not occur in {of.where}; expected its classes")
            labels = np.array([numbers[word] for word in words], np.int32)
        return RawSplit(self.values, labels, self.where, self.where)


def is_table(path: Path) -> bool:
    """Whether a file is a table by its name."""
    return path.name.lower().endswith(_SUFFIXES)


def in_folder(folder: Path) -> list[Path]:
    """The tables in a folder; those of a Hugging Face data set also one folder further down."""
    there = [path for path in sorted(folder.iterdir()) if path.is_file() and is_table(path)]
    if there:
        return there
    inner = [path for inside in sorted(folder.iterdir()) if inside.is_dir() for path in sorted(inside.iterdir())]
    return [path for path in inner if path.is_file() and path.suffix in (".parquet", ".arrow")]


def read(paths: Sequence[Path]) -> Table:
    """One table from one or more files of the same columns.

    Raises:
      InputError: if a file cannot be read, or a column is neither numbers nor pictures.
    """
    frames = [_frame(path) for path in paths]
    frame = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    where = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {counted(len(paths) - 1, 'more file', 'more files')}"
    if not len(frame):
        raise InputError(f"{where}: has no rows; expected one for each example")
    columns = {str(column).strip().lower(): column for column in frame.columns}
    labelled = [columns[name] for name in _LABELS if name in columns]
    if len(labelled) > 1 or sum(str(column).strip().lower() in _LABELS for column in frame.columns) > 1:
        raise InputError(
            f"{where}: has the columns {listed(list(map(str, labelled)))}, any of which may be that of the labels; "
            "expected one; leave the others out"
        )
    label = next(iter(labelled), None)
    picture = next((columns[name] for name in _PICTURES if name in columns), None)
    if label is None and picture is None and all(str(column).isdecimal() for column in frame.columns):
        pixels = frame.shape[1] - 1
        if pixels < _LEAST_PIXELS or not any(math.isqrt(pixels // c) ** 2 * c == pixels for c in (1, 3)):
            raise InputError(
                f"{where}: has no names of columns, so that it cannot be told which is that of the labels; expected a "
                "first line of names, with label, class or target among them; add one"
            )
        label = frame.columns[0]  # the usual CSV of MNIST: the label, then square pictures
    labels, names = _labels(frame[label], where) if label is not None else (None, ())
    if picture is not None:
        return Table(_pictures(frame[picture], where), labels, names, where, (str(picture),))
    others = [column for column in frame.columns if column != label and str(column).strip().lower() not in _BESIDE]
    return Table(_numbers(frame[others], where), labels, names, where, tuple(map(str, others)))


def _frame(path: Path) -> pd.DataFrame:
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        if path.suffix == ".arrow":
            import pyarrow as pa

            with pa.memory_map(str(path)) as source:
                return pa.ipc.open_stream(source).read_all().to_pandas()
        return _separated(path, "\t" if path.suffix == ".tsv" else ",")
    except (*DAMAGED, ImportError, pd.errors.ParserError, gzip.BadGzipFile, zlib.error) as error:
        said = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(
            f"{path}: cannot be read as a table ({said}); expected columns with a comma between two and a line for "
            "each example, or Parquet; save it anew"
        ) from None


def _separated(path: Path, separator: str) -> pd.DataFrame:
    """A table whose first line may be names, perhaps of the first columns alone."""
    first = pd.read_csv(path, sep=separator, nrows=1, header=None, skipinitialspace=True).iloc[0].tolist()
    named = _are_names(first)
    frame = pd.read_csv(path, sep=separator, header=None, skiprows=int(named), skipinitialspace=True)
    if frame.shape[1] < 2:
        raise ValueError("it has a single column")
    names = ["" if pd.isna(name) else str(name).strip() for name in first] if named else []
    # Some write "label,pixels" above all of the pixels.
    if named and len(names) != frame.shape[1] and not (len(names) == 2 and names[0].lower() in _LABELS):
        raise ValueError(f"it has {len(names)} names for {frame.shape[1]} columns")
    frame.columns = pd.Index([*names, *map(str, range(len(names), frame.shape[1]))])
    if frame.columns.has_duplicates:
        raise ValueError(f"it has several columns {frame.columns[frame.columns.duplicated()][0]!r}")
    return frame


def _are_names(cells: list[Any]) -> bool:
    """Whether a first line holds names of columns; numbers alone are names only where they count the columns."""
    numbers = [float(cell) for cell in cells if _is_number(cell) and not pd.isna(cell)]
    whole = all(number == round(number) for number in numbers)
    rising = whole and all(b == a + 1 for a, b in itertools.pairwise(numbers))
    if len(numbers) == len(cells):
        return rising and len(cells) > 1 and numbers[0] in (0, 1)
    return not numbers or rising


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _labels(column: pd.Series[Any], where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """The labels, and the names of the classes where the labels are words."""
    if column.isna().any():
        row = int(column.isna().to_numpy().argmax())
        raise InputError(f"{where}: row {row} has no label; expected one in each row; fill it in or leave the row out")
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if pd.api.types.is_numeric_dtype(column):
        values = column.to_numpy()
        whole = np.issubdtype(values.dtype, np.integer) or (values == np.round(values)).all()
        return (values.astype(np.int64) if whole else values), ()
    words = column.astype(str)
    return words.to_numpy(), tuple(sorted(words.unique()))


def _numbers(frame: pd.DataFrame, where: str) -> np.ndarray:
    """All columns as numbers [rows, columns], whole ones up to 255 as uint8."""
    for name in frame.columns:
        column = frame[name]
        if not pd.api.types.is_numeric_dtype(column):
            raise InputError(
                f"{where}: column {str(name)!r} is not numbers; expected numbers in all columns but that of the labels "
                "(label, class or target); turn it into numbers or leave it out"
            )
        if column.isna().any():
            row = int(column.isna().to_numpy().argmax())
            raise InputError(
                f"{where}: row {row} has no value in column {str(name)!r}; expected a number in each; fill it in or "
                "leave the row out"
            )
    values = frame.to_numpy()
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind in "iu" and values.min() >= 0 and values.max() <= 255:
        return values.astype(np.uint8)
    return values if values.dtype.kind in "iuf" else values.astype(np.float64)


def _pictures(column: pd.Series[Any], where: str) -> np.ndarray:
    """Pictures [rows, height, width, ...] of a column of encoded files, as Hugging Face's data sets have them."""
    from jaxdist.data import pictures

    contents = []
    for row, cell in enumerate(column):
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(content, bytes):
            raise InputError(
                f"{where}: row {row} holds no picture but {type(cell).__name__}; expected the bytes of a picture file; "
                "export the data set with its pictures"
            )
        contents.append((f"{where}: row {row}", io.BytesIO(content)))
    return pictures.decoded(contents)
