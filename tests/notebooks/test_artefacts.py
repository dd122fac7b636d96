import csv
import json
import re
from dataclasses import replace

import pytest

from notebooks import artefacts
from notebooks.artefacts import ARTEFACTS, FORM_KNOWN, UNKNOWN, Artefact, index
from sae_lib.cache.artefact import ROOT
from sae_lib.companion.verdicts import SOURCES

FIGURES = ROOT / "figures"
RULES = (r"\toprule", r"\midrule", r"\bottomrule")


def test_every_artefact_has_its_files_or_says_why_not():
    for artefact in ARTEFACTS:
        assert bool(artefact.files) != bool(artefact.missing), artefact.id
        assert artefact.missing in ("", UNKNOWN, FORM_KNOWN)
        for file in artefact.files:
            assert all((FIGURES / f"{file}.{kind}").is_file() for kind in ("png", "pdf", "json")), file


def test_every_table_of_numbers_is_there_as_csv_and_as_latex():
    tables = [file for each in ARTEFACTS if each.id.startswith("Table") for file in each.files]
    for file in (*tables, "07_reading_features/metrics", "08_writing_with_features/locality"):
        rows = list(csv.reader((FIGURES / f"{file}.csv").read_text(encoding="utf-8").splitlines()))
        assert "n" in rows[0] and all(row[rows[0].index("n")].isdigit() for row in rows[1:]), file
        assert any(re.search(r"\(-?[\d.]+ to -?[\d.]+\)", " ".join(row)) for row in rows[1:]), file
        assert (FIGURES / f"{file}.tex").is_file(), file


@pytest.mark.parametrize("path", sorted(FIGURES.glob("*/*.tex")), ids=lambda path: path.stem)
def test_every_latex_table_is_balanced_and_has_no_bare_sign(path):
    text = path.read_text(encoding="utf-8")
    columns, *lines = text.removeprefix(r"\begin{tabular}{").removesuffix("\\end{tabular}\n").splitlines()
    assert text.isascii() and text.count("{") == text.count("}") and re.fullmatch(r"l+\}", columns)
    assert [line for line in lines if line.startswith("\\") and not line.startswith("\\textbackslash")] == list(RULES)
    for line in set(lines) - set(RULES):
        assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 2, line
        assert line.endswith(r" \\") and not re.search(r"(?<!\\)[%_#^~]", line), line
        assert len(re.findall(r"(?<!\\)\$", line)) % 2 == 0, line


def test_every_figure_belongs_to_an_artefact():
    there = {f"{path.parent.name}/{path.stem}" for path in FIGURES.glob("[0-9][0-9]_*/*.png")}
    assert there == {file for artefact in ARTEFACTS for file in artefact.files}


def test_the_papers_figures_and_tables_are_each_named_once():
    ids = [artefact.id for artefact in ARTEFACTS]
    assert len(set(ids)) == len(ids)
    assert {f"Figure {number}" for number in range(1, 44)} | {f"Table {number}" for number in range(1, 9)} <= set(ids)


def test_published_values_have_a_source_that_may_be_printed():
    assert {artefact.source for artefact in ARTEFACTS} <= {*SOURCES, "not published", ""}


def test_the_index_is_what_the_records_say():
    assert json.loads((FIGURES / "index.json").read_text()) == json.loads(json.dumps(index())), "run make notebooks"


def test_what_notebook_09_took_from_notebook_05_is_what_that_says_now():
    entered = record("05_which_blocks_matter/where_the_caption_enters")
    taken = record("09_what_each_block_does/specialisation")
    at = [entered["kinds"].index(family) for family in taken["families"]]
    for block, shares in taken["enters: share"].items():
        found = [entered["share"][block][i][0] for i in at]
        assert [value for value, *_ in shares] == pytest.approx(found, abs=1e-4), (
            f"{block}: run make notebooks once more"
        )


def record(name):
    return json.loads((ROOT / "figures" / f"{name}.json").read_text())["result"]


def test_an_artefacts_verdicts_are_counted_by_scale(tmp_path, monkeypatch):
    verdicts = [{"word": "holds on the pocket model"}] * 2 + [{"word": "fails on the pocket model"}]
    (tmp_path / "01_a").mkdir()
    (tmp_path / "01_a" / "b.json").write_text(json.dumps({"result": {"verdicts": verdicts}}))
    one = Artefact("Figure 1", "", "v5", "", ("01_a/b",))
    monkeypatch.setattr(artefacts, "ARTEFACTS", (one, replace(one, id="Figure 7", files=(), missing=UNKNOWN)))
    made, unknown = index(tmp_path)
    assert made["scales"] == ["pocket"] and made["status"] == "made" and made["notebooks"] == ["01_a"]
    assert made["verdicts"] == {"pocket": {"holds on the pocket model": 2, "fails on the pocket model": 1}}
    assert unknown["status"] == "not identified" and unknown["verdicts"] == {}
