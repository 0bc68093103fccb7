"""What a registry that misbehaves has to offer."""

from __future__ import annotations

import pytest


@pytest.fixture
def artifact(server, oci):
    """A module behind ``plugin:v1`` on the server, and the paths of its parts."""
    module = oci.module("plugin", 200_000)
    digest = server.put("plugin:v1", oci.manifest(module), module)

    class Parts:
        bytes = module
        source = server.source("plugin:v1")
        blob = f"/v2/plugin/blobs/{oci.sha256(module)}"
        manifest = f"/v2/plugin/manifests/{digest}"
        tag = "/v2/plugin/manifests/v1"

    Parts.digest = digest
    return Parts
