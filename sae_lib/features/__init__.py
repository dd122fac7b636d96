"""Stage 5, single features: what turns them on (reading), what they do when turned on
or off (interventions, writing, locality), and where captions enter the U-Net (injection)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
