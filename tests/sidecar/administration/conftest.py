"""A sidecar whose keys an administrator may change."""

from __future__ import annotations

import pytest

from admin_kv import PERMISSIONS, TOKEN, Admin


@pytest.fixture(scope="module")
def running(new_sidecar, guests, tmp_path_factory):
    """A sidecar of two workers with a token, and a plugin ``p`` that answers its key ``k``."""
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text(TOKEN + "\n")
    sidecar = new_sidecar(workers=2, admin_token=token, body_timeout="60s")
    sidecar.token = token
    sidecar.folder.plugin("p", guests.stored(), permissions=PERMISSIONS)
    sidecar.folder.plugin("counter", guests.counter(), permissions=PERMISSIONS, hooks=["custom_hook"], priority=-1)
    return sidecar.start()


@pytest.fixture
def admin(running):
    """Requests to it; each test begins with a namespace that is empty."""
    made = Admin(running)
    while keys := made("GET", "/admin/kv/p")[2]["entries"]:
        for each in keys:
            assert made("DELETE", each["path"])[0] == 200
    return made
