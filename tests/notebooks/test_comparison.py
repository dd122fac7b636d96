"""notebooks/comparison.py: this run's results beside the committed ones, with numbers worked out by hand."""

import copy
import json
import subprocess

import pytest

from notebooks import comparison
from notebooks.comparison import Comparison, compare, conclusion
from sae_lib.cache.artefact import ROOT

CLAIM = "It is large"


def verdict(word="holds on the pocket model", value=5.0, claim=CLAIM):
    return {"claim": claim, "word": word, "value": value, "interval": [4.0, 6.0]}


def record(verdicts=(), scale="pocket", source="", **result):
    run = {"scale": scale, "parameters": {"source": source, "seed": 0}}
    return {"result": {**result, "verdicts": list(verdicts)}, "run": run}


def compared(committed, fresh):
    return compare({"figure1": record(curve=committed)}, {"figure1": record(curve=fresh)})


def git(*arguments, folder):
    settings = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *settings, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with two records of 04_a, one more in a folder below, and one of 05_b."""
    monkeypatch.setattr(comparison, "ROOT", tmp_path)
    figures = ("04_a/one", "04_a/two", "04_a/sdxl/three", "05_b/four")
    for place, name in enumerate(figures):
        path = tmp_path / "figures" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record(number=place)))
        path.with_suffix(".png").write_bytes(b"\x89PNG")
    git("init", "-q", folder=tmp_path)
    git("add", ".", folder=tmp_path)
    git("commit", "-q", "-m", "figures", folder=tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("committed", "fresh", "size"),
    [
        (200.0, 201.0, 1 / 201),
        (-1.0, 1.0, 2.0),
        (0.0, 0.5, 1.0),
        (0.0, 0.0, 0.0),
        ([100.0, 0.001], [100.0, 0.002], 0.001 / 100),
        ([[1.0, 0.5], [2.0, 4.0]], [[1.0, 0.7], [2.0, 4.0]], 0.2 / 4),
        ([1, 0.5], [2, 0.5], 1 / 2),
        (1, 1.0, 0.0),
        (["up.0.1/3", 8.0], ["up.0.1/3", 10.0], 2 / 10),
    ],
)
def test_the_numbers_under_a_key_differ_by_a_share_of_the_largest_of_them(committed, fresh, size):
    found = compared(committed, fresh)
    assert [difference.size for difference in found.decimals] == [pytest.approx(size)]
    assert found.unequal == [] and found.word == ("close" if size else "equal")


@pytest.mark.parametrize(
    ("committed", "fresh"),
    [
        (31, 32),
        (["up.0.1/3"], ["up.0.1/4"]),
        (None, 3),
        (True, 1),
        (True, False),
        ([1.0, 2.0], [1.0]),
        ([[1.0], [2.0]], [[1.0, 2.0]]),
        (1.0, [1.0]),
        ([], [0.0]),
        ({"a": 1}, 1),
    ],
)
def test_counts_names_gaps_and_lengths_are_equal_or_not_and_have_no_size(committed, fresh):
    for pair in ((committed, fresh), (fresh, committed)):
        found = compared(*pair)
        assert found.largest.size == 0 and found.exact == 1 and found.word == "close"
        assert found.unequal == ["figure1: curve"] and str(found) == "close but for 1 of 1 counts and names"
    assert compared(fresh, copy.deepcopy(fresh)).word == "equal"


@pytest.mark.parametrize("gap", [None, float("nan"), float("inf")])
def test_a_gap_equals_a_gap_and_no_number(gap):
    same, other = compared([1.0, gap], [1.0, gap]), compared([1.0, gap], [1.0, 2.0])
    assert same.word == "equal" and same.exact == 1
    assert other.unequal == ["figure1: curve"] and [difference.size for difference in other.decimals] == [0.0]


def test_the_order_of_keys_means_nothing():
    assert compared({"a": 1.0, "b": {"c": 2, "d": 3.0}}, {"b": {"d": 3.0, "c": 2}, "a": 1.0}).word == "equal"


def test_each_key_is_compared_by_itself_and_named_with_those_above_it():
    found = compared({"small": 0.001, "large": {"a": 100.0}}, {"small": 0.002, "large": {"a": 100.0}})
    assert found.largest == (pytest.approx(0.5), "figure1: curve > small")
    assert [difference.place for difference in found.decimals] == [
        "figure1: curve > small",
        "figure1: curve > large > a",
    ]


def test_keys_that_only_one_of_the_two_has_are_named():
    found = compared({"a": 1.0, "gone": {"b": 2.0}}, {"a": 1.0, "came": 3})
    assert found.unequal == ["figure1: curve > gone", "figure1: curve > came"] and found.word == "close"


def test_the_places_of_a_list_with_keys_inside_are_keys():
    found = compared([{"a": 1.0}, {"a": 100.0}], [{"a": 2.0}, {"a": 100.0}])
    assert found.largest == (0.5, "figure1: curve > 0 > a") and len(found.decimals) == 2


def test_the_median_counts_equal_numbers_too():
    found = compared({"a": 1.0, "b": 2.0, "c": 4.0}, {"a": 2.0, "b": 2.0, "c": 5.0})
    assert found.median == pytest.approx(1 / 5) and str(found) == "close, median 20 %, up to 50 %"


def test_another_word_of_a_verdict_is_named_with_both_words():
    fresh = record([verdict("fails on the pocket model", 3.0)])
    found = compare({"figure1": record([verdict()])}, {"figure1": fresh})
    assert found.word == "verdict changed" and found.changed == [f"{CLAIM}: holds -> fails"]
    assert str(found) == f"verdict changed: {CLAIM}: holds -> fails"


def test_verdicts_are_found_by_their_claim_wherever_they_stand():
    pair = [verdict(), verdict("fails on the pocket model", claim="It is small")]
    assert compare({"figure1": record(pair)}, {"figure1": record(pair[::-1])}).word == "equal"


@pytest.mark.parametrize(("value", "word"), [(5.9, "close"), (6.0, "close"), (6.1, "differs"), (3.9, "differs")])
def test_a_value_outside_the_committed_interval_differs_even_if_the_word_is_the_same(value, word):
    found = compare({"figure1": record([verdict()])}, {"figure1": record([verdict(value=value)])})
    assert found.word == word and found.outside == [CLAIM] * (word == "differs")


def test_a_verdict_that_came_or_went_is_no_changed_verdict():
    found = compare({"figure1": record([verdict()])}, {"figure1": record()})
    assert found.changed == [] and found.unequal == [f"figure1: verdicts > {CLAIM}"]


def test_figures_that_only_one_of_the_two_has_are_new_or_missing():
    one = {"figure1": record(number=1)}
    assert str(compare({}, one)) == "new"
    assert str(compare(one, {})) == "missing: figure1"
    assert str(compare(one, one | {"figure2": record()})) == "equal, 1 new"
    assert str(compare({}, {})) == "not compared"


@pytest.mark.parametrize("settings", [{"scale": "smoke"}, {"scale": "sdxl"}, {"source": "random/16"}])
def test_smoke_rehearsal_and_sdxl_are_not_compared(settings):
    found = compare({"figure1": record(number=1)}, {"figure1": record(number=2, **settings)})
    assert str(found) == "not compared"
    assert conclusion({"04_a": found}).startswith("Results not compared")


def test_a_committed_record_equals_itself_whatever_it_holds():
    for path in sorted(ROOT.glob("figures/[0-9]*/*.json")):
        stored = json.loads(path.read_text())
        claims = [each["claim"] for each in stored["result"]["verdicts"]]
        assert len(set(claims)) == len(claims), f"{path}: verdicts are found by their claim, which must differ"
        assert compare({path.stem: stored}, {path.stem: copy.deepcopy(stored)}).word == "equal"


def test_the_committed_records_are_those_of_head_not_those_of_the_folder(repository):
    (repository / "figures/04_a/one.json").write_text("{}")
    (repository / "figures/04_a/fresh.json").write_text("{}")
    assert comparison.committed_records("04_a") == {"one": record(number=0), "two": record(number=1)}
    assert comparison.committed_records("06_none") == {}


def test_records_are_found_in_a_clone_that_is_a_folder_of_another_repository(repository, monkeypatch):
    (repository / "inside").mkdir()
    git("mv", "figures", "inside/figures", folder=repository)
    git("commit", "-q", "-m", "moved", folder=repository)
    monkeypatch.setattr(comparison, "ROOT", repository / "inside")
    assert comparison.committed_records("05_b") == {"four": record(number=3)}


def test_without_git_without_a_repository_or_without_a_commit_there_is_nothing_to_compare_with(tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    def told():
        assert comparison.committed_records("04_a") == {}
        return conclusion({"04_a": compare({}, {"figure1": record()})})

    assert told() == "No git: nothing to compare with."
    git("init", "-q", folder=tmp_path)
    assert told() == "No git: nothing to compare with."
    monkeypatch.setenv("PATH", str(tmp_path))
    assert told() == "No git: nothing to compare with."


def test_the_conclusion_of_equal_notebooks_is_one_sentence(repository):
    equal = compared(1.0, 1.0)
    assert conclusion({"04_a": equal, "05_b": equal}) == "All 2 notebooks have the committed results."
    assert conclusion({"04_a": equal}) == "The notebook has the committed results."


def test_the_conclusion_says_how_far_close_notebooks_differ_and_where(repository):
    close = compared({"a": 1.0, "b": 125.0, "names": ["x"]}, {"a": 1.0, "b": 126.0, "names": ["y"]})
    assert conclusion({"04_a": compared(1.0, 1.0), "05_b": close}) == (
        "1 of 2 notebooks has the committed results. "
        "1 differs: no verdict changed and every verdict's value is within its committed 95 % interval; "
        "half of the numbers differ by at most 0.4 %, single ones by up to 0.79 % (05_b, figure1: curve > b); "
        "1 of 1 counts and names are different. " + comparison.REASON
    )


def test_the_conclusion_begins_with_the_verdicts_that_changed(repository):
    changed = compare(
        {"figure1": record([verdict()])}, {"figure1": record([verdict("undecided on the pocket model", 4.5)])}
    )
    words = conclusion({"04_a": compared(1.0, 1.0), "05_b": changed})
    assert words.startswith(f"1 verdict changed: 05_b: {CLAIM}: holds -> undecided. 1 of 2 notebooks has the ")
    assert "no verdict changed" not in words


def test_the_conclusion_names_values_outside_their_interval_and_figures_not_made(repository):
    outside = compare({"figure1": record([verdict()])}, {"figure1": record([verdict(value=9.0)])})
    missing = compare({"figure1": record(), "figure2": record()}, {"figure1": record()})
    words = conclusion({"04_a": outside, "05_b": missing})
    assert f"The same word, but a value outside the committed 95 % interval: 04_a: {CLAIM}." in words
    assert "1 committed figure not made: 05_b: figure2." in words and "no verdict changed;" in words


def test_other_parameters_are_given_as_the_reason_and_parameters_that_came_since_are_not(repository):
    fresh = record(curve=2.0)
    fresh["run"]["parameters"]["width"] = 3
    assert comparison.REASON in conclusion({"04_a": compare({"figure1": record(curve=1.0)}, {"figure1": fresh})})
    fresh["run"]["parameters"]["seed"] = 1
    assert comparison.OTHER in conclusion({"04_a": compare({"figure1": record(curve=1.0)}, {"figure1": fresh})})


def test_the_way_back_is_named_only_if_committed_files_are_changed_and_it_works(repository):
    words = {"04_a": compare({}, {"figure1": record()})}
    assert conclusion(words) == "Git has no record of 1 figure."
    (repository / "figures/04_a/one.json").write_text("{}")
    (repository / "figures/04_a/one.png").write_text("")
    (repository / "figures/04_a/fresh.json").write_text("{}")
    assert conclusion(words).endswith("`git restore figures` brings 2 committed files back.")
    git("restore", "figures", folder=repository)
    assert conclusion(words) == "Git has no record of 1 figure."


def test_a_comparison_without_figures_has_no_differences():
    assert Comparison().largest.size == Comparison().median == 0
