"""The library from the shell.

`harvest CONFIG FOLDER` stores update vectors, `train CONFIG FOLDER` trains SAEs on them. `export FOLDER` writes a data
set for other libraries, `bench FOLDER` scores an SAE, `riebench FILE` counts RIEBench's edits.

CONFIG is a JSON file with fields of `sae_lib.training.TrainingRun`; `{}` is the pocket scale's run. `train` under
torchrun uses all its processes: torchrun --nproc-per-node=2 -m sae_lib train CONFIG FOLDER. `harvest`, `train` and
`export` go on where they were stopped.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist

from sae_lib.activations.shards import DTYPES, ShardStream
from sae_lib.bench.dataset import DATASET_FILE, DTYPES as DATASET_DTYPES
from sae_lib.bench.export import SEEDS, export_updates
from sae_lib.cache.artefact import refuse_folder
from sae_lib.editing.cases import PIE_BENCH, count_by_category, read_cases
from sae_lib.models.scales import get_scale
from sae_lib.saes.checkpoints import load_any
from sae_lib.saes.topk import CONFIG_FILE
from sae_lib.training.recipe import TrainingRun
from sae_lib.training.trainer import LOG_FILE


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m sae_lib", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (("harvest", "write the run's update vectors into a store"), ("train", "train the run's SAEs")):
        command = commands.add_parser(
            name, help=what, epilog=_fields(), formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_argument("config", type=Path, help="JSON file with the fields below; all have defaults")
        command.add_argument(
            "folder", type=Path, help="where the store or the SAEs go; what is there is not made again"
        )
    commands.choices["harvest"].add_argument("--dtype", choices=DTYPES, default="float16", help="of the stored vectors")
    commands.choices["train"].add_argument("--store", type=Path, help="train from a store that `harvest` wrote")
    command = commands.add_parser(
        "export", help="write a block's updates with their truth as a data set for any library"
    )
    command.add_argument("folder", type=Path, help="where the data set goes; what is there is not made again")
    command.add_argument("--block", default="up.1.2", help="whose updates (default: %(default)s)")
    command.add_argument("--prompts", type=int, help=f"pictures; by default {_pictures()}")
    command.add_argument("--split", choices=SEEDS, default="train", help="of the captions (default: %(default)s)")
    command.add_argument("--seed", type=int, help=f"seed of the noise (default: {_seeds()})")
    command.add_argument("--dtype", choices=DATASET_DTYPES, default="float16", help="of the stored vectors")
    command.add_argument("--scale", choices=("pocket", "smoke"), default="pocket", help="sets the number of pictures")
    command = commands.add_parser(
        "riebench", help="count RIEBench's edits by category, and name the defects of its file"
    )
    command.add_argument(
        "path", help=f"file or address of RIEBench's JSON; or PIE-Bench: {PIE_BENCH}, or a copy's folder"
    )
    command = commands.add_parser(
        "bench",
        help="score an SAE of a block of the pocket model, where the truth is known: PocketBench",
        description="Prints the scores beside those of an untrained SAE. Takes two to four minutes on one core.",
    )
    command.add_argument("folder", type=Path, help="an SAE of ours, SAELens', sparsify's or the authors' format")
    command.add_argument("--block", default="", help="the block that it was trained on, if its files do not say")
    command.add_argument(
        "--seeds",
        type=Path,
        nargs="+",
        default=[],
        help="folders of SAEs that were trained alike with other seeds: adds how far features are found again",
    )
    command.add_argument("--scale", default="pocket", choices=("pocket", "smoke"), help="smoke: few pictures, to try")
    command.add_argument("--seed", type=int, default=0, help="seed of random features, untrained SAEs and intervals")
    command.add_argument("--output", type=Path, help="where the scores go; by default FOLDER/pocket_bench.json")
    options = parser.parse_args(arguments)
    try:
        if options.command == "bench":
            _bench(options)
            return 0
        if options.command == "riebench":
            _count(options.path)
            return 0
        if options.command == "export":
            _export(options)
            return 0
        run = TrainingRun.read(options.config)
        if options.command == "harvest":
            print(run.harvest(options.folder, options.dtype))
        else:
            _train(run, options.folder, options.store)
    except (ValueError, OSError, MemoryError) as error:
        several = f"process {os.environ.get('RANK')} of {os.environ['WORLD_SIZE']}: " if _are_several() else ""
        print(f"{several}{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _fields() -> str:
    """The configuration's fields with their defaults."""
    defaults = json.loads(json.dumps(asdict(TrainingRun())))
    return "fields of CONFIG and their defaults (null: the scale's):\n" + json.dumps(defaults, indent=2)


def _bench(options: argparse.Namespace) -> None:
    """Scores an SAE and an untrained one beside it; prints the table and writes the numbers."""
    from sae_lib.bench.scores import PocketBench, legend, reseed_noise, save, table

    sae, block = load_any(options.folder, options.block)
    seeds = [load_any(folder, block)[0] for folder in options.seeds]
    bench = PocketBench(block, options.scale, seed=options.seed)
    bench.refuse_unfit((sae, *seeds))
    output = options.output or options.folder / "pocket_bench.json"
    refuse_folder(output)  # before the minutes that the scores take
    print(f"scoring on pictures of {block}; this takes some minutes", flush=True)
    scores, control = bench.score(sae, seeds=seeds), bench.score(bench.control(sae), writes=False)
    noise = reseed_noise(block) if options.scale == "pocket" else {}
    save(output, scores, untrained=control.record()["measured"], reseed=noise)
    print(table(scores, control, noise), legend(scores.measured), f"written: {output}", sep="\n\n")
    if options.scale == "smoke":
        print("smoke: too few pictures for conclusions, and some measures need more")
    elif not noise:
        print(f"seeds: the spread over seeds was not measured for {block}; --seeds shows how stable its features are")


def _pictures() -> str:
    """The default number of pictures of each scale."""
    return ", ".join(f"{get_scale(scale).train_prompts:,} at {scale} scale" for scale in ("pocket", "smoke"))


def _seeds() -> str:
    """The default seed of each split."""
    return ", ".join(f"{seed} for {split}" for split, seed in SEEDS.items())


def _export(options: argparse.Namespace) -> None:
    """Writes the data set and says in one line what is in it."""
    start = time.monotonic()
    chosen = {name: getattr(options, name) for name in ("block", "prompts", "split", "seed", "dtype", "scale")}
    export_updates(options.folder, **chosen)
    about = json.loads((options.folder / DATASET_FILE).read_text())
    size_mb = sum((options.folder / name).stat().st_size for name in about["shards"]) / 1e6
    print(
        f"{about['vectors']:,} vectors of width {about['d_model']} of {about['block']} from {about['pictures']:,} "
        f"pictures, {len(about['shards'])} shards, {size_mb:.0f} MB, {time.monotonic() - start:.0f} s, in "
        f"{options.folder}"
    )


def _count(path: str) -> None:
    """The edits of a file, by category, and what is wrong in it."""
    cases, defects = read_cases(path)
    print(f"{len(cases)} edits", *(f"{count:4} {name}" for name, count in count_by_category(cases).items()), sep="\n")
    print(f"{len(defects)} defects", *defects, sep="\n")


def _train(run: TrainingRun, folder: Path, store: Path | None) -> None:
    several = _are_several()
    if several:
        if torch.cuda.is_available():
            if (number := int(os.environ["LOCAL_RANK"])) >= torch.cuda.device_count():
                raise ValueError(
                    f"there is no GPU {number}: this machine has {torch.cuda.device_count()}, start as many processes"
                )
            torch.cuda.set_device(number)
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    start = time.monotonic()
    saes = run.train(folder, stream=ShardStream(store, run.all_passes, run.seed) if store else None)
    if not several or dist.get_rank() == 0:
        _summarise(folder, saes, time.monotonic() - start)
    if several:
        dist.destroy_process_group()  # after an error the others may wait for this process: it only ends


def _are_several() -> bool:
    """Whether torchrun started this process beside others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _summarise(folder: Path, saes, seconds: float) -> None:
    """One line: how many SAEs, how well they explain, how many features are dead, how long it took."""
    rows = [json.loads((folder / c.folder_name / LOG_FILE).read_text().splitlines()[-1]) for c in saes]
    trained = json.loads((folder / next(iter(saes)).folder_name / CONFIG_FILE).read_text())["training"]
    explained, dead = ([row[name] for row in rows] for name in ("explained_variance", "dead_share"))
    print(
        f"{len(saes)} SAEs on {trained['steps'] * trained['batch_size']:,} vectors in {seconds:.0f} s: "
        f"explained variance {min(explained):.3f} to {max(explained):.3f}, dead {min(dead):.1%} to {max(dead):.1%}, "
        f"in {folder}"
    )


if __name__ == "__main__":
    sys.exit(main())
