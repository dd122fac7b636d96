"""What one SAE's training is: its size, its steps, its losses (paper: App. K and the authors' code)."""

import inspect
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import UnionType
from typing import Any, get_args, get_origin

from sae_lib.models.blocks import refuse_unknown_block

_MOST = 2**53
"""No number of a configuration is above this; up to it JSON, Python and torch agree on whole numbers."""
_IN_WORDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "int | None": "a whole number or null",
    "str | tuple[str, ...]": "text or a list of texts",
    "tuple[str, ...]": "a list of texts",
    "tuple[int, ...]": "a list of whole numbers",
    "tuple[int | float, ...]": "a list of numbers",
}


def refuse_wrong_types(config: type, values: Mapping[str, Any]) -> None:
    """Raises ValueError that names the first field of a dataclass whose value is not of its type, or no finite number
    up to 2^53. True and False are no numbers."""
    for field in fields(config):
        value = values.get(field.name, field.default)
        if not _fits(value, field.type):
            words = _IN_WORDS[inspect.formatannotation(field.type)]
            limit = ", finite and at most 2^53" if "number" in words else ""
            raise ValueError(f"{field.name} is {reprlib.repr(value)}; wanted {words}{limit}")


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(entry, get_args(hint)[0]) for entry in value)
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool) and abs(value) <= _MOST
    return isinstance(value, hint)


@dataclass(frozen=True)
class SAEConfig:
    """What determines a trained SAE, apart from the stream it is trained on.

    Raises ValueError for values of another type, for an unknown block and for values that contradict each other.
    """

    block: str
    """The block whose updates it is trained on, a code of `BLOCKS`."""
    d_model: int
    """Dimensions of an update vector."""
    k: int
    """Activations kept per vector."""
    n_f: int
    """Number of features."""
    seed: int
    """Seed of the encoder's first weights. The order of the vectors is the stream's."""
    auxk: int
    """Dead features that the auxiliary term may use per vector."""
    auxk_coef: float
    """Weight of the auxiliary term."""
    batch_size: int
    """Vectors per step."""
    lr: float
    """Adam's learning rate, constant."""
    dead_vectors_threshold: int
    """A feature that has been silent for more than this many vectors is dead; used as whole steps of `batch_size`."""
    init_batches: int = 10
    """Batches taken off the stream's start for the loss scale and b_pre; they are never trained on."""
    init_vectors: int = 32_768
    """Number of their vectors whose geometric median becomes b_pre."""
    frozen: str = ""
    """Control: "encoder" or "decoder", whose weights stay as random as they began (arXiv:2602.14111)."""

    def __post_init__(self):
        refuse_wrong_types(SAEConfig, vars(self))
        refuse_unknown_block(self.block, self.block)
        if self.frozen not in ("", "encoder", "decoder"):
            raise ValueError(f"frozen is {self.frozen!r}; choose 'encoder', 'decoder' or '' for neither")
        for name in ("d_model", "k", "n_f", "auxk", "batch_size", "init_batches", "init_vectors", "lr"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; wanted more than 0")
        for name in ("k", "auxk"):
            if getattr(self, name) > self.n_f:
                raise ValueError(f"{name} is {getattr(self, name)}; wanted at most n_f = {self.n_f}")
        if self.dead_vectors_threshold < self.batch_size:
            raise ValueError(
                f"dead_vectors_threshold is {self.dead_vectors_threshold}; wanted one batch ({self.batch_size}) or more"
            )

    @property
    def dead_steps_threshold(self) -> int:
        """A feature is dead after more than this many steps without firing."""
        return self.dead_vectors_threshold // self.batch_size

    @property
    def expansion_factor(self) -> float:
        """n_f / d_model."""
        return self.n_f / self.d_model

    @property
    def folder_name(self) -> str:
        """Where `train_saes` puts this SAE, below its folder."""
        return f"{self.block}_k{self.k}_hidden{self.n_f}_seed{self.seed}"

    @classmethod
    def paper(cls, block: str, k: int = 10, n_f: int = 5120, seed: int = 0, **changes: Any) -> "SAEConfig":
        """The published SAEs' values (authors' code; App. K); `changes` replaces any field."""
        values = {"d_model": 1280, "auxk": 256, "auxk_coef": 1 / 32, "batch_size": 4096, "lr": 1e-4}
        return cls(block=block, k=k, n_f=n_f, seed=seed, **{**values, "dead_vectors_threshold": 10_000_000, **changes})

    @classmethod
    def pocket(
        cls, block: str, k: int = 10, n_f: int = 512, seed: int = 0, steps: int = 3000, **changes: Any
    ) -> "SAEConfig":
        """The pocket models' values; `changes` replaces any field.

        steps: the planned length of the run. A feature counts as dead after 3 % of the run's vectors (paper: 2.6 %).
        """
        values = {"d_model": 128, "auxk": min(256, n_f // 2), "auxk_coef": 1 / 32, "batch_size": 512, "lr": 1e-3}
        values |= changes
        dead = changes.get("dead_vectors_threshold", max(1, steps * 3 // 100) * values["batch_size"])
        return cls(block=block, k=k, n_f=n_f, seed=seed, **{**values, "dead_vectors_threshold": dead})
