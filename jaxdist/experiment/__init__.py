"""From a config, or from a network of one's own, to a measured result and a finished folder."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
