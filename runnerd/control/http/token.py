"""Reads the token of http.token_file."""

from __future__ import annotations

import errno

from runnerd.files.regular import read_regular

TOKEN_MIN, TOKEN_MAX_BYTES = 16, 4096


def read_token(path: str) -> str:
    """Read the token, one line of at least TOKEN_MIN characters. Raises OSError, in words without the token."""
    try:
        text = read_regular(path, max_bytes=TOKEN_MAX_BYTES).decode("ascii").strip()
    except UnicodeDecodeError:
        text = ""
    if not text.isprintable() or " " in text or len(text) < TOKEN_MIN:
        words = (
            f"it must have one line of at least {TOKEN_MIN} printable ASCII characters, as openssl rand -hex 32 makes"
        )
        raise OSError(errno.EINVAL, words)
    return text
