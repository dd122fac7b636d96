from .artefact import (
    ROOT as ROOT,
    cache_root as cache_root,
    cached as cached,
    cached_tensors as cached_tensors,
    write_if_changed as write_if_changed,
    write_whole as write_whole,
)
from .reach import (
    follow as follow,
)
