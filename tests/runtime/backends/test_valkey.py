"""The client of Valkey and Redis, on a real server: who gets which answer, logins, certificates, how it comes back."""

from __future__ import annotations

import asyncio

import pytest

from hookline_api.outbound import ValkeyServer
from hookline_artifacts.errors import ConfigError
from hookline_runtime.host.backends import valkey as valkey_module
from hookline_runtime.host.backends.valkey import Script, Valkey, ValkeyAwayError, ValkeyError, ValkeyReplyError
from own_authorities import new_authority
from valkey import redis_server
from waiting import until_true


async def test_each_of_a_thousand_commands_at_once_gets_its_own_answer(client, redis):
    """On one connection, in whatever order they are waited for."""
    asked = client(redis.settings())
    answers = await asyncio.gather(*(asked.command(b"ECHO", b"%d" % number) for number in range(1000)))
    assert answers == [b"%d" % number for number in range(1000)]
    assert redis.ask("CLIENT", "LIST").count(b"\n") == 2


async def test_answers_of_all_kinds_are_read(client, redis):
    """Numbers, nothing, text of any bytes, lists, and an error with its code."""
    asked = client(redis.settings())
    value = bytes(range(256)) * 256
    assert await asked.command(b"SET", b"kinds", value) == b"OK"
    assert await asked.command(b"GET", b"kinds") == value
    assert await asked.command(b"GET", b"none") is None
    assert await asked.command(b"STRLEN", b"kinds") == len(value)
    assert await asked.command(b"MGET", b"none", b"kinds") == [None, value]
    with pytest.raises(ValkeyReplyError) as refused:
        await asked.command(b"HGET", b"kinds", b"f")
    assert refused.value.code == "WRONGTYPE"


async def test_a_script_is_sent_once_and_again_where_the_server_has_lost_it(client, redis):
    """By its digest; `SCRIPT FLUSH` is what a restart does."""
    asked = client(redis.settings())
    script = Script("return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}")
    assert await asked.script(script, [b"runs"], [b"a"]) == [b"runs", b"a", 1]
    assert await asked.script(script, [b"runs"], [b"a"]) == [b"runs", b"a", 2]
    await asked.command(b"SCRIPT", b"FLUSH")
    assert await asked.script(script, [b"runs"], [b"a"]) == [b"runs", b"a", 3]


async def test_who_stops_waiting_does_not_shift_the_answers_of_others(client, redis):
    """Every second one is cancelled while its command is on its way."""
    asked = client(redis.settings())
    await asked.command(b"PING")
    tasks = [asyncio.ensure_future(asked.command(b"ECHO", b"%d" % number)) for number in range(100)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in answers[::2])
    assert answers[1::2] == [b"%d" % number for number in range(1, 100, 2)]
    assert await asked.command(b"ECHO", b"after") == b"after"
    assert asked._connection._bytes == 0


async def test_a_command_that_takes_too_long_ends_the_connection_and_the_next_has_a_new_one(client, redis):
    """Its late answer is nobody's; those behind it fail as well, and say that they may have been done."""
    unavailable: dict[str, str] = {}
    asked = client(redis.settings(timeout="50ms"), unavailable=unavailable)
    await until_true(lambda: _echoes(asked), "a connection")
    slow = asyncio.ensure_future(asked.command(b"BLPOP", b"never", b"0"))
    behind = asyncio.ensure_future(asked.command(b"ECHO", b"behind"))
    for each in (slow, behind):
        with pytest.raises(ValkeyAwayError, match="does not answer within") as failed:
            await each
        assert not failed.value.not_sent
    await until_true(lambda: "does not answer" in unavailable.get("keys", ""), "that it is away")
    await until_true(lambda: _echoes(asked), "an answer again")
    assert unavailable == {}


async def _echoes(asked: Valkey) -> bool:
    try:
        return await asked.command(b"ECHO", b"x") == b"x"
    except ValkeyAwayError:
        return False


async def test_a_server_that_is_not_there_costs_one_call_its_time_and_no_other(client, redis_program, tmp_path):
    """It is said once, calls fail at once, and it comes back by itself."""
    unavailable: dict[str, str] = {}
    with redis_server(redis_program, tmp_path) as server:
        server.kill()
        asked = client(server.settings(), unavailable=unavailable)
        with pytest.raises(ValkeyAwayError, match="cannot be reached: Connection refused"):
            await asked.command(b"PING")
        assert unavailable == {"keys": f"the server at 127.0.0.1:{server.port} cannot be reached: Connection refused"}
        for _ in range(100):
            with pytest.raises(ValkeyAwayError) as failed:
                asked.command(b"PING").send(None)  # ends before it waits
            assert failed.value.not_sent
        server.start()
        await until_true(lambda: not unavailable, "nobody had to ask for it to come back")
        assert await asked.command(b"ECHO", b"x") == b"x"


async def test_a_restart_in_the_middle_of_a_pipeline_fails_what_waits_and_mixes_nothing(
    client, redis_program, tmp_path
):
    """Whoever got an answer got their own, and what was counted is what was acknowledged, or more."""
    with redis_server(redis_program, tmp_path, durable=True) as server:
        asked = client(server.settings())
        await asked.command(b"PING")
        acknowledged = 0

        async def count() -> None:
            nonlocal acknowledged
            while server.process is not None or acknowledged < 2000:
                try:
                    await asked.command(b"INCR", b"n")
                    acknowledged += 1
                except ValkeyAwayError:
                    await asyncio.sleep(0.001)

        counting = [asyncio.ensure_future(count()) for _ in range(16)]
        await until_true(lambda: acknowledged > 1000, "some counts")
        server.kill()
        before = acknowledged
        await asyncio.to_thread(server.start)
        await until_true(lambda: acknowledged > before + 1000, "counts after the restart")
        for each in counting:
            each.cancel()
        await asyncio.gather(*counting, return_exceptions=True)
        counted = int(await asked.command(b"GET", b"n"))
        assert acknowledged <= counted <= acknowledged + 2 * len(counting)


async def test_a_server_that_closes_what_is_idle_is_asked_again_without_a_word(client, redis):
    """No call fails for it."""
    unavailable: dict[str, str] = {}
    asked = client(redis.settings(), unavailable=unavailable)
    assert await asked.command(b"ECHO", b"x") == b"x"
    first = asked._connection
    redis.ask("CLIENT", "KILL", "TYPE", "normal")
    await until_true(lambda: first.ended, "the end of the connection")
    assert await asked.command(b"ECHO", b"y") == b"y"
    assert unavailable == {}


@pytest.mark.parametrize(
    ("url", "credentials"),
    [
        ("redis://:word@{}/3", {}),
        ("redis://a%3Ab:w%40rd@{}/3", {}),
        ("redis://{}/3", {"password": "word\n"}),
        ("valkey://{}/3", {"password": "w@rd", "username": "a:b"}),
        ("redis://:wrong@{}/3", {"password": "word"}),
    ],
)
async def test_a_login_is_in_the_url_of_a_secret_or_in_secrets_of_its_own(
    client, redis_program, tmp_path, url, credentials
):
    """With a user and without, percent-encoded in a URL and as it is elsewhere; and a database by its number."""
    options = ("--requirepass", "word", "--user", "a:b", "on", ">w@rd", "~*", "&*", "+@all")
    with redis_server(redis_program, tmp_path, *options) as server:
        secrets = {f"s/{name}": value for name, value in credentials.items()}
        secrets["s/url"] = url.format(f"127.0.0.1:{server.port}")
        named = {f"{name}From": {"name": "s", "key": name} for name in ("url", *credentials)}
        asked = client(ValkeyServer.model_validate({"timeout": "10s", **named}), secrets)
        assert b" db=3 " in await asked.command(b"CLIENT", b"INFO")
        assert (b" user=a:b " in await asked.command(b"CLIENT", b"INFO")) == (
            "a%3A" in url or "username" in credentials
        )


@pytest.mark.parametrize(
    ("password", "word"), [("wrong", "answers WRONGPASS: look at the user"), (None, "answers NOAUTH: look at the user")]
)
async def test_a_wrong_login_is_said_without_a_word_of_it(client, redis_program, tmp_path, password, word):
    """And tried again, as a Secret may be on its way."""
    unavailable: dict[str, str] = {}
    with redis_server(redis_program, tmp_path, "--requirepass", "word") as server:
        reference = {} if password is None else {"passwordFrom": {"name": "s", "key": "p"}}
        asked = client(server.settings(**reference), {"s/p": password}, unavailable=unavailable)
        with pytest.raises(ValkeyAwayError, match=word):
            await asked.command(b"GET", b"k")
        assert "wrong" not in str(unavailable).lower().replace("wrongpass", "")


async def test_tls_checks_the_authority_and_the_name(client, redis_program, tmp_path):
    """Ours by its certificate, and nobody's else: neither of another authority, nor by another name."""
    authority = new_authority()
    certificate, key = authority.issue(tmp_path)
    root = tmp_path / "ca.crt"
    root.write_text(authority.pem)
    secrets = {
        "s/ca": authority.pem,
        "s/other": new_authority().pem,
        "s/c": certificate.read_text(),
        "s/k": key.read_text(),
    }

    def tls(authority_key: str, **more: object) -> dict[str, object]:
        return {"tls": {"caFrom": {"name": "s", "key": authority_key}, **more}}

    with redis_server(
        redis_program, tmp_path / "redis", "--tls-auth-clients", "yes", tls=(certificate, key, root)
    ) as server:
        ours = {f"{each}From": {"name": "s", "key": each[0]} for each in ("certificate", "key")}
        good = client(server.settings(**tls("ca", **ours)), secrets)
        assert await good.command(b"ECHO", b"x") == b"x"
        for fields, sentence in (
            (tls("other", **ours), "certificate of the server at 127.0.0.1:.* is not accepted"),
            (
                tls("ca", **ours) | {"url": f"rediss://localhost:{server.port}"},
                "is not accepted: it is for another name",
            ),
            (ours and tls("ca"), "does not speak TLS as it should|has closed the connection"),
            ({"url": f"redis://127.0.0.1:{server.port}"}, "has closed the connection|cannot be reached"),
        ):
            with pytest.raises(ValkeyAwayError, match=sentence):
                await client(server.settings(**fields), secrets).command(b"PING")


@pytest.mark.parametrize(
    "url",
    [
        "", "redis://", "http://h:1", "redis://h:99999", "redis://h:0", "redis://h/x", "redis://h/-1", "redis://h/1/2",
        "redis://h/1?x=secret", "redis://h#f", "redis://[::1", "redis://h:port", "redis://h/" + "9" * 30,
        "redis://user@h", "redis://h/\u0663", "rediss://" + "h" * 3000,
    ],
)  # fmt: skip
def test_a_url_that_is_none_is_refused_without_quoting_it(url):
    """It may hold a password."""
    server = ValkeyServer.model_validate({"urlFrom": {"name": "s", "key": "url"}})
    with pytest.raises(ConfigError) as refused:
        Valkey(server, {"s/url": url}, {}, "keys")
    assert str(refused.value).startswith("spec.kv.valkey")
    assert "secret" not in str(refused.value)


def test_credentials_that_are_missing_or_no_certificates_are_refused_by_their_field():
    """When the plugin is loaded, and not when the first call comes."""
    reference = {"name": "s", "key": "k"}
    for given, secrets, field in (
        ({"passwordFrom": reference}, {}, "passwordFrom names the key 'k' of Secret 's'"),
        ({"tls": {"caFrom": reference}}, {"s/k": ""}, "tls.caFrom holds no"),
        ({"tls": {"caFrom": reference}}, {"s/k": "rubbish"}, "tls.caFrom holds no"),
        ({"tls": {"certificateFrom": reference, "keyFrom": reference}}, {"s/k": "rubbish"}, "tls.certificateFrom and"),
    ):
        server = ValkeyServer.model_validate({"url": "rediss://h", **given})
        with pytest.raises(ConfigError, match=field):
            Valkey(server, secrets, {}, "keys")


@pytest.mark.parametrize("host", ["169.254.169.254", "[::ffff:169.254.169.254]", "[fd00:ec2::254]"])
async def test_addresses_that_nobody_asks_are_not_asked(client, host):
    """Those of clouds' metadata services, however they are written."""
    with pytest.raises(ValkeyAwayError, match="is not asked"):
        await client(ValkeyServer(url=f"redis://{host}:80", timeout=10_000)).command(b"PING")


async def test_what_waits_is_bounded_in_number_and_in_bytes(client, redis, monkeypatch):
    """Beyond it a command is refused at once, and the others are answered."""
    monkeypatch.setattr(valkey_module, "MAX_WAITING", 10)
    monkeypatch.setattr(valkey_module, "MAX_WAITING_BYTES", 10_000)
    asked = client(redis.settings())
    await asked.command(b"PING")
    answers = await asyncio.gather(*(asked.command(b"ECHO", b"x") for _ in range(15)), return_exceptions=True)
    assert answers[:10] == [b"x"] * 10
    assert all(isinstance(each, ValkeyAwayError) and each.not_sent for each in answers[10:])
    answers = await asyncio.gather(*(asked.command(b"ECHO", bytes(4000)) for _ in range(3)), return_exceptions=True)
    assert answers[:2] == [bytes(4000)] * 2
    assert isinstance(answers[2], ValkeyAwayError)
    with pytest.raises(ValkeyError, match="a command has at most"):
        await asked.command(b"ECHO", bytes(3 * 2**20))
    assert await asked.command(b"ECHO", b"x") == b"x"


async def test_a_client_that_is_closed_leaves_no_task_and_no_connection(redis):
    """Not while it connects, not while commands wait, and twice is once."""
    for turns in range(6):
        asked = Valkey(redis.settings(), {}, {}, "keys")
        waits = [asyncio.ensure_future(asked.command(b"BLPOP", b"never", b"0")) for _ in range(3)]
        for _ in range(turns * 3):
            await asyncio.sleep(0)
        asked.close()
        asked.close()
        assert {type(each) for each in await asyncio.gather(*waits, return_exceptions=True)} == {ValkeyAwayError}
        with pytest.raises(ValkeyAwayError, match="the plugin has ended"):
            await asked.command(b"PING")
    await until_true(lambda: len(asyncio.all_tasks()) == 1, "the end of all tasks")
    await until_true(lambda: b"BLPOP" not in redis.ask("CLIENT", "LIST").upper(), "the end of all connections")
