"""jaxnn: a neural-network library whose gradients you can read.

Every layer, activation and loss is a pure function with its hand-derived backward pass beneath it.
The contract is one page: ``jaxnn.types``.

Public names are listed once, in ``__init__.pyi``; each is imported at its first use (SPEC 1).
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
