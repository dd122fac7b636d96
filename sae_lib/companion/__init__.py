"""What the notebooks share beside the paper's stages: a run's parameters, figures with their records, the house style,
verdicts and the primary test of each claim."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
