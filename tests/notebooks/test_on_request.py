"""Figures of the paper whose content is unknown: what may be asked for, and that every example is drawn."""

import csv
import json

import matplotlib.pyplot as plt
import pytest

from notebooks.on_request import GENERATORS, REQUESTS, draw_request, main, read_requests
from sae_lib.assets import Assets
from sae_lib.cache.artefact import cache_root
from sae_lib.features import reading

STORED = json.loads(REQUESTS.read_text())
ICONS = {"generator": "case_study", "arguments": {"grid": "icons", "block": "up.0.1", "prompt": "a red star"}}


def asked(folder, *entries):
    path = folder / "requests.json"
    path.write_text(json.dumps({"requests": list(entries)}))
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAE_LIB_CACHE", str(tmp_path))
    monkeypatch.setitem(reading.PICTURES, "smoke", 12)
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def assets():
    return Assets("smoke", blocks="down.2.1,up.0.1")


def test_the_stored_requests_can_be_read():
    assert {each["artefact"] for each in STORED["requests"]} == set(read_requests())


def test_there_is_an_example_of_each_generator():
    assert {example["generator"] for example in STORED["examples"]} == set(GENERATORS)


@pytest.mark.parametrize("example", STORED["examples"], ids=lambda example: example["generator"])
def test_every_example_is_drawn_and_recorded(example, assets, tmp_path):
    if example["generator"] == "table":
        folder = cache_root() / "smoke" / "figures" / "07_reading_features"
        folder.mkdir(parents=True)
        rows = ["metric,block,of,n,mean (95 % interval),by chance", "specificity,mid.0,features,3,1 (0 to 2),0"]
        (folder / "metrics.csv").write_text("\n".join([*rows, "colour,mid.0,features,3,5 (4 to 6),1\n"]))
    saved = draw_request("Figure 19", assets, asked(tmp_path, {"artefact": "Figure 19"} | example))
    assert {path.parent for path in saved} == {tmp_path / "smoke" / "figures" / "requests"}
    assert all(path.stat().st_size and path.stem == "figure_19" for path in saved)
    if example["generator"] == "table":
        wanted = [{"block": "mid.0", "of": "features", "mean (95 % interval)": "1 (0 to 2)", "n": "3"}]
        assert list(csv.DictReader(saved.csv.read_text().splitlines())) == wanted
    else:
        assert json.loads(saved.json.read_text())["result"] == {"artefact": "Figure 19", **example, "verdicts": []}


def test_arguments_that_are_left_out_have_the_authors_values(assets, tmp_path):
    draw_request("Figure 7", assets, asked(tmp_path, {"artefact": "Figure 7"} | ICONS))
    (fig,) = map(plt.figure, plt.get_fignums())
    assert [ax.get_title() for ax in fig.axes[:3]] == ["Strength 0.5", "Strength 1", "Strength 1.5"]
    assert len(fig.axes) == 18


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"artefact": "Figure 19"} | ICONS] * 2, "has two entries for Figure 19: leave one"),
        ([{"artefact": "Figure 99"} | ICONS], "'Figure 99' cannot be requested: the paper has none of that name"),
        ([{"artefact": "Figure 3"} | ICONS], "'Figure 3' cannot be requested: what it shows is known"),
        (
            [{"artefact": "Figure 19", "generator": "panels", "arguments": {}}],
            "Figure 19: no generator 'panels'; choose one of case_study, top_pictures",
        ),
        (
            [{"artefact": "Figure 19", "generator": "case_study", "arguments": {"blok": "up.0.1", "prompt": 3}}],
            "Figure 19: missing block; wrong blok, prompt; case_study takes block: str, prompt: str",
        ),
        ([{"artefact": "Figure 19"}], "requests.json is damaged .*missing 2 required"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_sentence(tmp_path, entries, message):
    with pytest.raises(ValueError, match=message):
        read_requests(asked(tmp_path, *entries))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": "maps "}, "unknown grid 'maps '; choose one of maps, modulation, icons"),
        ({"block": "mid.0"}, "'mid.0' is none of this run's blocks; choose from down.2.1, up.0.1"),
    ],
)
def test_arguments_that_do_not_fit_the_run_are_refused(assets, tmp_path, change, message):
    entry = {"artefact": "Figure 19", "generator": "case_study", "arguments": ICONS["arguments"] | change}
    with pytest.raises(ValueError, match=message):
        draw_request("Figure 19", assets, asked(tmp_path, entry))


def test_a_table_without_the_column_is_refused(assets, tmp_path):
    folder = cache_root() / "smoke" / "figures" / "05_a"
    folder.mkdir(parents=True)
    (folder / "b.csv").write_text("block,n\nmid.0,3\n")
    arguments = {"of": "05_a/b", "columns": ["block", "mean"]}
    with pytest.raises(ValueError, match="05_a/b has no column 'mean'; it has block, n"):
        path = asked(tmp_path, {"artefact": "Table 2", "generator": "table", "arguments": arguments})
        draw_request("Table 2", assets, path)


def test_the_shell_says_in_one_line_what_is_not_asked_for(capsys):
    assert main(["Figure 99", "--scale", "smoke"]) == 1
    assert "requests.json has no entry for 'Figure 99'; it has none at all" in capsys.readouterr().err
