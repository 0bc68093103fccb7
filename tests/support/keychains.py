"""A keychain over pull secrets and a docker configuration, and what it finds."""

from __future__ import annotations

import base64
import json

from hookline_artifacts.login.credentials import Credentials
from hookline_artifacts.login.keychain import Keychain
from hookline_artifacts.reference import parse

REFERENCE = parse("registry.test:5000/team/guard:v1")


def auth(user, password="pw"):
    """An entry of ``auths``."""
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def keychain(*documents, config=None, tmp_path, **more):
    """A keychain with pull secrets and, perhaps, a docker configuration."""
    path = tmp_path / "config.json"
    if config is not None:
        path.write_text(json.dumps(config))
    return Keychain(documents=documents, docker_config=path, **more)


async def users(found):
    """The user names of all candidates."""
    return [each.username async for each in found if isinstance(each, Credentials)]


async def only(found):
    """The one thing that is found."""
    (each,) = [each async for each in found]
    return each


def packed(text):
    """Base64 of text or bytes."""
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()
