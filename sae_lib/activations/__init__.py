"""Stage 2, the update that a block adds to its input.

Here updates are recorded in pipeline calls, prompts are denoised without pictures, pictures are drawn, and update
vectors become streams for training and stores on disk.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
