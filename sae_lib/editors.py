"""What a scale edits with in RIEBench: its models, bases, masks and scores, and the settings of the sweep."""

from sae_lib.checkpoints import load_saes
from sae_lib.clip import SCORES, load_clip
from sae_lib.denoising import CallSettings, stream_updates
from sae_lib.edit_sweep import PAPER_SETTINGS, Editor, Setting
from sae_lib.judges import load_judge
from sae_lib.masks import load_finder
from sae_lib.perceptual import load_perceptual
from sae_lib.pipelines import load_pipeline
from sae_lib.prompts import load_prompts
from sae_lib.recipes import transfer_k
from sae_lib.sae import TopKSAE
from sae_lib.scales import get_scale
from sae_lib.transfer import PCA
from sae_lib.units import ORDER, Neurons, PrincipalComponents, SAEFeatures, WholeUpdate
from sae_lib.updates import to_vectors

PCA_PROMPTS = 500
"""Training prompts that the principal components are fitted on."""

_SAE, _NEURONS = (8, 16, 32, 64), (50, 100, 200, 400, 800)
"""Units of the pocket sweep: the paper's 80 to 640 of 20,480 features and 5,000 to 80,000 of 204,800 neurons, the same shares
of 2,048 each."""

SDXL_SETTINGS = (
    *PAPER_SETTINGS,
    *(Setting("neurons, corrected", k, m) for k in (5_000, 10_000, 20_000, 40_000, 80_000) for m in (1.0, 2.0)),
    *(
        Setting(method, k, m)
        for method in ("SAE, add only", "random features", "shuffled masks", "principal components")
        for k in (80, 320)
        for m in (1.0, 2.0)
    ),
)
"""The paper's sweep, and what the paper lacks."""

POCKET_SETTINGS_FULL = (
    *(Setting("SAE", k, m) for k in _SAE for m in (1.0, 2.0, 4.0)),
    *(Setting("SAE", 2, m) for m in (2.0, 4.0)),
    *(Setting("steering", 0, m) for m in (0.5, 1.0, 2.0, 4.0)),
    *(
        Setting(method, k, m)
        for method in ("neurons", "neurons, corrected")
        for k in _NEURONS
        for m in ((4.0, 8.0) if k > 100 else (8.0,))
    ),
    *(Setting("neurons, corrected", 2_048, m) for m in (1.0, 2.0, 4.0)),
    *(Setting("neurons, mean", 800, m) for m in (4.0, 8.0)),
    *(
        Setting(method, k, m)
        for method in ("SAE, add only", "random features", "shuffled masks")
        for k in (8, 32)
        for m in (2.0, 4.0)
    ),
    *(Setting("principal components", k, m) for k in (8, 32) for m in (1.0, 2.0)),
)
"""What `make riebench` runs: the paper's sweep at the pocket model's widths, and what the paper lacks: two features, all neurons, the controls.

Strengths were fixed on 27 other cases (`pocket_cases(3, seed=1)`): each method's range goes on until its gain falls again.
Below 4 few neurons change nothing at all, and at 2 steering is best; where the paper stops at 2, this goes to 4 and 8.
"""

POCKET_SETTINGS = (
    *(Setting("SAE", k, m) for k in (8, 32) for m in (1.0, 2.0, 4.0)),
    *(Setting("SAE", k, m) for k, m in ((2, 4.0), (16, 2.0), (64, 2.0), (64, 4.0))),
    *(Setting("steering", 0, m) for m in (1.0, 2.0, 4.0)),
    *(
        Setting(method, k, m)
        for method in ("neurons", "neurons, corrected")
        for k, m in ((200, 8.0), (800, 4.0), (800, 8.0))
    ),
    *(Setting("neurons, corrected", 2_048, m) for m in (2.0, 4.0)),
    Setting("neurons, mean", 800, 4.0),
    *(Setting(method, 32, m) for method in ("SAE, add only", "random features", "shuffled masks") for m in (2.0, 4.0)),
    *(Setting("principal components", 32, m) for m in (1.0, 2.0)),
)
"""What `make reproduce` has time for."""

REHEARSAL_SETTINGS = (
    Setting("SAE", 8, 2.0),
    Setting("SAE, add only", 8, 2.0),
    Setting("steering", 0, 1.0),
    Setting("neurons", 50, 2.0),
    Setting("neurons, mean", 50, 2.0),
    Setting("neurons, corrected", 50, 2.0),
    Setting("random features", 8, 2.0),
    Setting("shuffled masks", 8, 2.0),
    Setting("principal components", 8, 1.0),
)
"""One of each method: for smoke and rehearsals."""


def settings_of(scale: str, rehearsal: bool = False) -> tuple[Setting, ...]:
    """The sweep of a scale."""
    if scale == "smoke" or rehearsal:
        return REHEARSAL_SETTINGS
    return SDXL_SETTINGS if scale == "sdxl" else POCKET_SETTINGS


def load_editor(
    scale: str,
    source: str = "",
    sae_folder: str = "",
    prompt_file: str = "",
    clip_source: str = "",
    seed: int = 42,
    batch: int = 0,
    dilate: bool = True,
    device=None,
) -> Editor:
    """Four-step Turbo with SAEs of an eighth of its width kept (paper: k = 160), the neurons, and the controls' bases.

    seed: of the noise (the authors' 42) and of the random features. batch: cases at a time, 0 for the scale's; the neurons of
    one take 0.8 GB a pass at sdxl scale. A rehearsal edits with untrained SAEs and scores with what the pocket world has.
    Raises what the loaders raise.
    """
    rehearsal = source.startswith("random")
    counts = get_scale(scale, rehearsal)
    pipe = load_pipeline("turbo", scale, source or None, device)
    width = pipe.unet.config.block_out_channels[-1]
    if rehearsal and not sae_folder:
        saes = {
            block: TopKSAE(width, 4 * width, transfer_k(width)).requires_grad_(False).to(pipe.device) for block in ORDER
        }
    else:
        saes = load_saes(transfer_k(width), scale, sae_folder, pipe.device)
    wanted = min(PCA_PROMPTS, counts.train_prompts)
    prompts = load_prompts(scale, wanted, "train", "pocket" if rehearsal else prompt_file)
    one_step = CallSettings(1, 0.0, seed, counts.harvest_batch)
    stream = ({b: to_vectors(u[b]) for b in ORDER} for _, u in stream_updates(pipe, prompts, ORDER, one_step))
    fits = PCA.fit_blocks(stream, width)
    components = PrincipalComponents(
        {block: fit.mean for block, fit in fits.items()}, {block: fit.components.T for block, fit in fits.items()}
    )
    features = SAEFeatures(saes)
    bases = {"SAE": features, "neurons": Neurons(), "update": WholeUpdate(), "PCA": components}
    bases["random"] = SAEFeatures.random(saes, seed)
    return Editor(
        pipe,
        CallSettings(4, 0.0, 0, counts.transfer_batch),
        bases,
        load_finder(scale, rehearsal, pipe.device),
        load_perceptual(scale, pipe, rehearsal),
        load_clip(scale, "pocket" if rehearsal else clip_source or SCORES, pipe.device),
        load_judge(scale) if scale != "sdxl" else None,
        seed,
        batch or (20 if scale != "sdxl" else 2),
        dilate,
    )
