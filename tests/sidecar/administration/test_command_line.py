"""The command line: it teaches, and what cannot be is said in one sentence, with exit code 2."""

from __future__ import annotations

import grp
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hookline_runtime.guest import accelerator
from hookline_sidecar import cli
from waiting import PATIENCE_S

HOOKLINE = [sys.executable, "-m", "hookline_sidecar"]


def run(*arguments, **environment):
    """Run to the end; exit code and what was said."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("HOOKLINE_", "XDG_"))}
    done = subprocess.run(
        [*HOOKLINE, *map(str, arguments)],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def refuses(words, *arguments, **environment):
    """Exit code 2, and a sentence with these words."""
    code, said = run(*arguments, **environment)
    assert code == 2, said
    assert words in said


def test_help_teaches():
    """Options with units and defaults, their variables, an example to copy, and the signals."""
    code, said = run("--help")
    assert code == 0
    for word in ("--plugins", "--operator-token", "127.0.0.1:9901", "HOOKLINE_MAX_BODY", "curl", "SIGHUP", "16Mi"):
        assert word in said


def test_help_needs_no_home(monkeypatch, capsys):
    """A container's user often has neither a home nor a name."""

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(SystemExit) as caught:
        cli.run(["--help"], {})
    assert caught.value.code == 0
    assert "/var/lib/hookline" in capsys.readouterr().out


def test_the_version_is_told():
    """For bug reports."""
    assert run("--version")[1].startswith("hookline-sidecar ")


def test_a_source_is_required():
    """There is no folder to guess, and no operator; nor can it be both."""
    refuses("give either --plugins")
    refuses("give either --plugins", "--plugins", "/nowhere", "--operator", "https://o", "--operator-token", "/t")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--operator", "https://o.test"], "--operator needs --operator-token"),
        (["--plugins", "/nowhere", "--operator-token", "/t"], "need --operator"),
        (["--plugins", "/nowhere", "--operator-ca", "/c"], "need --operator"),
        *(
            (["--operator", url, "--operator-token", "/t"], "must be https://HOST[:PORT]")
            for url in ("http://o.test", "o.test", "https://", "https://o.test/x", "https://u:hidden@o.test",
                        "https://o.test?x", "https://o.test:0", "https://o.test:port", "https://[::1", "https://o t")
        ),
    ],
    ids=str,
)  # fmt: skip
def test_an_operator_that_cannot_be_is_refused(capsys, arguments, words):
    """The token goes over TLS only, and to one place; what is refused is not repeated, it may hold a password."""
    with pytest.raises(SystemExit) as caught:
        cli.run([*arguments, "--state", "/nowhere"], {})
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert words in said
    assert "hidden" not in said


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("listen", "9901", "HOST:PORT"),
        ("listen", "127.0.0.1:http", "HOST:PORT"),
        ("listen", "127.0.0.1:99999", "HOST:PORT"),
        ("listen", "off", "nobody could ask"),
        ("health", "9902", "HOST:PORT"),
        ("workers", "0", "between 1 and 64"),
        ("workers", "many", "between 1 and 64"),
        ("max-body", "huge", "16Mi"),
        ("max-body", "0", "more than zero"),
        ("body-timeout", "soon", "50ms"),
        ("body-timeout", "0s", "more than zero"),
        ("drain", "5", "50ms"),
        ("cache-memory", "3Mi", "less than 4Mi"),
        ("cache-memory", "large", "16Mi"),
        ("socket-mode", "rw", "0660"),
        ("socket-group", "nobody-has-this", "is not the name of a group here"),
        ("socket-group", "4294967295", "or give a number"),
        ("socket-group", "-1", "or give a number"),
        ("log-level", "loud", "debug"),
        ("log-format", "xml", "json"),
    ],
)
def test_a_value_that_cannot_be_is_refused(capsys, option, value, words):
    """On the command line and in the environment, with the same words."""
    variable = f"HOOKLINE_{option.upper().replace('-', '_')}"
    for arguments, environment in (([f"--{option}", value], {}), ([], {variable: value})):
        with pytest.raises(SystemExit) as caught:
            cli.run(["--plugins", "/nowhere", "--state", "/nowhere", *arguments], environment)
        assert caught.value.code == 2
        assert words in capsys.readouterr().err


def test_a_plugin_folder_that_is_not_there_is_refused(tmp_path):
    """Unless there is a last good bundle, see test_restarts."""
    refuses("is not a folder", "--plugins", tmp_path / "nowhere", "--state", tmp_path / "state")


def test_a_state_folder_that_cannot_be_made_is_refused(tmp_path):
    """The path is named."""
    (tmp_path / "file").write_text("")
    refuses(str(tmp_path / "file"), "--plugins", tmp_path, "--state", tmp_path / "file" / "state")
    refuses("shorten --state", "--plugins", tmp_path, "--state", tmp_path / ("x" * 120))


def test_the_environment_is_as_good_as_the_command_line(sidecar, guests, eventually):
    """Every option, and none on the command line; an empty variable counts as not set."""
    sidecar.folder.plugin("p", guests.saying(1))
    environment = {
        "HOOKLINE_PLUGINS": str(sidecar.folder.path),
        "HOOKLINE_STATE": str(sidecar.state),
        "HOOKLINE_LISTEN": f"127.0.0.1:{sidecar.port}",
        "HOOKLINE_ADMIN": f"127.0.0.1:{sidecar.admin_port}",
        "HOOKLINE_SOCKET": str(sidecar.socket),
        "HOOKLINE_SOCKET_MODE": "0606",
        "HOOKLINE_SOCKET_GROUP": grp.getgrgid(os.getegid()).gr_name,
        "HOOKLINE_WORKERS": "2",
        "HOOKLINE_LOG_FORMAT": "json",
        "HOOKLINE_MAX_BODY": "",
    }
    nothing = dict.fromkeys(("plugins", "state", "listen", "socket", "admin"))
    sidecar.start(environment=environment, **nothing)
    assert sidecar.get("/v1/plugins")[1]["workers"]["wanted"] == 2
    assert sidecar.get("/v1/plugins")[1]["workers"]["accelerator"] == (accelerator.unused or "used")
    assert stat.S_IMODE(sidecar.socket.stat().st_mode) == 0o606
    assert sidecar.socket.stat().st_gid == os.getegid()
    eventually(lambda: sidecar.log.startswith('{"time": '), "a line of JSON in the log")


def test_a_port_in_use_is_refused(tmp_path):
    """The flag and the address are named."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        given = ["--plugins", tmp_path, "--state", tmp_path / "s"]
        refuses(f"--listen {address}: Address already in use", *given, "--listen", address)
        refuses(f"--admin {address}: Address already in use", *given, "--admin", address)


def test_two_sidecars_on_one_state_folder_are_refused(sidecar, ports):
    """The second one says who has it."""
    sidecar.start()
    listen, admin = ports(2)
    refuses(
        f"is in use by process {sidecar.process.pid}",
        "--plugins", sidecar.folder.path, "--state", sidecar.state,
        "--listen", f"127.0.0.1:{listen}", "--admin", f"127.0.0.1:{admin}",
    )  # fmt: skip
    assert sidecar.get("/readyz")[0] == 200


async def test_a_stale_socket_is_replaced(sidecar, guests):
    """After a crash its file is still there."""
    sidecar.folder.plugin("p", guests.saying("alive"))
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(sidecar.socket))
    sidecar.start()
    assert (await sidecar.ask(unix=True))["value"] == "alive"
    assert stat.S_IMODE(sidecar.socket.stat().st_mode) == 0o660
    assert sidecar.stop() == 0
    assert not sidecar.socket.exists()


def test_a_socket_in_use_is_left_alone(tmp_path, ports):
    """Somebody answers there."""
    path, (listen, admin) = tmp_path / "s.sock", ports(2)
    given = ["--plugins", tmp_path, "--state", tmp_path / "s", "--listen", f"127.0.0.1:{listen}"]
    given += ["--admin", f"127.0.0.1:{admin}", "--socket"]
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(path))
        live.listen()
        refuses(f"--socket {path}: Address already in use", *given, path)
        assert path.is_socket()
    file = tmp_path / "file"
    file.write_text("precious")
    refuses("something else", *given, file)
    assert file.read_text() == "precious"
    refuses("--socket", *given, tmp_path / ("x" * 120))
    refuses("No such file or directory; its folder has to be there", *given, tmp_path / "nowhere" / "s.sock")
    refuses("Not a directory; its folder has to be there", *given, file / "s.sock")


def test_a_state_that_is_no_folder_is_said_to_be_none(tmp_path):
    """By the option's name, with what would do."""
    file = tmp_path / "file"
    file.write_text("precious")
    for state, why in ((file, "File exists"), (file / "s", "Not a directory"), (Path("/proc/s"), "No such file")):
        refuses(f"--state {state}: {why}", "--plugins", tmp_path, "--state", state)
    refuses("a folder that the sidecar's user may make and write to", "--plugins", tmp_path, "--state", file)
    assert file.read_text() == "precious"


def test_a_state_folder_that_is_there_keeps_its_mode(sidecar, eventually):
    """It may be a volume's root that is not ours, or /tmp; what is secret in it has modes of its own."""
    sidecar.state.mkdir()
    sidecar.state.chmod(0o777)
    sidecar.start()
    assert stat.S_IMODE(sidecar.state.stat().st_mode) == 0o777
    eventually((sidecar.state / "bundle.json").exists, "a bundle that is kept")  # it runs before it is on disk
    for name, mode in {"bundle.json": 0o600, "control.sock": 0o600, "compiled": 0o700, "kv": 0o700}.items():
        assert stat.S_IMODE((sidecar.state / name).stat().st_mode) == mode, name


def test_nothing_that_is_logged_looks_like_another_record():
    """Not a sentence with line ends of any kind, not a stack trace with one in its error; and no line is endless."""
    program = """if True:
        import logging
        from hookline_api.commands import log_to_stderr
        log_to_stderr("info", as_json=False)
        log = logging.getLogger("hookline.test")
        forged = "2026-01-01T00:00:00.000Z INFO    hookline.forged[1]: all is well"
        log.info("%s", "a\\n" + forged + "\\u2028" + forged + "\\u202e\\x1b[31m")
        try:
            raise ValueError("a\\n" + forged + "\\r" + forged)
        except ValueError:
            log.exception("it failed")
        log.info("%s", "x" * 100_000)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = done.stderr.split("\n")
    records = [line for line in lines if line and not line.startswith("  ")]
    assert len(records) == 3
    assert all(" hookline.test[" in line for line in records)
    assert "\u2028" not in done.stderr
    assert "\u202e" not in done.stderr
    assert "\x1b" not in done.stderr
    assert max(map(len, lines)) < 8_400


def test_answers_to_a_client_that_is_gone_are_no_lines():
    """Anybody could fill the log: who sends many requests at once and leaves has an answer to each of them written."""
    program = """if True:
        import asyncio, logging, socket
        from hookline_api.commands import log_to_stderr
        log_to_stderr("info", as_json=False)
        async def main():
            ours, theirs = socket.socketpair()
            _, writer = await asyncio.open_connection(sock=ours)
            theirs.close()
            for _ in range(1000):
                writer.write(b"an answer")
            asyncio.get_running_loop().call_exception_handler({"message": "what failed is told"})
        asyncio.run(main())
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert [line.rpartition(": ")[2] for line in done.stderr.splitlines()] == ["what failed is told"]


def test_no_process_leaves_a_core_file():
    """Its memory has the values of Secrets."""
    program = """if True:
        import resource
        from hookline_api.commands import keep_secrets
        keep_secrets()
        print(resource.getrlimit(resource.RLIMIT_CORE))
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(0, 0)"
