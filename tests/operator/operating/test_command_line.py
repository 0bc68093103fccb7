"""``hookline-operator``: what it takes, and what it says to what it cannot take."""

from __future__ import annotations

import pytest

from hookline_operator.cli import run

NEEDED = ["--own-namespace=x", "--kubeconfig=/nowhere/kubeconfig"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--listen=here"], "not a HOST:PORT"),
        (["--own-namespace=x", "--sidecar-memory-limit=much"], "the settings of injected sidecars are wrong"),
        (["--own-namespace=x", "--sidecar-log-level=loud"], "the settings of injected sidecars are wrong"),
        (["--log-level=loud"], "not one of debug, info"),
        (["--own-namespace=x", "--mirrors=/nowhere/mirrors.yaml"], "/nowhere/mirrors.yaml cannot be read"),
        ([], "--own-namespace is needed outside of a pod"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_a_sentence(capsys, arguments, words):
    """With the exit code for that."""
    with pytest.raises(SystemExit) as caught:
        run(arguments, {})
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_a_proxy_that_is_none_is_told_without_its_password(capsys):
    """Before anything starts."""
    with pytest.raises(SystemExit) as caught:
        run(["--own-namespace=x"], {"HTTPS_PROXY": "socks5://user:hush@proxy:1"})
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert "HTTPS_PROXY is not the URL of a proxy" in told
    assert "hush" not in told


def test_without_a_way_to_the_api_server_it_says_so(capsys, tmp_path):
    """And what would be one."""
    with pytest.raises(SystemExit) as caught:
        run([*NEEDED, f"--cache={tmp_path}"], {})
    assert caught.value.code == 1
    assert "--kubeconfig" in capsys.readouterr().err


def test_the_environment_stands_in_for_options(capsys):
    """A variable that is empty counts as not set."""
    with pytest.raises(SystemExit):
        run(["--own-namespace=x"], {"HOOKLINE_LISTEN": "there", "HOOKLINE_HEALTH": ""})
    assert "'there' is not a HOST:PORT" in capsys.readouterr().err
