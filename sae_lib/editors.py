"""What a scale edits with in RIEBench: its models, bases, masks and scores, and the settings of the sweep."""

from collections.abc import Callable, Mapping, Sequence

from sae_lib.assets import Assets
from sae_lib.blocks import AUTHORS_ORDER
from sae_lib.clip import SCORES, load_clip
from sae_lib.denoising import CallSettings, stream_updates
from sae_lib.edit_sweep import PAPER_SETTINGS, Editor, Setting
from sae_lib.masks import load_finder
from sae_lib.transfer import PCA, untrained
from sae_lib.units import Basis, Neurons, PrincipalComponents, SAEFeatures, WholeUpdate
from sae_lib.updates import to_vectors

PCA_PROMPTS = 256
"""Training prompts that the principal components are fitted on."""

PER_UNITS = 2_048
"""Features, and neurons, of the paper's four blocks in the pocket model: what the counts of the pocket settings are of."""

SIDE_EFFECTS = 0.1
"""By the judge, methods are compared where up to this share of the other attributes may change."""

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

_FEATURES = ((8, 4.0), (16, 2.0), (16, 4.0), (32, 2.0), (64, 1.0), (64, 2.0), (128, 1.0), (128, 2.0))
_NEURONS = ((50, 8.0), (100, 8.0), (200, 4.0), (200, 8.0), (400, 4.0), (400, 8.0), (800, 2.0), (800, 4.0))
_STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)

POCKET_SETTINGS_FULL = (
    *(
        Setting(method, k, m)
        for method in ("SAE", "SAE, add only", "random features", "shuffled masks", "principal components")
        for k, m in _FEATURES
    ),
    *(Setting("steering", 0, m) for m in _STRENGTHS),
    *(Setting(method, k, m) for method in ("neurons", "neurons, corrected", "neurons, mean") for k, m in _NEURONS),
)
"""What `make riebench` runs: eight settings of each method. Units are the paper's shares of the features and neurons (80 to 640 of
20,480, 5,000 to 80,000 of 204,800), and twice as many features; where the paper's strengths stop at 2, these go to 4 and 8."""

POCKET_SETTINGS = (
    *(Setting("SAE", k, m) for k, m in ((16, 2.0), (64, 1.0), (128, 1.0))),
    *(Setting("SAE, add only", k, m) for k, m in ((16, 4.0), (32, 2.0), (128, 1.0))),
    *(Setting("neurons", k, m) for k, m in ((200, 8.0), (400, 4.0), (800, 2.0))),
    *(Setting("neurons, mean", k, m) for k, m in ((50, 8.0), (100, 8.0), (800, 2.0))),
    *(Setting("neurons, corrected", k, m) for k, m in ((200, 8.0), (800, 2.0), (800, 4.0))),
    *(Setting("steering", 0, m) for m in (1.0, 1.25, 1.5)),
    *(Setting("random features", k, m) for k, m in ((8, 4.0), (16, 4.0), (64, 2.0))),
    *(Setting("shuffled masks", k, m) for k, m in ((64, 2.0), (128, 1.0), (128, 2.0))),
    *(Setting("principal components", k, m) for k, m in ((16, 2.0), (64, 1.0), (128, 1.0))),
)
"""Of each method's eight settings the three that `frontiers.choose_settings` picks on 27 other cases (`pocket_cases(3, seed=1)`), by
`python tests/benchmarks/riebench.py --choose`: equally many for each method, and chosen on a split."""

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


def settings_of(assets: Assets, pocket: Sequence[Setting] = POCKET_SETTINGS) -> tuple[Setting, ...]:
    """The sweep of a scale. At pocket scale the units are the same shares of the features of the assets' blocks as `pocket`'s are of
    PER_UNITS."""
    if assets.scale == "smoke" or assets.rehearsal:
        return REHEARSAL_SETTINGS
    if assets.scale == "sdxl":
        return SDXL_SETTINGS
    total = sum(sae.n_f for sae in assets.saes("transfer").values())
    return tuple(each._replace(units=round(each.units * total / PER_UNITS)) for each in pocket)


def load_editor(assets: Assets, seed: int = 42, batch: int = 0, dilate: bool = True) -> Editor:
    """Four-step Turbo with SAEs of an eighth of their width kept (paper: k = 160), the neurons, and the controls' bases.

    Units of the assets' blocks are moved, in the order of the assets; of the paper's four in the authors' order. seed: of the noise (the
    authors' 42) and of the random features. batch: cases at a time, 0 for the scale's; the neurons of one take 0.8 GB per pass at
    sdxl scale. Raises what the assets' loaders raise.
    """
    pipe, loaded = assets.pipe(), assets.saes("transfer")
    blocks = AUTHORS_ORDER if set(assets.blocks) == set(AUTHORS_ORDER) else assets.blocks
    saes = {block: loaded[block] for block in blocks}
    bases = {
        "SAE": lambda: SAEFeatures(saes),
        "neurons": Neurons,
        "update": WholeUpdate,
        "PCA": lambda: fit_components(assets, blocks, seed),
        "random": lambda: SAEFeatures.random(saes, seed),
        "untrained": lambda: SAEFeatures({block: untrained(sae, seed) for block, sae in saes.items()}),
    }
    return Editor(
        pipe,
        blocks,
        CallSettings(4, 0.0, 0, assets.counts.transfer_batch),
        _Bases(bases),
        load_finder(assets.scale, assets.rehearsal, pipe.device),
        assets.distance,
        load_clip(assets.scale, assets.clip_source or SCORES, pipe.device),
        assets.judge if assets.known else None,
        seed,
        batch or (20 if assets.scale != "sdxl" else 2),
        dilate,
    )


class _Bases(dict[str, Basis]):
    """By the names of `Method.basis`, each made when first asked for: principal components take a run of the model."""

    def __init__(self, makers: Mapping[str, Callable[[], Basis]]):
        super().__init__()
        self._makers = makers

    def __missing__(self, name: str) -> Basis:
        self[name] = self._makers[name]()
        return self[name]


def fit_components(assets: Assets, blocks: Sequence[str], seed: int) -> PrincipalComponents:
    """All principal components of the blocks' one-step updates."""
    prompts = assets.prompts(min(PCA_PROMPTS, assets.counts.train_prompts), "train")
    call = CallSettings(1, 0.0, seed, assets.counts.harvest_batch)
    stream = ({b: to_vectors(u[b]) for b in blocks} for _, u in stream_updates(assets.pipe(), prompts, blocks, call))
    fits = PCA.fit_blocks(stream, {block: sae.d_model for block, sae in assets.saes("transfer").items()})
    means = {block: fits[block].mean for block in blocks}
    return PrincipalComponents(means, {block: fits[block].components.T for block in blocks})
