"""Docker's credential helpers: programs that keep passwords, and are asked for those of one registry.

Protocol: https://docs.docker.com/reference/cli/docker/login/#credential-helper-protocol .
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from typing import Final

from hookline_artifacts.limits import parse_foreign
from hookline_artifacts.login.credentials import Credentials, Gap

_MAX_ANSWER: Final = 1 << 16
_GRACE: Final = 5.0
"""Seconds for what was killed to be gone."""
_HELPER: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_IDENTITY: Final = "<token>"  # a helper's user name where the secret is an identity token
# https://github.com/docker/docker-credential-helpers, credentials/error.go: no failure, just nothing there
_NOT_FOUND: Final = b"credentials not found in native keychain"


async def ask_helper(name: object, server: str, seconds: float) -> list[Credentials | Gap]:
    """Ask ``docker-credential-<name> get`` for the credentials of a server, for so many seconds."""
    if not isinstance(name, str) or not _HELPER.fullmatch(name):
        shown = f"{name!r:.80}" if isinstance(name, str) else "what is named"
        return [Gap(why=f"{shown} in the docker configuration is not the name of a credential helper")]
    program = f"docker-credential-{name}"
    try:
        code, output = await _run(program, server, seconds)
    except TimeoutError:
        return [Gap(why=f"{program} did not answer within {seconds:g} s", transient=True)]
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        return [
            Gap(
                why=f"the docker configuration asks for {program}, which cannot be run ({why}); "
                "install it or take it out"
            )
        ]
    if code and _NOT_FOUND in output:
        return []
    # Its own words may hold a secret, and are not repeated.
    by_hand = f"see what `echo {server} | {program} get` says"
    if code:
        return [Gap(why=f"{program} failed with {code}; {by_hand}")]
    try:
        answer = parse_foreign(output)
    except ValueError:
        answer = None
    username, secret = (answer.get("Username"), answer.get("Secret")) if isinstance(answer, dict) else (None, None)
    if not isinstance(username, str) or not isinstance(secret, str):
        return [Gap(why=f"{program} gave something else than a Username and a Secret; {by_hand}")]
    if not secret:
        return []
    return [
        Credentials(identity_token=secret, source=program)
        if username == _IDENTITY
        else Credentials(username=username, password=secret, source=program)
    ]


async def _run(program: str, server: str, seconds: float) -> tuple[int, bytes]:
    """How a helper ended, and the beginning of its output. Raises OSError and TimeoutError."""
    process = await asyncio.create_subprocess_exec(
        program,
        "get",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdin is not None  # noqa: S101 - both are pipes
    assert process.stdout is not None  # noqa: S101
    output, ended = b"", False
    try:
        async with asyncio.timeout(seconds):
            with contextlib.suppress(ConnectionError):  # it does not want to know
                process.stdin.write(server.encode())
                await process.stdin.drain()
            process.stdin.close()
            while len(output) < _MAX_ANSWER and (chunk := await process.stdout.read(_MAX_ANSWER)):
                output += chunk
            if len(output) < _MAX_ANSWER:
                await process.wait()
                ended = True
    finally:
        if not ended:
            await _kill(process, process.stdout)
    return (process.returncode or 0) if ended else 0, output


async def _kill(process: asyncio.subprocess.Process, output: asyncio.StreamReader) -> None:
    """End it with what it has started, and wait for a moment until it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # the group: what it has started holds the pipe as well
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GRACE):
            while await output.read(_MAX_ANSWER):
                pass
            await process.wait()
