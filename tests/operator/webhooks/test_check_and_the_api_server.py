"""``hookline check`` says of a manifest what a real API server and the webhook say of it, or the opposite is a mistake.

One table of manifests goes to both: as ``kubectl create`` sends them, and as a file.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from cluster import ClusterError

OCI = {"oci": {"reference": "registry.example/p:1"}}
KEY = {"secretRef": {"name": "s"}, "key": "k", "path": "a.b"}
SIGNER = {"keyless": {"issuer": "https://issuer.example", "subject": "a@b.example"}}


def plugin(metadata=None, top=None, **spec):
    """A WasmPlugin."""
    found = {
        "apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": "demo", **(metadata or {})},
        "spec": {"source": OCI, **spec}, **(top or {}),
    }  # fmt: skip
    for part in (found, found["spec"]):
        if isinstance(part, dict):
            for key in [key for key, value in part.items() if value is ...]:
                del part[key]
    return found


def policy(**spec):
    """A PluginTrustPolicy."""
    return {
        "apiVersion": "hookline.dev/v1alpha1",
        "kind": "PluginTrustPolicy",
        "metadata": {"name": "check-table"},
        "spec": spec,
    }


GOOD = {
    "least": plugin(),
    "latest": plugin(source={"oci": {"reference": "registry.example/p"}}),
    "name is generated": plugin({"name": None, "generateName": "demo-"}),
    "labels": plugin({"labels": {"app.kubernetes.io/name": "x", "e": ""}, "annotations": {"x/y": "any thing"}}),
    "hooks": plugin(hooks=["preQuery".lower(), "post_query"]),
    "free config": plugin(config={"a": {"b": [1, None, "x"]}}),
    "units": plugin(limits={"timeout": "50ms", "memory": "16Mi", "fuel": 1000, "output": 4096}),
    "whole float": plugin(priority=3.0),
    "configFrom": plugin(configFrom=[KEY]),
    "permissions": plugin(permissions=["kv.read", "custom.x", "query.execute:orders"]),
    "egress": plugin(permissions=["http.fetch"], egress=[{"host": "x.test"}]),
    "selector": plugin(selector={"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}),
    "Open": plugin(failurePolicy={"trap": "Open"}, hooks=["pre_query"]),
    "http": plugin(source={"http": {"url": "https://h.example/p.wasm", "sha256": "0" * 64}}),
    "verify": plugin(verify={"anyOf": [SIGNER]}),
    "null": plugin(limits={"memory": None}),
    "null of an object": plugin(verify=None),
    "null in a mapping": plugin(kv={"initial": {"a": None}}),
    "null of a policy": policy(permissions=None),
    "policy": policy(permissions=["kv.read"], references="Digest"),
    "empty policy": policy(),
    "policy of repositories": policy(repositories=["registry.example/**"]),
}
BAD = {
    "unknown field": plugin(prioritty=3),
    "unknown field deep": plugin(source={"oci": {**OCI["oci"], "pullsecrets": []}}),
    "unknown at the top": plugin(top={"specs": {}}),
    "unknown in metadata": plugin({"lables": {"a": "b"}}),
    "no spec": plugin(top={"spec": ...}),
    "no source": plugin(source=...),
    "empty source": plugin(source={}),
    "two sources": plugin(source={**OCI, "configMap": {"name": "m"}}),
    "file": plugin(source={"file": {"path": "x.wasm"}}),
    "layout": plugin(source={"oci": {"reference": "oci-layout:/x"}}),
    "no reference": plugin(source={"oci": {"reference": "a b"}}),
    "name": plugin({"name": "Demo"}),
    "name of dots": plugin({"name": "de..mo"}),
    "label": plugin({"labels": {"a b": "x"}}),
    "label's value": plugin({"labels": {"a": "x y"}}),
    "label of a number": plugin({"labels": {"a": 1}}),
    "annotation": plugin({"annotations": {"a": True}}),
    "text for a number": plugin(priority="5"),
    "fraction": plugin(priority=1.5),
    "text for a boolean": plugin(source={"oci": {**OCI["oci"], "insecure": "yes"}}),
    "null of what is required": plugin(source={"oci": {"reference": None}}),
    "null in a list": plugin(hooks=[None]),
    "hook": plugin(hooks=["pre_quarry"]),
    "hooks as text": plugin(hooks="pre_query"),
    "mode": plugin(mode="shadow"),
    "no unit": plugin(limits={"timeout": 5}),
    "too long": plugin(limits={"timeout": "2h"}),
    "too small": plugin(limits={"memory": "1Ki"}),
    "permission": plugin(permissions=["kv.everything"]),
    "permission twice": plugin(permissions=["kv.read", "kv.read"]),
    "egress without permission": plugin(egress=[{"host": "x.test"}]),
    "data sources twice": plugin(
        permissions=["query.execute"],
        dataSources=[{"name": "a", "postgres": {"host": "h", "database": "d", "user": "u"}}] * 2,
    ),
    "configFrom of nothing": plugin(configFrom=[{"key": "k", "path": "a"}]),
    "configFrom of both": plugin(configFrom=[{**KEY, "configMapRef": {"name": "m"}}]),
    "path": plugin(configFrom=[{**KEY, "path": "a..b"}]),
    "selector without values": plugin(selector={"matchExpressions": [{"key": "a", "operator": "In"}]}),
    "selector's key": plugin(selector={"matchLabels": {"a b": "x"}}),
    "key that is none": plugin(verify={"keys": ["k"]}),
    "minimum of more": plugin(verify={"anyOf": [SIGNER], "minimum": 2}),
    "verify by file": plugin(verify={"anyOf": [{"key": {"from": {"file": "a.pub"}}}]}),
    "scope": plugin(kv={"scope": "Cluster"}),
    "initial": plugin(kv={"initial": {"a": 1}}),
    "sha256": plugin(sha256="A" * 64),
    "url": plugin(source={"http": {"url": "https://", "sha256": "0" * 64}}),
    "mirror": plugin(source={"oci": {**OCI["oci"], "mirrors": ["registry.example/p:1"]}}),
    "policy with an unknown rule": policy(permision=["kv.read"]),
    "policy's pattern": policy(repositories=["https://registry.example/x"]),
    "policy's mode": policy(mode="audit"),
}


async def checked(documents, folder):
    """What ``hookline check`` says of each document: the sentences of what an API server and the webhook refuse."""
    for number, document in enumerate(documents.values()):
        (folder / f"{number:03}.json").write_text(json.dumps(document))
    command = [sys.executable, "-m", "hookline_cli", "check", str(folder), "--for", "cluster", "--json"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    problems = [
        each
        for each in json.loads(out)["findings"]
        if each["level"] == "problem" and each["by"] in {"file", "schema", "webhook"}
    ]
    return {
        name: [each["message"] for each in problems if Path(each["file"]).stem == f"{number:03}"]
        for number, name in enumerate(documents)
    }


async def verdict(plane, document, namespace):
    """None where the cluster takes it, else its words."""
    try:
        await plane.create(document, namespace, "--dry-run=server")
    except ClusterError as error:
        return str(error)
    return None


@pytest.fixture
async def both(plane, hookline, control_plane):
    """A cluster with both definitions, and the webhook at work."""
    root = plane.root
    await asyncio.to_thread(control_plane.install_crd, root / "crds" / "hookline.dev_plugintrustpolicies.yaml")
    async with plane.namespace("check-table") as namespace:
        yield plane, namespace


async def test_check_and_a_cluster_say_the_same_of_each_manifest(both, tmp_path):
    """All are tried, and all that differ are told."""
    plane, namespace = both
    documents = GOOD | BAD
    said = await checked(documents, tmp_path)
    at_once = asyncio.Semaphore(4)

    async def tried(name):
        async with at_once:
            words = await verdict(plane, documents[name], namespace)
        refused = words is not None
        return None if refused == bool(said[name]) == (name in BAD) else (name, said[name], words)

    found = await asyncio.gather(*map(tried, documents))
    differ = [each for each in found if each is not None]
    assert differ == [], "\n".join(map(str, differ))
