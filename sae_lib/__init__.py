"""A companion to "One-Step is Enough: Sparse Autoencoders for Text-to-Image Diffusion Models" (arXiv:2410.22366).

The rooms follow the paper: `models`, `activations`, `saes`, `training`, `features`, `editing`. Beside them stand
`judges` (what looks at pictures, and how sure a number is), `pocket` (the small world and its models), `assets` (what a
scale works with), `bench` (PocketBench: an SAE against the truth), `companion` (runs, figures, verdicts) and `paint`
(SAEPaint); below all `cache`. A room imports only from rooms that stand before it in this order:

    cache pocket models activations judges saes assets training features bench editing companion paint

Every public name, here and in the rooms, is loaded when it is first used, so that `import sae_lib` costs nothing and
the SAE works without diffusers; `__init__.pyi` lists them.
"""

import logging
import sys
from collections.abc import Iterable
from importlib.abc import MetaPathFinder
from types import ModuleType

import lazy_loader

# Without torchvision, which nothing here needs, transformers says so in every notebook that loads a pipeline.
logging.getLogger("transformers.utils.import_utils").addFilter(
    lambda record: "requires torchvision" not in record.getMessage()
)

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

_MOVED = {
    "sae_lib.cache": "reach store",
    "sae_lib.pocket": "pocket.choose pocket.quality",
    "sae_lib.models": "blocks noise pipelines prompts runs scales",
    "sae_lib.activations": "denoising harvest pictures processes replay shards steps transfer updates",
    "sae_lib.judges": "clip grounding intervals meaning metrics perceptual",
    "sae_lib.saes": "checkpoints formats metrics recipes sae sizes statistics transfer",
    "sae_lib.training": "losses recipes resume",
    "sae_lib.features": "dictionaries injection interventions locality meaning reading writing",
    "sae_lib.editing": "edit_sweep editors frontiers masks riebench units",
    "sae_lib.companion": "case_study figures pictures primaries runs style verdicts",
    "sae_lib.paint": "catalogue painting widgets",
    "notebooks": "artefacts on_request",
    "notebooks.experiments.pocket": "pocket.broken pocket.choose pocket.fitting pocket.quality pocket.sizes "
    "pocket.train pocket.train_clip pocket.train_saes pocket.train_unet",
}
"""What the modules of version 0.1 hold is in these rooms now."""


class _Moved(MetaPathFinder):
    """Says of a module of version 0.1 where its names are; asked last, when nothing else has found it."""

    def find_spec(self, fullname: str, path: Iterable[str] | None = None, target: ModuleType | None = None) -> None:
        """None, which says that nothing was found here. Raises ImportError for a module that has moved."""
        package, _, old = fullname.partition(".")
        rooms = [room for room, modules in _MOVED.items() if package == "sae_lib" and old in modules.split()]
        if rooms:
            raise ImportError(f"{fullname} of version 0.1 is gone: import its names from {' or '.join(rooms)}")


sys.meta_path.append(_Moved())
