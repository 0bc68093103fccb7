"""A sidecar with policies of its own, an operator that sends what it likes, and what real cosign has signed.

``material/make.py`` made the files.
"""

from __future__ import annotations

import hashlib
import json

import pytest

from hookline_api.bundle import EvidenceFile
from operator_reports import states
from trust_policies import MATERIAL, Policies


@pytest.fixture
def policies(tmp_path):
    """The sidecar's own."""
    return Policies(tmp_path / "policies")


@pytest.fixture
def sidecar(new_sidecar, operator, policies):
    """A sidecar of that operator and with those policies, not started yet."""
    made = new_sidecar(
        plugins=None,
        operator=operator.url,
        operator_ca=operator.ca,
        operator_token=operator.token,
        trust_policy=policies.path,
    )
    yield made
    made.end()


@pytest.fixture
def signed(operator):
    """An entry of a module of ``material``, with its evidence; as an operator sends it that does not lie."""

    def make(artifact="signed", *, evidence=None, name="p", reference=None, **settings):
        module = (MATERIAL / f"{artifact}.module").read_bytes()
        entry = operator.entry(name, module, **settings)
        document = (MATERIAL / f"{evidence or artifact}.evidence").read_bytes()
        sha256 = hashlib.sha256(document).hexdigest()
        operator.blobs[sha256] = document
        found = entry.artifact.model_copy(
            update={
                "digest": json.loads(document)["digest"],
                "evidence": EvidenceFile(sha256=sha256, size=len(document)),
                "reference": reference or f"r.test/acme/{artifact}:1",
            }
        )
        if artifact == "packed":
            layer = (MATERIAL / "packed.tar.gz").read_bytes()
            operator.blobs[hashlib.sha256(layer).hexdigest()] = layer
        return entry.model_copy(update={"artifact": found})

    return make


@pytest.fixture
def told(operator, eventually):
    """Waits until a plugin is in a state, and its failure says some words; the failure's message."""

    def wait(state, words="", name="p"):
        def there():
            plugin = next((each for each in operator.last.plugins if each.name == name), None)
            if plugin is None or states(operator.last)[name] != state:
                return None
            message = plugin.failure.message if plugin.failure else ""
            return (message or "fine") if words in message else None

        return eventually(there, lambda: f"{name} {state} '{words}'; the last report was {operator.last}")

    return wait


@pytest.fixture
def reported(operator, eventually):
    """Waits until the last report has these facts; the report."""

    def wait(**facts):
        def there():
            last = operator.last
            return last if all(getattr(last, name) == value for name, value in facts.items()) else None

        return eventually(there, lambda: f"a report with {facts}; the last was {operator.last}")

    return wait
