"""PocketBench: an SAE of any library scored where the truth is known.

The data set that it can be trained on lies here too: a block's update vectors and what is true of each of them, in
files that need no library of ours.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
