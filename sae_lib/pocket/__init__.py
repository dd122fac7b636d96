"""The pocket scale's guest: a world of captioned scenes with exact ground truth, and the models of it that this package ships.

At run time only. What trained the models and measured them is `notebooks/experiments/pocket/`. Nothing here knows the rooms above."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
