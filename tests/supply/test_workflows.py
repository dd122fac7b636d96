"""The workflows give nobody more than is needed: pinned actions, least permissions, no strangers' text in a shell."""

import re

import pytest
import yaml

from sae_lib.cache.artefact import ROOT

PATHS = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
MAY_WRITE = {("book.yml", "publish"): {"contents": "write"}}
"""Jobs that may change something, and what."""


@pytest.fixture(params=PATHS, ids=lambda path: path.name)
def workflow(request):
    """Its file name and its content."""
    return request.param.name, yaml.safe_load(request.param.read_text())


def steps_of(job, word):
    return [step for step in job["steps"] if word in step]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_its_commit_and_says_its_version(path):
    lines = [line.strip() for line in path.read_text().splitlines() if re.match(r"\s*-?\s*uses:", line)]
    assert lines and all(
        re.fullmatch(r"(- )?uses: [\w-]+/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", line) for line in lines
    )


def test_an_action_has_the_same_commit_everywhere():
    pins = set(re.findall(r"uses: (\S+)@([0-9a-f]{40})", "".join(path.read_text() for path in PATHS)))
    assert len({action for action, _ in pins}) == len(pins)


def test_nothing_may_be_written_but_by_the_jobs_named_here(workflow):
    name, content = workflow
    assert content["permissions"] in ({}, {"contents": "read"})
    for job, settings in content["jobs"].items():
        wanted = MAY_WRITE.get((name, job), {"contents": "read"})
        assert settings.get("permissions", content["permissions"]) in ({}, wanted)


def test_what_may_write_runs_no_program_of_the_repository():
    for path, job in MAY_WRITE:
        content = yaml.safe_load((ROOT / ".github" / "workflows" / path).read_text())["jobs"][job]
        assert not any("checkout" in step["uses"] for step in steps_of(content, "uses"))
        words = {line.split()[0] for step in steps_of(content, "run") for line in step["run"].splitlines()}
        assert words <= {"touch", "git", "commit"}


def test_every_job_has_a_time_limit_and_a_newer_run_replaces_or_follows_an_older(workflow):
    _, content = workflow
    assert content["concurrency"]
    assert all(0 < job["timeout-minutes"] <= 90 for job in content["jobs"].values())


def test_a_checkout_leaves_no_token_behind(workflow):
    _, content = workflow
    for job in content["jobs"].values():
        for step in steps_of(job, "uses"):
            if "/checkout@" in step["uses"]:
                assert step["with"]["persist-credentials"] is False


def test_no_shell_command_is_written_by_an_expression(workflow):
    _, content = workflow
    commands = [step["run"] for job in content["jobs"].values() for step in steps_of(job, "run")]
    assert commands and not any("${{" in command for command in commands)


def test_no_workflow_runs_for_others_with_the_repositorys_rights(workflow):
    _, content = workflow
    triggers = content[True]  # YAML 1.1 reads the word `on` as true
    assert not {"pull_request_target", "workflow_run"} & set(triggers)


def test_the_locks_are_audited_beside_the_tests_and_not_by_them():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert any("make audit" in step["run"] for step in steps_of(jobs["audit"], "run"))
    assert "audit" not in (ROOT / ".ci" / "run").read_text()
