"""RIEBench's pocket counterpart in full: `python notebooks/experiments/riebench.py`, or `make riebench`.

Edits 450 cases by every method, at more settings than notebook 11 has time for, and writes
figures/results/riebench.json. A sweep that was killed goes on from the last cases. It also measures what batching
saves, by editing a few cases one by one, with passes and masks of its own for each setting. `--small` runs a few cases
of everything and writes into the cache. `--choose` edits 27 other cases and prints the settings of each method that
notebook 11 runs (`settings.POCKET_SETTINGS`).
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sae_lib.assets import Assets
from sae_lib.cache.artefact import cached
from sae_lib.cache.results import result_path, save_result
from sae_lib.editing.cases import CATEGORIES, Case, pocket_cases
from sae_lib.editing.edit import load_editor
from sae_lib.editing.frontiers import Columns, choose_settings, compare_frontiers, units_needed
from sae_lib.editing.settings import METHODS, POCKET_SETTINGS_FULL, SIDE_EFFECTS, Setting, settings_of
from sae_lib.editing.sweep import Sweep, read_sweep, run_sweep
from sae_lib.judges.intervals import Interval, bootstrap_interval

COMMAND, SEED = "python notebooks/experiments/riebench.py", 42
CHOSEN = 3
"""Number of settings per method in notebook 11."""
NEURONS = ("neurons", "neurons, corrected")


def summarise(sweep: Sweep, blocks: Sequence[str]) -> dict:
    """The sweep in numbers: each setting's means with intervals over the cases, overall and by category, and the gap of
    SAE features to every other method, by the judge."""
    settings, categories = {}, {}
    for setting, scores in sweep.scores.items():
        scores = scores | {f"gain {of}": sweep.gain(setting, of) for of in ("text", "image")}
        names = ("distance", "gain text", "gain image", "success", "rest", "units", "numbers")
        settings[str(setting)] = {
            name: _short(bootstrap_interval(scores[name], seed=SEED)) for name in names if name in scores
        }
        for number, name in CATEGORIES.items():
            rows = sweep.categories == number
            means = [scores[of][rows].mean().item() for of in ("distance", "gain text", "success", "rest")]
            categories.setdefault(name, {})[str(setting)] = [float(f"{mean:.4g}") for mean in means]
    points = {name: sweep.points(sweep.of_method(name), "judge") for name in METHODS}
    gaps = {
        name: _short(compare_frontiers(points["SAE"], others, SIDE_EFFECTS, seed=SEED))
        for name, others in points.items()
        if name != "SAE"
    }
    features, *neurons = (Columns.of(sweep, name, "judge") for name in ("SAE", *NEURONS))
    needed = {
        name: units_needed(features, others, seed=SEED)._asdict() for name, others in zip(NEURONS, neurons, strict=True)
    }
    most = max(sweep.of_method("SAE"), key=lambda setting: setting.units)
    selected = {
        name: {
            block: counts[sweep.categories == number].mean().item() for block, counts in sweep.selected[most].items()
        }
        for number, name in CATEGORIES.items()
    }
    summary = {"blocks": list(blocks), "cases": len(sweep.ids), "failed": sweep.failed, "specks": sweep.specks}
    summary |= {"settings": settings, "gaps": gaps, "units needed": needed, "selected": {str(most): selected}}
    return summary | {"categories": {"columns": ["distance", "gain text", "success", "rest"], **categories}}


def _short(interval: Interval) -> list[float]:
    return [float(f"{end:.4g}") for end in interval]


def edit(cases: Sequence[Case], folder: Path) -> None:
    """Edit the cases at every setting. This makes the artefact, whose key depends on the code that it reaches."""
    assets = Assets("pocket")
    run_sweep(load_editor(assets, SEED), cases, settings_of(assets, POCKET_SETTINGS_FULL), folder)


def sweep_of(cases: Sequence[Case]) -> Sweep:
    """The sweep of the cases at every setting, from the cache if it is there."""
    inputs = {"cases": [case.id for case in cases], "settings": POCKET_SETTINGS_FULL, "seed": SEED}
    inputs |= {"prompts": [case.editing_prompt for case in cases]}
    return read_sweep(cached("riebench_full", inputs, partial(edit, cases), resumable=True))


def choose() -> list[Setting]:
    """Per method, the settings whose envelope is highest on cases that are not used to judge, in
    units of `POCKET_SETTINGS`."""
    sweep, chosen = sweep_of(pocket_cases(3, seed=1)), []
    units = dict(zip(settings_of(Assets("pocket"), POCKET_SETTINGS_FULL), POCKET_SETTINGS_FULL, strict=True))
    for setting in (*sweep.scores,):
        scores = sweep.scores[setting]
        print(f"{setting!s:45} success {scores['success'].mean():.2f}, rest {scores['rest'].mean():.3f}")
    for name in METHODS:
        of = sweep.of_method(name)
        points = sweep.points(of, "judge")[:, 1:].mean(0)
        chosen += [units[of[place]] for place in choose_settings(points, CHOSEN, SIDE_EFFECTS)]
    return chosen


def saving() -> dict:
    """The seconds that some cases and settings take in batches, and one by one."""
    assets, cases = Assets("pocket"), pocket_cases(1)
    editor, settings = load_editor(assets, SEED), settings_of(assets, POCKET_SETTINGS_FULL)[::6]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run_sweep(editor, cases, settings, Path(folder, "batched"))
        batched = time.perf_counter() - start
        start = time.perf_counter()
        for i, case in enumerate(cases):
            for j, setting in enumerate(settings):
                run_sweep(editor, [case], [setting], Path(folder, f"{i}-{j}"))
        alone = time.perf_counter() - start
    counts = {"cases": len(cases), "settings": len(settings)}
    return counts | {"batched_s": batched, "one_by_one_s": alone, "times": alone / batched}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="18 cases, into the cache")
    parser.add_argument("--choose", action="store_true", help="print the settings of notebook 11")
    options = parser.parse_args()
    if options.choose:
        print(*choose(), sep="\n")
        return
    cases = pocket_cases(2 if options.small else 50)
    output = result_path("riebench", options.small)
    start = time.perf_counter()

    result = summarise(sweep_of(cases), Assets("pocket").blocks) | {"saving": saving()}
    result |= {"seconds": time.perf_counter() - start, "seed": SEED}
    save_result(output, result, COMMAND)
    print(f"written: {output.name}")


if __name__ == "__main__":
    main()
