"""Stage 6, RIEBench: edit cases, masks, the bases that an edit is counted in, the edits, the sweep over settings and
how methods are compared."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
