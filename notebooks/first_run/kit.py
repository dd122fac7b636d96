"""The run: checks, then step by step; a step that fails stops no other, and what is measured is not measured again."""

import json
import platform
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from notebooks.first_run.causes import in_one_sentence, likely_cause
from notebooks.first_run.judging import FAILED, NOT_RUN, Record, verdict_of
from notebooks.first_run.machine import Check, check_machine, forecast, stopping
from notebooks.first_run.steps import STEPS, Kit, Step, check_picture
from sae_lib.cache import artefact
from sae_lib.cache.artefact import cached
from sae_lib.cache.results import commit_hash


def run_kit(kit: Kit, steps: Sequence[Step] = STEPS, tell: Callable[[str], Any] = print) -> dict[str, Any]:
    """The checks and the records of all steps, for the report. tell: hears one line per step."""
    checks = check_machine(kit)
    stop = stopping(checks)
    for check in stop:
        tell(f"stops: {check.name}: {check.found}")
    if not stop:
        checks = checks + [look_at_a_picture(kit)]
        stop = stopping(checks)
    costs = forecast(kit.counts, kit.assets.source, kit.batch)
    records = []
    for number, step in enumerate(steps, 1):
        minutes, gb = costs[step.name]
        expected = f", U-Net some {minutes:.1f} min on an H100" if minutes else ""
        tell(f"{number}/{len(steps)} {step.title}{expected}, {gb:.1f} GB")
        record = not_run(step, stop[0].found) if stop else run_step(step, kit)
        record.expected_minutes, record.expected_gb = minutes, gb
        records.append(record)
        tell(f"    {record.verdict}: {record.error or record.says}{' [' + record.cause + ']' if record.cause else ''}")
    return {"checks": checks, "records": records, "machine": machine(), "rehearsal": kit.assets.rehearsal}


def look_at_a_picture(kit: Kit) -> Check:
    """Loads Turbo and draws one picture."""
    try:
        check_picture(kit)
    except Exception as error:  # noqa: BLE001  whatever it is, it is said
        return Check("one picture", "stops", f"{in_one_sentence(error)} Likely cause: {likely_cause(error)}.")
    return Check("one picture", "good", "drawn; finite and not black")


def run_step(step: Step, kit: Kit) -> Record:
    """The step's record. An error becomes its sentence and its likely cause."""
    try:
        before = len(artefact.reused)
        inputs = kit.inputs | {"riebench": kit.riebench}
        name = f"first_run_{step.name}"
        folder = cached(name, inputs, partial(step.measure, kit))
        reused = any(other.startswith(f"{name}-") for other in artefact.reused[before:])
        measured = json.loads((folder / "measured.json").read_text())
        rows = step.judge(measured, kit)
        pictures = [(text, (folder / f"picture_{at}").read_bytes()) for at, text in enumerate(measured["pictures"])]
        return Record(
            step.name,
            step.title,
            verdict_of(rows, kit.assets.rehearsal),
            rows,
            step.reason,
            step.says(measured),
            n=measured.get("cases", measured.get("pairs", getattr(kit.counts, step.count))),
            seed=step.seed,
            settings={"batch": kit.batch, "artefact": folder.name},
            seconds=measured["seconds"],
            peak_gb=measured["peak_gb"],
            reused=reused,
            pictures=pictures,
        )
    except FileNotFoundError as error:
        if "no RIEBench file" not in str(error):
            return failed(step, error)
        return not_run(step, in_one_sentence(error), likely_cause(error))
    except Exception as error:  # noqa: BLE001  a step that fails must not stop the others
        return failed(step, error)


def failed(step: Step, error: Exception) -> Record:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return Record(
        step.name,
        step.title,
        FAILED,
        tolerance_reason=step.reason,
        error=in_one_sentence(error),
        cause=likely_cause(error),
    )


def not_run(step: Step, why: str, cause: str = "") -> Record:
    return Record(step.name, step.title, NOT_RUN, tolerance_reason=step.reason, error=why, cause=cause)


def machine() -> dict[str, str]:
    """The machine and the versions, without names of persons, folders or hosts."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    versions = {name: artefact._versions()[name] for name in artefact.COMPUTES}
    found = {"system": platform.system(), "Python": platform.python_version(), "device": device}
    return found | versions | {"CUDA": str(torch.version.cuda or "none"), "commit": commit_hash()}
