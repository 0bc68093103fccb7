"""Where the operator's modules come from, and where they stay: mirrors, proxies, and a volume for the cache."""

from __future__ import annotations

import pytest
import yaml

from hookline_artifacts.mirrors import read_table
from hookline_artifacts.net.proxies import from_environment
from hookline_artifacts.reference import parse


def deployment(rendered):
    """The operator's pod, and its container."""
    spec = rendered.one("Deployment")["spec"]["template"]["spec"]
    return spec, spec["containers"][0]


def volume_of(rendered, name):
    """A volume of the operator's pod; None where there is none."""
    spec, _ = deployment(rendered)
    return next((each for each in spec["volumes"] if each["name"] == name), None)


def environment(rendered):
    """The variables with a value."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in deployment(rendered)[1]["env"]}


def test_by_default_there_is_none_of_it(helm):
    """The cache is on the node's disk, and goes with the pod."""
    rendered = helm.render()
    assert volume_of(rendered, "cache") == {"name": "cache", "emptyDir": {}}
    assert volume_of(rendered, "mirrors") is None
    assert not {"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"} & set(environment(rendered))
    assert not rendered.all("PersistentVolumeClaim")
    assert rendered.one("Deployment")["spec"]["strategy"]["type"] == "RollingUpdate"


@pytest.mark.parametrize("mode", [None, "ReadWriteOnce", "ReadWriteOncePod"])
def test_a_volume_for_one_pod_is_for_one_replica_which_ends_first(helm, mode):
    """A second one would wait for the volume for ever."""
    volume = {"enabled": True, **({"accessMode": mode} if mode else {})}
    rendered = helm.render({"replicas": 1, "cache": {"volume": volume}})
    claim = rendered.one("PersistentVolumeClaim")
    assert claim["spec"] == {
        "accessModes": [mode or "ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}},
    }  # fmt: skip
    assert volume_of(rendered, "cache")["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}
    assert rendered.one("Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    with pytest.raises(Exception, match="is for one replica; set replicas: 1, or accessMode: ReadWriteMany"):
        helm.template({"replicas": 2, "cache": {"volume": volume}})


def test_replicas_may_share_a_volume(helm):
    """One that all nodes can write at the same time; the next pod is ready before one ends."""
    volume = {"enabled": True, "accessMode": "ReadWriteMany", "size": "8Gi", "storageClass": "shared"}
    rendered = helm.render({"replicas": 3, "cache": {"volume": volume}})
    claim = rendered.one("PersistentVolumeClaim")["spec"]
    assert (claim["accessModes"], claim["storageClassName"]) == (["ReadWriteMany"], "shared")
    assert claim["resources"]["requests"]["storage"] == "8Gi"
    assert rendered.one("Deployment")["spec"]["strategy"]["type"] == "RollingUpdate"


def test_a_claim_may_be_there_already(helm):
    """Then the chart makes none."""
    volume = {"enabled": True, "existingClaim": "mine"}
    rendered = helm.render({"replicas": 1, "cache": {"volume": volume}})
    assert not rendered.all("PersistentVolumeClaim")
    assert volume_of(rendered, "cache")["persistentVolumeClaim"] == {"claimName": "mine"}


def test_the_mirrors_are_a_file_as_the_operator_reads_it(helm, tmp_path):
    """Each of its fields."""
    mirrors = [{"location": "m.test:5000/acme", "insecure": True}, {"location": "n.test", "ca": "-----BEGIN\nX\n"}]
    rendered = helm.render({"registries": {"mirrors": [{"prefix": "ghcr.io/acme", "mirrors": mirrors}]}})
    config_map = next(each for each in rendered.all("ConfigMap") if "mirrors.yaml" in each["data"])
    (tmp_path / "mirrors.yaml").write_text(config_map["data"]["mirrors.yaml"])
    first, second = read_table(tmp_path / "mirrors.yaml").of(parse("ghcr.io/acme/x:v1"))
    assert (str(first.reference), first.insecure) == ("m.test:5000/acme/x:v1", True)
    assert (str(second.reference), second.ca_pem) == ("n.test/x:v1", "-----BEGIN\nX\n")
    spec, container = deployment(rendered)
    assert volume_of(rendered, "mirrors")["configMap"] == {"name": config_map["metadata"]["name"]}
    (path,) = [each["mountPath"] for each in container["volumeMounts"] if each["name"] == "mirrors"]
    assert f"--mirrors={path}/mirrors.yaml" in container["args"]
    assert yaml.safe_dump(spec)


def test_the_proxies_are_as_the_operator_reads_them(helm):
    """The cluster's own names are asked without one."""
    proxy = {"https": "http://proxy.test:3128", "http": "http://plain.test:3128", "noProxy": ["10.0.0.0/8", "r.test"]}
    found = environment(helm.render({"registries": {"proxy": proxy}}))
    assert found["NO_PROXY"] == ".svc,.svc.cluster.local,10.0.0.0/8,r.test"
    assert str(from_environment(found).https.url.origin()) == "http://proxy.test:3128"
    assert str(from_environment(found).http.url.origin()) == "http://plain.test:3128"


def test_a_proxys_password_is_in_a_secret(helm):
    """A URL among the values must not have one."""
    found = environment(helm.render({"registries": {"proxy": {"secret": "proxy"}}}))
    for name in ("HTTPS_PROXY", "HTTP_PROXY"):
        assert found[name] == {"secretKeyRef": {"name": "proxy", "key": name, "optional": True}}
    with pytest.raises(Exception, match="does not match pattern"):
        helm.template({"registries": {"proxy": {"https": "http://user:secret@proxy.test"}}})
