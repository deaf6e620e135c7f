"""paths.py: where both programs look for their directories."""

from pathlib import Path

from runnerd.system.paths import Paths, resolve_paths


def test_directories_of_root_and_of_a_user() -> None:
    root = resolve_paths(environ={"HOME": "/root", "XDG_RUNTIME_DIR": "/run/user/0"}, root=True)
    assert root == Paths("/etc/runnerd", "/run/runnerd", "/var/lib/runnerd", "/var/log/runnerd", None)
    user = resolve_paths(environ={"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/7"}, root=False)
    state = "/home/u/.local/state/runnerd"
    assert user == Paths("/home/u/.config/runnerd", "/run/user/7/runnerd", state, f"{state}/log", None)
    bare = resolve_paths(environ={"HOME": "/home/u"}, root=False)
    assert bare.runtime == f"{state}/run"
    assert (root.control_socket, user.control_socket) == (
        "/run/runnerd/control.sock",
        "/run/user/7/runnerd/control.sock",
    )


def test_a_flag_wins_over_systemd_which_wins_over_the_default(tmp_path: Path) -> None:
    systemd = {
        "CONFIGURATION_DIRECTORY": "/etc/a:/etc/b",
        "RUNTIME_DIRECTORY": "/run/a:/run/b",
        "STATE_DIRECTORY": "/var/lib/a",
        "LOGS_DIRECTORY": "/var/log/a",
        "CREDENTIALS_DIRECTORY": "/run/credentials/runnerd.service",
    }
    found = resolve_paths(environ=systemd, root=True)
    assert found == Paths("/etc/a", "/run/a", "/var/lib/a", "/var/log/a", "/run/credentials/runnerd.service")
    flagged = resolve_paths(environ=systemd, root=True, runtime="/tmp/x/", config=str(tmp_path))
    assert (flagged.config, flagged.runtime, flagged.state) == (str(tmp_path), "/tmp/x", "/var/lib/a")
    assert (flagged.spawner_dir, flagged.spawner_socket) == ("/tmp/x-spawner", "/tmp/x-spawner/spawner.sock")
