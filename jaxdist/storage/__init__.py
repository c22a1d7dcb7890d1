"""Files of a run: results, weights, unfinished work, lists of what is there, PyTorch's and the paper's."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
