"""PocketBench: an SAE of any library scored where the truth is known, and the data set that it can be trained on.

`PocketBench(block).score(sae)` says how well it rebuilds, what its features read and write and what they hide, and
beside each number what an untrained SAE of its size shows. The data set holds a block's update vectors and what is true
of each of them, in files that need no library of ours.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
