"""Labelled images and other examples: from a name or a folder to arrays laid out on devices.

`load` reads a data set, `scaled` makes network inputs of it, `prepare` turns IDX files into a prepared TFDS data set.
TensorFlow Datasets is imported only when a data set must be decoded or written.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
