"""RIEBench's pocket counterpart in full: `python tests/benchmarks/riebench.py`, or `make riebench`.

450 cases by every method, at more settings than notebook 11 has time for; writes figures/results/riebench.json. A sweep that was killed goes on
from the last cases. Also measures what batching saves: a few cases edited one by one, each setting with reference passes
and masks of its own. `--small` runs a few cases of everything, and writes into the cache.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from sae_lib.edit_sweep import Setting, Sweep, read_sweep, run_sweep
from sae_lib.editors import POCKET_SETTINGS_FULL, load_editor
from sae_lib.figures import commit_hash
from sae_lib.frontiers import Columns, compare_frontiers, units_needed
from sae_lib.metrics import Interval, bootstrap_interval
from sae_lib.riebench import CATEGORIES, Case, pocket_cases
from sae_lib.store import ROOT, cache_root, cached, write_if_changed

COMMAND, SEED = "python tests/benchmarks/riebench.py", 42
TIMED = POCKET_SETTINGS_FULL[::6]
"""Settings at which the saving is measured, on one case a category."""


def summarise(sweep: Sweep) -> dict:
    """Each setting's means with intervals over the cases, overall and by category; SAE's gap to every other method."""
    original, numbers = sweep.scores[Setting("original", 0, 0.0)], {}
    clouds, settings, categories = {}, {}, {}
    for setting, told in sweep.scores.items():
        told = told | {f"gain {of}": told[f"{of} edited"] - original[f"{of} edited"] for of in ("text", "image")}
        names = ("distance", "gain text", "gain image", "success", "rest", "units", "numbers")
        settings[str(setting)] = {
            name: _short(bootstrap_interval(told[name], seed=SEED)) for name in names if name in told
        }
        numbers[setting] = told
        points = torch.stack([told["distance"], told["gain text"]], 1)
        clouds.setdefault(setting.method, [torch.zeros_like(points)]).append(points)
        for number, name in CATEGORIES.items():
            rows = sweep.categories == number
            means = [told[each][rows].mean().item() for each in ("distance", "gain text", "success", "rest")]
            categories.setdefault(name, {})[str(setting)] = [float(f"{mean:.4g}") for mean in means]
    sae = torch.stack(clouds["SAE"], 1)
    gaps = {
        method: _short(compare_frontiers(sae, torch.stack(points, 1), seed=SEED).gap)
        for method, points in clouds.items()
        if method not in ("SAE", "original", "edit prompt")
    }
    columns = {}
    for method in ("SAE", "neurons", "neurons, corrected"):
        of = [setting for setting in numbers if setting.method == method]
        gains = torch.stack([numbers[each]["gain text"] for each in of], 1)
        columns[method] = Columns([each.units for each in of], gains)
    sae_columns = columns.pop("SAE")
    needed = {method: units_needed(sae_columns, each, seed=SEED) for method, each in columns.items()}
    blocks = {
        str(setting): {
            name: {block: counts[sweep.categories == number].mean().item() for block, counts in of.items()}
            for number, name in CATEGORIES.items()
        }
        for setting, of in sweep.selected.items()
        if setting[:2] == ("SAE", 64) and setting.strength == 2
    }
    told = {"cases": len(sweep.ids), "failed": sweep.failed, "specks": sweep.specks, "settings": settings}
    told |= {"gaps": gaps, "units needed": {name: each._asdict() for name, each in needed.items()}, "selected": blocks}
    return told | {"categories": {"columns": ["distance", "gain text", "success", "rest"], **categories}}


def _short(interval: Interval) -> list[float]:
    return [float(f"{end:.4g}") for end in interval]


def edit(cases: Sequence[Case], folder: Path) -> None:
    """Edit the cases at every setting. The artefact's maker: what it reaches is what the sweep hangs on."""
    run_sweep(load_editor("pocket", seed=SEED), cases, POCKET_SETTINGS_FULL, folder)


def saving() -> dict:
    """Seconds of some cases and settings in batches, and one by one."""
    editor, cases = load_editor("pocket", seed=SEED), pocket_cases(1)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run_sweep(editor, cases, TIMED, Path(folder, "batched"))
        batched = time.perf_counter() - start
        start = time.perf_counter()
        for i, case in enumerate(cases):
            for j, setting in enumerate(TIMED):
                run_sweep(editor, [case], [setting], Path(folder, f"{i}-{j}"))
        alone = time.perf_counter() - start
    counts = {"cases": len(cases), "settings": len(TIMED)}
    return counts | {"batched_s": batched, "one_by_one_s": alone, "times": alone / batched}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="18 cases, into the cache")
    options = parser.parse_args()
    cases = pocket_cases(2 if options.small else 50)
    output = cache_root() / "riebench_small.json" if options.small else ROOT / "figures" / "results" / "riebench.json"
    start = time.perf_counter()

    inputs = {"cases": [case.id for case in cases], "settings": POCKET_SETTINGS_FULL, "seed": SEED}
    sweep = read_sweep(cached("riebench_full", inputs, partial(edit, cases), resumable=True))
    result = summarise(sweep) | {"saving": saving(), "seconds": time.perf_counter() - start, "seed": SEED}
    run = {"command": COMMAND, "commit": commit_hash(), "torch": torch.__version__, "python": platform.python_version()}
    write_if_changed(output, (json.dumps({"result": result, "run": run}, indent=1) + "\n").encode())
    print(f"written: {output.name}")


if __name__ == "__main__":
    main()
