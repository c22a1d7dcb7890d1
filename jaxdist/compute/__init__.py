"""The machine, without science: devices, processes, blocks of examples, exact products, progress."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
