"""Every verdict has a rule in the dated register, and every tested claim of the paper one primary test."""

from collections import Counter

from notebooks import register


def test_every_verdict_was_made_by_a_rule_in_the_register():
    keys = {rule.key for rule in register.rules()}
    missing = [
        f"{notebook}: {verdict['claim']}"
        for notebook, verdict in register.verdicts()
        if register.key_of(notebook, verdict) not in keys
    ]
    assert not missing, "run `python notebooks/register.py` for: " + "; ".join(missing)


def test_every_tested_claim_of_the_paper_has_one_primary_test_with_a_control():
    tested = Counter(verdict["id"] for _, verdict in register.verdicts() if verdict["id"])
    primary = Counter(verdict["id"] for _, verdict in register.verdicts() if verdict["primary"])
    assert primary == Counter(dict.fromkeys(tested, 1)), {name: primary[name] for name in tested if primary[name] != 1}


def test_a_rule_that_is_new_is_entered_once_and_nothing_is_taken_out(tmp_path, monkeypatch):
    verdict = {
        "claim": "more is better",
        "id": "C3",
        "primary": False,
        "at_least": 0.0,
        "at_most": None,
        "control": "chance",
    }
    monkeypatch.setattr(register, "REGISTER", tmp_path / "rules.json")
    monkeypatch.setattr(register, "verdicts", lambda: [("03_train_saes", verdict)])
    assert [rule.claim for rule in register.enter("before")] == ["more is better"] and register.enter("after") == []
    verdict["at_least"] = 0.5
    register.enter("after")
    assert [(rule.at_least, rule.look) for rule in register.rules()] == [(0.0, "before"), (0.5, "after")]
