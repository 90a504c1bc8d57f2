"""Passwords of storages: taken out of URLs, found again, never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.core import credentials
from compress.core.errors import InputError


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_full_urls", {})
    for name in (
        credentials.URL_VARIABLE,
        credentials.PASSWORD_VARIABLE,
        credentials.PASSWORD_FILE_VARIABLE,
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("url", "short"),
    [
        ("postgresql://u:secret@h:5432/db", "postgresql://u@h:5432/db"),
        ("mysql+pymysql://u:secret@h/db?charset=utf8", "mysql+pymysql://u@h/db?charset=utf8"),
        ("postgresql://u:se:cret?secret@h/db?x=a@b", "postgresql://u@h/db?x=a@b"),
        ("postgresql://u:secr@et@h/db", "postgresql://u@h/db"),
        ("postgresql://u:se/cret@h/db", "postgresql://u@h/db"),
        ("postgresql://u:@h/db", "postgresql://u@h/db"),
        ("postgresql://:secret@h/db", "postgresql://@h/db"),
        ("postgresql://u@h/db", "postgresql://u@h/db"),
        ("postgresql://h:5432/db", "postgresql://h:5432/db"),
        ("postgresql:///db?user=u&password=secret", "postgresql:///db?user=u"),
        ("postgresql:///db?password=secret&user=u", "postgresql:///db?user=u"),
        ("postgresql:///db?sslpassword=a&Password=secret&x=1", "postgresql:///db?x=1"),
        ("postgresql:///db?password=secret", "postgresql:///db"),
        ("sqlite:////data/a:b@c/s.db", "sqlite:////data/a:b@c/s.db"),
    ],
)
def test_a_url_without_its_password(url: str, short: str) -> None:
    assert credentials.strip_password(url) == short
    assert "secret" not in credentials.strip_password(url)
    # it is remembered, and taking it out twice is taking it out once
    assert credentials.remember_password(url) == short
    assert credentials.remember_password(short) == short
    assert credentials.restore_password(short) == url


def test_passwords_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = "postgresql+psycopg://u@h:5432/db?x=1"
    assert credentials.restore_password(short) == short
    assert credentials.build_environment(short) == {}
    file = tmp_path / "password"
    file.write_text("of a file\n")
    monkeypatch.setenv(credentials.PASSWORD_FILE_VARIABLE, str(file))
    assert (
        credentials.restore_password(short) == "postgresql+psycopg://u:of%20a%20file@h:5432/db?x=1"
    )
    monkeypatch.setenv(credentials.PASSWORD_VARIABLE, "p@ss/:w")
    full = "postgresql+psycopg://u:p%40ss%2F%3Aw@h:5432/db?x=1"
    assert credentials.restore_password(short) == full
    assert credentials.build_environment(short) == {credentials.URL_VARIABLE: full}
    # not for who names no user, nor for files
    for other in ("postgresql://h/db", "sqlite:////tmp/u@h.db"):
        assert credentials.restore_password(other) == other
    # the whole URL, of this storage only
    monkeypatch.setenv(
        credentials.URL_VARIABLE, "postgresql+psycopg://u:other@h:5432/db?x=1&password=y"
    )
    assert (
        credentials.restore_password(short)
        == "postgresql+psycopg://u:other@h:5432/db?x=1&password=y"
    )
    assert credentials.restore_password("postgresql://u@elsewhere/db").startswith(
        "postgresql://u:p%40ss"
    )
    # what was given in this process comes first
    credentials.remember_password("postgresql+psycopg://u:mine@h:5432/db?x=1")
    assert credentials.restore_password(short) == "postgresql+psycopg://u:mine@h:5432/db?x=1"


def test_a_password_file_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(credentials.PASSWORD_FILE_VARIABLE, "/no/such/file")
    with pytest.raises(InputError, match="PARETUNE_STORAGE_PASSWORD_FILE must name a file"):
        credentials.restore_password("postgresql://u@h/db")


def test_texts_and_records_without_passwords() -> None:
    text = (
        "paretune run --storage 'postgresql://u:secret@h/db?password=secret' --warm-start "
        "runs/a,mysql://v:secret@i/e,runs/b of http://127.0.0.1:8080/ to a@b"
    )
    shown = (
        "paretune run --storage 'postgresql://u@h/db' --warm-start "
        "runs/a,mysql://v@i/e,runs/b of http://127.0.0.1:8080/ to a@b"
    )
    assert credentials.hide_passwords(text) == shown
    record = {"plan": {"search": {"warm_start": [text, 3]}}, "format": 1}
    assert credentials.hide_json_passwords(record) == {
        "plan": {"search": {"warm_start": [shown, 3]}}, "format": 1,
    }  # fmt: skip
