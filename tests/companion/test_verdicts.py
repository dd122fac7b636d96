"""Claims: the word follows from the numbers."""

import pytest

from sae_lib.companion.run import Run
from sae_lib.companion.verdicts import Claim, decide, holm, margin

CLAIM = Claim("SAEs transfer", at_least=0.5, at_most=0.9, published=0.8, tolerance=0.1, source="digitised")


def run_at(scale, source=""):
    return Run("04_transfer", {"scale": scale, "source": source})


@pytest.mark.parametrize(
    ("interval", "word"),
    [
        ((0.5, 0.9), "holds on the pocket model"),
        ((0.4, 0.7), "undecided on the pocket model"),
        ((0.3, 0.95), "undecided on the pocket model"),
        ((0.1, 0.49), "fails on the pocket model"),
        ((0.91, 0.95), "fails on the pocket model"),
    ],
)
def test_at_pocket_scale_the_whole_interval_decides(interval, word):
    assert CLAIM.judge(run_at("pocket"), 0.7, interval).word == word


@pytest.mark.parametrize(("value", "word"), [(0.75, "reproduced"), (0.65, "close"), (0.55, "not reproduced")])
def test_at_sdxl_scale_the_distance_to_the_published_number_decides(value, word):
    assert CLAIM.judge(run_at("sdxl"), value, (0.0, 1.0)).word == word


def test_a_claim_without_a_number_is_not_published():
    assert Claim("more is better", at_least=0.0).judge(run_at("sdxl"), 1.0, (0.5, 1.5)).word == "not published"


@pytest.mark.parametrize(("value", "answer"), [(0.75, "Yes"), (0.65, "Nearly"), (0.55, "No")])
def test_yes_or_no_follows_the_published_number(value, answer):
    assert CLAIM.judge(run_at("sdxl"), value, (0.0, 1.0)).yes_or_no == answer


@pytest.mark.parametrize("scale", ["pocket", "sdxl"])
@pytest.mark.parametrize(
    ("interval", "answer"), [((0.1, 0.4), "Yes"), ((-0.1, 0.4), "Undecided"), ((-0.4, -0.1), "No")]
)
def test_without_a_published_number_yes_or_no_follows_the_rules_bounds(scale, interval, answer):
    assert Claim("more is better", at_least=0.0).judge(run_at(scale), 0.1, interval).yes_or_no == answer


@pytest.mark.parametrize("run", [run_at("smoke"), run_at("sdxl", "random"), run_at("pocket", "random/16")])
def test_smoke_and_rehearsal_give_no_verdict(run):
    verdict = CLAIM.judge(run, 0.7, (0.6, 0.8))
    assert verdict.yes_or_no == "Undecided"
    assert verdict.word is None and str(verdict).startswith(
        "no verdict: SAEs transfer (0.7, 95 % 0.6 to 0.8; wanted: 0.5 to 0.9; published"
    )


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({"at_least": 0.15}, "at least 0.15"),
        ({"at_least": 1e-6}, "above 0"),
        ({"at_least": 0.0}, "at least 0"),
        ({"at_most": 0.05}, "at most 0.05"),
        ({"at_least": 11.0, "at_most": 11.0}, "11"),
    ],
)
def test_a_verdict_says_what_was_wanted(bounds, words):
    assert Claim("more", **bounds).judge(run_at("pocket"), 0.7, (0.6, 0.8)).rule == f"wanted: {words}"


@pytest.mark.parametrize(
    ("value", "interval"), [(float("nan"), (0.0, 1.0)), (0.5, (0.0, float("inf"))), (0.5, (1.0, 0.0))]
)
def test_numbers_that_decide_nothing_are_refused(value, interval):
    with pytest.raises(ValueError, match="decides nothing"):
        CLAIM.judge(run_at("pocket"), value, interval)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({}, "give at_least or at_most"),
        ({"at_least": 2.0, "at_most": 1.0}, "at_least 2.0 is above at_most 1.0"),
        ({"at_least": 0.0, "published": 1.0, "source": "audit"}, "needs a tolerance and a source"),
        ({"at_least": 0.0, "published": 1.0, "tolerance": 0.1, "source": "unverified"}, "'unverified'"),
    ],
)
def test_a_rule_that_cannot_decide_is_refused(rule, message):
    with pytest.raises(ValueError, match=message):
        Claim("a claim", **rule)


def test_a_verdict_carries_its_rule_and_its_control():
    claim = Claim("features beat chance", at_least=0.1, id="C1", primary=True, control="random directions")
    verdict = claim.judge(run_at("pocket"), 0.7, (0.6, 0.8))
    assert (verdict.at_least, verdict.at_most, verdict.primary, verdict.control) == (
        0.1,
        None,
        True,
        "random directions",
    )
    with pytest.raises(ValueError, match="a primary test needs the id of its claim and a control"):
        Claim("features beat chance", at_least=0.1, primary=True)


def test_the_margin_is_in_half_widths_of_the_interval_and_positive_inside_the_rule():
    assert margin(0.3, (0.2, 0.4), 0.1, None) == pytest.approx((2, 1, 3))
    assert margin(0.3, (0.2, 0.4), None, 0.1) == pytest.approx((-2, -3, -1))
    assert margin(0.3, (0.2, 0.4), 0.0, 0.35) == pytest.approx((0.5, -0.5, 1.5))


def test_holm_stops_at_the_first_test_that_is_not_significant():
    """Bounds .05 / 3, .05 / 2, .05: the second test fails its own, so the third is not asked although .04 < .05."""
    assert holm({"a": 0.01, "b": 0.03, "c": 0.04}) == {"a": True, "b": False, "c": False}


def test_primaries_asked_at_once_need_more_than_their_own_interval():
    """A margin of 1.05 (p = .04) holds alone and not among three; 2 (p = .0001) does."""
    assert decide({"C1": 1.05}) == {"C1": "holds"}
    assert decide({"C1": 1.05, "C2": 2.0, "C3": -2.0}) == {"C1": "holds", "C2": "holds", "C3": "fails"}
    assert decide({"C1": 1.05, "C2": 0.5, "C3": -2.0}) == {"C1": "undecided", "C2": "undecided", "C3": "fails"}
