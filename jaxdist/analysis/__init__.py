"""From labelled arrays to statistics over seeds and over examples, and to data frames."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
