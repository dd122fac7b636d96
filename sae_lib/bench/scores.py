"""PocketBench: what an SAE of a pocket block is worth, measured where the truth is known."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from sae_lib.assets import Assets
from sae_lib.bench.known import KnownPictures, draw_known
from sae_lib.bench.measures import (
    ERASED,
    SIZES,
    Halves,
    Truths,
    absorption,
    erasure,
    linear_reading,
    probe_units,
    probing,
    read_units,
    reconstruction,
    stability,
    use,
)
from sae_lib.cache.artefact import cached, cached_tensors, write_if_changed
from sae_lib.cache.results import result_path
from sae_lib.features.meaning import find_meaning, linear_probe, scene_samples
from sae_lib.features.reading import Reading
from sae_lib.features.writing import effects_in_one_step, samples_by_block
from sae_lib.judges.attributes import attribute_values
from sae_lib.judges.intervals import Interval, interval_of
from sae_lib.models.blocks import architecture_of, width_of
from sae_lib.saes.controls import untrained
from sae_lib.saes.statistics import RunningStatistics
from sae_lib.saes.topk import TopKSAE

PIECE = 64
"""Pictures that are encoded at a time."""
RESEEDED = "TopK, ours"
"""The rows of `make pocket-bench` whose seeds say how much a score varies with the seed."""
UNTRAINED = 8
"""Untrained SAEs that say how well the best of their units reads a value by luck."""
TRIED = {"smoke": (2, 1), "pocket": (20, 4)}
"""By scale, how many of the best-read features are turned on, and in how many captions each."""


@dataclass(frozen=True)
class Measure:
    """What a number says."""

    text: str
    better: str
    """"higher", "lower", or "" where neither is by itself: units that read and write nothing hide nothing, too."""


MEASURES = {
    "explained variance": Measure("share of the variance that is rebuilt, each dimension alike (authors)", "higher"),
    "total variance explained": Measure("the same of all dimensions together (1 - FVU)", "higher"),
    "L0": Measure("units active per cell", ""),
    "dead share": Measure("share of the units that never fire", "lower"),
    **{
        f"reads with {n}": Measure(f"a probe on {n} of its units reads a value; 0 chance, 1 perfect", "higher")
        for n in SIZES
    },
    "linear probe": Measure("the same by a probe on the whole update: the ceiling", ""),
    "use": Measure("share of the units that read a value better than the best untrained unit", "higher"),
    "coverage": Measure("share of the values that one of these units reads", "higher"),
    "features per value": Measure("of these units, how many share a value (splitting)", ""),
    "absorption": Measure("how much less often a value's unit fires where its worst second value shows", ""),
    "erases": Measure(f"what a value's probe loses when its {ERASED} units are taken out", "higher"),
    "erases beside": Measure("what the values of other attributes lose then", ""),
    "writes": Measure("rise of the value when its feature is turned on, minus a random feature's", "higher"),
    "writes beside": Measure("other values that come or go then, minus a random feature's", ""),
    "turns off": Measure("fall of the value when its feature is turned off, minus a random feature's", "higher"),
    "stability": Measure("cosine of a live feature with its partner in other seeds", "higher"),
    "stability, rare": Measure("the same, of the third that fires least", "higher"),
    "stability, frequent": Measure("the same, of the third that fires most", "higher"),
}
"""All measures, in the order in which they are shown."""


@dataclass(frozen=True)
class Scores:
    """What PocketBench says of one SAE."""

    measured: dict[str, Interval]
    """By name of MEASURES, with 95 % intervals over pictures (stability: over features)."""
    holes: list[dict[str, Any]]
    """Per object's value the second value in whose presence its unit is most silent, the deepest first."""
    about: dict[str, Any]
    """Block, sizes, numbers of pictures, seed."""

    def record(self) -> dict[str, Any]:
        """All of it in JSON, rounded to four digits."""
        measured = {name: [float(f"{end:.4g}") for end in interval] for name, interval in self.measured.items()}
        return {"measured": measured, "holes": self.holes, "about": self.about}


class PocketBench:
    """Scores SAEs of one block; pictures, truth and the ceiling are made once and kept in the cache.

    block: one of the U-Net's or of FLUX's. model: how the pictures are drawn, by default in one step; step: whose
    updates are read. seed: of permutations, random features and samples.

    Raises ValueError for an unknown block or scale, and for a step that the model does not have.
    """

    def __init__(
        self, block: str, scale: str = "pocket", model: str = "", step: int = 0, seed: int = 0, resamples: int = 1000
    ):
        self.block, self.seed, self.resamples = block, seed, resamples
        self.assets = Assets(scale, blocks=[block], architecture=architecture_of([block]))
        self.model, self.step = model or self.assets.one_step, step
        self._known: dict[bool, KnownPictures] = {}
        steps = self.assets.call(self.model)[1].steps
        if not 0 <= step < steps:
            raise ValueError(f"step is {step}; {self.model} has the steps 0 to {steps - 1}")

    def known(self, later: bool = False) -> KnownPictures:
        """The pictures that are read, or those in which features write."""
        if later not in self._known:
            self._known[later] = draw_known(self.assets, self.block, self.model, later)
        return self._known[later]

    @property
    def updates(self) -> Float[Tensor, "pictures cells d_model"]:
        """The updates that are read."""
        return self.known().updates[self.step]

    def _halves(self, x: Float[Tensor, "pictures cells width"]) -> Halves:
        return Halves(x[::2], x[1::2])

    @cached_property
    def truths(self) -> Truths:
        """What the judge sees in the two halves."""
        every = torch.arange(len(self.updates))
        return Truths(self.known().truth.take(every[::2]), self.known().truth.take(every[1::2]))

    @cached_property
    def direction(self) -> Float[Tensor, "d_model values"]:
        """The linear probe, fitted in the matched half."""
        return linear_probe(self._halves(self.updates.float()).matched, self.truths.matched)

    @cached_property
    def read(self) -> Float[Tensor, "pictures cells values"]:
        """What the linear probe reads in the scored half."""
        return self._halves(self.updates).scored.float() @ self.direction

    @cached_property
    def ceiling(self) -> Interval:
        """How well the linear probe reads."""
        return self._interval(linear_reading(self.read, self.truths.scored))

    @torch.no_grad()
    def score(self, sae: TopKSAE, writes: bool = True, seeds: Sequence[TopKSAE] = ()) -> Scores:
        """All MEASURES of an SAE, or of anything with its interface.

        writes: whether features are turned on and off, which is possible in one step. seeds: SAEs of the same recipe
        and size with other seeds, for the stability. Raises ValueError for an SAE of another width than the block's.
        """
        self.refuse_unfit((sae, *seeds))
        codes = self.encode(sae)
        probes = probe_units(codes, self.truths)
        tables, needed = read_units(codes, self.truths), self.needed(sae.n_f, _active(codes))
        absorbed, holes = absorption(codes, self.truths, tables, needed, seed=self.seed)
        replicates = reconstruction(sae, self._halves(self.updates).scored) | probing(codes, self.truths, probes)
        replicates |= use(codes, self.truths, find_meaning(*tables), needed)
        replicates |= {} if absorbed is None else {"absorption": absorbed}
        replicates |= erasure(
            codes.scored,
            sae.decoder.weight,
            self.read,
            self.direction,
            probes[SIZES.index(ERASED)],
            self.truths.scored,
            self.seed,
        )
        measured = {name: self._interval(of) for name, of in replicates.items()} | {"linear probe": self.ceiling}
        if writes:
            measured |= self._writing(sae, codes)
        if seeds:
            rate = (torch.cat(codes) != 0).float().mean((0, 1))
            of_seeds = stability([one.decoder.weight for one in (sae, *seeds)], rate)
            measured |= {name: interval_of(samples) for name, samples in of_seeds.items()}
        values = [" ".join(pair[::-1]) for pair in attribute_values()]
        named = [
            {
                "value": values[one.value],
                "beside": values[one.partner],
                "unit": one.unit,
                "depth": round(one.depth[0].item(), 4),
            }
            for one in sorted(holes, key=lambda one: -one.depth[0])
        ]
        about = {"block": self.block, "d_model": sae.d_model, "n_f": sae.n_f, "model": self.model, "step": self.step}
        about |= {"pictures": len(self.updates), "scale": self.assets.scale, "seed": self.seed}
        about |= {"absorption values": len(holes)}
        return Scores({name: measured[name] for name in MEASURES if name in measured}, named, about)

    def refuse_unfit(self, saes: Sequence[TopKSAE]) -> None:
        """Raises ValueError for an SAE of another width than the block's, and for SAEs of different sizes."""
        d_model = width_of(self.assets.pipe(), self.block)
        for sae in saes:
            if sae.d_model != d_model:
                raise ValueError(
                    f"the SAE is for updates of width {sae.d_model}, those of {self.block} have {d_model}: "
                    "name its own block with --block, or train it on this one"
                )
            if sae.n_f != saes[0].n_f:
                raise ValueError(f"SAEs of {saes[0].n_f} and {sae.n_f} features: seeds of one recipe have equally many")

    def control(self, sae: TopKSAE, seed: int = 0) -> TopKSAE:
        """An untrained SAE of its size with as many units active: what any sparse code of that size shows."""
        return self._untrained(sae.n_f, _active(self.encode(sae)), seed)

    def encode(self, sae: TopKSAE) -> Halves:
        """Its activations in the pictures that are read."""
        return self._halves(torch.cat([sae.encode(x.float()) for x in self.updates.split(PIECE)]))

    def _untrained(self, n_f: int, active: float, seed: int) -> TopKSAE:
        start = TopKSAE(self.updates.shape[-1], n_f, min(n_f, max(1, round(active)))).requires_grad_(False)
        start.pre_bias.data = self.updates.float().flatten(0, 1).mean(0)
        return untrained(start, seed)

    def needed(self, n_f: int, active: float) -> Float[Tensor, " values"]:
        """How well a unit must read each value to count: better than the best of as many untrained units usually does.

            mean + 1.645 standard deviations of the best unit's score in UNTRAINED untrained SAEs

        n_f, active: their size and how many units are active per cell. A value's best unit is chosen in the matched
        half and scored in the other. So an untrained SAE has such a unit for one value in 20.
        """

        def make() -> dict[str, Tensor]:
            best = []
            for seed in range(1, 1 + UNTRAINED):  # 0 is the control that is shown
                tables = read_units(self.encode(self._untrained(n_f, active, seed)), self.truths)
                best.append(tables.scored.gather(0, tables.matched.argmax(0)[None])[0])
            return {"needed": torch.stack(best).mean(0) + 1.645 * torch.stack(best).std(0)}

        asked = {"model": self.model, "step": self.step, "n_f": n_f, "active": max(1, round(active))}
        return cached_tensors("bench_needed", self.assets.identity | asked, make)[1]["needed"]

    def _interval(self, replicates: Float[Tensor, " replicates"]) -> Interval:
        return interval_of(scene_samples(replicates, self.resamples, self.seed))

    def _writing(self, sae: TopKSAE, codes: Halves) -> dict[str, Interval]:
        """What the best-read features do when they are turned on and off in later pictures, as far as there are any."""
        if self.model != self.assets.one_step:
            raise ValueError(f"features are turned on in one step; the pictures are those of {self.model}")
        statistics = RunningStatistics(sae.n_f)
        for code in codes:
            values, indices = kept(code.flatten(0, 1))
            statistics.add(values, indices)
        assets = self.assets.with_saes({self.block: sae}, {self.block: statistics.result()})
        reading, later = (_KnownReading(assets, self.known(which), which) for which in (False, True))
        effects = effects_in_one_step(reading, later, *TRIED[assets.scale], seed=self.seed)
        on, off = effects.measured["on"], effects.measured["off"]
        rise, fall = on[..., 1] - on[..., 0], off[..., 0] - off[..., 1]
        sides = {
            "on": torch.stack([rise[:, 0] - rise[:, 1], on[:, 0, 2] - on[:, 1, 2]], 1),
            "off": fall[:, :1] - fall[:, 1:2],
        }
        columns = {"writes": ("on", 0), "writes beside": ("on", 1), "turns off": ("off", 0)}
        measured = {}
        for name, (side, column) in columns.items():
            trials = effects.trials[side]
            if min(len(trials.which.unique()), len(trials.rows.unique())) > 1:  # else no interval is defined
                samples = samples_by_block(trials, sides[side][:, column], self.resamples, self.seed)[self.block]
                measured[name] = with_room(interval_of(samples), len(trials.rows))
        return measured


class _KnownReading(Reading):
    """A reading of pictures that are drawn already: only the SAE's code is new."""

    def __init__(self, assets: Assets, known: KnownPictures, later: bool):
        super().__init__(assets, later)
        self._pictures = known

    def make(self, on_picture: Callable[[int, int], None] | None = None) -> Path:
        if self._folder is None:
            inputs = self.assets.identity | {"prompts": self.prompts, "first": self.first}
            self._folder = cached("known_reading", inputs, self._encode)
        return self._folder

    def _encode(self, folder: Path) -> None:
        known, read = self._pictures, {}
        for block, sae in self.saes.items():
            codes = torch.cat([sae.encode(x.float()) for x in known.updates[0].split(PIECE)])
            values, indices = kept(codes)
            read |= {f"{block}.values": values, f"{block}.indices": indices.to(torch.int16)}
            side = self.assets.grid(block)
            read |= {f"present.{side}": known.truth.present, f"valid.{side}": known.truth.valid}
        read |= {"pictures": known.pictures, "shows": known.shows}
        save_file({name: part.contiguous() for name, part in read.items()}, folder / "reading.safetensors")


def _active(codes: Halves) -> float:
    return (codes.scored != 0).float().sum(-1).mean().item()


def with_room(interval: Interval, trials: int) -> Interval:
    """The interval; where all trials had the same outcome, with room for 3 of them (the rule of three)."""
    if interval.high - interval.low > 1e-9:
        return interval
    return interval._replace(low=interval.low - 3 / trials, high=interval.high + 3 / trials)


def kept(codes: Float[Tensor, "*cells n_f"]) -> tuple[Float[Tensor, "*cells kept"], Tensor]:
    """A dense code as the activations and the numbers of as many units per cell as are ever active at once."""
    return codes.topk(max(1, int((codes != 0).sum(-1).max())), -1)


def table(scores: Scores, control: Scores | None = None, noise: Mapping[str, float] | None = None) -> str:
    """The scores as text: number, interval, the untrained control, the spread between seeds."""
    lines = [f"{'':26}{'score':>8}  {'95 % interval':^17}{'untrained':>11}{'SD, seeds':>11}"]
    for name, (value, low, high) in scores.measured.items():
        beside = f"{control.measured[name].value:.3f}" if control and name in control.measured else ""
        spread = f"{noise[name]:.3f}" if noise and name in noise else ""
        arrow = {"higher": "+", "lower": "-", "": " "}[MEASURES[name].better]
        lines.append(f"{arrow} {name:24}{value:8.3f}  {low:7.3f} to {high:6.3f}{beside:>11}{spread:>11}")
    return "\n".join(lines)


def legend(names: Iterable[str]) -> str:
    """What some measures say, and what the signs of `table` mean."""
    lines = [f"  {name:26}{MEASURES[name].text}" for name in names]
    return "\n".join([*lines, "+ higher is better, - lower is better; no sign: neither is by itself"])


def reseed_noise(block: str) -> dict[str, float]:
    """By measure, its standard deviation over the seeds of our TopK SAE of the block, as `make pocket-bench` measured
    it; empty for a block for which it did not.

    Two SAEs whose scores differ by less may be the same recipe with other seeds (arXiv:2605.18229).
    """
    path = result_path("pocket_bench")
    rows = json.loads(path.read_text())["result"]["rows"] if path.is_file() else []
    ours = [row["measured"] for row in rows if row["name"] == RESEEDED and row["about"]["block"] == block]
    values = {name: [row[name][0] for row in ours if name in row] for name in MEASURES}
    return {name: torch.tensor(of).std().item() for name, of in values.items() if len(of) > 1}


def save(path: Path, scores: Scores, **about: Any) -> None:
    """The scores as JSON, written whole or not at all."""
    write_if_changed(path, (json.dumps(scores.record() | about, indent=1) + "\n").encode())
