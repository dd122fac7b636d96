"""Stage 3, the k-sparse autoencoders: the SAE itself, its checkpoints and those of other libraries, its statistics, its quality and how it carries over (Fig. 3), beside controls."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
