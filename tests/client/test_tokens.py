"""Tokens in the client: what is refused, when a function is asked for one, and what happens if it fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

import jobwire
from jobwire import Client, Unauthenticated, Worker, access_from_environment
from jobwire.credentials import call_metadata
from tests.client.scripted_server import ScriptedServer


@pytest.mark.parametrize("token", ["", "two words", "s3cret\n", "s3crét", 7])
def test_what_can_be_no_token_is_refused_by_whoever_is_given_it(token: Any) -> None:
    for make in (Client, Worker, jobwire.sync.Client):
        with pytest.raises(ValueError, match="a token must be a word of plain ASCII") as caught:
            make("127.0.0.1:1", token=token)
        assert "s3cr" not in str(caught.value)


def test_a_function_is_asked_before_each_call() -> None:
    answers = iter("ab")
    metadata = call_metadata(lambda: next(answers), "ann")
    assert metadata() == (("x-jobwire-actor", "ann"), ("authorization", "Bearer a"))
    assert metadata() == (("x-jobwire-actor", "ann"), ("authorization", "Bearer b"))
    assert call_metadata("c")() == (("authorization", "Bearer c"),)
    assert call_metadata(None)() is None


def fails() -> str:
    raise OSError("the vault is shut")


@pytest.mark.parametrize(
    ("token", "why"), [(fails, "OSError: the vault is shut"), (lambda: None, "ValueError: a token must be a word")]
)
async def test_a_function_without_a_token_fails_the_call(
    server: ScriptedServer, token: Callable[[], Any], why: str
) -> None:
    async with Client(server.address, token=token) as client:
        for call in (client.publish("q", 1), client.get_job("x")):
            with pytest.raises(Unauthenticated, match=f"there is no token to call with: {why}"):
                await call
    worker = Worker(server.address, token=token)
    worker.handler("q", run_in="thread")(print)
    with pytest.raises(Unauthenticated, match="there is no token"):
        await asyncio.wait_for(worker.run(), 20)

    def threads() -> None:
        with jobwire.sync.Client(server.address, token=token) as client:
            for call in (lambda: client.publish("q", 1), lambda: client.get_job("x")):
                with pytest.raises(Unauthenticated, match="there is no token"):
                    call()

    await asyncio.to_thread(threads)


async def test_a_worker_that_has_begun_outlasts_a_function_that_fails(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    shut = [False]

    def token() -> str:
        return fails() if shut[0] else "s3cret"

    worker = Worker(server.address, token=token)
    worker.handler("q", run_in="thread")(print)
    with caplog.at_level(logging.DEBUG, "jobwire"):
        async with worker:
            stream = await server.opened()
            shut[0] = True
            stream.end()
            async with asyncio.timeout(20):
                while "no stream, trying again: there is no token to call with" not in caplog.text:
                    await asyncio.sleep(0.05)
            shut[0] = False
            await server.opened()
    assert "s3cret" not in caplog.text


def test_the_environment_may_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOBWIRE_TOKEN", raising=False)
    monkeypatch.setenv("JOBWIRE_CA_FILE", "")
    assert access_from_environment() == {"tls": None, "token": None}
