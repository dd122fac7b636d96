"""How a run's time grows: `python tests/benchmarks/scaling.py` (some 8 minutes on two idle cores).

Harvest and training in one stream at pocket scale, as `python -m sae_lib train` does it: against the number of
prompts (eight SAEs), of SAEs (1,000 prompts), and of processes (one thread each, started by torchrun). Each time is a
run from an empty folder with the models loaded; those of processes are whole commands. Writes
figures/results/scaling.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sae_lib.cache.artefact import ROOT
from sae_lib.cache.results import result_path, save_result
from sae_lib.training.recipe import TrainingRun


def seconds_of(run: TrainingRun, pipe) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run.train(Path(folder), pipe)
        return time.perf_counter() - start


def seconds_by_processes(prompts: int, processes: int) -> float:
    """The whole command in so many processes of one thread each."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "run.json")
        config.write_text(json.dumps({"prompts": prompts, "passes": 1}))
        torchrun = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--master-port=29517"]
        command = [sys.executable, *torchrun, "-m", "sae_lib", "train", str(config), f"{folder}/saes"]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=ROOT)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="few prompts: shows that it runs")
    parser.add_argument("--output", type=Path, default=result_path("scaling"))
    options = parser.parse_args()
    prompts, saes, fixed = ([500, 1_000, 2_000, 4_000, 8_000], [1, 2, 4, 8, 12], 1_000)
    if options.small:
        prompts, saes, fixed = [100, 200], [1, 2], 100
    pipe = TrainingRun().load_pipeline()
    seconds_of(TrainingRun(prompts=100, passes=1), pipe)  # warm up
    result = {
        "prompts": {count: seconds_of(TrainingRun(prompts=count, passes=1), pipe) for count in prompts},
        "saes": {
            count: seconds_of(
                TrainingRun(prompts=fixed, passes=1, ks=(10,), blocks=("up.0.1",), sae_seeds=tuple(range(count))), pipe
            )
            for count in saes
        },
        "processes": {count: seconds_by_processes(2 * fixed, count) for count in (1, 2)},
    }
    result = {name: {count: round(value, 2) for count, value in times.items()} for name, times in result.items()}
    settings = {"saes_by_prompts": 8, "prompts_by_saes": fixed, "prompts_by_processes": 2 * fixed, "scale": "pocket"}
    save_result(options.output, result | {"settings": settings}, "python tests/benchmarks/scaling.py")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
