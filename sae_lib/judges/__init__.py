"""What looks at pictures from outside the models that drew them: attributes (pocket), CLIP, perceptual distance, grounded masks (sdxl)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
