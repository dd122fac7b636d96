"""A companion to "One-Step is Enough: Sparse Autoencoders for Text-to-Image Diffusion Models" (arXiv:2410.22366).

Every public name is loaded when it is first used, so that `import sae_lib` costs nothing and the SAE works without
diffusers.
"""

import logging
from importlib import import_module

# Without torchvision, which nothing here needs, transformers says so in every notebook that loads a pipeline.
logging.getLogger("transformers.utils.import_utils").addFilter(
    lambda record: "requires torchvision" not in record.getMessage()
)

__version__ = "0.1.0"

_MODULE_OF = {
    "load_pipeline": "pipelines",
    "load_judge": "judges",
    "load_prompts": "prompts",
    "BLOCKS": "blocks",
    "ATTENTION_BLOCKS": "blocks",
    "PAPER_BLOCKS": "blocks",
    "find_block": "blocks",
    "Step": "steps",
    "CallSettings": "denoising",
    "stream_updates": "denoising",
    "capture_updates": "updates",
    "to_maps": "updates",
    "to_vectors": "updates",
    "intervene": "interventions",
    "reconstruct": "interventions",
    "skip_block": "interventions",
    "add_features": "interventions",
    "modulate": "interventions",
    "replace_with_feature": "interventions",
    "during": "interventions",
    "inject_prompt": "injection",
    "draw_pictures": "pictures",
    "as_image": "pictures",
    "Edit": "painting",
    "Layer": "painting",
    "Painter": "painting",
    "Catalogue": "catalogue",
    "FeatureId": "features",
    "strength_unit": "features",
    "activation_maps": "features",
    "TopKSAE": "sae",
    "SAEConfig": "training",
    "train_saes": "training",
    "FeatureStatistics": "statistics",
    "TrainingStream": "harvest",
    "one_step_saes": "recipes",
    "rehearsal_saes": "recipes",
    "load_saes": "checkpoints",
    "load_statistics": "checkpoints",
    "explained_variance": "metrics",
    "explained_variance_as_published": "metrics",
    "coefficient_similarity": "metrics",
    "active_set_iou": "metrics",
    "bootstrap_interval": "metrics",
    "cached": "store",
    "get_scale": "scales",
    "start_run": "runs",
    "save_figure": "figures",
    "Claim": "verdicts",
    "Verdict": "verdicts",
}

__all__ = list(_MODULE_OF)


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'sae_lib' has no attribute {name!r}")
    return getattr(import_module(f"sae_lib.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
