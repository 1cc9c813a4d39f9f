"""The command line against a real server and a real database."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jobwire import Client, FailForGood, Job, JobState, QueueShare, Worker
from jobwire_server.app import Server, running
from jobwire_server.settings import load_settings
from tests.conftest import Postgres

ID = "01890a5d-ac96-774b-bcce-b302099a8057"


class Shell:
    """Runs `jobwire` with a server and a schema of its own."""

    def __init__(self, postgres: Postgres, schema: str, server: Server | None = None) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("JOBWIRE_")}
        address = {"JOBWIRE_SERVER": server.address} if server else {}
        clean["COLUMNS"] = "200"
        self._environment = clean | {"DATABASE_URL": postgres.dsn, "JOBWIRE_SCHEMA": schema} | address

    async def __call__(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "jobwire_server", *arguments],
            input=stdin,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done

    async def json(self, *arguments: str, stdin: str = "") -> list[dict[str, Any]]:
        done = await self(*arguments, "--json", stdin=stdin)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
async def server(postgres: Postgres, schema: str) -> AsyncIterator[Server]:
    settings = load_settings(
        database_url=postgres.dsn,
        schema_name=schema,
        listen="127.0.0.1:0",
        http_listen="127.0.0.1:0",
        drain_linger=0,
        poll_interval=0.1,
    )
    async with running(settings) as server:
        yield server


@pytest.fixture
def jobwire(postgres: Postgres, schema: str, server: Server) -> Shell:
    return Shell(postgres, schema, server)


@pytest.fixture
def bare(postgres: Postgres, schema: str) -> Shell:
    """Without a server, and on a schema that does not exist yet."""
    return Shell(postgres, schema)


def lines(*payloads: object) -> str:
    return "".join(json.dumps(payload) + "\n" for payload in payloads)


async def published(server: Server, queue: str) -> list[Any]:
    """The payloads in a queue, in the order in which they were published."""
    async with Client(server.address) as client:
        jobs = [job async for job in client.admin.list_jobs(queue, page_size=500)]
    return [job.data for job in reversed(jobs)]


async def test_one_job_prints_its_id(jobwire: Shell, server: Server) -> None:
    done = await jobwire("publish", "mail", '{"n": 12345678901234567890}', "--priority", "3")
    assert done.returncode == 0
    async with Client(server.address) as client:
        job = await client.get_job(done.stdout.strip(), "mail")
    assert (job.data, job.priority) == ({"n": 12345678901234567890}, 3)


async def test_a_job_may_wait(jobwire: Shell) -> None:
    (result,) = await jobwire.json("publish", "mail", "1", "--start-in", "3600")
    (queue,) = await jobwire.json("queues")
    assert result["created"] is True
    assert (queue["counts"]["ready"], queue["counts"]["scheduled"], queue["counts"]["active"]) == (0, 1, 0)


async def test_lines_go_out_in_order_and_over_several_calls(jobwire: Shell, server: Server) -> None:
    results = await jobwire.json("publish", "mail", "-", stdin=lines(*range(1_203)))
    assert len({result["job_id"] for result in results if result["created"]}) == 1_203
    assert await published(server, "mail") == list(range(1_203))


async def test_lines_that_are_large_share_fewer_calls(jobwire: Shell, server: Server) -> None:
    payloads = [f"{n:03}" + "x" * 60_000 for n in range(120)]
    done = await jobwire("publish", "mail", stdin=lines(*payloads))
    assert done.returncode == 0
    assert "published 120 jobs to mail" in done.stderr
    assert await published(server, "mail") == payloads


async def test_all_lines_before_a_bad_one_are_published(jobwire: Shell, server: Server) -> None:
    done = await jobwire("publish", "mail", stdin=lines(*range(620)) + "{nope\n" + lines(*range(9)))
    assert done.returncode == 2
    assert "line 621 is not JSON that can be published" in done.stderr
    assert "620 jobs were published, all lines before that one" in done.stderr
    assert await published(server, "mail") == list(range(620))


async def test_all_lines_before_a_refused_one_are_published(jobwire: Shell, server: Server) -> None:
    done = await jobwire("publish", "mail", stdin=lines(*range(620), "x" * 70_000, *range(9)))
    assert done.returncode == 2
    assert "line 621 is refused: data: is 70,002 bytes, the queue allows 65,536" in done.stderr
    assert "620 jobs were published, all lines before that one" in done.stderr
    assert await published(server, "mail") == list(range(620))


async def test_a_refused_queue_is_named(jobwire: Shell) -> None:
    done = await jobwire("publish", "ma.il", stdin=lines(1))
    assert done.returncode == 2
    assert "queue: must be 1 to 63 letters" in done.stderr


async def test_queues_are_created_shown_changed_and_listed(jobwire: Shell) -> None:
    created = ("queues", "create", "mail", "--retry-limit", "5", "--expire-in", "60", "--no-retry-backoff")
    (first,) = await jobwire.json(*created)
    assert (first["created"], first["options"]["retry_limit"], first["options"]["retry_backoff"]) == (True, 5, False)
    (again,) = await jobwire.json("queues", "create", "mail", "--retry-limit", "1")
    assert (again["created"], again["options"]["retry_limit"]) == (False, 5)
    (changed,) = await jobwire.json("queues", "update", "mail", "--max-data-bytes", "1000")
    assert (changed["max_data_bytes"], changed["options"]["expire_in"]) == (1_000, 60)
    (bounded,) = await jobwire.json("queues", "update", "mail", "--max-depth", "50")
    assert (bounded["max_depth"], bounded["max_data_bytes"]) == (50, 1_000)
    (shown,) = await jobwire.json("queues", "show", "mail")
    assert not any(shown["counts"][kind] for kind in ("ready", "scheduled", "active", "blocked", "failed"))
    assert [queue["name"] for queue in await jobwire.json("queues", "list")] == ["mail"]
    told = await jobwire("queues", "show", "mail")
    assert "a run may take" in told.stdout
    assert "50 jobs" in told.stdout
    listed = await jobwire("queues")
    assert listed.stdout.split()[-2:] == ["50", "-"]
    assert "1 minute" in told.stdout


async def test_sessions_are_listed_and_asked_to_leave(jobwire: Shell, server: Server) -> None:
    started, let_go = asyncio.Event(), asyncio.Event()
    worker = Worker(server.address, name="the worker")

    @worker.handler(QueueShare("mail", weight=3, max_in_flight=2, min_priority=5), "reports", concurrency=4)
    async def handle(job: Job) -> None:
        started.set()
        await let_go.wait()

    async with Client(server.address) as client:
        published = await client.publish("reports", 1)
        working = asyncio.create_task(worker.run())
        await started.wait()
        [session] = await jobwire.json("sessions", "list", "--queue", "mail")
        assert (session["worker"], session["queues"]) == ("the worker", ["mail", "reports"])
        assert [(job["queue"], job["job_id"]) for job in session["running"]] == [("reports", published.job_id)]
        table = (await jobwire("sessions")).stdout
        shown = ("the worker", "mail (weight 3, at most 2, priority 5..), reports", "1 of 4", published.job_id)
        assert all(words in table for words in shown), table
        [asked] = await jobwire.json("sessions", "drain", session["id"])
        assert asked["id"] == session["id"]
        assert "asked to leave" in (await jobwire("sessions", "list")).stdout
        assert "asked to leave" in (await jobwire("sessions", "drain", session["id"])).stdout
        let_go.set()
        await working
        assert (await client.get_job(published.job_id)).state is JobState.COMPLETED
    assert await jobwire.json("sessions") == []
    assert (await jobwire("sessions", "drain", ID)).returncode == 3
    assert (await jobwire("sessions", "drain", "nobody")).returncode == 2


async def test_limits_are_laid_over_those_that_are_there(jobwire: Shell) -> None:
    await jobwire("queues", "create", "dead")
    (made,) = await jobwire.json(
        *("queues", "create", "mail", "--policy", "singleton", "--max-active", "5", "--rate", "10/1m", "--fair"),
        *("--group-max-active", "2", "--tier", "gold=8", "--tier", "a=b=1", "--group-rate", "3/500ms"),
        *("--waiting-retention", "1d", "--dead-letter", "dead"),
    )
    limits = {
        "max_active": 5,
        "rate": {"starts": 10, "period": 60},
        "group_max_active": 2,
        "tier_max_active": {"gold": 8, "a=b": 1},
        "group_rate": {"starts": 3, "period": 0.5},
    }
    assert (made["policy"], made["limits"], made["fair"]) == ("singleton", limits, True)
    assert (made["waiting_retention"], made["options"]["dead_letter"]) == (86_400, "dead")
    (changed,) = await jobwire.json(
        *("queues", "update", "mail", "--rate", "none", "--tier", "gold=9", "--tier", "a=b=none", "--max-active", "6"),
        *("--dead-letter", "", "--waiting-retention", "0"),
    )
    assert changed["limits"] == limits | {"rate": None, "tier_max_active": {"gold": 9}, "max_active": 6}
    assert (changed["policy"], changed["fair"], changed["waiting_retention"]) == ("singleton", True, None)
    assert not changed["options"]["dead_letter"]
    told = (await jobwire("queues", "show", "mail")).stdout
    for words in ("singleton", "6 active", "2 active per group", "9 active per gold group"):
        assert words in told
    assert "3 starts in 500 ms per group" in told
    assert "groups take turns" in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--max-active", "0"), "to have nothing run, pause the queue"),
        (("--max-active", "many"), "is no number"),
        (("--rate", "0/1m"), "to have nothing start, pause the queue"),
        (("--rate", "10"), "such as 10/1m"),
        (("--rate", "10/soon"), "is no span of time"),
        (("--rate", "10/1ms"), "queue.limits.rate.period: must be 100 ms to 31 days"),
        (("--tier", "gold"), "names no tier"),
        (("--tier", "gold=0"), "to have nothing run, pause the queue"),
        (("--policy", "fifo"), "key_strict_fifo"),
    ],
)
async def test_limits_that_cannot_be(jobwire: Shell, arguments: tuple[str, ...], words: str) -> None:
    done = await jobwire("queues", "create", "mail", *arguments)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.replace("│", "").split())


async def test_a_job_that_was_not_stored_is_explained(jobwire: Shell) -> None:
    await jobwire("queues", "create", "mail", "--policy", "exclusive")
    first = await jobwire("publish", "mail", "1", "--key", "k", "--group", "acme", "--tier", "gold")
    again = await jobwire("publish", "mail", "2", "--key", "k")
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert again.stderr == (
        "not stored: the queue's policy allows no further job of its key now; it met job " + first.stdout
    )
    (shown,) = await jobwire.json("job", first.stdout.strip())
    assert (shown["key"], shown["group"]) == ("k", {"id": "acme", "tier": "gold"})
    told = await jobwire("job", first.stdout.strip())
    assert "acme, tier gold" in told.stdout
    lined = await jobwire("publish", "other", "--unique-for", "1h", stdin=lines(1, 2, 3))
    assert "published 1 jobs to other" in lined.stderr
    assert "2 were not stored: there was one of its key lately" in lined.stderr
    assert (await jobwire("publish", "mail", "1", "--tier", "gold")).returncode == 2


async def test_a_queue_is_paused_drained_and_resumed(jobwire: Shell, server: Server) -> None:
    running, may_end = asyncio.Event(), asyncio.Event()
    worker = Worker(server.address)

    @worker.handler("mail")
    async def send(job: Job) -> None:
        running.set()
        await may_end.wait()

    async with worker:
        for number in range(2):
            assert (await jobwire("publish", "mail", str(number))).returncode == 0
        await running.wait()
        hurried = await jobwire("queues", "drain", "mail", "--timeout", "1s")
        assert (hurried.returncode, "1 jobs of mail are still active" in hurried.stderr) == (1, True)
        draining = asyncio.create_task(jobwire("queues", "drain", "mail"))
        may_end.set()
        drained = await draining
        assert (drained.returncode, "nothing of mail is active" in drained.stderr) == (0, True)
        (shown,) = await jobwire.json("queues", "show", "mail")
        assert (shown["paused"], shown["counts"]["ready"], shown["counts"]["active"]) == (True, 1, 0)
        assert "paused" in (await jobwire("queues")).stdout
        (resumed,) = await jobwire.json("queues", "resume", "mail")
        assert resumed["paused"] is False
        async with Client(server.address) as client:
            [job] = [job async for job in client.admin.list_jobs("mail") if job.data == 1]
            assert (await client.wait(job.id, "mail", timeout=60)).state is JobState.COMPLETED
    (paused,) = await jobwire.json("queues", "pause", "mail")
    assert paused["paused"] is True


async def test_what_does_not_exist_ends_with_3(jobwire: Shell) -> None:
    assert (await jobwire("queues", "show", "nope")).returncode == 3
    assert (await jobwire("queues", "update", "nope", "--retry-limit", "1")).returncode == 3
    for command in ("pause", "resume", "drain"):
        assert (await jobwire("queues", command, "nope")).returncode == 3
    assert (await jobwire("job", ID)).returncode == 3
    await jobwire("queues", "create", "mail")
    assert (await jobwire("jobs", "cancel", ID, "--queue", "mail")).returncode == 3


async def test_a_waiting_job_is_shown_and_cancelled_once(jobwire: Shell) -> None:
    (result,) = await jobwire.json("publish", "mail", '{"to": "a"}')
    shown = await jobwire("job", result["job_id"])
    assert shown.returncode == 0
    assert "created" in shown.stdout
    cancelled = await jobwire("jobs", "cancel", result["job_id"])
    assert (cancelled.returncode, cancelled.stderr) == (0, f"{result['job_id']}: done\n")
    assert (await jobwire("jobs", "cancel", result["job_id"])).returncode == 1
    assert (await jobwire("job", result["job_id"])).returncode == 1


async def test_jobs_are_found_and_changed_by_filter_after_a_question(jobwire: Shell) -> None:
    await jobwire("publish", "mail", stdin=lines(*({"user": n % 3, "n": n} for n in range(30))))
    mine = ("--queue", "mail", "--data", '{"user": 1}')
    listed = await jobwire.json("jobs", "list", *mine, "--state", "created")
    assert [job["data"]["n"] for job in listed] == list(range(28, 0, -3))
    dry = await jobwire("jobs", "cancel", *mine, "--dry-run")
    assert (dry.returncode, "10 jobs matched, 0 were changed" in dry.stderr) == (0, True)
    refused = await jobwire("jobs", "cancel", *mine, stdin="n\n")
    assert (refused.returncode, "This is to cancel 10 of 10 jobs" in refused.stderr) == (1, True)
    (done,) = await jobwire.json("jobs", "cancel", *mine, "--yes")
    assert done == {"matched": 10, "changed": 10}
    (some,) = await jobwire.json("jobs", "retry", "--queue", "mail", "--all", "--limit", "4", "--yes")
    assert some == {"matched": 4, "changed": 4}
    assert (await jobwire("jobs", "move", "--to", "nowhere", "--all", "--yes")).returncode == 3
    await jobwire("queues", "create", "letters")
    (moved,) = await jobwire.json("jobs", "move", "--queue", "mail", "--to", "letters", "--all", "--yes")
    assert moved == {"matched": 24, "changed": 24}
    for usage in (("--all", ID), ()):
        assert (await jobwire("jobs", "delete", *usage)).returncode == 2
    assert (await jobwire("jobs", "delete", "--data", "{nope")).returncode == 2


async def test_jobs_that_are_named_are_changed_at_once(jobwire: Shell) -> None:
    results = await jobwire.json(
        "publish",
        "mail",
        stdin=lines(1, 2, 3),
    )
    first, second, _ = (result["job_id"] for result in results)
    done = await jobwire.json("jobs", "delete", first, second, "--dry-run")
    assert [result["status"] for result in done] == ["changed", "changed"]
    assert (await jobwire("jobs", "delete", first, second)).returncode == 0
    assert (await jobwire("jobs", "delete", first, "--queue", "mail")).returncode == 3
    wrong = await jobwire("jobs", "release", results[2]["job_id"])
    assert (wrong.returncode, "not possible, it is created" in wrong.stderr) == (1, True)
    assert (await jobwire("jobs", "show", results[2]["job_id"])).returncode == 0


async def test_queues_are_purged_and_deleted_and_all_of_it_is_recorded(jobwire: Shell) -> None:
    await jobwire("queues", "create", "mail")
    await jobwire("publish", "mail", stdin=lines(*range(5)))
    in_use = await jobwire("queues", "delete", "mail", "--yes")
    assert (in_use.returncode, "has jobs that wait or run" in in_use.stderr) == (1, True)
    (dry,) = await jobwire.json("queues", "purge", "mail", "--scope", "waiting", "--dry-run")
    assert dry == {"matched": 5, "deleted": 0}
    (purged,) = await jobwire.json("queues", "purge", "mail", "--scope", "waiting", "--yes")
    assert purged == {"matched": 5, "deleted": 5}
    (deleted,) = await jobwire.json("queues", "delete", "mail", "--yes")
    assert deleted == {"queue": "mail", "deleted_jobs": 0}
    actions = await jobwire.json("actions", "--queue", "mail")
    assert [action["what"] for action in actions] == ["queue.delete", "queue.purge", "queue.create"]
    assert all("@" in action["actor"] for action in actions)
    assert "queue.purge" in (await jobwire("actions", "--by", actions[0]["actor"])).stdout


async def test_watch_follows_a_job_to_its_end(jobwire: Shell, server: Server) -> None:
    worker = Worker(server.address)
    watched = asyncio.Event()

    @worker.handler("mail")
    async def handle(job: Job) -> dict[str, int]:
        await job.progress(0.5, "half of it")
        await watched.wait()
        if job.data == "bad":
            raise FailForGood("as asked")
        return {"done": 1}

    async with worker, Client(server.address) as client:
        for payload, state, code in (("good", JobState.COMPLETED, 0), ("bad", JobState.FAILED, 1)):
            watched.clear()
            job_id = (await client.publish("mail", payload)).job_id
            watching = asyncio.create_task(jobwire("job", job_id, "--watch", "--json"))
            for_progress = await client.get_job(job_id, "mail")
            while not for_progress.progress:
                for_progress = await client.get_job(job_id, "mail")
            watched.set()
            done = await watching
            assert done.returncode == code
            last = json.loads(done.stdout.splitlines()[-1])
            assert last["state"] == state


async def test_migrate_checks_does_and_reports(bare: Shell) -> None:
    pending = await bare("migrate", "--check", "--json")
    assert pending.returncode == 1
    assert json.loads(pending.stdout)["pending"]
    (done,) = await bare.json("migrate")
    assert done["applied"]
    assert done["pending"] == []
    assert (await bare("migrate", "--check")).returncode == 0
    (again,) = await bare.json("migrate")
    assert again["applied"] == []


async def test_a_server_that_may_not_migrate_refuses_to_start(bare: Shell) -> None:
    bare._environment |= {
        "JOBWIRE_MIGRATE": "false",
        "JOBWIRE_LISTEN": "127.0.0.1:0",
        "JOBWIRE_HTTP_LISTEN": "127.0.0.1:0",
    }
    done = await bare("serve")
    assert done.returncode == 1
    assert "run `jobwire migrate`" in done.stderr


async def test_a_port_that_is_taken_ends_the_start(bare: Shell, server: Server) -> None:
    bare._environment |= {"JOBWIRE_LISTEN": server.address, "JOBWIRE_HTTP_LISTEN": "127.0.0.1:0"}
    done = await bare("serve")
    assert done.returncode == 1
    assert f"cannot listen on {server.address}" in done.stderr
    bare._environment |= {"JOBWIRE_LISTEN": "127.0.0.1:0", "JOBWIRE_HTTP_LISTEN": server.http_address}
    done = await bare("serve")
    assert done.returncode == 1
    assert f"cannot listen on {server.http_address}" in done.stderr


async def test_recover_says_what_it_did(bare: Shell) -> None:
    missing = await bare("recover", "--yes")
    assert missing.returncode == 1
    assert "there is no Jobwire schema" in missing.stderr
    await bare("migrate")
    (done,) = await bare.json("recover", "--yes")
    assert done == {"sessions": 0, "claims": 0, "jobs": {}}


async def test_recover_gives_running_jobs_back(bare: Shell, server: Server) -> None:
    worker = Worker(server.address, stop_grace=0)
    begun = asyncio.Event()

    @worker.handler("mail")
    async def handle(job: Job) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with Client(server.address) as client, worker:
        await client.publish("mail", 1)
        await begun.wait()
        (done,) = await bare.json("recover", "--yes")
    assert done == {"sessions": 1, "claims": 1, "jobs": {"mail": 1}}


async def test_a_waiting_job_is_updated_or_published(jobwire: Shell) -> None:
    await jobwire("queues", "create", "mail")
    (made,) = await jobwire.json("jobs", "update", "mail", "--key", "k", "--data", "1", "--upsert")
    (changed,) = await jobwire.json(
        "jobs", "update", "mail", "--key", "k", "--data", "2", "--priority", "4", "--upsert"
    )
    assert (made["job_ids"], changed["job_ids"]) == ([], [made["created_job_id"]])
    (found,) = await jobwire.json("jobs", "list", "--key", "k")
    assert (found["data"], found["priority"]) == (2, 4)
    assert (await jobwire("jobs", "update", "mail", "--key", "other", "--data", "1")).returncode == 3
    assert (await jobwire("jobs", "update", "mail", "--data", "1")).returncode == 2
    assert (await jobwire("jobs", "update", "mail", "--key", "k", "--data", "{")).returncode == 2
