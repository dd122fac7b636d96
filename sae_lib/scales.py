"""The three scales of every notebook, and what each of them counts."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Scale:
    """How much of everything a scale does; the mathematics is the same at each."""

    name: str
    train_prompts: int
    """Prompts whose one-step updates train the SAEs."""
    passes: int
    """Times that the training vectors are seen (the paper: once)."""
    transfer_prompts: int
    """Held-out prompts on which Figure 3 is measured (authors' code: 100)."""
    base_steps: int
    """Denoising steps of the base model in Figure 3 (authors' code: 20)."""
    base_guidance: float
    """Guidance of the base model (authors' code: 7.5 in Figure 3)."""
    harvest_batch: int
    """Prompts a one-step pipeline call."""
    transfer_batch: int
    """Prompts a pipeline call of several steps."""
    bootstrap: int
    """Resamples of an interval."""


SCALES = {
    "smoke": Scale("smoke", 96, 1, 12, 4, 4.0, 64, 12, 200),
    "pocket": Scale("pocket", 2_048, 12, 100, 20, 4.0, 64, 50, 1_000),
    "sdxl": Scale("sdxl", 1_500_000, 1, 100, 20, 7.5, 50, 10, 1_000),
}


def get_scale(name: str, rehearsal: bool = False) -> Scale:
    """The scale of that name; a rehearsal keeps its settings and takes smoke's counts. Raises ValueError for an unknown name."""
    if name not in SCALES:
        raise ValueError(f"unknown scale {name!r}; choose one of {', '.join(SCALES)}")
    scale, smoke = SCALES[name], SCALES["smoke"]
    if not rehearsal:
        return scale
    counts = {"train_prompts": 8, "transfer_prompts": 4, "base_steps": 2, "harvest_batch": 2, "transfer_batch": 2}
    return replace(scale, bootstrap=smoke.bootstrap, **counts)
