"""Passwords in storage URLs, which are never stored or shown.

Plans hold URLs without passwords. Only this process remembers the full URLs. Other processes read
the password from the environment, or the database driver reads its own files (`~/.pgpass`,
`~/.my.cnf`).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from compress.core.errors import InputError

URL_VARIABLE = "PARETUNE_STORAGE"
"""Environment variable with a full URL, used for the same URL without its password."""
PASSWORD_VARIABLE = "PARETUNE_STORAGE_PASSWORD"
"""Environment variable with the password of URLs that have a user but no password."""
PASSWORD_FILE_VARIABLE = "PARETUNE_STORAGE_PASSWORD_FILE"
"""Environment variable with the path of a file that holds the password."""

# up to the first @, as in SQLAlchemy, or further if the host would contain an @
_USER_PATTERN = re.compile(r"^([A-Za-z][\w+.\-]*://[^:/@?]*):([^@]*(?:@[^/?@]*(?=@))*)@")
_TEXT_PATTERN = re.compile(r"([A-Za-z][\w+.\-]*://[^:/@?\s'\",]*):[^\s'\",]*@")
_SECRET_KEY_PATTERN = r"(?:ssl)?(?:password|passwd|passphrase|pwd|secret|token)"
# user, password and host without a scheme; a text like "0:0.7@20%" has no host after the @
_BARE_PATTERN = re.compile(r"(?<![\w/:])([^\s:/@?'\",=]+):[^\s'\",/@]+@(?=[A-Za-z\[]|\d+\.\d+\.)")
_QUERY_PATTERN = re.compile(rf"([?&]){_SECRET_KEY_PATTERN}=[^&\s'\",]*(&?)", re.IGNORECASE)

_full_urls: dict[str, str] = {}


def strip_password(url: str) -> str:
    """Return a URL without its password and other secrets."""
    if url.startswith("sqlite"):  # a file name holds no password
        return url
    return _strip_secrets(_USER_PATTERN.sub(r"\1@", url))


def hide_passwords(text: str, url: str = "") -> str:
    """Return a text without the passwords of all URLs in it.

    Args:
        text: Any text, like an error message.
        url: A full URL whose password is also removed everywhere else in the text.
    """
    match = _USER_PATTERN.match(url)
    if match and match[2]:
        for secret in (match[2], unquote(match[2])):
            text = text.replace(secret, "...")
    return _strip_secrets(_BARE_PATTERN.sub(r"\1@", _TEXT_PATTERN.sub(r"\1@", text)))


def hide_json_passwords(content: Any) -> Any:
    """Return JSON content without the passwords of all URLs in its strings."""
    if isinstance(content, str):
        return hide_passwords(content)
    if isinstance(content, dict):
        return {key: hide_json_passwords(item) for key, item in content.items()}
    if isinstance(content, list):
        return [hide_json_passwords(item) for item in content]
    return content


def _strip_secrets(query: str) -> str:
    # keep the separator of the next parameter: a=1&password=x&b=2, ?password=x&b=2, ?password=x
    def keep_separator(match: re.Match[str]) -> str:
        return match[1] if match[2] else ""

    while (shorter := _QUERY_PATTERN.sub(keep_separator, query)) != query:
        query = shorter
    return query


def remember_password(url: str) -> str:
    """Remember a URL's password in this process and return the URL without it."""
    stripped = strip_password(url)
    if stripped != url:
        _full_urls[stripped] = url
    return stripped


def restore_password(url: str) -> str:
    """Return a URL with its password if it is known.

    The password is searched in this order: the URL as it was given, `URL_VARIABLE`,
    `PASSWORD_VARIABLE`, `PASSWORD_FILE_VARIABLE`. If there is none, the URL is returned unchanged,
    and the database driver may find a password elsewhere.

    Raises:
        InputError: The password file cannot be read.
    """
    environment_url = os.environ.get(URL_VARIABLE, "")
    if url not in _full_urls and environment_url and strip_password(environment_url) == url:
        return environment_url
    user = re.match(r"[A-Za-z][\w+.\-]*://[^:/@?]+(?=@)", url)
    if url in _full_urls or user is None or url.startswith("sqlite"):
        return _full_urls.get(url, url)
    password = _read_password()
    return url if password is None else f"{user[0]}:{quote(password, safe='')}{url[user.end() :]}"


def build_environment(url: str) -> dict[str, str]:
    """Return the environment variables that give a child process a URL's password."""
    full = restore_password(url)
    return {} if full == url else {URL_VARIABLE: full}


def _read_password() -> str | None:
    """Return the password in the environment, or in the file named there; None without either."""
    if PASSWORD_VARIABLE in os.environ:
        return os.environ[PASSWORD_VARIABLE]
    file = os.environ.get(PASSWORD_FILE_VARIABLE)
    if file is None:
        return None
    try:
        return Path(file).read_text("utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{PASSWORD_FILE_VARIABLE} must name a file that can be read. Received: '{file}' "
            f"({error})."
        ) from None
