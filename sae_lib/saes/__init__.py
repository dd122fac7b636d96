"""Stage 3, the k-sparse autoencoders.

The SAE itself, its checkpoints and those of other libraries, its statistics, its quality, how it carries over to other
settings (Fig. 3), and the controls beside it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
