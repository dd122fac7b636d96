"""SAEPaint and the feature explorer: edits as data, the painter that draws them, the catalogue of all
features, and the two widgets."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
