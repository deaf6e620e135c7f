"""checks.py: what a check says, how several are counted, and the check of a disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from runnerd.core.names import some
from runnerd.doctor.checks import FreeSpace, check_disk, document, error, ok, warning
from tests.kits.checks import state_and_words

# --- documents ------------------------------------------------------------------------------------------------


def test_a_document() -> None:
    checks = [ok("a", "well"), warning("b", "so so", "mend")]
    assert document(checks) == {
        "ok": True,
        "checks": [
            {"name": "a", "state": "ok", "detail": "well", "remedy": None},
            {"name": "b", "state": "warning", "detail": "so so", "remedy": "mend"},
        ],
    }
    assert document([*checks, error("c", "ill", "mend")])["ok"] is False


def test_some() -> None:
    assert some(["a"]) == "a"
    assert some(["a", "b", "c"]) == "a, b, c"
    assert some(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


# --- the machine ----------------------------------------------------------------------------------------------

GIB = 2**30


@pytest.mark.parametrize(
    ("space", "state"),
    [
        (FreeSpace(50 * GIB, 0.5, 0.5), "ok"),
        (FreeSpace(50 * GIB, 0.5, None), "ok"),
        (FreeSpace(50 * GIB, 0.09, 0.5), "warning"),
        (FreeSpace(GIB - 1, 0.5, 0.5), "warning"),
        (FreeSpace(50 * GIB, 0.5, 0.09), "warning"),
        (FreeSpace(50 * GIB, 0.019, 0.5), "error"),
        (FreeSpace(99 * 2**20, 0.5, 0.5), "error"),
        (FreeSpace(50 * GIB, 0.5, 0.01), "error"),
    ],
)
def test_disks(space: FreeSpace, state: str) -> None:
    check = check_disk("state disk", "/var/lib/runnerd", "the journal cannot record", space=space)
    words = ("/var/lib/runnerd",) if state == "ok" else ("the journal cannot record", "df -h /var/lib/runnerd")
    state_and_words(check, state, *words)


def test_a_disk_as_it_is(tmp_path: Path) -> None:
    assert "are free" in check_disk("x", str(tmp_path), "y").detail
    assert check_disk("x", str(tmp_path / "absent"), "y").state == "unknown"
    (tmp_path / "file").write_text("")
    state_and_words(check_disk("x", str(tmp_path / "file" / "below"), "y"), "error", "Not a directory")
