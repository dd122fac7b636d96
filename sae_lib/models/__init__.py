"""Stage 1, the diffusion models.

The pipelines of each scale, the U-Net's blocks by the paper's codes, prompts, noise, and how much each scale does.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
