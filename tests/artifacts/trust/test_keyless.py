"""What cosign signed without a key counts, offline, for whoever is meant, and for nobody else."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import json
import socket
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

import keyless_cases as cases
from hookline_api.trust import Signatures
from hookline_artifacts.errors import ConfigError
from hookline_artifacts.trust import keyless, offline
from hookline_artifacts.trust.requirement import load

SIGNED = ["signed-3-log-1", "signed-3-log-2", "signed-2", "signed-2-stamped"]
SOURCE = cases.ABOUT["source"]


@pytest.fixture(autouse=True)
def _nobody_is_asked(monkeypatch):
    """No address is looked up, and nothing is connected to."""

    def never(*_args, **_more):
        raise AssertionError("somebody was asked")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    monkeypatch.setattr(socket.socket, "connect", never)


@pytest.fixture(autouse=True)
def _nothing_is_kept(monkeypatch):
    """Each test verifies anew."""
    monkeypatch.setattr(keyless, "_outcomes", keyless._Outcomes())


@pytest.mark.parametrize("name", SIGNED)
def test_each_form_that_cosign_leaves_counts(name):
    """Bundles with an entry in either version of the log, and annotations with and without a time stamp."""
    (proof,) = cases.judged(cases.asked(cases.identity()), cases.material(name))
    assert proof.identity == cases.ABOUT["subject"]
    assert proof.key is None
    assert proof.log_index is not None
    assert proof.time.endswith("Z")
    assert proof.predicate_type == ""


@pytest.mark.parametrize(
    "by",
    [
        {"subject": cases.ABOUT["subject"]},
        {"subjectPrefix": f"{SOURCE}/"},
        {"subjectPrefix": SOURCE},
        {"subjectPrefix": "https://github.com/acme"},
        {"subjectPrefix": f"{SOURCE}/.github/workflows/release.yml"},
        {"subjectPrefix": f"{SOURCE}/.github/workflows/release.yml@refs/tags/v"},
        {"repository": SOURCE},
        {"repository": "https://github.com/acme/*"},
        {"repository": "https://github.com/**"},
    ],
)
@pytest.mark.parametrize("name", SIGNED[1:3])
def test_an_identity_is_meant_by_its_subject_its_beginning_or_its_repository(name, by):
    """Each way to name it."""
    assert cases.judged(cases.asked(cases.identity(**by)), cases.material(name))


@pytest.mark.parametrize(
    "by",
    [
        {"subject": cases.ABOUT["subject"][:-1]},
        {"subject": cases.ABOUT["subject"] + "0"},
        {"subject": cases.ABOUT["subject"].upper()},
        {"subjectPrefix": "https://github.com/acm"},
        {"subjectPrefix": f"{SOURCE}/.github/workflows/release.y"},
        {"subjectPrefix": "https://github.com/acme/plug"},
        {"repository": "https://github.com/acme"},
        {"repository": "https://github.com/*"},
        {"repository": "https://github.com/acme/plugin"},
        {"repository": f"{SOURCE}/**/x"},
        {"issuer": "https://token.actions.githubusercontent.com/"},
        {"issuer": "https://accounts.google.com"},
    ],
)
def test_whoever_only_looks_alike_is_not_meant(by):
    """A name that ends elsewhere, another repository, another issuer; the sentence says who it is."""
    why = cases.refusal(cases.asked(cases.identity(**by)), cases.material("signed-3-log-1"))
    assert f"it is signed by {cases.ABOUT['subject']}" in why
    assert cases.ABOUT["issuer"] in why


@pytest.mark.parametrize("name", SIGNED[2:])
def test_a_signature_that_names_another_repository_does_not_count(name):
    """The tool, in version 2, says for which it is; ``signedAs`` may allow it."""
    evidence = cases.material(name)
    why = cases.refusal(cases.asked(cases.identity()), evidence, "registry.example/acme/guard")
    assert f"for the repository {cases.ABOUT['repository']}" in why


@pytest.mark.parametrize("name", SIGNED)
def test_another_authority_believes_none_of_it(name):
    """Neither the public one, which is what no trust root means."""
    why = cases.refusal(cases.asked(cases.identity(), root=None), cases.material(name))
    assert "does not count" in why


@pytest.mark.parametrize("name", ["signed-3-log-2", "signed-3-key", "spdxjson-3-log-1"])
def test_what_a_key_or_an_attestation_proves_is_no_keyless_signature(name):
    """And the right identity's signature is none by a key."""
    evidence = cases.material(name)
    wrong = cases.KEY if name == "signed-3-log-2" else cases.identity()
    assert cases.refusal(cases.asked(wrong), evidence)


def test_a_signature_over_a_file_counts_for_that_file():
    """As ``cosign sign-blob`` leaves it beside one; with any of its parts altered, it does not."""
    evidence = cases.material("file-3-log-1")
    assert cases.judged(cases.asked(cases.identity()), evidence, "")
    for digest in ("sha256:" + "0" * 64, cases.material("signed-2").digest):
        assert "another digest" in cases.refusal(cases.asked(cases.identity()), replace(evidence, digest=digest), "")
    bundle = json.loads(evidence.signatures[0].payload)
    bundle["messageSignature"]["messageDigest"]["digest"] = base64.b64encode(bytes(32)).decode()
    made = replace(evidence, signatures=(replace(evidence.signatures[0], payload=json.dumps(bundle).encode()),))
    made = replace(made, digest="sha256:" + "0" * 64)
    assert "does not count" in cases.refusal(cases.asked(cases.identity()), made, "")


def test_one_identity_counts_once():
    """Two signatures by it, and two signers that name it in two ways, are one."""
    evidence = cases.together(*SIGNED)
    signers = (cases.identity(), cases.identity(repository="https://github.com/acme/*"))
    why = cases.refusal(cases.asked(*signers, minimum=2), evidence)
    assert "it is signed by 1 of those in anyOf, and 2 are needed" in why


def test_an_identity_and_a_key_are_two():
    """They are counted together, and both stand in the proof."""
    evidence = cases.together("signed-2", "signed-3-key")
    proofs = cases.judged(cases.asked(cases.identity(), cases.KEY, minimum=2), evidence)
    assert [bool(each.identity) for each in proofs] == [True, False]
    assert cases.judged(cases.asked(all_of=(cases.identity(), cases.KEY)), evidence)


def test_what_was_proven_is_kept_and_what_was_refused_as_well(monkeypatch):
    """The second look at the same bytes, under the same root, verifies nothing; another root is another question."""
    evidence, looked = cases.material("signed-3-log-1"), []
    proven = keyless._proven
    monkeypatch.setattr(keyless, "_proven", lambda *args: looked.append(1) or proven(*args))
    for _ in range(3):
        assert cases.judged(cases.asked(cases.identity()), evidence)
        assert cases.refusal(cases.asked(cases.identity(), root=None), evidence)
    assert len(looked) == 2


def test_what_is_kept_is_bounded(monkeypatch):
    """In number and in bytes; what was kept first goes first."""
    monkeypatch.setattr(keyless, "_MAX_KEPT", 3)
    outcomes = keyless._Outcomes()
    for number in range(5):
        outcomes.put(b"%d" % number, "why")
    assert [outcomes.get(b"%d" % number) for number in range(5)] == [None, None, "why", "why", "why"]
    monkeypatch.setattr(keyless, "_MAX_BYTES", 2048)
    outcomes.put(b"x", "y" * 4096)
    assert outcomes.get(b"4") is None


async def _loaded(base, **more):
    told = {"anyOf": [{"keyless": {"issuer": "https://issuer.example", "subject": "a@acme.org"}}], **more}
    signatures = Signatures.model_validate(told)
    none = SimpleNamespace()
    return await load(signatures, objects=none, namespace=None, base=base, where="spec.verify")


async def test_a_trust_root_is_read_where_the_requirement_is(tmp_path):
    """From a file, or from a folder that has it by its name; the fingerprint is another for another root."""
    (tmp_path / "trusted_root.json").write_bytes(cases.ROOT)
    found = await _loaded(tmp_path, trustRoot={"file": "trusted_root.json"})
    assert found.trust_root == (await _loaded(tmp_path, trustRoot={"file": "."})).trust_root == cases.ROOT
    assert found.fingerprint != (await _loaded(tmp_path)).fingerprint


async def test_another_public_root_is_another_requirement(tmp_path, monkeypatch):
    """What was proven under the one that a version of the package brings is asked again with the next."""
    before = (await _loaded(tmp_path)).fingerprint
    assert (await _loaded(tmp_path)).fingerprint == before
    public = offline.resources.files("sigstore._store").joinpath(*offline._PUBLIC).read_bytes()
    (tmp_path / "store" / offline._PUBLIC[0]).mkdir(parents=True)
    (tmp_path / "store" / offline._PUBLIC[0] / offline._PUBLIC[1]).write_bytes(public + b" ")
    monkeypatch.setattr(offline, "resources", SimpleNamespace(files=lambda _: tmp_path / "store"))
    offline.read_root.cache_clear()
    try:
        assert (await _loaded(tmp_path)).fingerprint != before
    finally:
        offline.read_root.cache_clear()


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "{", '{"mediaType": 1}', '{"tlogs": {}}'])
async def test_a_trust_root_that_is_none_is_told_at_once(tmp_path, text):
    """It is a fault of the settings, and says where."""
    (tmp_path / "root.json").write_text(text)
    with pytest.raises(ConfigError, match=r"spec\.verify\.trustRoot: there is no trust root"):
        await _loaded(tmp_path, trustRoot={"file": "root.json"})


def test_without_the_package_it_is_said_what_to_install():
    """In a process that has no ``sigstore``; nothing else of trust needs it."""
    program = """
import sys
sys.modules["sigstore"] = None
from hookline_artifacts.errors import ConfigError
from hookline_artifacts.trust import keyless, requirement, trial, verdict
try:
    keyless.check_root(None, "spec.verify")
except ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'hookline[keyless]'" in done.stdout
    assert done.stdout.startswith("spec.verify: ")


def test_trust_loads_no_verifier_before_it_is_asked():
    """Whoever asks for no keyless signature does not pay for the import."""
    program = "import sys, hookline_artifacts.resolve; print([n for n in sys.modules if n.split('.')[0] == 'sigstore'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_is_written_and_no_file_stays_open(tmp_path, monkeypatch):
    """The public root comes with the package: no cache in anybody's home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    keyless.check_root(None, "spec.verify")
    with contextlib.suppress(keyless.RefusedError):
        keyless.verify(cases.material("signed-2").signatures[0], None)
    gc.collect()
    assert not list(tmp_path.iterdir())


async def test_many_at_once_get_what_one_gets(monkeypatch):
    """The verifier is shared by threads."""
    requirement = cases.asked(cases.identity())

    def one(name):
        return cases.judged(requirement, cases.material(name))[0].log_index

    alone = [one(name) for name in SIGNED]
    monkeypatch.setattr(keyless, "_outcomes", keyless._Outcomes())
    assert await asyncio.gather(*(asyncio.to_thread(one, name) for name in SIGNED * 8)) == alone * 8
