"""Which plugins a policy of a file is for, and when the files are others than they were."""

from __future__ import annotations

import base64
import json

import pytest
import yaml

from hookline_api.resources import LabelSelector
from hookline_sidecar.cli import standing_policies
from hookline_sidecar.control.sources import policies as policies_module
from hookline_sidecar.control.sources.policies import PolicyFiles, may_select, own_namespace
from trust_policies import SIGNER, Policies, policy

NAME = "kubernetes.io/metadata.name"


@pytest.mark.parametrize(
    ("selector", "namespace", "selects"),
    [
        ({}, "shop", True),
        ({"matchLabels": {NAME: "shop"}}, "shop", True),
        ({"matchLabels": {NAME: "bank"}}, "shop", False),
        ({"matchLabels": {NAME: "bank"}}, None, True),
        ({"matchLabels": {"team": "a"}}, "shop", True),
        ({"matchLabels": {"team": "a", NAME: "bank"}}, "shop", False),
        ({"matchExpressions": [{"key": NAME, "operator": "In", "values": ["shop", "bank"]}]}, "shop", True),
        ({"matchExpressions": [{"key": NAME, "operator": "In", "values": ["bank"]}]}, "shop", False),
        ({"matchExpressions": [{"key": NAME, "operator": "NotIn", "values": ["shop"]}]}, "shop", False),
        ({"matchExpressions": [{"key": NAME, "operator": "NotIn", "values": ["bank"]}]}, "shop", True),
        ({"matchExpressions": [{"key": NAME, "operator": "Exists"}]}, "shop", True),
        ({"matchExpressions": [{"key": NAME, "operator": "DoesNotExist"}]}, "shop", False),
        ({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}, "shop", True),
    ],
)
def test_what_cannot_be_decided_here_counts_as_selected(selector, namespace, selects):
    """Of a namespace its name alone is known, and perhaps not even that."""
    assert may_select(LabelSelector.model_validate(selector), namespace) is selects


def test_the_namespace_is_in_the_pods_own_token(tmp_path, monkeypatch):
    """And in the service account's folder, where kubelet puts one; nothing else tells it."""
    monkeypatch.setattr(policies_module, "_ACCOUNT", tmp_path / "namespace")
    token = tmp_path / "token"
    claims = base64.urlsafe_b64encode(json.dumps({"kubernetes.io": {"namespace": "shop"}}).encode()).rstrip(b"=")
    token.write_bytes(b"x." + claims + b".y\n")
    assert own_namespace(token) == "shop"
    for text in (b"the-token", b"a.b.c", b"x." + base64.urlsafe_b64encode(b"[1]") + b".y", b"", b"x.\xff.y"):
        token.write_bytes(text)
        assert own_namespace(token) is None
    assert own_namespace(tmp_path / "gone") is None
    assert own_namespace(None) is None
    (tmp_path / "namespace").write_text("bank\n")
    assert own_namespace(token) == "bank"


async def test_policies_of_other_namespaces_are_left_out(tmp_path):
    """They are not this pod's."""
    folder = Policies(tmp_path / "p")
    other = policy("other", permissions=[], namespaceSelector={"matchLabels": {NAME: "bank"}})
    folder.write("all.yaml", [policy("ours"), other])
    files = PolicyFiles([folder.path], namespace="shop")
    assert await files.read()
    assert [each.policy.name for each in files.policies] == ["ours"]
    assert files.problems == ()


async def test_a_file_that_breaks_keeps_its_policies_and_one_that_is_deleted_does_not(tmp_path):
    """Nobody gets rid of a policy by spoiling it."""
    folder = Policies(tmp_path / "p")
    folder.write("one.yaml", policy("one"))
    folder.write("two.yml", policy("two"))
    folder.write("notes.txt", "not a policy")
    files = PolicyFiles([folder.path], namespace=None)
    await files.read()
    assert not await files.read()
    folder.write("one.yaml", "a: b: c")
    assert await files.read()
    assert [each.policy.name for each in files.policies] == ["one", "two"]
    (problem,) = files.problems
    assert problem.startswith(str(folder.path / "one.yaml"))
    folder.remove("one.yaml")
    await files.read()
    assert ([each.policy.name for each in files.policies], files.problems) == (["two"], ())
    aside = folder.path.rename(tmp_path / "aside")
    await files.read()
    assert [each.policy.name for each in files.policies] == ["two"]
    assert "cannot be read" in files.problems[0]
    aside.rename(folder.path)
    await files.read()
    assert files.problems == ()


async def test_a_place_of_policies_that_leads_nowhere_is_broken_and_not_absent(tmp_path):
    """An image's link to a volume that is not mounted must not open what it closes."""
    assert standing_policies(tmp_path / "trust") == ()
    assert standing_policies(tmp_path / "none" / "trust") == ()
    (tmp_path / "file").touch()
    assert standing_policies(tmp_path / "file" / "trust") == ()
    for target in ("gone", "trust"):
        link = tmp_path / "trust"
        link.symlink_to(target)
        files = PolicyFiles(standing_policies(link), namespace=None)
        await files.read()
        assert files.configured
        assert "cannot be read" in files.problems[0]
        link.unlink()


async def test_a_folder_whose_files_are_all_called_something_else_is_broken(tmp_path):
    """A ConfigMap's key without an ending would be a policy that nobody keeps. An empty folder has no policies."""
    folder = Policies(tmp_path / "p")
    files = PolicyFiles([folder.path], namespace=None)
    await files.read()
    assert files.problems == ()
    folder.write("policy", policy())
    await files.read()
    (problem,) = files.problems
    assert "it has files, and none ends in .yaml or .yml" in problem
    folder.write("Policy.YAML", policy())
    await files.read()
    assert ([each.policy.name for each in files.policies], files.problems) == (["only-signed"], ())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (policy() | {"spec": {"mode": "Enforced"}}, "spec.mode"),
        (policy() | {"spec": {"permission": []}}, "spec.permission"),
        (policy() | {"apiVersion": "hookline.dev/v1"}, "apiVersion"),
        (policy(signatures={"anyOf": [{"key": {"pem": "-----BEGIN PUBLIC KEY-----\nAAAA\n"}}]}), "PEM"),
        (policy(signatures={"anyOf": [{"key": {"pem": SIGNER}}], "minimum": 2}), "minimum"),
        (policy(signatures={"anyOf": [{"key": {"from": {"configMap": {"name": "keys"}}}}]}), "'keys' is a Secret or"),
        ([policy("a"), policy("a")], "more than once"),
        ("- a list\n", "must be a mapping"),
        ("a: &a [*a]\n", "cannot be read"),
        ("x" * (5 * 2**20), "more than"),
    ],
)
async def test_what_is_wrong_is_said_with_its_file(tmp_path, content, words):
    """One wrong policy makes the sidecar careful, and its sentence says what to mend."""
    folder = Policies(tmp_path / "p")
    folder.write("bad.yaml", content)
    files = PolicyFiles([folder.path], namespace=None)
    await files.read()
    (problem,) = files.problems
    assert problem.startswith(str(folder.path / "bad.yaml"))
    assert words in problem


async def test_a_key_that_is_another_is_a_change(tmp_path):
    """Also behind a link, as a ConfigMap's keys are."""
    folder = Policies(tmp_path / "p")
    folder.write("us.pub", SIGNER)
    folder.write("one.yaml", policy("one", signatures={"anyOf": [{"key": {"from": {"file": "us.pub"}}}]}))
    files = PolicyFiles([folder.path / "one.yaml"], namespace=None)
    await files.read()
    fingerprint = files.policies[0].policy.requirement.fingerprint
    folder.write("us.pub", (folder.path.parent / "p" / "us.pub").read_text().replace("\n", "\n\n", 1))
    await files.changed()
    folder.write("us.pub", SIGNER)
    folder.write("one.yaml", yaml.safe_dump(policy("one", signatures={"anyOf": [{"key": {"pem": SIGNER}}]})))
    await files.changed()
    assert await files.read()
    assert files.policies[0].policy.requirement.fingerprint != fingerprint
