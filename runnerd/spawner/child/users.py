"""Decide as which users the spawner may start processes.

The list of `--users` limits what a compromised daemon can do. Without it, a client of a root spawner can name any user
but root. A process gets uid 0 only where two places say so: its launch spec, and the list.
"""

from __future__ import annotations

DEFAULT_UID_MIN = 1000  # of people's accounts, where /etc/login.defs has no UID_MIN
# Accounts above UID_MIN that no person has: those of systemd's DynamicUser=, nobody, and what a 16-bit -1 is.
_NO_PERSON = range(61184, 65536)
_LIST = "RUNNERD_FLOW_USERS (systemctl edit runnerd-spawner; without systemd: the environment of runnerd)"


class AllowedUsers:
    """The users as which processes may be started, from the text of `--users`: names, and `*` for people's accounts.

    None as text: every user for a spawner that is not root, and every named user but root for one that is. `owner` is
    the uid of the daemon, which `*` never includes. Each method returns the reason of a refusal, None without one.
    """

    __slots__ = ("_names", "_owner", "_people", "_text", "_uid_min", "root")

    def __init__(
        self, text: str | None, *, root: bool, owner: int | None = None, login_defs: str = "/etc/login.defs"
    ) -> None:
        names = {name.strip() for name in (text or "").split(",")} - {""}
        self.root = root
        self._text = text
        self._owner = owner
        self._people = "*" in names
        self._names = names - {"*"}
        self._uid_min = read_uid_min(login_defs)

    @property
    def limited(self) -> bool:
        """Whether there is a list."""
        return self._text is not None

    @property
    def offers_others(self) -> bool:
        """Whether a process may be started as a user that is not root: only root can change its user."""
        return self.root and (not self.limited or self._people or bool(self._names - {"root"}))

    def same_list(self, other: AllowedUsers) -> bool:
        """Return whether the other's list has the same names, in whatever order."""
        return (self.limited, self._names, self._people) == (other.limited, other._names, other._people)

    def describe(self) -> str:
        """Name the users, for a message."""
        if not self.limited:
            return "every user that is named, except root" if self.root else "every user"
        return ",".join([*sorted(self._names), *(["*"] if self._people else [])]) or "no user"

    def to_wire(self) -> dict[str, object]:
        """Return the arguments of `from_wire`, for the hello."""
        return {"list": self._text, "root": self.root, "owner": self._owner}

    @classmethod
    def from_wire(cls, value: dict[str, object]) -> AllowedUsers:
        """Make the users of a hello. Raises KeyError, TypeError and ValueError for another value."""
        text, owner = value["list"], value["owner"]
        return cls(
            None if text is None else str(text),
            root=bool(value["root"]),
            owner=None if owner is None else int(str(owner)),
        )

    def refuse_name(self, user: str | None) -> str | None:
        """Check the name only, without the name service."""
        if not (self.limited or self.root):
            return None
        if user is None:
            advice = "set run.user or RUNNERD_FLOW_USER"
            if self.root:
                advice += f"; for root write run.user: root, and add root to {_LIST}"
            return f"cannot start: no user is named, and runs may not use the spawner's own; {advice}"
        known = user in self._names
        if not known and (user == "root" or (self.limited and not self._people)):
            return _describe(user, "may not start runs as")
        return None

    def refuse_account(self, name: str, uid: int) -> str | None:
        """Check what the name service says of a user."""
        if not (self.limited or self.root) or name in self._names:
            return None
        if uid == 0:
            return _describe(name, "may not start runs as")
        if self.limited and uid == self._owner:
            return _describe(name, "may not start runs as the user of the daemon,")
        if self.limited and not self._is_person(uid):
            return _describe(name, "may not start runs as a system account that is not named,")
        return None

    def _is_person(self, uid: int) -> bool:
        return self._people and uid >= self._uid_min and uid not in _NO_PERSON


def _describe(user: str, wrong: str) -> str:
    preposition = "" if wrong.endswith(",") else " user"
    return f"cannot start: the spawner {wrong}{preposition} {user}; add the name to {_LIST}"


def read_uid_min(path: str) -> int:
    """Read UID_MIN of login.defs, the first uid of people's accounts; its usual value where that is unreadable."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                words = line.split()
                if len(words) >= 2 and words[0] == "UID_MIN":
                    return max(1, int(words[1], 0))
    except (OSError, ValueError):
        pass
    return DEFAULT_UID_MIN
