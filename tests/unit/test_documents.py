"""README, HACKING and docs/: every configuration block, command, unit, path, link and name is held to the programs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.kits import documents as kit
from tests.kits.checkout import ROOT
from tests.unit.test_structure import LAYERS

DOCUMENTS = {str(path.relative_to(ROOT)): path for path in kit.documents()}
PAGES = sorted((ROOT / "docs" / "man").iterdir())
HACKING = (ROOT / "HACKING.md").read_text()
# Files that an administrator names, in examples.
CHOSEN = {"/etc/runnerd/key.cred", "/etc/runnerd/api-key", "/etc/runnerd/http-token", "/run/runnerd.pid"}
CHOSEN |= {"/etc/runnerd/slack-url", "/etc/runnerd/ntfy-token"}
EXAMPLES = [("runnerd.yaml.5", text) for text in re.findall(
    r"^\.Bd -literal.*?\n(.*?)^\.Ed", (ROOT / "docs" / "man" / "runnerd.yaml.5").read_text(), re.M | re.S
)]  # fmt: skip
YAML = [*((name, text) for name, path in DOCUMENTS.items() for text in kit.blocks(path.read_text(), "yaml")), *EXAMPLES]
COMMANDS = [
    *((name, line) for name, path in DOCUMENTS.items() for line in kit.commands(path.read_text())),
    *((page.name, line) for page in PAGES for line in kit.manual_commands(page.read_text())),
]


# --- configuration --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "text"), YAML, ids=[name for name, _ in YAML])
def test_a_block_of_configuration_loads_without_a_problem(name: str, text: str, tmp_path: Path) -> None:
    assert kit.yaml_findings(text, tmp_path / "etc") == []


def test_the_blocks_are_found() -> None:
    names = [name for name, _ in YAML]
    assert {"README.md", "docs/operations.md", "docs/from-prefect.md", "runnerd.yaml.5"} <= set(names)
    assert len(names) >= 9


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("limits: {run: 3}\n", "runnerd.yaml:1:10: unknown key 'run' in limits; did you mean 'runs'?"),
        ("pools:\n  - {name: etl, limits: 4}\n", "conf.d/10-block.yaml:2:17: unknown key 'limits' in"),
        (
            "deployments:\n  - {name: a, entrypoint: flows/none.py:f}\n",
            "conf.d/10-block.yaml:2:27: entrypoint flows/none.py: ",
        ),
        ("a: b: c\n", "runnerd.yaml:1:5: "),
    ],
)
def test_a_wrong_block_is_found(text: str, finding: str, tmp_path: Path) -> None:
    (found,) = kit.yaml_findings(text, tmp_path / "etc")
    assert found.startswith(finding)


def test_keys_and_values_in_the_text_exist() -> None:
    ours = re.compile(r"(?:api|limits|stop|late|journal|output|http|run|pools\[\]|deployments\[\])\.[a-z_].*")
    found = {}
    for name in ("README.md", "docs/operations.md", "docs/from-prefect.md"):
        for span in kit.spans(DOCUMENTS[name].read_text()):
            if ours.fullmatch(span):
                found[name, span] = kit.key_finding(span)
    assert len(found) > 30
    assert {where: finding for where, finding in found.items() if finding} == {}


def test_short_configuration_in_the_text_loads(tmp_path: Path) -> None:
    """Spans as `run: {hook_timeout: 60s}`."""
    text = "\n".join(path.read_text() for path in DOCUMENTS.values())
    short = [span for span in kit.spans(text) if re.fullmatch(r"[a-z]+: \{[^{}].*\}", span)]
    assert len(short) >= 3
    for number, span in enumerate(short):
        assert kit.yaml_findings(span, tmp_path / str(number)) == [], span


# --- commands -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "line"), COMMANDS, ids=[f"{name}: {line}" for name, line in COMMANDS])
def test_a_command_is_one_that_the_program_takes(name: str, line: str) -> None:
    assert kit.command_finding(line) is None


@pytest.mark.parametrize(
    "line",
    [
        "runnerctl staus",
        "runnerctl run nightly --wait",
        "runnerctl pool list",
        "runnerctl pool create",
        "runnerd --twice",
        "systemctl restrat runnerd",
        "systemctl restart runnerd-spawners",
        "curl --unix-socket $S http://runnerd/v1/state",
        "python -m tests.chaos",
    ],
)
def test_a_wrong_command_is_found(line: str) -> None:
    assert kit.command_finding(line) is not None


def test_commands_in_the_text_exist() -> None:
    found = {}
    for name, path in DOCUMENTS.items():
        for span in kit.spans(path.read_text()):
            if span.startswith("runnerctl "):
                found[name, span] = kit.synopsis_finding(span)
            elif span.startswith("systemctl ") and "runnerd" in span:
                found[name, span] = kit.systemctl_finding(span.split()[1:])
    assert len(found) > 60
    assert {where: finding for where, finding in found.items() if finding} == {}


def test_a_wrong_command_in_the_text_is_found() -> None:
    wrong = (
        "runnerctl stat",
        "runnerctl pool list",
        "runnerctl run D [--follow]",
        "runnerctl pool create N --priority 1",
    )
    assert [span for span in wrong if kit.synopsis_finding(span) is None] == []
    right = (
        "runnerctl run DEPLOYMENT [-p KEY=JSON] [--watch]",
        "runnerctl pool ...",
        "runnerctl cancel RUN... [--all]",
    )
    assert [span for span in right if kit.synopsis_finding(span) is not None] == []


def test_readme_is_read_in_five_minutes() -> None:
    assert len(DOCUMENTS["README.md"].read_text().splitlines()) <= 120


# --- files, units, targets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_a_document_names_exists(name: str) -> None:
    text = DOCUMENTS[name].read_text()
    assert kit.unit_findings(text) == []
    assert kit.path_findings(text, CHOSEN) == []
    assert kit.make_findings(text) == []
    assert kit.link_findings(DOCUMENTS[name], text) == []


def test_what_is_run_for_each_change_has_its_targets() -> None:
    assert kit.make_findings((ROOT / ".ci" / "run").read_text()) == []
    targets = ("demo", "test", "check", "bench", "clean", "help")
    assert kit.make_findings(" ".join(f"`make {target}`" for target in targets)) == []


def test_wrong_names_are_found() -> None:
    assert kit.unit_findings("see runnerd-runner.service and runnerd.socket") == ["no unit runnerd-runner.service"]
    text = "in /etc/runnerd/runnerd.yml, /var/lib/runnerd/journal.db and `tests/fakes/x.py`"
    assert kit.path_findings(text, CHOSEN) == ["no path /etc/runnerd/runnerd.yml", "no path tests/fakes/x.py"]
    assert kit.make_findings("`make test` and `make tests`") == ["no make target tests"]
    links = "[a](docs/none.md) [b](#nothing) [c](docs/operations.md#runnerctl) [d](docs/operations.md#none)"
    found = kit.link_findings(ROOT / "README.md", links)
    assert found == ["no file docs/none.md", "no heading #nothing", "no heading docs/operations.md#none"]


def test_units_and_the_catalog_name_what_exists() -> None:
    for path in (*kit.UNITS.iterdir(), *PAGES):
        text = path.read_text().replace("\\-", "-")
        assert kit.unit_findings(text) == [], path.name
        verbs = re.findall(r"`?runnerctl ((?!@)[a-z]+(?: check)?)", text) if path.name == "runnerd.catalog" else []
        assert [verb for verb in verbs if kit.synopsis_finding(f"runnerctl {verb}")] == [], path.name


# --- the map of the code --------------------------------------------------------------------------------------


def test_the_map_is_the_tree() -> None:
    assert kit.map_findings(HACKING, LAYERS) == []


def test_a_map_that_is_not_the_tree_is_found() -> None:
    def findings(old: str, new: str) -> list[str]:
        assert old in HACKING
        before = kit.map_findings(HACKING, LAYERS)
        return [one for one in kit.map_findings(HACKING.replace(old, new, 1), LAYERS) if one not in before]

    journal = "3 journal/ journal journal_file notice_rows pruning"
    assert findings("| `journal/` |", "| `journals/` |") == [
        f"the tree has {journal}",
        "the map has 3 journals/" + journal[10:],
    ]
    assert findings("journal journal_file", "journal") == [
        f"the tree has {journal}",
        "the map has 3 journal/ journal notice_rows pruning",
    ]
    assert findings("| 3 | `journal/`", "| 9 | `journal/`")[-1] == "the lowest layer comes first"
    row = next(line for line in HACKING.splitlines() if "`journal/`" in line)
    assert findings(row, "") == [f"the tree has {journal}"]
    assert findings(row, f"{row}\n{row}") == ["twice in the map: journal/"]


def test_the_glossary_is_short() -> None:
    glossary = re.split(r"^## ", HACKING.partition("## Glossary\n")[2], flags=re.M)[0]
    assert 20 < len(glossary.strip().splitlines()) + 1 <= 40


def test_the_modules_that_the_text_names_exist() -> None:
    """Spans as `runs/run.py`, from the folder runnerd/ or from the checkout."""
    found = {}
    for name, path in DOCUMENTS.items():
        for span in kit.spans(path.read_text()):
            if re.fullmatch(r"(?!flows/)\w[\w/]+\.py", span):
                found[name, span] = (ROOT / "runnerd" / span).is_file() or (ROOT / span).is_file()
    assert len(found) > 15
    assert [where for where, there in found.items() if not there] == []
