"""Downloads a directory with fsspec: a standalone program for the flow's interpreter (Python 3.9+).

This file imports no module of runnerd, and the daemon does not import it but passes the text as `python -c TEXT`, so
that no file permission matters. The work is JSON in RUNNERD_PULL, the answer one line of JSON on descriptor 3, as
programs/pull_git.py has them.

`place/UID-TOKEN/HASH/trees/VERSION-HOW` is a tree, complete once it has that name; VERSION is a hash of the names and
contents of its files. What the file system says of the files (their checksums or times) is in `listing`: while that is
the same, nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import importlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from typing import Any

ANSWER = 3
FILES_MAX = 200_000
STORE_KEPT_S = 7 * 86400
STORE = re.compile(r"[0-9a-f]{16}")


class Refusal(Exception):
    """Says in one line why nothing is pulled."""


def main() -> int:
    work = json.loads(os.environ.pop("RUNNERD_PULL"))
    os.set_inheritable(ANSWER, False)
    try:
        answer: dict[str, Any] = {"ok": pull(work)}
    except Refusal as refusal:
        answer = {"error": " ".join(str(refusal).split())[:2000]}
    except Exception as error:  # whatever a file system raises
        answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:2000]}
    os.write(ANSWER, json.dumps(answer).encode() + b"\n")
    return 0


def pull(work: dict[str, Any]) -> dict[str, Any]:
    home = own_folder(os.path.join(work["place"], f"{os.geteuid()}-{work['token']}"))
    folder = own_folder(os.path.join(home, hashlib.sha256(work["url"].encode()).hexdigest()[:16]))
    trees = own_folder(os.path.join(folder, "trees"))
    lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.utime(lock)  # for drop_stores
    for name in os.listdir(trees):
        if name.startswith(".new-"):
            remove(os.path.join(trees, name))
    if work["commit"] is None:
        name = download(work, folder, trees)
    else:
        name = f"{work['commit']}-remote"
        if not os.path.isdir(os.path.join(trees, name)):
            raise Refusal("that version is not here any more, and what is remote has no other than the present one")
    tree = os.path.join(trees, name)
    tidy(trees, {*work["keep"], name, *(f"{one}-remote" for one in work["history"][:1])})
    drop_stores(home, work["stores"])
    outside = [one for one in work["entrypoints"] if not is_inside(tree, one)]
    return {"commit": name.partition("-")[0], "directory": tree, "outside": outside}


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


# --- what is there ------------------------------------------------------------------------------------------


def download(work: dict[str, Any], folder: str, trees: str) -> str:
    """Return the name of the tree of what is there now, downloaded unless the last one is the same."""
    try:
        core = importlib.import_module("fsspec.core")
    except ModuleNotFoundError:
        raise Refusal(f"fsspec is not installed for {sys.executable}; install it there") from None
    try:
        system, root = core.url_to_fs(work["url"])
    except (ImportError, ValueError) as error:
        raise Refusal(f"fsspec has no way to it: {error}") from None
    files = find(system, root, work["size_max"])
    listing = hashlib.sha256(json.dumps(sorted(files.values())).encode()).hexdigest()
    known = read_known(folder)
    if known.get("listing") == listing and os.path.isdir(os.path.join(trees, str(known.get("name")))):
        return str(known["name"])
    new = tempfile.mkdtemp(prefix=".new-", dir=trees)
    try:
        fetch(system, files, new, work["size_max"])
        name = f"{version(new, sorted(path for path, _ in files.values()))}-remote"
        if not os.path.isdir(os.path.join(trees, name)):
            sync(new)  # before the name: a tree with its name is whole also after a power failure
            os.rename(new, os.path.join(trees, name))
    finally:
        shutil.rmtree(new, ignore_errors=True)
    with open(os.path.join(folder, "listing"), "w", encoding="utf-8") as file:
        json.dump({"listing": listing, "name": name}, file)
    return name


def find(system: Any, root: str, size_max: int) -> dict[str, tuple[str, str]]:
    """List the files by their remote paths: the path in the tree, and what changes with the content."""
    found: dict[str, tuple[str, str]] = {}
    size = 0
    base = root.rstrip("/")
    for remote, about in system.find(root, detail=True).items():
        path = remote[len(base) :].lstrip("/") if remote.startswith(f"{base}/") else None
        parts = (path or "..").split("/")
        if path is None or ".." in parts or "" in parts or "\0" in path:
            raise Refusal(f"the name {remote[:100]!r} is not one below it")
        size += int(about.get("size") or 0)
        found[remote] = (path, str(system.checksum(remote)) if hasattr(system, "checksum") else str(about))
        if len(found) > FILES_MAX or size > size_max:
            raise Refusal(f"it is too large: {len(found)} files, {size} bytes and more; see size_max")
    if not found:
        raise Refusal("there are no files in it")
    return found


def fetch(system: Any, files: dict[str, tuple[str, str]], new: str, size_max: int) -> None:
    left = size_max
    for remote, (path, _) in files.items():
        place = os.path.join(new, path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with system.open(remote, "rb") as source, open(place, "xb") as copy:
            while block := source.read(2**20):
                left -= len(block)
                if left < 0:
                    raise Refusal("it is too large: see size_max")
                copy.write(block)


def version(new: str, paths: list[str]) -> str:
    whole = hashlib.sha256()
    for path in paths:
        with open(os.path.join(new, path), "rb") as file:
            content = hashlib.sha256(file.read()).hexdigest()
        whole.update(f"{content} {path}\0".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()[:40]


def read_known(folder: str) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError), open(os.path.join(folder, "listing"), encoding="utf-8") as file:
        known = json.load(file)
        return known if isinstance(known, dict) else {}
    return {}


# --- what is not needed any more ------------------------------------------------------------------------------


def tidy(trees: str, kept: set[str]) -> None:
    for name in os.listdir(trees):
        if name not in kept and name not in entered(trees):
            gone = tempfile.mkdtemp(prefix=".new-", dir=trees)
            os.rename(os.path.join(trees, name), gone)  # no part of it is left with its name
            remove(gone)


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


def entered(folder: str) -> set[str]:
    """Name the folders in `folder` in which processes of this user are."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            place = os.readlink(f"/proc/{pid}/cwd")
            if place.startswith(folder + os.sep):
                found.add(place[len(folder) + 1 :].partition(os.sep)[0])
    return found


if __name__ == "__main__":
    sys.exit(main())
