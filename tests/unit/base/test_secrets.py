"""Which variables hold secrets, and that their values are hidden in texts about failures."""

import pytest

from mlld_sdk.base import secrets
from mlld_sdk.base.secrets import HIDDEN, MOST, is_secret, keep_secret, redacted
from mlld_sdk.base.texts import text_of_error, text_of_failure


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_values", {})
    monkeypatch.setattr(secrets, "_longest_first", ())


SECRETS = """
    OPENAI_API_KEY AWS_SECRET_ACCESS_KEY GITHUB_TOKEN CLIENT_SECRET PASSWORD PGPASSWORD DB_PASSWD MYSQL_PWD key apikey
    API_KEYS SSH_PASSPHRASE GOOGLE_CREDENTIALS GH_PAT TOKEN
"""
OTHERS = "PATH PWD OLDPWD MONKEY MAX_TOKENS KEYBOARD TOKENIZER PAT HOME"


@pytest.mark.parametrize("name", SECRETS.split())
def test_names_of_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", OTHERS.split())
def test_names_of_other_things(name: str) -> None:
    assert not is_secret(name)


def test_a_secret_is_hidden_wherever_it_stands() -> None:
    keep_secret({"A_KEY": "abcdef", "B_TOKEN": "abcdefgh", "HOME": "/home/me"})
    assert redacted("abcdefgh, abcdef and /home/me") == f"{HIDDEN}, {HIDDEN} and /home/me"


def test_short_values_are_not_looked_for() -> None:
    keep_secret({"A_KEY": "abcde", "B_KEY": ""})
    assert redacted("abcde") == "abcde"


def test_each_line_of_a_secret_is_hidden() -> None:
    keep_secret({"A_KEY": "-----BEGIN KEY-----\nMIIEowIBAAKCAQEA\nend\n"})
    assert redacted("it holds MIIEowIBAAKCAQEA\nend") == f"it holds {HIDDEN}\nend"


def test_a_secret_is_hidden_before_a_text_is_cut() -> None:
    keep_secret({"A_KEY": "0123456789"})
    assert text_of_failure("x" * 95 + "0123456789", 100) == "x" * 95 + HIDDEN[:5]
    assert text_of_error(ValueError("no 0123456789")) == f"ValueError: no {HIDDEN}"


def test_only_so_many_are_remembered_and_the_newest_are() -> None:
    keep_secret({f"N{number}_KEY": f"secret-{number:04}" for number in range(MOST + 50)})
    assert len(secrets._values) == MOST
    assert redacted("secret-0000") == "secret-0000"
    assert redacted(f"secret-{MOST + 49:04}") == HIDDEN
