"""The guard against a notebook that computes more than it did: counts in notebooks/costs.json, without seconds."""

import json

import pytest

from notebooks import costs, run
from notebooks.account import Account
from notebooks.costs import Counts
from notebooks.execution import Outcome

OUTCOME = Outcome("04_a", 12.3, "", Account(1.5, forward_passes=120, sae_steps=30))


@pytest.mark.parametrize("now", [90, 100, 110])
def test_a_tenth_more_or_less_is_no_difference(now):
    assert Counts(now, 0).differences(Counts(100, 0)) == []


@pytest.mark.parametrize("now", [89, 111])
def test_more_than_a_tenth_is_told_with_both_numbers(now):
    assert Counts(now, 5).differences(Counts(100, 5)) == [f"{now} forward passes, 100 are committed"]


def test_what_was_nothing_must_stay_nothing():
    assert Counts(7, 1).differences(Counts(7, 0)) == ["1 sae steps, 0 are committed"]


def test_what_is_written_is_found_and_the_rest_of_the_file_stays(tmp_path):
    file = tmp_path / "costs.json"
    before = {
        "pocket": {"04_a": {"seconds": 60, "peak_gb": 2.0}},
        "smoke": {"05_b": {"forward_passes": 1, "sae_steps": 2}},
    }
    file.write_text(json.dumps(before))
    costs.commit_counts(OUTCOME, file)
    assert costs.counts(file) == {"04_a": Counts(120, 30), "05_b": Counts(1, 2)}
    assert json.loads(file.read_text())["pocket"] == before["pocket"]


def test_counts_are_no_seconds(monkeypatch, tmp_path):
    monkeypatch.setenv("SAE_LIB_CACHE", str(tmp_path))
    monkeypatch.setattr(costs, "COMMITTED", tmp_path / "costs.json")
    costs.commit_counts(OUTCOME, costs.COMMITTED)
    assert costs.known("smoke") == {}
    costs.keep("smoke", [OUTCOME])
    assert costs.known("smoke") == {"04_a": costs.Cost(12.3, 1.5)}


def test_the_committed_file_knows_each_notebook_and_no_other():
    assert set(costs.counts()) == {source.stem for source in run.find_sources()}
