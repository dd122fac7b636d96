import json
from dataclasses import replace

from sae_lib import artefacts
from sae_lib.artefacts import ARTEFACTS, NO_FLUX, UNKNOWN, Artefact, index
from sae_lib.store import ROOT
from sae_lib.verdicts import SOURCES

FIGURES = ROOT / "figures"


def test_every_artefact_has_its_files_or_says_why_not():
    for artefact in ARTEFACTS:
        assert bool(artefact.files) != bool(artefact.missing), artefact.id
        assert artefact.missing in ("", NO_FLUX, UNKNOWN)
        for file in artefact.files:
            assert all((FIGURES / f"{file}.{kind}").is_file() for kind in ("png", "pdf", "json")), file


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
