"""The ground floor: what was computed once is kept under a hash of its inputs, its weights and the code that makes it.

It knows nothing of models or SAEs. `artefact` keeps folders and writes files completely or not at all, `reading` reads
them whole or says what is wrong; `reach` and `statements` read the code that goes into the key; `results` keeps
numbers; `space` refuses what does not fit, `complete` models that lack a tensor.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
