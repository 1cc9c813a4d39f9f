"""The settings: what they take, what they refuse and in which words, and that they keep secrets."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from jobwire_server.settings import Settings, SettingsError, load_settings, variable_of

URL = "postgresql://user:s3cret@db.example:5432/app"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    for field in Settings.model_fields:
        monkeypatch.delenv(variable_of(field), raising=False)


def refusal() -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_only_the_database_must_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    settings = load_settings()
    assert settings.database_url.get_secret_value() == URL
    assert (settings.schema_name, settings.pool_size, settings.listen) == ("jobwire", 4, "127.0.0.1:50051")


def test_a_missing_database_is_named_with_an_example() -> None:
    message = refusal()
    assert "DATABASE_URL (or JOBWIRE_DATABASE_URL) is not set" in message
    assert "--embedded" in message


def test_our_own_variable_wins_over_the_shared_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("JOBWIRE_DATABASE_URL", "host=other dbname=queue")
    assert load_settings().database_url.get_secret_value() == "host=other dbname=queue"


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBWIRE_DATABASE_URL", "host=other dbname=queue")
    monkeypatch.setenv("JOBWIRE_LISTEN", "0.0.0.0:1")
    settings = load_settings(database_url=URL, listen="127.0.0.1:0")
    assert settings.database_url.get_secret_value() == URL
    assert settings.listen == "127.0.0.1:0"


def test_every_setting_can_be_set_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "database_url": URL,
        "schema_name": "queue_2",
        "pool_size": "7",
        "migrate": "false",
        "listen": "[::1]:1",
        "http_listen": "0.0.0.0:2",
        "tls_cert": "/run/tls/tls.crt",
        "tls_key": "/run/tls/tls.key",
        "tokens_file": "/run/tokens",
        "create_queues": "no",
        "max_sessions": "3",
        "max_publishing_mb": "4",
        "log_format": "json",
        "log_level": "debug",
        "owner_grace": "4",
        "drain_grace": "0",
        "cancel_grace": "6.5",
        "renew_interval": "0.5",
        "poll_interval": "0.25",
        "drain_timeout": "9",
        "drain_linger": "0",
    }
    assert values.keys() == Settings.model_fields.keys()
    for field, value in values.items():
        monkeypatch.setenv(variable_of(field), value)
    settings = load_settings()
    unchanged = [name for name, field in Settings.model_fields.items() if getattr(settings, name) == field.default]
    assert unchanged == []


def test_every_setting_is_documented() -> None:
    undocumented = [name for name, field in Settings.model_fields.items() if not field.description]
    assert undocumented == []


@pytest.mark.parametrize(
    ("variable", "advice"),
    [
        ("JOBWIRE_POOLSIZE", "did you mean JOBWIRE_POOL_SIZE?"),
        ("JOBWIRE_DATABASE_URI", "did you mean JOBWIRE_DATABASE_URL?"),
        ("jobwire_lissten", "did you mean JOBWIRE_LISTEN?"),
        ("JOBWIRE_XYZZY", "there are JOBWIRE_… ACTOR, CANCEL_GRACE, CA_FILE, CREATE_QUEUES, "),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_known_one(
    monkeypatch: pytest.MonkeyPatch, variable: str, advice: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv(variable, "1")
    message = refusal()
    assert message.startswith(f"{variable}: there is no such setting; ")
    assert advice in message


def test_the_variables_of_the_clients_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    for name in ("SERVER", "ACTOR", "TOKEN", "CA_FILE"):
        monkeypatch.setenv(f"JOBWIRE_{name}", "127.0.0.1:50051")
    assert "127.0.0.1:50051" not in {str(value) for value in load_settings(listen="[::1]:1").model_dump().values()}


@pytest.mark.parametrize("variable", ["JOBWIRE_TLS_CERT", "JOBWIRE_TLS_KEY"])
def test_a_certificate_and_its_key_go_together(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv(variable, "/run/tls/one.pem")
    assert refusal().startswith("JOBWIRE_TLS_KEY: must be set together with JOBWIRE_TLS_CERT, both or none; got ")


@pytest.mark.parametrize(
    ("variable", "value", "rule"),
    [
        ("JOBWIRE_POOL_SIZE", "0", "greater than or equal to 1"),
        ("JOBWIRE_POOL_SIZE", "many", "valid integer"),
        ("JOBWIRE_LISTEN", "50051", "must be HOST:PORT"),
        ("JOBWIRE_LISTEN", "host:65536", "must be HOST:PORT"),
        ("JOBWIRE_LISTEN", "::1:50051", "must be HOST:PORT"),
        ("JOBWIRE_HTTP_LISTEN", "a b:1", "must be HOST:PORT"),
        ("JOBWIRE_SCHEMA", "Job Wire", "must be a plain PostgreSQL name"),
        ("JOBWIRE_SCHEMA", "pg_queue", "must be a plain PostgreSQL name"),
        ("JOBWIRE_MIGRATE", "perhaps", "valid boolean"),
        ("JOBWIRE_LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("JOBWIRE_OWNER_GRACE", "nan", "finite number"),
        ("JOBWIRE_OWNER_GRACE", "-1", "greater than or equal to 1"),
        ("JOBWIRE_POLL_INTERVAL", "0", "greater than or equal to 0.05"),
        ("JOBWIRE_TOKENS_FILE", "", "must be the path of a file; leave the variable out if there is none"),
    ],
)
def test_a_bad_value_is_named_with_its_variable_the_rule_and_the_value(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, rule: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv(variable, value)
    message = refusal()
    assert message.startswith(f"{variable}: ")
    assert rule in message
    assert repr(value) in message


def test_all_mistakes_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBWIRE_POOL_SIZE", "0")
    monkeypatch.setenv("JOBWIRE_LISTEN", "nowhere")
    assert [line.split()[0] for line in refusal().splitlines()] == [
        "DATABASE_URL",
        "JOBWIRE_POOL_SIZE:",
        "JOBWIRE_LISTEN:",
    ]


@pytest.mark.parametrize("variable", ["DATABASE_URL", "JOBWIRE_DATABASE_URL"])
@pytest.mark.parametrize("value", ["", "s3cret", "user:s3cret@host", f"{URL}?schema=public"])
def test_a_bad_database_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    message = refusal()
    assert message.startswith(f"{variable}: must be a PostgreSQL connection string")
    assert "s3cret" not in message


def test_a_parameter_that_only_an_orm_knows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"{URL}?schema=public")
    assert "'schema'" in refusal()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (URL, "postgresql://user:***@db.example:5432/app"),
        ("postgresql://user:p%40ss@h/d", "postgresql://user:***@h/d"),
        ("postgresql://user@h/d", "postgresql://user@h/d"),
        (
            "postgresql://h/d?user=u&password=s3cret&sslmode=require",
            "postgresql://h/d?user=u&password=***&sslmode=require",
        ),
        ("postgresql://h/d?sslpassword=s3cret", "postgresql://h/d?sslpassword=***"),
        ("host=h password=s3cret dbname=d", "host=h password=*** dbname=d"),
        (r"host=h password = 's3c\' ret' dbname=d", "host=h password = *** dbname=d"),
    ],
)
def test_passwords_are_masked_for_people(url: str, shown: str) -> None:
    settings = load_settings(database_url=url)
    assert settings.database == shown
    assert "s3c" not in repr(settings)
    assert "p%40ss" not in repr(settings)


def test_settings_are_frozen() -> None:
    settings = load_settings(database_url=URL)
    with pytest.raises(ValidationError, match="frozen"):
        settings.pool_size = 9
