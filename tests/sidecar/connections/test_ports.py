"""What strangers are told by a sidecar's ports: health and metrics, and not a word of what plugins say."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys

import pytest

from hookline_sidecar import cli, parent
from local_ports import reserve_port
from waiting import PATIENCE_S, until

_SECRET = "card_4111"


def get(port, path, **headers):
    """Status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def talkative(guests):
    """A plugin that makes a metric's name of something that it knows."""
    return guests.module(
        {"custom_hook": f"(drop (call $inc (i32.const 1024) (i32.const {len(_SECRET)}) (f64.const 1))) (i64.const 0)"},
        imports='(import "hookline" "metric_inc" (func $inc (param i32 i32 f64) (result i32)))',
        data={1024: _SECRET.encode()},
    )


@pytest.fixture(scope="module")
def sidecar(new_sidecar, guests, tmp_path_factory):
    """One whose admin port others can reach; a plugin that talks, and one that cannot be loaded."""
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text("open sesame")
    sidecar = new_sidecar(health=f"127.0.0.1:{reserve_port()}", admin_token=token)
    sidecar.options["admin"] = f"0.0.0.0:{sidecar.admin_port}"
    sidecar.folder.plugin("talks", talkative(guests), permissions=["metrics"])
    sidecar.folder.plugin(
        "broken", b"SECRET BYTES", hooks=["pre_query"], failurePolicy={"fetch": "Closed", "verify": "Closed"}
    )
    sidecar.start(wait=False)
    until(
        lambda: re.search(r"bundle \w+ runs: .*\btalks\b", sidecar.log), lambda: f"the plugin; it said:\n{sidecar.log}"
    )
    return sidecar


def ports(sidecar):
    """Both, as strangers see them."""
    return int(sidecar.options["health"].rpartition(":")[2]), sidecar.admin_port


async def test_strangers_see_health_and_metrics_without_a_word_of_plugins(sidecar, eventually):
    """On the port for it, and on an admin port that others can reach: an old command line shows no more."""
    eventually(lambda: sidecar.looks("/readyz") and "broken" in str(sidecar.looks("/readyz")), "the broken plugin")
    await sidecar.ask("custom_hook", 1)
    health, admin = ports(sidecar)

    def kept():
        return _SECRET in get(admin, "/metrics")[1]

    for port in (health, admin):
        assert get(port, "/healthz") == (200, '{"status":"ok"}')
        status, body = get(port, "/readyz")
        assert status == 503
        assert "plugin 'broken' fails closed: cause verify" in json.loads(body)["reasons"]
        status, text = get(port, "/metrics")
        assert (status, "hookline_ready" in text, "hookline_guest" in text) == (200, True, False)
    assert not kept()
    assert get(health, "/v1/plugins")[0] == get(health, "/admin/kv")[0] == 404


async def test_the_rest_is_for_who_has_the_token(sidecar, eventually):
    """On an admin port that others can reach."""
    _, admin = ports(sidecar)
    eventually(lambda: sidecar.looks("/healthz"), "a sidecar")
    for path in (
        "/v1/plugins",
        "/v1/bundle",
        "/v1/modules/p",
        "/openapi.json",
        "/nothing",
        "/%761/plugins",
        "//v1/plugins",
    ):
        assert get(admin, path)[0] == 401, path
    assert get(admin, "/v1/plugins", Authorization="Bearer open sesame")[0] == 200


async def test_who_has_the_token_scrapes_what_plugins_count_too(sidecar, eventually):
    """Prometheus gets the metrics that plugins keep from a port that others reach, and with another token all else."""
    _, admin = ports(sidecar)
    eventually(lambda: sidecar.looks("/healthz"), "a sidecar")
    await sidecar.ask("custom_hook", 1)

    def scraped(token):
        status, text = get(admin, "/metrics", Authorization=f"Bearer {token}")
        assert status == 200
        return _SECRET in text

    eventually(lambda: scraped("open sesame"), "the plugin's metric")
    assert not scraped("open, sesame")
    assert "talks" not in get(admin, "/readyz")[1]
    assert "cause verify" not in get(admin, "/readyz", Authorization="Bearer open sesame")[1]


async def test_the_socket_has_all_of_it(sidecar, eventually):
    """Asked by the command that is there for it, with the metrics that plugins keep."""
    eventually(lambda: sidecar.looks("/healthz"), "a sidecar")

    def told(path):
        command = [sys.executable, "-m", "hookline_sidecar", "get", path, "--state", str(sidecar.state)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = told("/v1/plugins")
    assert {each["name"] for each in json.loads(done.stdout)["plugins"]} == {"talks", "broken"}
    assert told("/nothing").returncode == 3
    await sidecar.ask("custom_hook", 1)
    eventually(lambda: _SECRET in told("/metrics").stdout, "the plugin's metric")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--health=0.0.0.0:9902", "--admin=127.0.0.1:9902"], "--admin and --health have the same port, 9902"),
        (["--health=127.0.0.1:9902", "--admin=[::]:9902"], "--admin and --health have the same port, 9902"),
        (["--listen=127.0.0.1:9902", "--admin=127.0.0.1:9902"], "--admin and --listen have the same port, 9902"),
    ],
)
def test_two_doors_at_one_port_are_refused_by_their_names(arguments, said, tmp_path, capsys):
    """Nothing else listens there: the one who wrote the command line hears of both."""
    with pytest.raises(SystemExit) as ended:
        cli.run(["--plugins", str(tmp_path), "--state", str(tmp_path / "state"), *arguments], {})
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert said in told
    assert "--admin off" in told


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        ([], {}, ("127.0.0.1", 9902)),
        (["--health=0.0.0.0:9902"], {}, None),
        ([], {"HOOKLINE_HEALTH": "0.0.0.0:9902"}, None),
        (["--health=0.0.0.0:9903"], {}, ("127.0.0.1", 9902)),
        (["--admin=off"], {}, None),
        (["--health=0.0.0.0:9902", "--admin=127.0.0.1:9903"], {}, ("127.0.0.1", 9903)),
    ],
)
def test_the_admin_port_gives_way_to_that_of_health(arguments, environment, expected, tmp_path, monkeypatch):
    """Whoever asks for health on port 9902 need not know that something else is there by default."""
    taken = []
    monkeypatch.setattr(parent, "run", lambda settings, _: taken.append(settings.admin) or 0)
    everything = ["--plugins", str(tmp_path), "--state", str(tmp_path / "state"), *arguments]
    assert cli.run(everything, environment) == 0
    assert taken == [expected]
