"""RIEBench's methods and settings: what is compared, at how many units and how strongly, at each scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sae_lib.assets import Assets
from sae_lib.saes.sizes import Kind


@dataclass(frozen=True)
class Method:
    """A way to edit, apart from how many units and how strongly."""

    basis: str
    """"SAE", "neurons", "update", "random" or "PCA"."""
    aggregate: str = "first"
    """Steps over which units are scored: "first" or "mean"."""
    normalised: bool = False
    """Whether units are divided by their norm over the region before they are scored (neurons)."""
    absolute: bool = False
    """Whether their shares are of the sum of absolute values (neurons): see `transport.scores`."""
    subtract: bool = True
    """Whether the target's units are subtracted; they were not in the results of v3 and v4."""
    shuffled_masks: bool = False
    """Whether units are selected in random cells, as many as the masks have. They are added where the masks are."""


METHODS = {
    "SAE": Method("SAE"),
    "SAE, add only": Method("SAE", subtract=False),
    "neurons": Method("neurons", normalised=True),
    "neurons, mean": Method("neurons", aggregate="mean", normalised=True),
    "neurons, corrected": Method("neurons", normalised=True, absolute=True),
    "steering": Method("update"),
    "random features": Method("random"),
    "shuffled masks": Method("SAE", shuffled_masks=True),
    "principal components": Method("PCA"),
}
"""The methods by name.

The paper's are "SAE", "neurons", "neurons, mean" and "steering"; "SAE, add only" is v4's. "neurons, corrected" mends
the sign of the neurons' score. The others are controls that the paper lacks.
"""


class Setting(NamedTuple):
    """One point of a method's curve."""

    method: str
    units: int
    """How many units are added, and as many subtracted (none by "SAE, add only"); 0 for all: steering and the
    references."""
    strength: float

    def __str__(self) -> str:
        return f"{self.method}, {self.units or 'all'} units, strength {self.strength:g}"


PAPER_SETTINGS = (
    *(Setting("SAE", k, m) for k in (80, 160, 320, 640) for m in (1.0, 2.0)),
    *(Setting("steering", 0, m) for m in (0.25, 0.5, 1.0, 2.0)),
    *(
        Setting(method, k, m)
        for method in ("neurons", "neurons, mean")
        for k in (5_000, 10_000, 20_000, 40_000, 80_000)
        for m in (1.0, 2.0)
    ),
)
"""The authors' sweep [riebench]; SAEs with k = 160."""


REFERENCES = ORIGINAL, EDIT_PROMPT, INJECTION = tuple(
    Setting(name, 0, 0.0) for name in ("original", "edit prompt", "injection")
)
"""Pictures that every edit is compared with.

ORIGINAL is the untouched picture, EDIT_PROMPT the edit prompt's own. INJECTION is the original prompt's picture while
the editor's blocks read the edit prompt's tokens: what these blocks can do when nothing is selected or masked.
"""


READINGS = {"judge": ("rest", "success"), "text": ("distance", "text edited"), "image": ("distance", "image edited")}
"""Ways to read a sweep: the score that says what an edit cost, and the score that says what it did.

By the judge (pocket world), or by the perceptual distance and CLIP's cosine with the edit prompt or with its picture.
"""


def untrained_of(setting: Setting) -> Setting:
    """The key of an untrained SAE's selection of as many units, by the first step and the true masks; no picture is
    drawn.

    The setting's method does not count: compare with "SAE" only.
    """
    return Setting("untrained SAE", setting.units, 0.0)


PER_UNITS = 2_048
"""Features of the paper's four blocks in the pocket model, and as many neurons: the pocket settings give their units
for this number, and `settings_of` scales them."""

SIDE_EFFECTS = 0.1
"""The share of the other attributes that may change where methods are compared by the judge."""

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
"""The paper's sweep, and the methods and controls that the paper lacks."""

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
"""What `make riebench` runs: eight settings of each method. Units are the paper's shares of the features and
neurons (80 to 640 of 20,480, 5,000 to 80,000 of 204,800), and twice as many features; where the paper's strengths
stop at 2, these go to 4 and 8."""

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
"""Three of each method's eight settings, chosen by `frontiers.choose_settings` on 27 other cases.

These are `pocket_cases(3, seed=1)`; the command is `python notebooks/experiments/riebench.py --choose`.
"""

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
"""One setting per method, for smoke and rehearsals."""


def edited_kind(assets: Assets) -> Kind:
    """The kind of SAE that edits. FLUX has one of each block."""
    return "panel" if assets.architecture == "flux" else "transfer"


def settings_of(assets: Assets, pocket: Sequence[Setting] = POCKET_SETTINGS) -> tuple[Setting, ...]:
    """The settings of a scale's sweep.

    pocket: the settings at pocket scale. Their units are shares of PER_UNITS, and become the same shares of the number
    of features of the assets' blocks.
    """
    if assets.scale == "smoke" or assets.rehearsal:
        return REHEARSAL_SETTINGS
    if assets.scale == "sdxl":
        return SDXL_SETTINGS
    total = sum(sae.n_f for sae in assets.saes(edited_kind(assets)).values())
    return tuple(setting._replace(units=round(setting.units * total / PER_UNITS)) for setting in pocket)
