"""Twenty scripts that serve flows, over every option of serve(), add_flow() and to_deployment(), for both majors.

`REGISTER` runs them as Prefect does, up to the moment when it would begin to poll: what they have registered is the
original that an import is compared with.
"""

from __future__ import annotations

from dataclasses import dataclass

HEAD = "from datetime import date, datetime, timedelta, timezone\n\nfrom prefect import flow\n\n\n"
FLOW = '''@flow
def {name}(at: datetime = None, x: int = 1, names: list = ()):
    """Of the flow."""


'''
MAIN = 'if __name__ == "__main__":\n'


@dataclass(frozen=True)
class Script:
    """`body` is the text after HEAD and the flows `flows`; `majors` can run it; `anchored`: all its intervals are."""

    body: str
    flows: tuple[str, ...] = ("totals",)
    majors: tuple[int, ...] = (2, 3)
    anchored: bool = False
    head: str = ""

    @property
    def text(self) -> str:
        return HEAD + self.head + "".join(FLOW.format(name=name) for name in self.flows) + self.body


def main(*lines: str) -> str:
    return MAIN + "".join(f"    {line}\n" for line in lines)


SCHEDULES_3 = "from prefect.schedules import Cron, Interval, RRule\n"
SCHEDULES = "from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule\n"
SCRIPTS = {
    "plain": Script(main("totals.serve('plain')")),
    "of_file": Script(main("totals.serve(__file__)")),
    "unnamed": Script(main("totals.serve()")),
    "described": Script(
        main(
            "totals.serve('described', description='Of the deployment.', version='2.1', tags=['b', 'a'],",
            "             parameters={'x': 3, 'names': ['a', None], 'at': datetime(2025, 8, 27, 10, 30)})",
        )
    ),
    "crons": Script(main("totals.serve(name='crons', cron=['0 2 * * mon-fri', '@hourly'], paused=True)")),
    "every": Script(
        main("totals.serve('every', interval=[3600, 90.5, timedelta(days=1)], print_starting_message=False)")
    ),
    "rule": Script(main("totals.serve('rule', rrule='FREQ=WEEKLY;BYDAY=MO;BYHOUR=9')")),
    "zones3": Script(
        main(
            "totals.serve('zones3', schedules=[Cron('0 2 1 * mon', timezone='Europe/Berlin', day_or=False),",
            "    Interval(timedelta(days=1), anchor_date=datetime(2024, 3, 9, 2, 30), timezone='America/New_York'),",
            "    RRule('FREQ=DAILY', timezone='Asia/Tokyo', active=False)])",
        ),
        majors=(3,),
        anchored=True,
        head=SCHEDULES_3,
    ),
    "zones": Script(
        main(
            "totals.serve('zones', schedules=[",
            "    {'schedule': CronSchedule(cron='0 2 * * *', timezone='Europe/Berlin'), 'active': False},",
            "    IntervalSchedule(interval=timedelta(hours=1),",
            "                     anchor_date=datetime(2024, 3, 9, 2, 30, tzinfo=timezone(timedelta(hours=2)))),",
            "    RRuleSchedule(rrule='FREQ=DAILY;COUNT=3', timezone='Asia/Tokyo')])",
        ),
        majors=(2,),
        anchored=True,
        head=SCHEDULES,
    ),
    "single": Script(
        main("totals.serve('single', schedule=CronSchedule(cron='5 4 * * sun', timezone='Asia/Tokyo'))"),
        majors=(2,),
        head=SCHEDULES,
    ),
    "slugs": Script(
        main("totals.serve('slugs', schedule=Cron('0 2 * * *', slug='night', parameters={'x': 9}))"),
        majors=(3,),
        head=SCHEDULES_3,
    ),
    "switched": Script(main("totals.serve('switched', cron='0 1 * * *', is_schedule_active=False)"), majors=(2,)),
    "lax": Script(main("totals.serve('lax', enforce_parameter_schema=False)")),
    "strict": Script(main("totals.serve('strict', enforce_parameter_schema=True, parameters={'x': 2})")),
    "limited": Script(
        main("totals.serve('limited', global_limit=ConcurrencyLimitConfig(limit=2, collision_strategy='CANCEL_NEW'))"),
        majors=(3,),
        head="from prefect.client.schemas.objects import ConcurrencyLimitConfig\n",
    ),
    "counted": Script(main("totals.serve('counted', global_limit=3, limit=1, pause_on_shutdown=False)"), majors=(3,)),
    "several": Script(
        main(
            "one = first.to_deployment('several-1', cron='0 3 * * *')",
            "two = second.to_deployment('several-2', interval=timedelta(minutes=5), tags=['x'])",
            "serve(one, two, limit=3, print_starting_message=False)",
        ),
        flows=("first", "second"),
        head="from prefect import serve\n",
    ),
    # In an event loop, without which a Runner of 2.20 cannot be made.
    "runner": Script(
        "async def main():\n"
        "    runner = Runner(name='runner', query_seconds=3, limit=4)\n"
        "    await runner.add_flow(first, cron='1 1 * * *')\n"
        "    second_one = second.to_deployment('runner-2', description='Second.')\n"
        "    await runner.add_deployment(await second_one)\n"
        "    await runner.start()\n\n\n" + main("asyncio.run(main())"),
        flows=("first", "second"),
        head="import asyncio\n\nfrom prefect.runner import Runner\n",
    ),
    "awaited": Script(
        "async def main():\n"
        "    made = await totals.to_deployment('awaited', rrule='FREQ=DAILY')\n"
        "    await serving(made)\n\n\n" + main("asyncio.run(main())"),
        head="import asyncio\n\ntry:\n    from prefect import aserve as serving\n"
        "except ImportError:\n    from prefect import serve as serving\n\n\n",
    ),
    "of_source": Script(
        main("flow.from_source(source='elsewhere', entrypoint='lib/far.py:far').serve('of_source', cron='0 0 * * *')")
    ),
    "of_module": Script(
        main("near.serve('of_module', entrypoint_type=EntrypointType.MODULE_PATH, tags=['m'])"),
        head="from near_flows import near\ntry:\n    from prefect.types.entrypoint import EntrypointType\n"
        "except ImportError:\n    from prefect.deployments.runner import EntrypointType\n\n\n",
    ),
    "of_entrypoint": Script(
        main(
            "made = RunnerDeployment.from_entrypoint('near_flows.py:near', name='of_entrypoint', version='7')",
            "serve(made)",
        ),
        head="from prefect import serve\nfrom prefect.deployments.runner import RunnerDeployment\n\n\n",
    ),
    # Not below `if __name__`: the flow is another file's, which does not serve when it is imported.
    "imported": Script("near.serve(name='imported', parameters={'x': 5})\n", head="from near_flows import near\n\n\n"),
    "named": Script(
        "@flow(name='Named flow', version='9', description='By its decorator.')\n"
        "def own(region: str, size: float = 1.5):\n    pass\n\n\n"
        + main("own.serve('named', interval=60, parameters={'region': 'eu'})")
    ),
}
MORE = {
    "near_flows.py": HEAD + FLOW.format(name="near"),
    "elsewhere/lib/far.py": HEAD + FLOW.format(name="far"),
}

# Runs each script as its file with __name__ == "__main__"; a Runner ends where it would begin to poll.
REGISTER = """
import asyncio, runpy, sys
from prefect.runner import Runner

async def start(self, run_once=False, webserver=None):
    raise KeyboardInterrupt

if hasattr(Runner.start, "aio"):
    from prefect.utilities.asyncutils import sync_compatible
    start = sync_compatible(start)
Runner.start = start
for script in sys.argv[1:]:
    try:
        asyncio.set_event_loop(asyncio.new_event_loop())
        sys.path.insert(0, ".")
        runpy.run_path(script, run_name="__main__")
    except KeyboardInterrupt:
        pass
"""


def of_major(major: int) -> dict[str, Script]:
    return {name: script for name, script in SCRIPTS.items() if major in script.majors}
