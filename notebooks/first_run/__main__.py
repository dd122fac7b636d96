"""`python -m notebooks.first_run`, or `make first-run`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from notebooks.first_run import judging
from notebooks.first_run.kit import run_kit
from notebooks.first_run.report import write_report
from notebooks.first_run.steps import FULL, STEPS, TINY, Kit
from sae_lib.assets import Assets
from sae_lib.cache.artefact import cache_root
from sae_lib.companion.style import use_house_style
from sae_lib.models.rehearsal import width_divisor
from sae_lib.models.scales import set_up_torch


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m notebooks.first_run", description=__doc__)
    parser.add_argument("--source", default="", help="folder or Hub id of SDXL Turbo; random or random/16 rehearses")
    parser.add_argument("--base-source", default="", help="folder or Hub id of SDXL base")
    parser.add_argument("--sae-folder", default="", help="folder with the authors' checkpoints of k = 10 and k = 160")
    parser.add_argument("--prompt-file", default="", help="prompts (.txt, .jsonl, .parquet) in place of the data set")
    parser.add_argument("--clip-source", default="", help="folder or Hub id of a CLIP, for RIEBench")
    parser.add_argument("--riebench", default="", help="path or address of RIEBench's JSON")
    parser.add_argument("--batch", type=int, default=10, help="prompts per call; fewer for a small GPU")
    parser.add_argument("--steps", nargs="+", choices=[step.name for step in STEPS], help="these only")
    parser.add_argument("--output", type=Path, default=None, help="folder of the report")
    options = parser.parse_args(arguments)
    if options.batch < 1:
        parser.error(f"--batch is {options.batch}: wanted at least 1")
    if options.source.startswith("random"):
        try:
            width_divisor(options.source)
        except ValueError as error:
            parser.error(str(error))
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 if every step ran, whatever the verdicts; 1 if one did not."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    set_up_torch("sdxl")
    use_house_style()
    sources = options.source, options.base_source, options.prompt_file, options.sae_folder, options.clip_source
    assets = Assets("sdxl", *sources, "paper")
    kit = Kit(assets, TINY if assets.rehearsal else FULL, options.batch, options.riebench)
    steps = [step for step in STEPS if not options.steps or step.name in options.steps]
    results = run_kit(kit, steps)
    page = write_report(options.output or cache_root() / "first_run", results)
    print(f"The report, to read and to send: {page} and {page.with_suffix('.json').name}")
    unfinished = {judging.FAILED, judging.NOT_RUN}
    return int(any(record.verdict in unfinished for record in results["records"]))


if __name__ == "__main__":
    sys.exit(main())
