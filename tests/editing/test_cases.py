import json
import math

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from sae_lib.__main__ import main
from sae_lib.editing.cases import (
    _PIE_BENCH_PARTS,
    BACKGROUND,
    CATEGORIES,
    EVERYTHING,
    count_by_category,
    pocket_cases,
    read_cases,
    writers_of,
)
from sae_lib.models.blocks import PAPER_BLOCKS
from sae_lib.pocket.chosen import load_choice


def record(number, category=1, **changes):
    return {
        "id": f"{number:04}",
        "editing_type_id": str(category),
        "original_prompt": "a [red] house",
        "editing_prompt": "a [blue] house",
        "editing_instruction": "paint it",
        "original_gsam_prompt": "house",
        "editing_gsam_prompt": "house",
    } | changes


RECORDS = [
    record(1),
    record(2, 2),
    record(3, 3, editing_gsam_prompt="background"),
    record(4, 8, original_gsam_prompt="background", editing_gsam_prompt="background"),
    record(5, 9, original_gsam_prompt="#everything", editing_gsam_prompt="#everything"),
    record(5),
    record(6, 12),
    record(7, editing_prompt="a red house"),
    record(8, original_gsam_prompt=""),
    "no record",
]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "edits.json"
    path.write_text(json.dumps(RECORDS))
    return str(path)


def test_cases_are_read_and_brackets_removed(path):
    cases, _ = read_cases(path)
    assert [case.id for case in cases] == ["0001", "0002", "0003", "0004", "0005"]
    assert (cases[0].original_prompt, cases[0].editing_prompt) == ("a red house", "a blue house")
    assert (cases[3].category, cases[3].original_phrase, cases[3].truth) == (8, "background", None)


def test_each_record_that_is_no_case_is_named_with_its_defect(path):
    _, defects = read_cases(path)
    assert defects == [
        "record 0005: its id was there before",
        "record 0006: unknown category '12', wanted 1 to 9",
        "record 0007: its two prompts are equal",
        "record 0008: without original_gsam_prompt",
        "record number 9: no record",
    ]


def test_the_command_prints_counts_and_defects(path, capsys):
    assert main(["riebench", path]) == 0
    told = capsys.readouterr().out
    assert "5 edits\n   1 change object\n   1 add object\n" in told and "5 defects\nrecord 0005" in told


@pytest.mark.parametrize(
    ("text", "sentence"), [("[1, 2", "is no JSON"), ('{"a": 1}', "is not RIEBench's"), ("[]", "is not RIEBench's")]
)
def test_what_is_not_riebenchs_is_refused(tmp_path, capsys, text, sentence):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read_cases(str(tmp_path / "x.json"))
    assert main(["riebench", str(tmp_path / "x.json")]) == 1 and sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "defect"),
    [
        (record(1, id=["0001"]), "record number 0: its id is ['0001'], wanted a text"),
        (record(1, id={}), "record number 0: its id is {}, wanted a text"),
        (record(1, original_prompt=["a house"]), "record 0001: its original_prompt is ['a house'], wanted a text"),
        (record(1, original_prompt=math.nan), "record 0001: its original_prompt is nan, wanted a text"),
        (record(1, editing_prompt=0), "record 0001: its editing_prompt is 0, wanted a text"),
        (record(1, editing_gsam_prompt=False), "record 0001: its editing_gsam_prompt is False, wanted a text"),
        (record(1, editing_type_id=math.inf), "record 0001: its editing_type_id is inf, wanted a text"),
        (record(1, editing_type_id=True), "record 0001: its editing_type_id is True, wanted a text"),
        (record(1, editing_type_id=0), "record 0001: unknown category 0, wanted 1 to 9"),
        (record(1, editing_prompt="[] "), "record 0001: one of its prompts is of brackets only"),
        (record(1, editing_prompt="a \ud800"), "record 0001: its editing_prompt is 'a \\ud800', wanted a text"),
        (record(1, id=None), "record number 0: without id"),
        ({}, "record number 0: without id, editing_type_id, original_prompt, editing_prompt, original_gsam_prompt"),
        (record(2) | {"id": 7}, "record number 0: its id was there before"),
    ],
)
def test_a_field_that_is_no_text_is_a_defect(tmp_path, row, defect):
    (tmp_path / "x.json").write_text(json.dumps([record(0, id="7"), row]).replace("number 0", "number 1"))
    cases, defects = read_cases(str(tmp_path / "x.json"))
    assert [case.id for case in cases] == ["7"]
    assert [text.replace("number 1", "number 0")[: len(defect)] for text in defects] == [defect]


def test_a_key_that_stands_twice_in_a_record_is_a_defect_and_a_mark_at_the_start_is_not(tmp_path):
    twice = json.dumps(record(2))[:-1] + ', "editing_prompt": "a green house"}'
    (tmp_path / "x.json").write_text(f"\ufeff[{json.dumps(record(1, editing_type_id=1))}, {twice}]", encoding="utf-8")
    cases, defects = read_cases(str(tmp_path / "x.json"))
    assert [(case.id, case.category) for case in cases] == [("0001", 1)]
    assert defects == ["record 0002: its editing_prompt is ('a [blue] house', 'a green house'), wanted a text"]


ODD = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        5,
        10**400,
        1.0,
        math.nan,
        math.inf,
        "",
        " ",
        "9",
        "10",
        "0001",
        "a\0",
        "\ud800",
        "[]",
        "#everything",
    ]
) | st.recursive(st.text(max_size=3), lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner))


@settings(
    max_examples=300, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    damage=st.lists(st.tuples(st.integers(0, 4), st.sampled_from([*record(0), "other"]), ODD), max_size=4),
    swapped=st.lists(st.tuples(st.integers(0, 4), ODD), max_size=1),
    dropped=st.lists(st.tuples(st.integers(0, 4), st.sampled_from(sorted(record(0)))), max_size=1),
    cut=st.none() | st.integers(1, 60),
)
def test_a_damaged_file_gives_cases_and_names_every_other_record(tmp_path, damage, swapped, dropped, cut):
    records = [record(number, 1 + number) for number in range(5)]
    for place, field, value in damage:
        records[place][field] = value
    for place, field in dropped:
        records[place].pop(field, None)
    for place, value in swapped:
        records[place] = value
    text = json.dumps(records)
    (tmp_path / "x.json").write_text(text[:-cut] if cut else text)
    if cut:
        with pytest.raises(ValueError, match=r"x.json is no JSON \("):
            read_cases(str(tmp_path / "x.json"))
        return
    cases, defects = read_cases(str(tmp_path / "x.json"))
    names = {text.removeprefix("record ").partition(": ")[0] for text in defects}
    assert len(cases) + len(defects) == 5 and all(text.startswith("record ") for text in defects)
    for place, row in enumerate(records):
        if row == record(place, 1 + place):
            assert row["id"] in {case.id for case in cases} | names
        if isinstance(row, dict) and f"number {place}" not in names and row["id"] not in names:
            case = next(case for case in cases if case.id == str(row["id"]))
            assert case.original_prompt == row["original_prompt"].replace("[", "").replace("]", "")
            assert case.editing_phrase == row["editing_gsam_prompt"] and str(case.category) == str(
                row["editing_type_id"]
            )


@pytest.fixture
def pie_bench(tmp_path):
    """A folder laid out as the data set on the Hub: a card that names the parts, and a Parquet file of each."""
    import pyarrow
    import pyarrow.parquet

    card = ["---", "configs:"]
    for category, part in _PIE_BENCH_PARTS.items():
        (tmp_path / part).mkdir()
        blended = ['["cat,dog"]', '["cat,dog", "red,blue"]', "[]"][: 3 if category == 1 else 1]
        columns = {"image": [b""] * len(blended), "id": [f"{category}{i}" for i in range(len(blended))]}
        columns |= {"source_prompt": ["a [cat]"] * len(blended), "target_prompt": ["a [dog]"] * len(blended)}
        columns |= {"blended_words": blended, "mask": [""] * len(blended)}
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / part / "V1-00000-of-00001.parquet")
        card += [f"- config_name: {part}", "  data_files:", "  - split: V1", f"    path: {part}/V1-*"]
    (tmp_path / "README.md").write_text("\n".join([*card, "---"]))
    return str(tmp_path)


def test_pie_bench_is_read_through_datasets_and_its_phrases_are_the_words_exchanged(pie_bench, monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    cases, defects = read_cases(pie_bench)
    assert list(count_by_category(cases).values()) == [2] + [1] * 8
    assert (cases[0].original_prompt, cases[0].editing_prompt) == ("a cat", "a dog")
    assert (cases[0].original_phrase, cases[0].editing_phrase) == ("cat", "dog")
    assert (cases[-2].original_phrase, cases[-1].editing_phrase) == (BACKGROUND, EVERYTHING)
    assert defects == ["record 12: without original_gsam_prompt, editing_gsam_prompt"]


def test_a_folder_that_is_not_pie_bench_is_refused(tmp_path):
    (tmp_path / "x.txt").write_text("nothing")
    with pytest.raises(ValueError, match="is not PIE-Bench"):
        read_cases(str(tmp_path))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="give a path or an address of RIEBench's JSON"):
        read_cases(str(tmp_path / "nothing.json"))


def test_pocket_cases_are_the_same_again_and_a_longer_list_begins_with_the_shorter():
    few, more = pocket_cases(2), pocket_cases(3)
    assert few == [case for case in more if int(case.id[-3:]) < 2]
    assert list(count_by_category(more).values()) == [3] * len(CATEGORIES)
    assert pocket_cases(2, seed=1) != few


def test_a_pocket_edit_changes_one_word_and_names_its_objects_by_shape():
    for case in pocket_cases(4):
        old, new = case.original_prompt.split(), case.editing_prompt.split()
        if case.category in (5, 6, 7, 8, 9):
            assert case.truth.value.split()[-1] in set(new) - set(old) or case.category in (6, 7)
            assert len(old) == len(new) or case.category == 8  # "at night" is shorter than "in a desert"
        if case.category in (1, 2):
            assert case.editing_phrase == case.truth.value and case.editing_phrase in new
        if case.category == 3:
            assert case.original_phrase == case.truth.value and case.truth.value not in new


def test_the_chosen_blocks_write_each_kind_of_edit_and_other_blocks_are_not_named():
    blocks = load_choice()["chosen"]
    assert set(writers_of(blocks)) == set(CATEGORIES) and set(writers_of(blocks).values()) <= set(blocks)
    assert writers_of([block for block in PAPER_BLOCKS if block != "down.2.1"]) == {}
