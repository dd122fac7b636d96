"""The machine, before anything is loaded: versions, memory, disk, network, tokens, and the checkpoints' hashes."""

import hashlib
import importlib.metadata
import importlib.util
import json
import platform
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from notebooks.first_run.causes import in_one_sentence, likely_cause
from notebooks.first_run.steps import STEPS, Counts, Kit
from notebooks.machine import free_gb
from sae_lib.cache.artefact import COMPUTES, ROOT, cache_root
from sae_lib.cache.complete import has_variant
from sae_lib.models.pipelines import HUB_IDS, default_dtype
from sae_lib.models.rehearsal import PARAMETERS, width_divisor
from sae_lib.saes.checkpoints import find_saes
from sae_lib.saes.exchange import HUB_FOLDERS

GOOD, NOTE, STOPS = "good", "note", "stops"
"""What a check says: all is well; worth knowing; no step can run."""

ACTIVATIONS_GB = 3.0
"""Left for activations, as notebook 90 leaves it."""
BASE_ACTIVATIONS_GB = 1.0
"""Per prompt of base at 1,024 px, guided (notebook 04's rehearsal took 17 GB with ten prompts)."""
DOWNLOAD_GB = 17.0
"""Both models in 16 bits, eight SAEs and the judges."""
SAE_FILES = ("config.json", "state_dict.pth", "mean.pt", "std.pt")


@dataclass(frozen=True)
class Check:
    """One line of the report: what was looked at, what was found, and whether that stops the run."""

    name: str
    state: str
    found: str
    """A sentence; of what stops the run with what to do."""


def step_gb(source: str, size: int, batch: int, bytes_per_number: int) -> float:
    """Memory that a step needs, in 10^9 bytes: the pipeline, eight SAEs, and activations.

    size: pixels of its largest pictures. Computed from shapes; only the activations of base are measured, once.
    """
    divisor = width_divisor(source) if source.startswith("random") else 1
    weights = sum(PARAMETERS.values()) / divisor**2 * bytes_per_number / 1e9
    saes = 8 * 4 * 2 * 1_280 * 5_120 / divisor**2 / 1e9
    activations = max(ACTIVATIONS_GB, batch * BASE_ACTIVATIONS_GB * (size > 512))
    return weights + saes + activations / divisor


def step_minutes(passes: float, source: str) -> float | None:
    """Minutes of that many passes of the U-Net at 512 px, by the rehearsal on one H100; None for narrow rehearsals.

    Pictures, judges and downloads come on top.
    """
    path = ROOT / "figures" / "results" / "gpu.json"
    if source.startswith("random/") or not torch.cuda.is_available() or not path.is_file():
        return None
    return passes / json.loads(path.read_text())["result"]["harvest"]["plain"] / 60


def check_versions() -> list[Check]:
    """Python and the packages that compute, beside the lock's."""
    lock = (ROOT / "requirements.lock").read_text() + (ROOT / "requirements-cuda.lock").read_text()
    checks = [Check("Python", GOOD, platform.python_version())]
    for package in COMPUTES:
        there = importlib.metadata.version(package)
        pinned = f"{package}=={there.split('+')[0]}" in lock
        found = f"{there}, the lock's" if pinned else f"{there}, which is not the lock's: last digits may differ"
        checks.append(Check(package, GOOD if pinned else NOTE, found))
    missing = [name for name in ("torchmetrics", "torchvision") if importlib.util.find_spec(name) is None]
    found = f"{' and '.join(missing)} missing, so the steps with LPIPS cannot run: pip install '.[sdxl]'"
    checks.append(Check("LPIPS", NOTE if missing else GOOD, found if missing else "its packages are installed"))
    return checks


def check_device(source: str, batch: int) -> list[Check]:
    """The GPU and its memory; a rehearsal may run on the CPU."""
    rehearsal = source.startswith("random")
    if not torch.cuda.is_available():
        need, there = step_gb(source, 1_024, 1, 4), free_gb()
        if not rehearsal:
            way = "run this on a machine with an NVIDIA GPU, or rehearse with --source random/16"
            return [Check("GPU", STOPS, f"There is no GPU that torch can use: {way}.")]
        if need > there:
            found = f"The rehearsal needs {need:.1f} GB and {there:.1f} GB are free: use --source random/16."
            return [Check("memory", STOPS, found)]
        return [
            Check("GPU", NOTE, "none: the rehearsal runs on the CPU"),
            Check("memory", GOOD, f"{there:.1f} GB free"),
        ]
    there = torch.cuda.mem_get_info()[0] / 1e9
    return [check_gpu(torch.cuda.get_device_name(), there, source, batch)]


def check_gpu(name: str, there: float, source: str, batch: int) -> Check:
    """Whether a GPU with that many 10^9 bytes free is large enough."""
    least, need = (step_gb(source, 1_024, prompts, 2) for prompts in (1, batch))
    if there < least:
        return Check(
            "GPU", STOPS, f"The {name} has {there:.1f} GB free and SDXL wants {least:.1f} GB: use a larger GPU."
        )
    if there < need:
        fits = int(there - least + ACTIVATIONS_GB)
        return Check("GPU", NOTE, f"{name}, {there:.1f} GB free; base wants {need:.1f} GB: give --batch {fits}")
    return Check("GPU", GOOD, f"{name}, {there:.1f} GB free; at most {need:.1f} GB are wanted")


def check_disk(need: float, folder: Path) -> Check:
    """Room for what is downloaded and kept."""
    folder.mkdir(parents=True, exist_ok=True)
    there = shutil.disk_usage(folder).free / 1e9
    if there < need:
        way = "free some, or name a folder on another disk in SAE_LIB_CACHE or HF_HOME"
        return Check("disk", STOPS, f"{need:.0f} GB are wanted and {there:.1f} GB are free: {way}.")
    return Check("disk", GOOD, f"{there:.0f} GB free, {need:.0f} GB wanted")


def check_source(name: str, source: str) -> Check:
    """Whether a model's folder is complete enough to try, or its repository may be read."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            found = f"The folder {folder.name!r} has no model_index.json: give one that save_pretrained wrote."
            return Check(name, STOPS, found)
        files = [*(folder / "unet").glob("*.safetensors")]
        fp16 = any(has_variant(file) for file in files)
        found = "folder with fp16 files" if fp16 else "folder without fp16 files: they are converted after reading"
        return Check(name, GOOD if fp16 else NOTE, found)
    if source.startswith((".", "/", "~")) or source.count("/") != 1:
        return Check(
            name, STOPS, f"There is no folder {source!r}: give one, or a name on the Hub such as {HUB_IDS[name]}."
        )
    return check_hub(name, source)


def check_hub(name: str, source: str) -> Check:
    """Whether a repository may be read: one sentence for no network, for a licence and for a wrong name."""
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    try:
        HfApi().auth_check(source)
    except GatedRepoError:
        way = f"accept it on the page of {source}, then run `hf auth login`"
        return Check(name, STOPS, f"The licence of {source} was not accepted with this token: {way}.")
    except RepositoryNotFoundError:
        return Check(name, STOPS, f"The Hub has no {source} that may be read here: check the name, or `hf auth login`.")
    except HfHubHTTPError as error:
        return Check(name, NOTE, f"the Hub answered {in_one_sentence(error)}: {likely_cause(error)}")
    except Exception:  # noqa: BLE001  the client raises its transport's errors, which have nothing in common
        if in_cache(source):
            return Check(name, NOTE, f"no network; {source} is in the Hub's cache on this machine")
        way = "connect, or give a folder of a downloaded copy"
        return Check(name, STOPS, f"There is no network and {source} is not on this machine: {way}.")
    return Check(name, GOOD, f"{source} may be read ({'with' if get_token() else 'without'} a token)")


def in_cache(source: str) -> bool:
    """Whether some revision of a repository is in the Hub's cache."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    snapshots = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=source, repo_type="model"), "snapshots")
    return snapshots.is_dir() and any(snapshots.iterdir())


def check_hashes(kit: Kit) -> list[Check]:
    """sha256 of the SAEs' files, beside those that the Hub states."""
    if kit.assets.untrained:
        return [Check("SAEs", NOTE, "a rehearsal's, untrained: no files")]
    checks, stated = [], {} if kit.assets.rehearsal else stated_hashes()
    for kind in ("panel", "transfer"):
        try:
            folders = find_saes(kind, "sdxl", kit.assets.sae_folder, kit.assets.blocks)
        except Exception as error:  # noqa: BLE001  whatever it is, it is said
            checks.append(Check(f"{kind} SAEs", STOPS, f"{in_one_sentence(error)} ({likely_cause(error)})"))
            continue
        for folder in folders.values():
            checks += [check_hash(file, stated) for file in map(folder.joinpath, SAE_FILES) if file.is_file()]
    return checks


def check_hash(file: Path, stated: dict[str, str]) -> Check:
    """One file's sha256, compared where the Hub states one. Nothing is invented where it does not."""
    with file.open("rb") as opened:
        computed = hashlib.file_digest(opened, "sha256").hexdigest()
    name = "/".join(file.parts[-3:])
    known = {value for path, value in stated.items() if path.endswith(f"/{name}")}
    if not known:
        return Check(name, NOTE, f"sha256 {computed}; no published hash to compare with")
    if computed not in known:
        states = " or ".join(sorted(known))
        return Check(name, STOPS, f"sha256 {computed}, and the Hub states {states}: download {name} again.")
    return Check(name, GOOD, f"sha256 {computed}, as the Hub states it")


def stated_hashes() -> dict[str, str]:
    """By repository and path, the sha256 that the Hub states for the authors' large files; none without network."""
    from huggingface_hub import HfApi

    hashes = {}
    for repository in HUB_FOLDERS:
        siblings = []
        with suppress(Exception):  # as in check_hub
            siblings = HfApi().model_info(repository, files_metadata=True, timeout=10).siblings or []
        hashes |= {f"{repository}/{file.rfilename}": file.lfs.sha256 for file in siblings if file.lfs}
    return hashes


def check_machine(kit: Kit) -> list[Check]:
    """All checks, the cheap ones first; the hashes only if nothing stops the run."""
    assets, rehearsal = kit.assets, kit.assets.rehearsal
    checks = check_versions() + check_device(assets.source, kit.batch)
    local = all(Path(source).expanduser().is_dir() for source in assets.sources.values() if source)
    all_given = all(assets.sources.values()) and bool(assets.sae_folder)
    checks.append(check_disk(1.0 if rehearsal or (local and all_given) else DOWNLOAD_GB, cache_root()))
    if not rehearsal:
        checks += [check_source(name, source or HUB_IDS[name]) for name, source in assets.sources.items()]
        if not assets.sae_folder:
            checks += [check_hub("SAEs", repository) for repository in HUB_FOLDERS]
        if assets.prompt_source and not Path(assets.prompt_source).expanduser().is_file():
            checks.append(Check("prompts", STOPS, f"There is no prompt file {assets.prompt_source!r}: give one."))
    if stopping(checks):
        return checks
    return checks + check_hashes(kit)


def stopping(checks: Sequence[Check]) -> list[Check]:
    """The checks that stop the run."""
    return [check for check in checks if check.state == STOPS]


def forecast(counts: Counts, source: str, batch: int) -> dict[str, tuple[float | None, float]]:
    """By step, minutes (None where nothing is known) and GB."""
    dtype = default_dtype("sdxl", torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return {
        step.name: (step_minutes(step.passes(counts), source), step_gb(source, step.size, batch, dtype.itemsize))
        for step in STEPS
    }
