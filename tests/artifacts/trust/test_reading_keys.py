"""The keys of a requirement, read for whoever asks for signatures."""

from __future__ import annotations

import threading

import pytest

from hookline_api.trust import Signatures
from hookline_artifacts.trust import requirement
from signed_plugins import Signer, objects
from signing import SigningKey


@pytest.mark.parametrize("kind", ["key", "ed25519"])
async def test_keys_are_not_read_on_the_event_loop(monkeypatch, kind):
    """A resource may name ten thousand: other plugins have theirs meanwhile."""
    threads = []
    for name in ("read_pem", "read_raw"):
        read = getattr(requirement, name)

        def noted(*args, read=read, **more):
            threads.append(threading.current_thread())
            return read(*args, **more)

        monkeypatch.setattr(requirement, name, noted)
    inline = {"pem": SigningKey().pem} if kind == "key" else {"key": Signer().public}
    text = inline.get("pem") or inline["key"]
    kept = {f"{number}.pub": text.encode() for number in range(3)}
    asked = Signatures.model_validate({"anyOf": [{kind: inline}, {kind: {"from": {"secret": {"name": "keys"}}}}]})
    made = await requirement.load(
        asked, objects=objects(secrets={"keys": kept}), namespace=None, base=None, where="spec.verify"
    )
    assert [len(each.keys) for each in made.any_of] == [1, 3]
    assert len(threads) == 4
    assert threading.main_thread() not in threads
