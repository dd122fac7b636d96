"""RIEBench: pairs of prompts that differ by one edit. The authors' file, PIE-Bench, and edits of the pocket world
whose truth is known.

`python -m sae_lib riebench PATH` prints the counts by category, and the defects.
"""

import http.client
import json
import random
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sae_lib.models.prompts import is_text, parse_json

CATEGORIES = {
    1: "change object",
    2: "add object",
    3: "delete object",
    4: "change content",
    5: "change pose",
    6: "change colour",
    7: "change material",
    8: "change background",
    9: "change style",
}
"""RIEBench's kinds of edit [riebench]."""

_FAMILIES = ["shape", "number", "number", "content", "pose", "colour", "material", "background", "style"]
"""Of each kind of edit the family of statements that it changes (`pocket.FAMILIES`)."""

PAPER_EXAMPLES = (
    *("111000000003", "212000000003", "211000000001", "311000000001", "412000000004", "511000000000"),
    *("612000000001", "712000000001", "814000000003", "812000000004", "812000000006", "912000000001"),
)
"""Ids of the twelve edits in the supplementary grids [riebench]."""

EVERYTHING, BACKGROUND = "#everything", "background"
"""Phrases that name no object: the whole picture; all that is not the foreground."""

PIE_BENCH = "UB-CVML-Group/PIE_Bench_pp"
"""PIE-Bench on the Hub, in its revised form PIE-Bench++ (CC BY-SA 4.0); RIEBench's edits were derived from it."""

_PIE_BENCH_PARTS = {
    1: "1_change_object_80",
    2: "2_add_object_80",
    3: "3_delete_object_80",
    4: "4_change_attribute_content_40",
    5: "5_change_attribute_pose_40",
    6: "6_change_attribute_color_40",
    7: "7_change_attribute_material_40",
    8: "8_change_background_80",
    9: "9_change_style_80",
}
_PIE_BENCH_FIELDS = {"id": "id", "source_prompt": "original_prompt", "target_prompt": "editing_prompt"}

_FIELDS = {
    "id": "id",
    "editing_type_id": "category",
    "original_prompt": "original_prompt",
    "editing_prompt": "editing_prompt",
    "original_gsam_prompt": "original_phrase",
    "editing_gsam_prompt": "editing_phrase",
}
_NUMBERS = ("id", "editing_type_id")  # these may also be written as whole numbers
_PATIENCE = 60  # seconds


@dataclass(frozen=True)
class Case:
    """One edit: two prompts, and what to look for in the picture of each."""

    id: str
    category: int
    """One of `CATEGORIES`."""
    original_prompt: str
    """Of the picture that is edited (the authors' prompt2)."""
    editing_prompt: str
    """Of the picture whose features are the source (the authors' prompt1)."""
    original_phrase: str
    """What the mask of the original picture shows: nouns, EVERYTHING, BACKGROUND, or "~" and a noun for all but it."""
    editing_phrase: str
    truth: "Truth | None" = None
    """What the edit changes, which is known in the pocket world only."""
    noise: int = 0
    """Its number among all noise. The authors draw every case from the same one; each pocket case has its own."""


@dataclass(frozen=True)
class Truth:
    """The one thing that a pocket edit changes in its scene."""

    attribute: str
    """"shape", "colour", ...; "object" where one is added or deleted."""
    value: str
    """The attribute's value after the edit; of an object its shape."""


def read_cases(source: str) -> tuple[list[Case], list[str]]:
    """The cases of a benchmark, and a sentence for each record that is not a case.

    source: path or address of RIEBench's JSON; or PIE-Bench, by its name on the Hub (`PIE_BENCH`) or the folder of a
    copy. Brackets in prompts are removed, as the authors do before use. Every field must be a text; the id and the
    category may be whole numbers. Raises FileNotFoundError, ConnectionError, and
    ValueError for what is neither.
    """
    if Path(source).is_dir() or (source.count("/") == 1 and not Path(source).suffix):
        rows = _read_pie_bench(source)
    else:
        rows = _read_json(source)
    cases, defects, seen = [], [], set()
    for place, row in enumerate(rows):
        defect = _defect(row, seen)
        if defect:
            name = row["id"] if isinstance(row, dict) and is_text(row.get("id")) else f"number {place}"
            defects.append(f"record {name}: {defect}")
        else:
            cases.append(_case(row))
            seen.add(cases[-1].id)
    return cases, defects


def _read_json(source: str) -> list[Any]:
    try:
        if source.startswith(("https://", "http://")):
            with urllib.request.urlopen(source, timeout=_PATIENCE) as answer:
                content = answer.read()
        else:
            content = Path(source).expanduser().read_bytes()
        rows = parse_json(content.decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no file {source}: give a path or an address of RIEBench's JSON") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
        raise ConnectionError(f"{source} cannot be reached ({error}): give a file") from error
    except ValueError as error:  # JSON's and UTF-8's
        raise ValueError(f"{source} is no JSON ({error})") from error
    if not isinstance(rows, list) or not any(isinstance(row, dict) and set(_FIELDS) <= set(row) for row in rows):
        raise ValueError(f"{source} is not RIEBench's: wanted a list of records with {', '.join(_FIELDS)}")
    return rows


def _read_pie_bench(source: str) -> list[dict[str, str]]:
    """PIE-Bench's records in RIEBench's form. We make its mask phrases, from the words that an edit exchanges.

    Backgrounds and styles have RIEBench's phrases. Elsewhere the first pair of "blended words" names the original's and
    the edit's object; a record without one has no phrase, which is its defect. Its random edits are of no category.
    """
    from datasets import load_dataset

    rows = []
    for category, config in _PIE_BENCH_PARTS.items():
        try:
            part = load_dataset(source, config, split="V1").select_columns([*_PIE_BENCH_FIELDS, "blended_words"])
        except ValueError as error:
            raise ValueError(f"{source} is not PIE-Bench: {error}") from error
        except OSError as error:
            raise ConnectionError(
                f"PIE-Bench {source!r} is not on this machine and cannot be reached: {error}"
            ) from error
        for record in part:
            phrases = {8: (BACKGROUND,) * 2, 9: (EVERYTHING,) * 2}.get(category) or _exchanged(record["blended_words"])
            row = {field: record[name] for name, field in _PIE_BENCH_FIELDS.items()} | {"editing_type_id": category}
            rows.append(row | dict(zip(("original_gsam_prompt", "editing_gsam_prompt"), phrases, strict=True)))
    return rows


def _exchanged(blended_words: str) -> tuple[str, str]:
    """The first pair of '["cat,dog", ...]': what the edit takes away, and what it puts there."""
    try:
        first, _, second = json.loads(blended_words)[0].partition(",")
    except (ValueError, IndexError, AttributeError, TypeError):
        return "", ""
    return first.strip(), (second or first).strip()


def _case(row: dict[str, Any]) -> Case:
    fields = {name: str(row[field]) for field, name in _FIELDS.items()}
    prompts = {name: fields[name].replace("[", "").replace("]", "") for name in ("original_prompt", "editing_prompt")}
    return Case(**fields | prompts | {"category": int(fields["category"])})


def _defect(row: Any, seen: set[str]) -> str:
    """What is wrong with a record, or nothing."""
    if not isinstance(row, dict):
        return "no record"
    blank = {field for field, value in row.items() if value is None or (isinstance(value, str) and not value.strip())}
    missing = [field for field in _FIELDS if field not in row or field in blank]
    if missing:
        return f"without {', '.join(missing)}"
    for field in _FIELDS:
        is_number = field in _NUMBERS and isinstance(row[field], int) and not isinstance(row[field], bool)
        if not (is_number or is_text(row[field])):
            return f"its {field} is {row[field]!r:.80}, wanted a text"
    if str(row["id"]) in seen:
        return "its id was there before"
    if str(row["editing_type_id"]) not in map(str, CATEGORIES):
        return f"unknown category {row['editing_type_id']!r:.80}, wanted 1 to 9"
    case = _case(row)
    if not (case.original_prompt.strip() and case.editing_prompt.strip()):
        return "one of its prompts is of brackets only"
    return "its two prompts are equal" if case.original_prompt == case.editing_prompt else ""


def pocket_cases(per_category: int, seed: int = 0) -> list[Case]:
    """Edits of held-out scenes of the pocket world, equally many of each category, category after category.

    Both captions state every attribute, in the same words but for the edit. Two objects of a scene never have the same
    shape, so that a shape names an object, and the masks are asked for by it. A longer list begins, in each category,
    with the shorter one.
    """
    return [_pocket_case(category, place, seed) for category in CATEGORIES for place in range(per_category)]


def _pocket_case(category: int, place: int, seed: int) -> Case:
    from sae_lib.pocket.captions import write_caption
    from sae_lib.pocket.world import OBJECT_ATTRIBUTES, SCENE_ATTRIBUTES, Scene, has_attribute, sample_scenes

    rng = random.Random(f"riebench-{seed}-{category}-{place}")
    number = {2: 2, 3: 2}.get(category, rng.choice((1, 2)))
    attribute = {1: "shape", 4: "content", 5: "pose", 6: "colour", 7: "material", 8: "background", 9: "style"}.get(
        category
    )
    for _ in range(1_000):
        (scene,) = sample_scenes(1, rng.randrange(2**31), "test")
        shapes = [thing.shape for thing in scene.objects]
        if len(shapes) != number or len(set(shapes)) < number:
            continue
        at = rng.randrange(number)
        thing, style = scene.objects[at], rng.randrange(2**31)
        if category in (2, 3):
            both, one = scene, Scene((scene.objects[1 - at],), scene.background, scene.style, scene.phase)
            original, edited = (one, both) if category == 2 else (both, one)
            truth, phrases = Truth("object", thing.shape), (thing.shape, thing.shape)
        elif attribute in SCENE_ATTRIBUTES:
            value = rng.choice([v for v in SCENE_ATTRIBUTES[attribute] if v != getattr(scene, attribute)])
            original, edited = scene, replace(scene, **{attribute: value})
            truth, phrases = Truth(attribute, value), (BACKGROUND if category == 8 else EVERYTHING,) * 2
        else:
            taken = {getattr(thing, attribute)} | (set(shapes) if attribute == "shape" else set())
            values = [v for v in OBJECT_ATTRIBUTES[attribute] if v not in taken and v != "no eye"]
            value = rng.choice(values)
            other = replace(thing, **{attribute: value})
            if not (has_attribute(thing, attribute) and has_attribute(other, attribute)):
                continue
            objects = tuple(other if own is thing else own for own in scene.objects)
            original, edited = scene, replace(scene, objects=objects)
            truth, phrases = Truth(attribute, value), (thing.shape, other.shape)
        if {edited.split(), original.split()} != {"test"}:
            continue
        texts = [write_caption(shown, random.Random(style), stated=1.0).text for shown in (original, edited)]
        name = f"pocket-{category}-{place:03}"
        return Case(name, category, *texts, *phrases, truth, noise=1_000 * category + place)
    raise RuntimeError(f"no scene for category {category} in 1,000 tries")  # the world holds thousands of them


def writers_of(blocks: Sequence[str]) -> dict[int, str]:
    """Of each kind of edit which of the blocks *writes* what it changes, by the rule that chose the pocket's blocks.

    It is the block that raised this family's share most when it was added. Empty if these were not the first chosen.
    """
    from sae_lib.pocket.chosen import load_choice

    writers: dict[int, str] = {}
    path = load_choice()["path"][: len(blocks)]
    if {step["block"] for step in path} != set(blocks):
        return writers
    for number, family in zip(CATEGORIES, _FAMILIES, strict=True):
        shares = [0.0, *(step["share"][family] for step in path)]
        raised = {step["block"]: after - before for step, before, after in zip(path, shares, shares[1:], strict=False)}
        writers[number] = max(raised, key=raised.__getitem__)
    return writers


def count_by_category(cases: Sequence[Case]) -> dict[str, int]:
    """How many cases each category has, all nine named."""
    counted = Counter(case.category for case in cases)
    return {name: counted[number] for number, name in CATEGORIES.items()}
