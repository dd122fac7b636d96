"""What was computed once is found again: artefacts under a hash of their inputs, weights and of the code that makes them.

The ground floor: it knows nothing of models or SAEs. `artefact` keeps folders, `reach` and `statements` read the code that goes into the key."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
