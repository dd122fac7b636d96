"""RIEBench's pocket counterpart in full: `python tests/benchmarks/riebench.py`, or `make riebench`.

450 cases by every method at all settings; writes figures/results/riebench.json. A
sweep that was killed goes on from the last cases. Also measures what batching saves: the same few cases edited one by one,
each setting with reference passes and masks of its own. `--small` runs a few cases of everything, and writes into the cache.
"""

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path

import torch

from sae_lib.edit_sweep import Setting, Sweep, run_sweep
from sae_lib.editors import POCKET_SETTINGS, POCKET_SETTINGS_FULL, REHEARSAL_SETTINGS, load_editor
from sae_lib.figures import commit_hash
from sae_lib.frontiers import compare_frontiers
from sae_lib.metrics import bootstrap_interval
from sae_lib.riebench import pocket_cases
from sae_lib.store import ROOT, cache_root, cached, write_if_changed

COMMAND, SEED = "python tests/benchmarks/riebench.py", 42
TIMED = 9
"""Cases on which the saving is measured, one a category."""


def summarise(sweep: Sweep) -> dict:
    """Each setting's means with intervals over the cases, and SAE's gap to every other method."""
    original = sweep.scores[Setting("original", 0, 0.0)]
    settings, clouds = {}, {}
    for setting, told in sweep.scores.items():
        told = told | {f"gain {of}": told[f"{of} edited"] - original[f"{of} edited"] for of in ("text", "image")}
        names = ("distance", "gain text", "gain image", "success", "rest", "units", "numbers")
        found = {name: bootstrap_interval(told[name], seed=SEED) for name in names if name in told}
        settings[json.dumps(setting)] = {name: [float(f"{x:.5g}") for x in each] for name, each in found.items()}
        points = torch.stack([told["distance"], told["gain text"]], 1)
        clouds.setdefault(setting.method, [torch.stack([original["distance"], 0 * points[:, 0]], 1)]).append(points)
    sae, gaps = torch.stack(clouds["SAE"], 1), {}
    for method, points in clouds.items():
        if method not in ("SAE", "original", "edit prompt"):
            gaps[method] = compare_frontiers(sae, torch.stack(points, 1), seed=SEED).gap
    return {"cases": len(sweep.ids), "failed": len(sweep.failed), "settings": settings, "gaps": gaps}


def saving() -> dict:
    """Seconds of some cases and settings in batches, and one by one."""
    editor, cases, settings = load_editor("pocket", seed=SEED), pocket_cases(1)[:TIMED], REHEARSAL_SETTINGS
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run_sweep(editor, cases, settings, Path(folder, "batched"))
        batched = time.perf_counter() - start
        start = time.perf_counter()
        for i, case in enumerate(cases):
            for j, setting in enumerate(settings):
                run_sweep(editor, [case], [setting], Path(folder, f"{i}-{j}"))
        alone = time.perf_counter() - start
    return {
        "cases": len(cases),
        "settings": len(settings),
        "batched_s": batched,
        "one_by_one_s": alone,
        "times": alone / batched,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="18 cases, the settings of make reproduce, into the cache")
    options = parser.parse_args()
    cases = pocket_cases(2 if options.small else 50)
    settings = POCKET_SETTINGS if options.small else POCKET_SETTINGS_FULL
    output = cache_root() / "riebench_small.json" if options.small else ROOT / "figures" / "results" / "riebench.json"
    start = time.perf_counter()

    def fill(folder: Path) -> None:
        run_sweep(load_editor("pocket", seed=SEED), cases, settings, folder)

    inputs = {"cases": [case.id for case in cases], "settings": settings, "seed": SEED}
    sweep = run_sweep(None, cases, settings, cached("riebench_full", inputs, fill, resumable=True))
    result = summarise(sweep) | {"saving": saving(), "seconds": time.perf_counter() - start, "seed": SEED}
    run = {"command": COMMAND, "commit": commit_hash(), "torch": torch.__version__, "python": platform.python_version()}
    write_if_changed(output, (json.dumps({"result": result, "run": run}, indent=1) + "\n").encode())
    print(f"written: {output.name}")


if __name__ == "__main__":
    main()
