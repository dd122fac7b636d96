"""PocketBench: an SAE of any library, scored where the truth is known, and the data set to train one on.

`PocketBench(block).score(sae)` says how well it rebuilds, what its features read and write, what they hide, and beside
each number what an untrained SAE of its size shows.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
