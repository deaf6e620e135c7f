"""Writes the document, the plot and the raw figures: docs/benchmarks.md, .svg and .json."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from tests.bench import rows
from tests.bench.modes import Mode
from tests.bench.plot import Bar, Panel, draw
from tests.bench.results import Results
from tests.bench.rows import COLD, CONTENDERS, FLOOR, SERVE, WARM, WORKER, Row
from tests.bench.samples import WIDE, Summary
from tests.bench.words import HOW, INTRODUCTION, LEGEND

NO_FIGURE = "-"
COLUMNS = (WARM, COLD, SERVE, WORKER)
BUSY = 0.5  # of a processor each: the load before it begins, from which on the document warns
SERVER_IS_THE_LIMIT = 0.5  # of a figure, from which on the floor is what matters


@dataclass(frozen=True, slots=True)
class Verdict:
    """A figure beside its target."""

    row: Row
    who: str
    summary: Summary
    target: float

    @property
    def is_met(self) -> bool:
        return self.summary.value <= self.target and not self.summary.over

    @property
    def words(self) -> str:
        """By how much it is missed."""
        beyond = self.summary.value - self.target
        share = f" ({100 * beyond / self.target:.0f} %)" if self.target else ""
        least = "at least " if self.summary.over else ""
        return f"{least}{number(beyond, self.row)} {self.row.unit}".strip() + share


def verdicts(mode: Mode, results: Results) -> list[Verdict]:
    """All figures that have a target."""
    found = []
    for row in [*mode.timed_rows(3), *mode.growth_rows()]:
        for who, target in row.targets.items():
            summary = results.summary(3, row, who)
            if summary is not None:
                found.append(Verdict(row, who, summary, target))
    return found


def not_reached(mode: Mode, results: Results) -> list[str]:
    """The figures that were planned and have no sample."""
    found: dict[str, None] = {}
    for plan in mode.sessions:
        for major in plan.majors:
            for row in plan.rows():
                for who in plan.contenders_of(row):
                    if who not in results.absent and results.summary(major, row, who) is None:
                        found[f"Prefect {major}, {row.title}: {CONTENDERS[who]}"] = None
    return list(found)


# --- the parts of the document ------------------------------------------------------------------------------------


def number(value: float, row: Row) -> str:
    return f"{value:,.{row.decimals}f}"


def cell(summary: Summary | None, row: Row) -> str:
    """Median (or what the row has), the range, and how many samples there are."""
    if summary is None:
        return NO_FIGURE
    text = ("over " if summary.over else "") + number(summary.value, row)
    if summary.count == 1:
        return f"{text} (single)"
    wide = "" if summary.is_steady(row.noise) else " †"
    return f"{text} ({number(summary.low, row)} to {number(summary.high, row)}; {summary.count}){wide}"


def table(head: list[str], lines: list[list[str]], *, figures_at: int = 1) -> str:
    """A table of Markdown; the columns before `figures_at` are text, the others are figures."""
    rule = ["---" if number < figures_at else "---:" for number in range(len(head))]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *lines]) + "\n"


def figures(results: Results, major: int, chosen: list[Row], columns: tuple[str, ...] = COLUMNS) -> str:
    """Rows by contender; contenders and rows without a figure are left out."""
    there = [who for who in columns if any(results.summary(major, row, who) for row in chosen)]
    targets = major == 3 and any(row.targets for row in chosen)
    lines = []
    for row in chosen:
        cells = [cell(results.summary(major, row, who), row) for who in there]
        if any(one != NO_FIGURE for one in cells):
            unit = f", {row.unit}" if row.unit else ""
            lines.append([row.title + unit, *cells, *([_targets(row)] if targets else [])])
    if not lines:
        return "Not reached.\n"
    return table(["what", *(CONTENDERS[who] for who in there), *(["target"] if targets else [])], lines)


def _targets(row: Row) -> str:
    by_value: dict[float, list[str]] = {}
    for who, target in row.targets.items():
        by_value.setdefault(target, []).append(who)
    return ", ".join(f"{target:g} {' and '.join(who)}" for target, who in by_value.items()) or NO_FIGURE


def missed(mode: Mode, results: Results) -> str:
    """The targets that are missed, by how much, and what stands in the way."""
    all_of_them = verdicts(mode, results)
    lines = [
        [
            verdict.row.title,
            CONTENDERS[verdict.who],
            number(verdict.summary.value, verdict.row),
            f"{verdict.target:g}",
            verdict.words,
            rows.OBSTACLES.get(verdict.row.key, "not known yet"),
        ]
        for verdict in all_of_them
        if not verdict.is_met
    ]
    count = f"{len(all_of_them) - len(lines)} of {len(all_of_them)} targets are met."
    head = ["what", "contender", "measured", "target", "missed by", "what stands in the way"]
    return count + ("\n\n" + table(head, lines, figures_at=len(head)) if lines else "\n")


def floor(mode: Mode, results: Results) -> str:
    """What the same requests take without a process, and where the server is the limit."""
    lines, limited = [], []
    for row in mode.timed_rows(3):
        summary = results.summary(3, row, FLOOR)
        if summary is None:
            continue
        shares = []
        for who in COLUMNS:
            measured = results.summary(3, row, who)
            share = summary.value / measured.value if measured and measured.value > 0 else None
            shares.append(NO_FIGURE if share is None else f"{100 * share:.0f} %")
            if share is not None and share >= SERVER_IS_THE_LIMIT:
                limited.append(f"{row.title} ({CONTENDERS[who]})")
        lines.append([f"{row.title}, {row.unit}", cell(summary, row), *shares])
    if not lines:
        return "It was not reached.\n"
    words = "The server, not the runner, is the limit of: " + "; ".join(limited) + "."
    ends = words if limited else "For no figure the server is the limit: no floor is half of a figure."
    head = ["what", CONTENDERS[FLOOR], *(f"its share of {CONTENDERS[who]}" for who in COLUMNS)]
    return table(head, lines) + f"\n{ends}\n"


def processor(mode: Mode, results: Results) -> str:
    """Processor seconds of the bursts: of the machine, and of the server."""
    lines = []
    for plan in mode.sessions:
        for burst in plan.bursts:
            for major in plan.majors:
                key = rows.burst_key(burst.count, plan.limit)
                title = f"{burst.count} no-op runs, limit {plan.limit}, Prefect {major}"
                for what, suffix in (("all processors", "cpu"), ("of them the server", "server")):
                    row = Row(f"{key}-{suffix}", title, "s", noise=1.0)
                    cells = [cell(results.summary(major, row, who), row) for who in COLUMNS]
                    lines += [[f"{title}: {what}", *cells]] if set(cells) != {NO_FIGURE} else []
    return table(["processor seconds", *(CONTENDERS[who] for who in COLUMNS)], lines) if lines else ""


def failures(results: Results) -> str:
    lines = [
        [f"Prefect {major}", CONTENDERS[who], what, str(count)]
        for (major, who), counted in results.troubles.items()
        for what, count in counted.items()
    ]
    return table(["server", "contender", "failure", "count"], lines, figures_at=3) if lines else "None.\n"


def left_out(mode: Mode, results: Results) -> str:
    lines = [f"{CONTENDERS[who]}: {why}" for who, why in results.absent.items()]
    lines += [
        f"not in this mode: {row.title}: {CONTENDERS[who]}"
        for plan in mode.sessions
        for row in plan.rows()
        for who in plan.contenders
        if who not in plan.contenders_of(row)
    ]
    lines += [*results.left_out, *(f"no sample: {what}" for what in not_reached(mode, results))]
    return "".join(f"- {line}\n" for line in lines) if lines else "Nothing that was planned is left out.\n"


def machine_lines(results: Results) -> str:
    about = results.about
    of = about.get("machine", {})
    versions, load = about.get("versions", {}), about.get("load", 0.0)
    busy = load > BUSY * (of.get("processors") or 1)
    others = f"\n**The machine was busy with other work when this began (load {load}): the figures are too large.**\n"
    return (
        f"{of.get('processors')} processors ({of.get('model')}), {of.get('memory_gib')} GiB, {of.get('system')}, "
        f"Linux {of.get('kernel')}, Python {of.get('python')}; Prefect {' and '.join(versions.values()) or 'none'}; "
        f"{about.get('day')}, {about.get('seconds')} s.\n"
        f"{others if busy else ''}"
    )


# --- the whole ----------------------------------------------------------------------------------------------------


def panels(mode: Mode, results: Results) -> list[Panel]:
    """The plot's: the rows of Prefect 3 that are marked for it and have a figure."""
    found = []
    for row in mode.timed_rows(3):
        bars = []
        for who in (*COLUMNS, FLOOR) if row.in_plot else ():
            summary = results.summary(3, row, who)
            if summary is not None:
                label = ("over " if summary.over else "") + number(summary.value, row)
                bars.append(Bar(who, summary.value, summary.low, summary.high, label, row.targets.get(who)))
        if bars:
            found.append(Panel(f"{row.title}{f', {row.unit}' if row.unit else ''}", tuple(bars)))
    return found


def document(mode: Mode, results: Results) -> str:
    versions = results.about.get("versions", {})
    wide = f"{100 * WIDE:.0f} %"
    beside = figures(results, 3, mode.timed_rows(3))
    parts = [
        INTRODUCTION.format(mode=mode.name, words=mode.words, machine=machine_lines(results)),
        f"## Prefect {versions.get('3', '3')}\n\n![runnerd beside Prefect's own](benchmarks.svg)\n",
        f"{beside}\n{LEGEND.format(wide=wide)}",
        f"## Targets\n\n{missed(mode, results)}",
        f"## The floor\n\n{HOW['floor']}\n{floor(mode, results)}\n{processor(mode, results)}",
        f"## Growth\n\n{HOW['growth']}\n{figures(results, 3, mode.growth_rows())}",
        f"## Prefect {versions.get('2', '2')}\n\n{figures(results, 2, mode.timed_rows(2))}",
        f"## Failures\n\n{HOW['failures']}\n{failures(results)}",
        f"## Not measured\n\n{left_out(mode, results)}",
        f"## How it is measured\n\n{HOW['all']}\n{how(mode)}",
    ]
    return "\n".join(parts)


def how(mode: Mode) -> str:
    lines = {f"- {row.title}: {row.how}\n" for row in mode.timed_rows(3) if row.how}
    return "".join(sorted(lines))


def write_report(results: Results, mode: Mode, docs: Path) -> list[Path]:
    """Replace the three files, each at one go."""
    title, note = f"runnerd beside Prefect's own ({mode.name})", "less is better; lines: least to most; red: the target"
    texts = {
        "benchmarks.json": json.dumps(results.document(), indent=1) + "\n",
        "benchmarks.svg": draw(title, note, panels(mode, results)),
        "benchmarks.md": document(mode, results),
    }
    for name, text in texts.items():
        new = docs / f".{name}.new"
        new.write_text(text, encoding="utf-8")
        os.replace(new, docs / name)
    return [docs / name for name in texts]
