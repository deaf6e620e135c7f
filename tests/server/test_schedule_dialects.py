"""What runnerd says of cron expressions, rules and time zones is what the schedules of both Prefects say.

The validators of the installed packages judge generated expressions, in one process for each major; no server runs.
"""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from runnerd.config.cron import check_cron
from runnerd.config.rrule import check_rrule
from tests.kits.config import ConfigDir
from tests.kits.prefect_servers import ENVS

pytestmark = pytest.mark.server

EXPRESSIONS = 6000
JUDGE = """
import json, sys
from prefect._internal.schemas import validators
kind, texts = json.load(sys.stdin)
if kind == "zone" and sys.argv[1] == "2":
    judge = lambda text: validators.validate_timezone(text, validators.get_valid_timezones(text))
else:
    judge = {"cron": validators.validate_cron_string, "rrule": validators.validate_rrule_string,
             "zone": validators.default_timezone}[kind]
def good(text):
    try:
        judge(text)
    except Exception:
        return False
    return True
print(json.dumps([good(text) for text in texts]))
"""


def judged(major: int, kind: str, texts: list[str], home: Path) -> list[bool]:
    python = str(ENVS / f"prefect{major}" / "bin" / "python")
    done = subprocess.run(
        [python, "-W", "ignore", "-c", JUDGE, str(major)],
        input=json.dumps([kind, texts]),
        text=True,
        capture_output=True,
        check=True,
        env={"PREFECT_HOME": str(home)},
    )
    found: list[bool] = json.loads(done.stdout)
    return found


def passes(check: Callable[[str], None], text: str) -> bool:
    try:
        check(text)
    except ValueError as error:
        return "is never due" in str(error)  # which Prefect finds out when it looks for the next date
    return True


# --- cron -----------------------------------------------------------------------------------------------------

CRON_PARTS = (
    "* ? l L w 15w W3 1w 32w jan Dec sun SAT mon-fri fri-mon sat-sun dec-feb apr-jan/3 mon#1 2#5 3#6 l3 L5 l9 1-5#2"
    " mon-fri#1 jan#2 h r 1970 2099 2100 */5 */0 */90 5/15 1-l l-3 0-0 7 5-5 -3 5- / /2 1/ 1//2 3-1/2 22-2/3 10-2/4"
    " 0 \u0663 31 32 59 60 23 24 12 13 6 8 x *-5 *,1 1,,2 0-7 5-7 6-7/2 7-2 */2,mon#1 1,mon#1 mon#1,1 0-6,tue#2"
    " 1.5 +3 1_0"
).split()


def cron_part(chance: random.Random) -> str:
    kind = chance.random()
    if kind < 0.6:
        return chance.choice(CRON_PARTS)
    if kind < 0.8:
        step = f"/{chance.randint(0, 9)}" if chance.random() < 0.4 else ""
        return f"{chance.randint(0, 62)}-{chance.randint(0, 62)}{step}"
    return str(chance.randint(0, 70))


def cron_text(chance: random.Random) -> str:
    fields = ["*"] * chance.choice([5, 5, 5, 6, 7, 4, 8])
    for index in chance.sample(range(len(fields)), chance.choice([1, 1, 2])):
        fields[index] = ",".join(cron_part(chance) for _ in range(chance.choice([1, 1, 1, 2, 3])))
    return " ".join(fields)


def test_cron_expressions_are_judged_alike(tmp_path: Path) -> None:
    """An expression is good where either major takes it (2.20 has `15W` besides) and may be due."""
    chance = random.Random(1)
    texts = [cron_text(chance) for _ in range(EXPRESSIONS)] + ["@daily", "@DAILY", "@reboot", "", "0 0 * * *\n"]
    two, three = (judged(major, "cron", texts, tmp_path) for major in (2, 3))
    theirs = {text: any(taken) for text, *taken in zip(texts, two, three, strict=True)}
    assert 0.1 < sum(theirs.values()) / len(theirs) < 0.9
    assert {text for text, good in theirs.items() if passes(check_cron, text) is not good} == set()


# --- rules ----------------------------------------------------------------------------------------------------

NUMBERS = ["0", "1", "5", "12", "13", "23", "24", "31", "32", "54", "60", "367", "-1", "-31", "-400", "x", "", "+3"]
DAYS = ["MO", "TU", "1MO", "-1FR", "+2WE", "XX", "MO(1)", "TH(+1)", "", "MON", "-MO", "1", "MO(x)"]
DATES = ["20260101", "20260101T000000", "20260101T000000Z", "20261301", "20260101T250000", ""]
PARTS = {
    "UNTIL": DATES,
    "WKST": DAYS,
    "BYDAY": DAYS,
    "BYWEEKDAY": DAYS,
    **dict.fromkeys(("INTERVAL", "COUNT", "BYSETPOS", "BYMONTH", "BYMONTHDAY", "BYYEARDAY", "BYHOUR"), NUMBERS),
    **dict.fromkeys(("BYWEEKNO", "BYMINUTE", "BYSECOND", "BYEASTER", "NOPE", "bymonth"), NUMBERS),
}
STARTS = ("DTSTART:", "DTSTART;TZID=Europe/Berlin:", "DTSTART;VALUE=DATE:", "DTSTART;X=1:")


def rule(chance: random.Random) -> str:
    parts = [f"FREQ={chance.choice(['DAILY', 'WEEKLY', 'MONTHLY', 'YEARLY', 'HOURLY', 'daily', 'OFTEN'])}"]
    for name in chance.choices(list(PARTS), k=chance.choice([0, 1, 1, 2])):
        values = chance.choices(PARTS[name], k=1 if name == "UNTIL" else chance.choice([1, 1, 2]))
        parts.append(name + chance.choice(["="] * 12 + ["", "=="]) + ",".join(values))
    return ";".join(parts[chance.choice([0] * 20 + [1]) :])


def rule_text(chance: random.Random) -> str:
    if chance.random() < 0.6:
        return chance.choice(["", "RRULE:"]) + rule(chance)
    lines = [chance.choice(STARTS) + chance.choice(DATES)] if chance.random() < 0.6 else []
    names = chance.choices(["RRULE:", "RRULE:", "EXRULE:", "", "RRULE;X=1:"], k=chance.choice([0, 1, 1, 2]))
    lines += [name + rule(chance) for name in names]
    if chance.random() < 0.4:
        lines.append(chance.choice(["EXDATE:", "RDATE:", "RDATE;VALUE=DATE:", "NOPE:"]) + chance.choice(DATES))
    return "\n".join(lines)


NEVER = ("has whole numbers", "must be a whole number of at least 1", "is never due")


def test_rules_are_judged_alike(tmp_path: Path) -> None:
    """Only numbers that never occur are refused here and not by Prefect, which searches for their dates."""
    chance = random.Random(1)
    texts = [rule_text(chance) for _ in range(EXPRESSIONS)] + ["FREQ=DAILY\n", "A" * 6501, "FREQ=DAILY;" * 700]
    two, three = (judged(major, "rrule", texts, tmp_path) for major in (2, 3))
    assert two == three and 0.1 < sum(two) / len(two) < 0.9
    wrong = set()
    for text, good in zip(texts, three, strict=True):
        try:
            check_rrule(text)
        except ValueError as error:
            if good and not any(words in str(error) for words in NEVER):
                wrong.add(text)
        else:
            wrong |= set() if good else {text}
    assert wrong == set()


# --- time zones -----------------------------------------------------------------------------------------------

ZONES = (
    "UTC Europe/Berlin America/New_York Etc/GMT+5 EST GMT US/Pacific Asia/Calcutta europe/berlin utc Europe"
    " Mars/Olympus posix/UTC right/UTC posixrules +01:00 UTC+1 Europe/Berlin/x ../etc/passwd /usr/share/zoneinfo/UTC"
).split()


@pytest.mark.parametrize("major", [2, 3])
def test_time_zones_are_judged_alike(major: int, tmp_path: Path) -> None:
    etc = ConfigDir(tmp_path / "etc")
    ours = []
    for name in ZONES:
        schedule = json.dumps({"cron": "@daily", "timezone": name})
        etc.write("conf.d/a.yaml", f"deployments: [{{name: a, entrypoint: 'm:f', schedules: [{schedule}]}}]\n")
        ours.append(not etc.load().problems)
    theirs = judged(major, "zone", ZONES, tmp_path)
    assert dict(zip(ZONES, ours, strict=True)) == dict(zip(ZONES, theirs, strict=True))
