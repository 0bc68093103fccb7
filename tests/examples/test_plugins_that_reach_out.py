"""The example plugins that ask others, while those are away, slow, or changed under them; and over several pods."""

from __future__ import annotations

import asyncio
import contextlib

from reached import KEYS_PATH
from waiting import until_true

CLAIMS = {"iss": "https://login.example.com/", "aud": "orders", "sub": "u-17"}
DAY_MS = 86_400_000


def authentication(token):
    """What a proxy asks of somebody with this token."""
    headers = {"authorization": f"Bearer {token}"}
    return {"headers": headers, "username": None, "password": None, "client_ip": None, "database": None}


def context(**attributes):
    """The part of an input that is about the proxy's client."""
    hook_context = {"request_id": "r", "client_id": None, "identity": None, "database": None, "branch": None}
    return {"hook_context": hook_context | {"attributes": attributes}, "tables": [], "is_read_only": True}


def query(tenant):
    """A query of this tenant."""
    return {"query": "SELECT 1"} | context(tenant_id=tenant)


WHO = {"user_id": "u", "username": "u", "roles": ["r"], "tenant_id": None, "claims": {}}
READING = {"query": "", "action": "SELECT", "resource": "sales", "identity": WHO} | context()


def issuing(reached, **config):
    """Settings of jwt-auth for an issuer with one key."""
    case = {
        "config": {"issuer": CLAIMS["iss"], "audiences": [CLAIMS["aud"]]} | config,
        "issuer": [{"kid": "k1", "signs": "ES256"}],
    }
    return reached.settings("jwt-auth", case) | {"limits": {"timeout": "10s", "wait": "60s", "concurrency": 64}}


def asked(reached):
    """How often the issuer's keys were fetched."""
    return sum(target == KEYS_PATH for _, target, *_ in reached.issuer().site.requests)


async def test_keys_are_fetched_once_for_many_calls(examples, reached) -> None:
    """Also where they come at once, and a hundred that name a key which there is not cost one more at the most."""
    async with examples.running("jwt-auth", issuing(reached)) as plugin:
        good = authentication(reached.issuer().token({"kid": "k1", "claims": CLAIMS}))
        answers = await asyncio.gather(*(plugin.call("authenticate", good) for _ in range(20)))
        assert {each["action"] for each in answers} == {"success"}
        before = asked(reached)
        for number in range(100):
            token = reached.issuer().token({"kid": "k1", "claims": CLAIMS, "header": {"kid": f"none-{number}"}})
            assert (await plugin.call("authenticate", authentication(token)))["action"] == "denied"
        assert asked(reached) - before <= 1


async def test_a_rotation_loses_no_call(examples, reached) -> None:
    """The issuer publishes a new key and signs with it while calls run: tokens of both keys are known throughout."""
    async with examples.running("jwt-auth", issuing(reached, refetch_seconds=1)) as plugin:
        issuer, done = reached.issuer(), False

        async def calls(kid):
            answers = 0
            while not done:
                token = issuer.token({"kid": kid, "claims": CLAIMS})
                answer = await plugin.call("authenticate", authentication(token))
                assert answer["action"] == "success", answer
                answers += 1
            return answers

        old = [asyncio.create_task(calls("k1")) for _ in range(4)]
        await until_true(lambda: asked(reached) > 0, "the first fetch")
        issuer.publish([{"kid": "k1", "signs": "ES256"}, {"kid": "k2", "signs": "EdDSA"}])
        reached.later(2)
        token = issuer.token({"kid": "k2", "signs": "EdDSA", "claims": CLAIMS})
        for _ in range(20):
            assert (await plugin.call("authenticate", authentication(token)))["action"] == "success"
        done = True
        assert min(await asyncio.gather(*old)) > 0


async def test_an_issuer_that_does_not_answer_costs_its_bound_and_no_user(examples, reached) -> None:
    """Old keys are used after `fetch_ms`, and meanwhile no call asks again."""
    async with examples.running("jwt-auth", issuing(reached, keys_seconds=1, fetch_ms=200)) as plugin:
        good = authentication(reached.issuer().token({"kid": "k1", "claims": CLAIMS}))
        assert (await plugin.call("authenticate", good))["action"] == "success"
        released = asyncio.Event()

        async def silent(_):
            await released.wait()

        reached.issuer().site.pages[KEYS_PATH] = silent
        reached.later(11)
        before = asked(reached)
        for _ in range(5):
            assert (await plugin.call("authenticate", good))["action"] == "success"
        released.set()
        assert asked(reached) == before + 1


async def test_keys_in_a_shared_cache_are_fetched_once_for_all_pods(examples, reached, redis) -> None:
    """With `spec.caches` on a server, the second pod has them from the first."""
    redis.ask("FLUSHALL")
    caches = [{"name": "keys", "valkey": {"url": f"redis://127.0.0.1:{redis.port}", "timeout": "10s"}}]
    settings = issuing(reached) | {"caches": caches}
    good = authentication(reached.issuer().token({"kid": "k1", "claims": CLAIMS}))
    async with examples.running("jwt-auth", settings) as one, examples.running("jwt-auth", settings) as other:
        for plugin in (one, other):
            assert (await plugin.call("authenticate", good))["action"] == "success"
    assert asked(reached) == 1


async def test_grants_are_closed_while_the_database_is_away(examples, reached, database) -> None:
    """Each call is answered, with the reason; no failure is counted, and the first after its return is right again."""
    settings = reached.settings("grants", {"grants": [["role:r", None, "*", "sales", "allow"]]})
    settings |= {"config": {"cache_ms": 0}, "limits": {"timeout": "10s", "wait": "60s"}}
    async with examples.running("grants", settings) as plugin:
        assert (await plugin.call("authorize", READING))["action"] == "allow"
        database.stop()
        try:
            for _ in range(10):
                answer = await plugin.call("authorize", READING)
                assert answer["action"] == "deny"
                assert answer["reason"].startswith("the grants cannot be read: ")
        finally:
            await asyncio.to_thread(database.start)

        async def allowed():
            return (await plugin.call("authorize", READING))["action"] == "allow"

        await until_true(allowed, "a grant that is read again")
        assert plugin.last_failure is None


async def test_grants_are_closed_while_a_statement_takes_too_long(examples, reached, database) -> None:
    """A locked table is a time-out of the statement, and a denial."""
    settings = reached.settings("grants", {"grants": [["role:r", None, "*", "sales", "allow"]]})
    settings["dataSources"][0]["postgres"]["statementTimeout"] = "100ms"
    settings |= {"config": {"cache_ms": 0}, "limits": {"timeout": "10s", "wait": "60s"}}
    async with examples.running("grants", settings) as plugin:
        script = "begin; lock table grants in access exclusive mode; select pg_sleep(3600)"
        locking = asyncio.create_task(asyncio.to_thread(_psql, database, script))
        held = "select count(*) from pg_locks where mode = 'AccessExclusiveLock' and granted"
        held += " and relation = 'grants'::regclass"
        await until_true(lambda: asyncio.to_thread(lambda: database.psql(held) == "1"), "the lock")
        try:
            answer = await plugin.call("authorize", READING)
        finally:
            database.psql("select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep(3600)%' "
                          "and pid <> pg_backend_pid()")  # fmt: skip
            await locking
        assert answer["action"] == "deny"
        assert answer["reason"] == "the grants cannot be read: timeout"
        assert (await plugin.call("authorize", READING))["action"] == "allow"


def _psql(database, script):
    with contextlib.suppress(Exception):  # it is ended from outside
        database.psql(script)


def rate(reached, **more):
    """Settings of tenant-rate, of a hundred queries a day."""
    settings = reached.settings("tenant-rate", {})
    limits = {"timeout": "10s", "wait": "60s", "concurrency": 64}
    return settings | {"config": {"queries": 100, "window_ms": DAY_MS}, "limits": limits} | more


async def test_a_rate_is_one_for_all_pods(examples, reached) -> None:
    """Of calls that come to three pods at once, as many go on as the rate allows, and not one more or less."""
    reached.at(0)
    settings = rate(reached)
    async with contextlib.AsyncExitStack() as stack:
        pods = [await stack.enter_async_context(examples.running("tenant-rate", settings)) for _ in range(3)]
        calls = [pod.call("pre_query", query("acme")) for _ in range(80) for pod in pods]
        answers = [each["action"] for each in await asyncio.gather(*calls)]
    assert len(answers) == 240
    assert answers.count("block") + answers.count("continue") == 240
    assert answers.count("continue") == 100


async def test_a_window_that_begins_under_load_counts_each_query_once(examples, reached) -> None:
    """What replaces the count of an old window never loses a query of the new one."""
    settings = rate(reached, config={"queries": 500, "window_ms": 1000})
    async with contextlib.AsyncExitStack() as stack:
        pods = [await stack.enter_async_context(examples.running("tenant-rate", settings)) for _ in range(2)]
        for window in range(0, 12, 3):  # of the ones before, nothing is within reach
            reached.at(window)
            calls = [pod.call("pre_query", query("acme")) for _ in range(300) for pod in pods]
            answers = [each["action"] for each in await asyncio.gather(*calls)]
            assert answers.count("continue") == 500


async def test_a_store_that_is_away_is_answered_by_policy(examples, reached, redis) -> None:
    """Closed and Open say it, PodLocal counts in the pod; and what was counted before is there again."""
    reached.at(0)
    settings = rate(reached)
    settings["kv"]["valkey"]["timeout"] = "1s"
    async with contextlib.AsyncExitStack() as stack:
        pods = {}
        for policy in ("Closed", "Open", "PodLocal"):
            changed = settings | {"failurePolicy": {"store": policy}}
            pods[policy] = await stack.enter_async_context(examples.running("tenant-rate", changed))
        redis.kill()
        try:
            closed = await pods["Closed"].call("pre_query", query("acme"))
            assert (closed["action"], closed["failure"]) == ("block", "store")
            assert (await pods["Open"].call("pre_query", query("acme")))["action"] == "continue"
            local = [(await pods["PodLocal"].call("pre_query", query("acme")))["action"] for _ in range(120)]
            assert local == ["continue"] * 100 + ["block"] * 20
        finally:
            await asyncio.to_thread(redis.start)

        async def counted():
            return "failure" not in await pods["Closed"].call("pre_query", query("acme"))

        await until_true(counted, "a server that is found again")
