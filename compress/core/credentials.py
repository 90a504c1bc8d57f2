"""Passwords in URLs of storages: used, never stored and never shown.

A plan holds URLs without them. What a URL said is remembered by this process alone; a process
that starts later takes it from the environment, or leaves it to the database's own files
(`~/.pgpass`, `~/.my.cnf`).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from compress.core.errors import InputError

URL = "PARETUNE_STORAGE"
"""Environment variable: a whole URL, for the same one without its password."""
PASSWORD = "PARETUNE_STORAGE_PASSWORD"
"""Environment variable: the password of URLs that name a user and none."""
PASSWORD_FILE = "PARETUNE_STORAGE_PASSWORD_FILE"
"""Environment variable: a file that holds it."""

# up to the first @, as SQLAlchemy reads it, and on where the host would have one
_USER = re.compile(r"^([A-Za-z][\w+.\-]*://[^:/@?]*):([^@]*(?:@[^/?@]*(?=@))*)@")
_IN_TEXT = re.compile(r"([A-Za-z][\w+.\-]*://[^:/@?\s'\",]*):[^\s'\",]*@")
_SECRET_KEY = r"(?:ssl)?(?:password|passwd|passphrase|pwd|secret|token)"
# a user, a password and a host without a scheme; a ramp ("0:0.7@20%") has no host behind the @
_BARE = re.compile(r"(?<![\w/:])([^\s:/@?'\",=]+):[^\s'\",/@]+@(?=[A-Za-z\[]|\d+\.\d+\.)")
_IN_QUERY = re.compile(rf"([?&]){_SECRET_KEY}=[^&\s'\",]*(&?)", re.IGNORECASE)

_known: dict[str, str] = {}


def without_password(url: str) -> str:
    """Return a URL without its password and what else in it is secret."""
    if url.startswith("sqlite"):  # a file's name holds none
        return url
    return _without_secrets(_USER.sub(r"\1@", url))


def hidden(text: str, url: str = "") -> str:
    """Return a text with the passwords of all URLs in it left out.

    Args:
        text: A message, say.
        url: A whole one: its password is left out wherever it stands.
    """
    found = _USER.match(url)
    if found and found[2]:
        for secret in (found[2], unquote(found[2])):
            text = text.replace(secret, "...")
    return _without_secrets(_BARE.sub(r"\1@", _IN_TEXT.sub(r"\1@", text)))


def hidden_in(content: Any) -> Any:
    """Return what JSON holds, with the passwords of all URLs in its texts left out."""
    if isinstance(content, str):
        return hidden(content)
    if isinstance(content, dict):
        return {key: hidden_in(item) for key, item in content.items()}
    if isinstance(content, list):
        return [hidden_in(item) for item in content]
    return content


def _without_secrets(query: str) -> str:
    # what follows keeps its separator: a=1&password=x&b=2, ?password=x&b=2, ?password=x
    def kept(found: re.Match[str]) -> str:
        return found[1] if found[2] else ""

    while (shorter := _IN_QUERY.sub(kept, query)) != query:
        query = shorter
    return query


def keep(url: str) -> str:
    """Remember a URL's password in this process and return the URL without it."""
    short = without_password(url)
    if short != url:
        _known[short] = url
    return short


def whole(url: str) -> str:
    """Return a URL with its password, where one is known.

    In this order: what the URL held when it was given, `URL`, `PASSWORD` and
    `PASSWORD_FILE`. None of them: the URL as it is, and the database's driver looks further.

    Raises:
        InputError: The password's file cannot be read.
    """
    given = os.environ.get(URL, "")
    if url not in _known and given and without_password(given) == url:
        return given
    user = re.match(r"[A-Za-z][\w+.\-]*://[^:/@?]+(?=@)", url)
    if url in _known or user is None or url.startswith("sqlite"):
        return _known.get(url, url)
    password = _from_environment()
    return url if password is None else f"{user[0]}:{quote(password, safe='')}{url[user.end() :]}"


def environment(url: str) -> dict[str, str]:
    """Return what a child process needs in its environment to know a URL's password."""
    full = whole(url)
    return {} if full == url else {URL: full}


def _from_environment() -> str | None:
    if PASSWORD in os.environ:
        return os.environ[PASSWORD]
    file = os.environ.get(PASSWORD_FILE)
    if file is None:
        return None
    try:
        return Path(file).read_text("utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{PASSWORD_FILE} must name a file that can be read. Received: '{file}' ({error})."
        ) from None
