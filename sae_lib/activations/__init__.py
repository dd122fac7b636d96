"""Stage 2, what a block adds: recording updates in pipeline calls, denoising without pictures, drawing, and streams and stores of update vectors."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
