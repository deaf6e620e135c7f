"""docs/from-prefect.md: whatever of runnerd it names is there, and its files are good."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.kits.checkout import ROOT
from tests.kits.config import ConfigDir
from tests.kits.documents import OPTION, SPAN, blocks, key_finding, of_this_host, synopsis_finding

TEXT = (ROOT / "docs" / "from-prefect.md").read_text()
METRICS = (ROOT / "runnerd" / "control" / "backend" / "metrics.py").read_text()
ROUTES = "\n".join(path.read_text() for path in (ROOT / "runnerd" / "control").rglob("*.py"))
MANUAL = (ROOT / "docs" / "man" / "runnerd.8").read_text()


def rows() -> Iterator[tuple[str, str]]:
    """(theirs, ours) of each row of each table."""
    for line in TEXT.splitlines():
        if line.startswith("| "):
            _, theirs, ours, _ = line.split("|")
            if theirs.strip() != "Prefect":
                yield theirs.strip(), ours.strip()


def flaw_of(span: str, command: str) -> str | None:
    """What is wrong with something of ours; `command` is the last one named before it in its cell."""
    match span.partition(" ")[0]:
        case "runnerctl":
            return synopsis_finding(span)
        case "runnerd":
            taken = set(OPTION.findall(re.sub(r"Fl (?=-)", "-", MANUAL)))
            return None if set(OPTION.findall(span)) <= taken else "no such option"
        case "systemctl" | "journalctl":
            return None if "runnerd" in span else "not ours"
        case word if word.startswith("--"):
            return synopsis_finding(f"{command} {span}")
        case word if word.startswith("/v1/"):
            return None if f'"{span}"' in ROUTES else "no such route"
        case word if word.startswith("runnerd_"):
            return None if f'"{span}"' in METRICS else "no such metric"
        case word if word.isupper():
            return None if word.startswith("PREFECT_") or word == "SSL_CERT_FILE" else "no such variable"
    return key_finding(span)


def test_whatever_of_ours_is_named_is_there() -> None:
    flaws = {}
    for theirs, ours in rows():
        command = "runnerctl"
        for span in SPAN.findall(ours):
            flaws[theirs, span] = flaw_of(span, command)
            command = span if span.startswith("runnerctl ") else command
    assert len(flaws) > 150
    assert {span: flaw for span, flaw in flaws.items() if flaw} == {}


def test_a_wrong_name_is_found() -> None:
    wrong = (
        "pools[].limits", "pool.limit", "limits.run", "stop.then: wait", "runnerctl pools", "runnerctl pool list",
        "runnerctl pool create --priority", "runnerd --twice", "/v1/nothing", "runnerd_nothing", "EDITOR", "Whatever",
    )  # fmt: skip
    assert [span for span in wrong if flaw_of(span, "runnerctl") is None] == []
    right = ("pools[].run.user", "deployments[].schedules[].cron", "stop.then: crash", "pools[].create: false")
    assert [span for span in right if flaw_of(span, "runnerctl") is not None] == []


def test_every_row_is_one_of_keys_verbs_or_words() -> None:
    """A row without any name of ours says why there is none."""
    silent = ("always", "never", "does not exist", "the same", "the server's", "the flow's own", "the keys of")
    unsaid = [theirs for theirs, ours in rows() if not SPAN.search(ours) and not ours.startswith(silent)]
    assert unsaid == []


def test_keys_and_verbs_in_the_text_are_there() -> None:
    prose = re.sub(r"^```.*?^```|^\|.*?$", "", TEXT, flags=re.M | re.S)
    ours = re.compile(r"(?:runnerctl|runnerd) .+|(?:api|limits|stop|late|run|pools\[\]|deployments\[\])\..+")
    flaws = {span: flaw_of(span, "runnerctl") for span in SPAN.findall(prose) if ours.fullmatch(span)}
    assert len(flaws) > 12
    assert {span: flaw for span, flaw in flaws.items() if flaw} == {}


def test_the_files_of_the_ways_to_move_are_good(tmp_path: Path) -> None:
    main, *drop_ins = blocks(TEXT, "yaml")
    etc = ConfigDir(tmp_path / "etc", main=of_this_host(main, tmp_path / "etc"))
    for number, text in enumerate(drop_ins):
        etc.write(f"conf.d/{number}.yaml", of_this_host(text, tmp_path / "etc"))
    config = etc.load()
    assert etc.words(config.problems) == []
    assert [pool.name for pool in config.pools] == ["etl", "default-agent-pool"]
    assert [deployment.name for deployment in config.deployments] == ["nightly"]
