"""Names in a command line are names, and never options of kubectl."""

from __future__ import annotations

import pytest

from hookline_artifacts.errors import ConfigError
from hookline_cli.inquiry.kubectl import Kubectl


@pytest.mark.parametrize("name", ["--raw=/api/v1/secrets", "-A", "", "secrets/db"])
def test_a_name_that_kubectl_would_take_for_something_else_is_refused(name) -> None:
    """Before kubectl is run: a script may pass on what somebody else chose."""
    kubectl = Kubectl(program="/not/there", flags=[])
    with pytest.raises(ConfigError, match="cannot be a name"):
        kubectl.named("wasmplugins", name)
    with pytest.raises(ConfigError, match="cannot be a name"):
        kubectl.inside(name, "hookline-sidecar", "get", "/v1/plugins")
