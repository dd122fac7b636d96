"""`make audit` passes only if the advisory service has answered for every package of every lock."""

import subprocess

import pytest

from tests.supply import audit

FOUND = ("Found 1 known vulnerability in 1 package\n", "Name Version ID\njinja2 2.0 PYSEC-2019-217\n")
OFFLINE = ("Traceback ...\nrequests.exceptions.ConnectionError: Failed to resolve\n", "")
SKIPPED = ("ERROR:pip_audit._cli:greenlet: Dependency not found on PyPI and could not be audited: greenlet (3.5)\n", "")


@pytest.fixture
def answer(monkeypatch):
    """A function that says what pip-audit answers; asked: the commands that it got."""

    def answer(status, stderr="", stdout=""):
        def run(command, **_):
            answer.asked.append(command)
            return subprocess.CompletedProcess(command, status, stdout, stderr)

        monkeypatch.setattr(audit.subprocess, "run", run)

    answer.asked = []
    return answer


def test_a_lock_without_a_known_vulnerability_passes_and_every_lock_is_asked_for_strictly(answer, capsys):
    answer(0, "No known vulnerabilities found\n")
    assert audit.main(["a.lock", "b.lock"]) == 0
    assert capsys.readouterr().out == "a.lock: no known vulnerabilities\nb.lock: no known vulnerabilities\n"
    assert [command[-1] for command in answer.asked] == ["a.lock", "b.lock"]
    assert all({"--strict", "--require-hashes"} <= set(command) for command in answer.asked)


def test_a_vulnerability_is_shown_and_fails(answer, capsys):
    answer(1, *FOUND)
    assert audit.main(["a.lock"]) == 1
    assert "a.lock: Found 1 known vulnerability in 1 package\nName Version ID\njinja2" in capsys.readouterr().out


@pytest.mark.parametrize(("stderr", "stdout"), [OFFLINE, SKIPPED, ("", "")])
def test_a_service_that_does_not_answer_fails_in_one_sentence(answer, capsys, stderr, stdout):
    answer(1, stderr, stdout)
    assert audit.main(["a.lock", "b.lock"]) == 1
    said = capsys.readouterr().err
    assert (
        said.startswith("a.lock was not audited, since the advisory service did not answer") and said.count("\n") == 1
    )
