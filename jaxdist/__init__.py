"""Do neural networks read their activations as intensity or as distance?

A functional JAX reimplementation of Oursland's "Neural Networks Use Distance Metrics" (arXiv:2411.17932), made into
a tool. A whole run is ``jaxdist.run(config)``; a network of your own is measured by ``jaxdist.probe``; a result is read
again by ``jaxdist.load(path)`` and shown by ``jaxdist.show(result)``.

The public names stand in the stub beside this file; each is imported on first use, so that the command line answers
before JAX has loaded.
"""

import lazy_loader

from jaxdist.version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
