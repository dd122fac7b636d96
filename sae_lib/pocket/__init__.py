"""The pocket scale's guest: a world of captioned scenes with exact ground truth, and the models of it that are shipped.

It holds what is needed at run time. `notebooks/experiments/pocket/` trained the models and measured them. Nothing here
knows the rooms above.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
