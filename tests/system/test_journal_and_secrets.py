"""What the journal has, and what nobody but the daemon and the flow may see."""

from __future__ import annotations

import pytest

from tests.kits.machines.host_on_machine import MAIN, MachineHost

SECRET = "pnu_0123456789abcdef0123456789abcdef0123"


def test_the_journal_knows_runs_and_deployments(host: MachineHost) -> None:
    run_id = host.begin("speaks")
    host.ends(run_id, "Completed")
    host.until(lambda: any(one["MESSAGE"] == "a word from the flow" for one in of_run(host, run_id)), "output is there")
    host.until(lambda: any("phase=done" in one["MESSAGE"] for one in of_run(host, run_id)), "its end is there")
    found = of_run(host, run_id)
    word = next(one for one in found if one["MESSAGE"] == "a word from the flow")
    assert (word["RUNNERD_DEPLOYMENT"], word["RUNNERD_FLOW"]) == ("speaks", "speaks")
    assert word["_SYSTEMD_UNIT"] == "runnerd.service"
    assert [one["MESSAGE"] for one in found].count("a word for stderr") == 1
    assert {one["MESSAGE"] for one in host.journal("RUNNERD_DEPLOYMENT=speaks")} >= {one["MESSAGE"] for one in found}


def of_run(host: MachineHost, run_id: str) -> list[dict[str, str]]:
    return host.journal(f"RUNNERD_RUN_ID={run_id}")


def test_output_is_neither_lost_nor_doubled_by_a_restart(host: MachineHost) -> None:
    host.sh("rm -f /tmp/go")
    run_id = host.begin("waits")
    host.until(lambda: any("waits begins" in one["MESSAGE"] for one in of_run(host, run_id)), "it has begun")
    host.sh("systemctl restart runnerd; touch /tmp/go")
    host.ends(run_id, "Completed")
    host.until(lambda: any("waits ends" in one["MESSAGE"] for one in of_run(host, run_id)), "it has ended")
    said = [one["MESSAGE"] for one in of_run(host, run_id)]
    assert [sum(word in line for line in said) for word in ("waits begins", "waits ends")] == [1, 1]


def test_what_one_alerts_on_has_an_id_that_is_explained(host: MachineHost) -> None:
    run_id = host.create("crashes")
    host.ends(run_id, "Crashed")
    host.until(lambda: any("MESSAGE_ID" in one for one in of_run(host, run_id)), "its crash is there")
    crash = next(one for one in of_run(host, run_id) if "MESSAGE_ID" in one)
    assert int(crash["PRIORITY"]) <= 4 and "SIGSEGV" in crash["MESSAGE"]
    explained = host.sh(f"journalctl --no-pager -x MESSAGE_ID={crash['MESSAGE_ID']}")
    assert "runnerctl logs" in explained


def test_the_daemon_says_where_it_hung(host: MachineHost) -> None:
    """The watchdog's SIGABRT."""
    daemon = host.pid()
    host.run("kill", "-ABRT", str(daemon))
    host.until(lambda: host.show("runnerd", "ActiveState") == "active" and host.pid() != daemon, "it is back")
    assert "Fatal Python error: Aborted" in host.sh(f"journalctl --no-pager -o cat _PID={daemon}")


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_the_api_key_is_a_credential_and_shown_nowhere(host: MachineHost, encrypted: bool) -> None:
    drop_in = "/etc/systemd/system/runnerd.service.d/key.conf"
    if encrypted:
        host.sh(f"printf {SECRET} | systemd-creds encrypt --with-key=host --name=prefect-api-key - /etc/key.cred")
        text = "[Service]\nLoadCredential=\nLoadCredentialEncrypted=prefect-api-key:/etc/key.cred\n"
        host.machine.write(drop_in, text)
    else:
        host.sh("install -d -m 700 /etc/credstore")
        host.machine.write("/etc/credstore/runnerd.prefect-api-key", SECRET + "\n", mode=0o600)
    host.run("systemctl", "daemon-reload")
    try:
        host.configure(MAIN)
        run_id = host.begin("speaks")
        host.ends(run_id, "Completed")
        assert f"its key: {SECRET} 0" in host.runnerctl("logs", run_id).out  # the flow has it, and no NOTIFY_SOCKET
        other = host.begin("naps")
        shown = [
            host.sh("tr '\\0' ' ' </dev/null; cat /proc/[0-9]*/cmdline | tr '\\0' ' '"),
            host.runnerctl("status", "--json").out,
            host.runnerctl("config", "show").out,
            host.runnerctl("doctor", "--json", check=False).out,
            host.sh("systemctl show runnerd runnerd-spawner"),
            host.sh("journalctl --no-pager -u runnerd-spawner -o export"),
        ]
        assert not [text[:200] for text in shown if SECRET in text]
        search = f"grep -rlF {SECRET} /run /var/lib /var/log /tmp /etc 2>/dev/null"
        found = host.sh(f"setpriv --reuid nobody --regid nogroup --clear-groups {search} || true")
        assert found == ""
        host.runnerctl("cancel", other, "--wait")
    finally:
        host.sh(f"rm -f {drop_in} /etc/key.cred /etc/credstore/runnerd.prefect-api-key; systemctl daemon-reload")
        host.configure()
