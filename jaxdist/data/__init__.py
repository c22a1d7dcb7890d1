"""Labelled images as NumPy arrays, from a name or a folder.

`load` reads a data set, `scaled` makes network inputs of it, `prepare` turns IDX files into a prepared TFDS data set.
TensorFlow Datasets is imported only when a data set must be decoded or written.
"""

from jaxdist.data.dataset import Dataset, Split
from jaxdist.data.loading import EMBEDDED, available, known_names, load
from jaxdist.data.preparing import prepare
from jaxdist.data.scaling import scaled

__all__ = ["EMBEDDED", "Dataset", "Split", "available", "known_names", "load", "prepare", "scaled"]
