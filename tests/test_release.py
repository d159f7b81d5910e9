"""What a release needs: one version everywhere, and workflows, templates and a container that are well formed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
RELEASE = re.compile(r"^## (\d+\.\d+\.\d+) \((.+)\)$", re.MULTILINE)


def test_the_changelog_begins_with_what_is_not_released_and_then_the_version():
    headings = re.findall(r"^## .*$", CHANGELOG, re.MULTILINE)
    version, date = RELEASE.findall(CHANGELOG)[0]
    assert headings[0] == "## Unreleased" and headings[1] == f"## {version} ({date})"
    assert version == PROJECT["version"] == CITATION["version"] and date == str(CITATION["date-released"])


def test_the_citation_has_what_its_format_requires():
    """The required keys of version 1.2.0, each author by the keys of a person or of an entity."""
    assert CITATION["cff-version"] == "1.2.0" and CITATION["license"] == PROJECT["license"]
    assert all(isinstance(CITATION[key], str) and CITATION[key] for key in ("message", "title"))
    assert [author["name"] for author in CITATION["authors"]] == [author["name"] for author in PROJECT["authors"]]


def test_the_classifiers_name_the_pythons_that_the_workflow_tries():
    named = [each.rpartition(" ")[2] for each in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", each)]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    tried = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert named == tried == [one for one in named if one in SpecifierSet(PROJECT["requires-python"])]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_read_and_its_actions_have_a_major_version(path: Path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"} and "secrets" not in path.read_text()
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 90
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            assert re.search(r"^[\w-]+/[\w-]+@(v\d+|release/v\d+)$", step.get("uses", "a/b@v1")), step


def test_only_the_job_that_publishes_gets_a_token_and_it_runs_nothing_of_the_tree():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "publish.yml").read_text())["jobs"]
    assert "permissions" not in jobs["build"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"} and jobs["publish"]["environment"] == "pypi"
    assert [step["uses"].partition("@")[0] for step in jobs["publish"]["steps"]] == [
        "actions/download-artifact", "pypa/gh-action-pypi-publish"]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_an_issue_template_has_a_name_and_fields_of_their_own(path: Path):
    form = yaml.safe_load(path.read_text())
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert form["name"] and form["description"] and all(field["attributes"]["label"] for field in fields)
    assert len({field["id"] for field in fields}) == len(fields) > 0


def test_the_container_copies_what_the_ignore_file_lets_through_and_runs_as_a_user():
    lines = (ROOT / "Containerfile").read_text().splitlines()
    copied = {word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]}
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == allowed and all((ROOT / name).exists() for name in copied)
    assert lines.index("USER gentraj") < lines.index('ENTRYPOINT ["gentraj"]')
    assert not [line for line in lines[lines.index("USER gentraj") :] if line.startswith("RUN")]
