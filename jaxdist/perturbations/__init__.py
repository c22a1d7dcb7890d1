"""Edits of a site's values: their families, and the ranges they are scaled by."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
