"""Stage 4, training SAEs.

Configuration, losses, one training step, the loop over several SAEs, going on after a stop, and the recipes
of the paper's runs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
