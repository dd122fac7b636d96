"""How large the SAEs of this companion are: two kinds per block, as in the paper."""

from typing import Literal

from sae_lib.models.scales import get_scale

Kind = Literal["panel", "transfer"]
KINDS: tuple[Kind, ...] = ("panel", "transfer")
""""panel": the SAEs whose features are looked at, painted with and judged. "transfer": the SAEs of Figure 3 and
RIEBench, which keep an eighth of d_model."""


def sae_size(kind: str, d_model: int, scale: str = "pocket", architecture: str = "sdxl") -> tuple[int, int]:
    """k and n_f of an SAE of that kind for updates of width `d_model`.

    flux, at any scale: for panels the paper's k = 20 and n_f = 4 d_model (12,288; App. C).

    sdxl: the paper's k = 10 and n_f = 4 d_model (5,120) for panels, k = d_model / 8 (160) for transfer; a rehearsal's
    narrower U-Net shrinks both. pocket and smoke: for panels what `notebooks.experiments.pocket.sizes` chose by rule,
    for transfer the paper's formula.

    Raises ValueError for another kind or scale, and for a width for which nothing was chosen.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of SAE {kind!r}; choose one of {', '.join(KINDS)}")
    get_scale(scale)
    if kind == "transfer":
        return d_model // 8, 4 * d_model
    if architecture == "flux":
        return min(20, d_model // 4), 4 * d_model
    if scale == "sdxl":
        return min(10, d_model // 10), 4 * d_model
    from sae_lib.pocket.chosen import load_sizes

    sizes = load_sizes()
    if d_model not in sizes:
        raise ValueError(f"no size was chosen for SAEs of width {d_model}; there are {', '.join(map(str, sizes))}")
    return sizes[d_model]["k"], sizes[d_model]["n_f"]
