"""Fetches one version of a git repository and checks it out: a standalone program (Python 3.9+) of the flow's user.

This file imports no module of runnerd, and the daemon does not import it but passes the text as `python -c TEXT`, so
that no file permission matters. The work is JSON in RUNNERD_PULL, the answer one line of JSON on descriptor 3, as
sources/pulling.py makes and reads them.

`place/UID-TOKEN/HASH/` holds a repository: `git`, the bare object store, and `trees/COMMIT-HOW`, each complete once it
has that name. Invariants: nothing of the repository is run: no hook, filter, fsmonitor or configuration of its own, and
no other transport than http, https and ssh; nothing prompts; a secret is in no argument, file, variable of git or
configuration: git's credential helper reads it from a descriptor.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any
from urllib.parse import urljoin, urlsplit

ANSWER = 3
SECRET = 9
FILES_MAX = 200_000
LISTING_MAX_BYTES = 128 * 2**20
WORDS_MAX = 300
# What git says after the words of ssh, which are the cause.
ADVICE = ("fatal: Could not read from remote", "Please make sure you have the correct", "and the repository exists.")
MODULES_DEEP_MAX = 5
PACKS_MAX = 20
STORE_KEPT_S = 7 * 86400
TIP = "refs/runnerd/tip"
KEPT = "refs/runnerd/kept/"
SETTINGS = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.symlinks": "true",
    "credential.helper": "",  # none of the user's
    "gc.auto": "0",
    "maintenance.auto": "false",
    "fetch.recurseSubmodules": "false",
    "transfer.unpackLimit": "1",
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": "60",
}
URL = re.compile(r"(?:https?|ssh)://[^\s\x00-\x1f]+|[\w.-]+@[\w.-]+:(?!/?-)[^\s\x00-\x1f]+")
STORE = re.compile(r"[0-9a-f]{16}")
COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


class Refusal(Exception):
    """Says in one line why nothing is pulled."""


def main() -> int:
    work = json.loads(os.environ.pop("RUNNERD_PULL"))
    blank("RUNNERD_PULL")
    os.set_inheritable(ANSWER, False)
    try:
        answer: dict[str, Any] = {"ok": pull(work)}
    except Refusal as refusal:
        answer = {"error": " ".join(str(refusal).split())[:2000]}
    except OSError as error:
        answer = {"error": f"{error.strerror or error}: {error.filename or work['place']}"}
    os.write(ANSWER, json.dumps(answer).encode() + b"\n")
    return 0


def blank(name: str) -> None:
    """Blank the variable out of this process's own memory, from which `ps e` shows it to the user's other processes."""
    with open("/proc/self/stat", "rb") as file:
        start, end = (int(field) for field in file.read().rpartition(b")")[2].split()[47:49])
    with contextlib.suppress(ValueError):
        block = ctypes.string_at(start, end - start)
        at = block.index(f"{name}=".encode())
        ctypes.memset(start + at, 0, block.index(b"\0", at) - at)


def pull(work: dict[str, Any]) -> dict[str, Any]:
    if shutil.which("git") is None:
        raise Refusal("git is not installed on this host, or not in PATH")
    home = own_folder(os.path.join(work["place"], f"{os.geteuid()}-{work['token']}"))
    store = Store(os.path.join(home, digest(work["url"])), work)
    commit = store.find(work["url"], work)
    how = {"directories": work["directories"], "submodules": work["submodules"]}
    tree = os.path.join(store.trees, f"{commit}-{digest(json.dumps(how, sort_keys=True))[:8]}")
    if not os.path.isdir(tree):
        store.check_out(commit, tree)
    outside = [one for one in work["entrypoints"] if not is_inside(tree, one)]
    store.tidy(commit, tree)
    drop_stores(home, work["stores"])
    return {"commit": commit, "directory": tree, "outside": outside}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def own_folder(path: str) -> str:
    """Make a directory that only this user can enter; one of another user's is refused, and so is a link."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        about = os.lstat(path)
        if about.st_uid != os.geteuid() or (about.st_mode & 0o170077) != 0o040000:
            raise Refusal(f"{path} is not a directory of this user alone; remove it") from None
    return path


def is_inside(tree: str, entrypoint: str) -> bool:
    real = os.path.realpath(os.path.join(tree, entrypoint))
    return real.startswith(os.path.realpath(tree) + os.sep)


class Store:
    """One repository in its folder: locked, so that a program that an earlier daemon has left cannot disturb it."""

    def __init__(self, folder: str, work: dict[str, Any]) -> None:
        self.folder = own_folder(folder)
        self.git_dir, self.trees = os.path.join(folder, "git"), os.path.join(folder, "trees")
        os.makedirs(self.trees, 0o700, exist_ok=True)
        self.work = work
        self.lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        os.utime(self.lock)  # for drop_stores
        self.git = Git(work)
        self.remove_leftovers()
        if not os.path.exists(os.path.join(self.git_dir, "HEAD")):
            self.git.run("init", "--quiet", "--bare", "--template=", self.git_dir)
        self.git.environment["GIT_DIR"] = self.git_dir
        self.room = size_of(os.path.join(self.git_dir, "objects"))
        self.files = self.size = 0  # of the tree that is written, with all its submodules

    def remove_leftovers(self) -> None:
        """Remove what a pull that was killed has left: half a tree, half a pack, locks of git."""
        for name in os.listdir(self.trees):
            if name.startswith(".new-"):
                remove(os.path.join(self.trees, name))
        for parent, _, names in os.walk(self.git_dir):
            for name in names:
                if name.endswith(".lock") or name.startswith("tmp_"):
                    os.unlink(os.path.join(parent, name))

    # --- which commit -------------------------------------------------------------------------------------------

    def find(self, url: str, work: dict[str, Any]) -> str:
        """Return the commit that the work names, fetched."""
        if work["commit"] is not None:
            self.fetch_commit(url, work["commit"])
            return str(work["commit"])
        branch, tag = work["branch"], work["tag"]
        name = f"refs/heads/{branch}" if branch else f"refs/tags/{tag}" if tag else "HEAD"
        problem = self.fetch(url, f"+{name}:{TIP}")
        if problem:
            what = f"branch {branch}" if branch else f"tag {tag}" if tag else "HEAD"
            raise Refusal(explain(problem, what=what, secret=work["secret"]))
        commit = str(self.git.run("rev-parse", "--verify", "--quiet", f"{TIP}^{{commit}}")).strip()
        if not COMMIT.fullmatch(commit):
            raise Refusal(f"{name} is not a commit")
        return commit

    def fetch_commit(self, url: str, commit: str) -> None:
        if self.has(commit):
            return
        problem = self.fetch(url, f"+{commit}:{TIP}")
        if problem and not self.has(commit):
            # A server that gives no single commits: all branches, then, with their history.
            again = self.fetch(url, "+refs/heads/*:refs/runnerd/all/*", whole=True)
            if not self.has(commit):
                raise Refusal(explain(again or problem, what=f"commit {commit}", secret=self.work["secret"]))

    def has(self, commit: str) -> bool:
        return self.git.run("cat-file", "-e", f"{commit}^{{commit}}", may_fail=True) is not None

    def fetch(self, url: str, refspec: str, *, whole: bool = False) -> str | None:
        """Fetch; None, or what git said of its failure."""
        if not URL.fullmatch(url) or url.startswith("-"):
            raise Refusal(f"{url[:100]!r} is neither an http, https nor ssh URL")
        depth = [] if whole else ["--depth=1"]
        command = ["fetch", "--quiet", "--no-tags", "--force", *depth, "--", url, refspec]
        objects = os.path.join(self.git_dir, "objects")
        words = self.git.watch(command, objects, self.room + self.work["size_max"])
        if words is not None and "shallow" in words and not whole:
            return self.fetch(url, refspec, whole=True)  # the oldest way, files over http, has no depth
        return words

    # --- its files ----------------------------------------------------------------------------------------------

    def check_out(self, commit: str, tree: str) -> None:
        new = tempfile.mkdtemp(prefix=".new-", dir=self.trees)
        try:
            self.write_files(self.work["url"], commit, new, self.work["directories"], 0)
            os.chmod(new, 0o700)
            sync(new)  # before the name: a tree with its name is whole also after a power failure
            os.rename(new, tree)
        except BaseException:
            remove(new)
            raise

    def write_files(self, url: str, commit: str, folder: str, directories: list[str], depth: int) -> None:
        files, modules = self.list_files(commit, directories)
        index = os.path.join(self.folder, "index")
        if os.path.exists(index):
            os.unlink(index)
        here = {"GIT_INDEX_FILE": index, "GIT_WORK_TREE": folder}
        entries = b"".join(b"%s %s\t%s\0" % (mode, sha, path) for mode, sha, path in files)
        self.git.run("update-index", "-z", "--add", "--index-info", given=entries, more=here, cwd=folder)
        self.git.run("checkout-index", "--all", "--quiet", more=here, cwd=folder)
        os.unlink(index)
        if self.work["submodules"] and modules:
            self.write_modules(url, folder, modules, depth)

    def list_files(self, commit: str, directories: list[str]) -> tuple[list[Any], list[Any]]:
        """List (mode, sha, path) of the files and of the submodules, within the bounds of a tree."""
        listing = self.git.run_bytes("ls-tree", "-r", "-l", "-z", "--full-tree", commit, most=LISTING_MAX_BYTES)
        files: list[Any] = []
        modules: list[Any] = []
        for line in listing.split(b"\0")[:-1]:
            about, _, path = line.partition(b"\t")
            mode, _, sha, length = about.split()
            if not is_wanted(path, directories):
                continue
            (modules if mode == b"160000" else files).append((mode, sha, path))
            self.size += int(length) if length.isdigit() else 0
        self.files += len(files) + len(modules)
        if self.files > FILES_MAX or self.size > self.work["size_max"]:
            words = f"{self.files} files, {self.size} bytes"
            raise Refusal(f"its tree is too large: {words}; see size_max and directories")
        return files, modules

    def write_modules(self, url: str, folder: str, modules: list[Any], depth: int) -> None:
        if depth >= MODULES_DEEP_MAX:
            raise Refusal(f"its submodules are nested more than {MODULES_DEEP_MAX} deep")
        urls = self.read_modules(folder)
        for _, sha, path in modules:
            name = os.fsdecode(path)
            theirs = urls.get(name)
            if theirs is None:
                raise Refusal(f"the submodule {name} has no URL in .gitmodules")
            theirs = urljoin(f"{url.rstrip('/')}/", theirs) if theirs.startswith(("./", "../")) else theirs
            place = os.path.join(folder, name)
            # A server may send names that git would not store, and a link of the same name beside the submodule.
            if not is_inside(folder, name) or ".git" in name.lower().split("/"):
                raise Refusal(f"the submodule {name} is outside the tree")
            os.makedirs(place, exist_ok=True)
            self.fetch_commit(theirs, sha.decode())
            self.write_files(theirs, sha.decode(), place, [], depth + 1)

    def read_modules(self, folder: str) -> dict[str, str]:
        file = os.path.join(folder, ".gitmodules")
        if os.path.islink(file) or not os.path.isfile(file):
            return {}
        keys = "^submodule\\..*\\.(path|url)$"
        text = self.git.run("config", "--no-includes", "--file", file, "-z", "--get-regexp", keys, may_fail=True) or ""
        found: dict[str, dict[str, str]] = {}
        for item in text.split("\0")[:-1]:
            key, _, value = item.partition("\n")
            name, _, word = key.rpartition(".")
            found.setdefault(name, {})[word] = value
        return {one["path"]: one["url"] for one in found.values() if {"path", "url"} <= one.keys()}

    # --- what is not needed any more ------------------------------------------------------------------------------

    def tidy(self, commit: str, tree: str) -> None:
        """Drop the trees that no run uses, and of the objects what belongs to no commit that may be wanted again."""
        kept = {*self.work["keep"], os.path.basename(tree), *entered(self.trees)}
        for name in os.listdir(self.trees):
            if name not in kept:
                gone = tempfile.mkdtemp(prefix=".new-", dir=self.trees)
                os.rename(os.path.join(self.trees, name), gone)  # no part of it is left with its name
                remove(gone)
        self.git.run("update-ref", f"{KEPT}{commit}", commit)
        wanted = {commit, *self.work["history"], *(name[: name.rfind("-")] for name in kept)}
        for ref in (self.git.run("for-each-ref", "--format=%(refname)", KEPT) or "").split():
            if ref[len(KEPT) :] not in wanted:
                self.git.run("update-ref", "-d", ref)
        packs = os.path.join(self.git_dir, "objects", "pack")
        if os.path.isdir(packs) and sum(name.endswith(".pack") for name in os.listdir(packs)) > PACKS_MAX:
            self.git.run("gc", "--quiet", "--prune=now", may_fail=True)


def entered(folder: str) -> set[str]:
    """Name the folders in `folder` in which processes are; those of other users are not known, nor in these folders."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            place = os.readlink(f"/proc/{pid}/cwd")
            if place.startswith(folder + os.sep):
                found.add(place[len(folder) + 1 :].partition(os.sep)[0])
    return found


def is_wanted(path: bytes, directories: list[str]) -> bool:
    """As git's sparse checkout in cone mode: the directories, and the files beside each part of the way to them."""
    if not directories:
        return True
    beside = os.path.dirname(path)
    ways = [os.fsencode(one.strip("/")) for one in directories]
    return any(not beside or path.startswith(way + b"/") or way.startswith(beside + b"/") for way in ways)


def size_of(folder: str) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except OSError:
                continue
    return total


def explain(words: str, *, what: str, secret: Any) -> str:
    """Say in one line what git's last words mean, for those that are known."""
    low = words.lower()
    if "could not read username" in low or "could not read password" in low or "authentication failed" in low:
        if secret is None:
            return "the repository needs a password; set credentials_file"
        return "the repository does not accept the credentials"
    if "couldn't find remote ref" in low or "not our ref" in low or "unadvertised" in low:
        return f"{what} is not in the repository (any more)"
    if "not found" in low or "does not appear to be a git" in low or "not valid: is this a git repository" in low:
        return "there is no such repository, or it needs other credentials"
    return words[-WORDS_MAX:] or f"cannot fetch {what}"


def sync(folder: str) -> None:
    """Have the disk of this directory written; os.sync() would wait for every disk of the host, and one may hang."""
    descriptor = os.open(folder, os.O_RDONLY)
    ctypes.CDLL(None).syncfs(descriptor)
    os.close(descriptor)


def remove(folder: str) -> None:
    """Remove a directory with what is in it, also where a run has forbidden itself to write; no link is followed.

    What cannot be removed stays for the next pull.
    """
    if os.path.islink(folder):
        return os.unlink(folder)
    os.chmod(folder, 0o700)
    for parent, folders, _ in os.walk(folder):
        for path in (os.path.join(parent, name) for name in folders):
            with contextlib.suppress(OSError):
                if not os.path.islink(path):
                    os.chmod(path, 0o700)
    return shutil.rmtree(folder, ignore_errors=True)


def drop_stores(home: str, kept: list[str] | None) -> None:
    """Drop the stores that no deployment and no run has, and of which nothing was pulled for a week: a source that is
    taken out of the files for a moment loses nothing. None: it is not known which are kept."""
    for name in os.listdir(home) if kept is not None else ():
        folder = os.path.join(home, name)
        if name in (kept or ()) or not STORE.fullmatch(name) or os.path.islink(folder):
            continue
        with contextlib.suppress(OSError), open(os.path.join(folder, "lock"), "rb+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_old = time.time() - os.fstat(lock.fileno()).st_mtime > STORE_KEPT_S
            if is_old and not entered(os.path.join(folder, "trees")):
                remove(folder)


class Git:
    """Runs git with an environment in which nothing but SETTINGS configures it."""

    def __init__(self, work: dict[str, Any]) -> None:
        own = {name: value for name, value in os.environ.items() if allowed(name)}
        settings = list(SETTINGS.items())
        if work["secret"] is not None:
            self.offer(work, settings)
        self.environment = {
            **own,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "/bin/false",
            "SSH_ASKPASS": "/bin/false",
            "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oConnectTimeout=30",
            "GIT_ALLOW_PROTOCOL": "http:https:ssh",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_COUNT": str(len(settings)),
            **{f"GIT_CONFIG_KEY_{at}": key for at, (key, _) in enumerate(settings)},
            **{f"GIT_CONFIG_VALUE_{at}": value for at, (_, value) in enumerate(settings)},
        }

    def offer(self, work: dict[str, Any], settings: list[tuple[str, str]]) -> None:
        """Give git, for this server only, a helper that reads the secret from a descriptor."""
        secret = os.memfd_create("credentials")
        user, password = work["secret"]
        os.write(secret, f"username={user}\npassword={password}\n".encode())
        os.dup2(secret, SECRET)
        os.close(secret)
        parts = urlsplit(work["url"])
        server = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        helper = f'!f() {{ test "$1" = get && cat /proc/self/fd/{SECRET}; }}; f'
        settings.append((f"credential.{server}.helper", helper))
        work["secret"] = ()

    def run(self, *command: str, **settings: Any) -> Any:
        """Return the output as text; None for a failure that `may_fail` expects. Raises Refusal for others."""
        output = self.run_bytes(*command, **settings)
        return None if output is None else output.decode("utf-8", "surrogateescape")

    def run_bytes(
        self,
        *command: str,
        given: bytes = b"",
        more: dict[str, str] | None = None,
        cwd: str | None = None,
        most: int = 2**20,
        may_fail: bool = False,
    ) -> Any:
        with tempfile.TemporaryFile() as given_file, tempfile.TemporaryFile() as said:
            given_file.write(given)
            given_file.seek(0)
            process = self.start(command, said, more, cwd, stdin=given_file, stdout=subprocess.PIPE)
            assert process.stdout is not None
            output = process.stdout.read(most + 1)
            if len(output) > most:
                end(process)
                raise Refusal("its tree is too large to be listed")
            if process.wait() == 0:
                return output
            if may_fail:
                return None
            raise Refusal(f"git {command[0]}: {last_words(said)}")

    def watch(self, command: list[str], folder: str, most: int) -> str | None:
        """Run a command that writes into `folder`, and end it when that has become larger than `most`."""
        with tempfile.TemporaryFile() as said:
            process = self.start(command, said, None, None, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            while True:
                try:
                    status = process.wait(0.2)
                except subprocess.TimeoutExpired:
                    status = None
                if size_of(folder) > most:
                    end(process)
                    raise Refusal("it is too large: more would be fetched than size_max allows")
                if status is not None:
                    return None if status == 0 else last_words(said)

    def start(self, command: Any, said: Any, more: Any, cwd: Any, **streams: Any) -> Any:
        inherited = (SECRET,) if os.path.exists(f"/proc/self/fd/{SECRET}") else ()
        return subprocess.Popen(
            ["git", *command],
            stderr=said,
            env={**self.environment, **(more or {})},
            cwd=cwd,
            pass_fds=inherited,
            start_new_session=True,
            **streams,
        )


def allowed(name: str) -> bool:
    """Proxies and certificates may be set by a variable; what makes git run a program or another configuration, not."""
    return not name.startswith(("GIT_", "SSH_")) or name in ("GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "SSH_AUTH_SOCK")


def end(process: Any) -> None:
    with contextlib.suppress(ProcessLookupError):  # it may have ended between the look at it and this
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_words(said: Any) -> str:
    """Return what git has printed last, in one line; a server's own lines only where there is nothing else."""
    said.seek(max(0, said.seek(0, os.SEEK_END) - 4096))
    lines = [line.strip() for line in said.read().decode("utf-8", "replace").splitlines() if line.strip()]
    own = [line for line in lines if not line.startswith(("remote:", "hint:", *ADVICE))] or lines[:1]
    return " ".join(own[-3:])


if __name__ == "__main__":
    sys.exit(main())
