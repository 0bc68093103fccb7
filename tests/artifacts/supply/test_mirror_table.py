"""The administrator's file of mirrors: whom it names for what, how it is read again, and what is wrong with it."""

from __future__ import annotations

import json

import pytest
import yaml
from aiohttp import web

from hookline_api.policies import PluginTrustPolicySpec
from hookline_api.resources import OCISource, WasmPlugin
from hookline_artifacts import mirrors
from hookline_artifacts.errors import FetchError
from hookline_artifacts.fetch import Fetcher
from hookline_artifacts.limits import FetchLimits
from hookline_artifacts.mirrors import MirrorFile, read_table
from hookline_artifacts.reference import parse
from hookline_artifacts.trust.policy import asked_by, forbidden


def write(path, *rules, dump=yaml.safe_dump):
    """A file with rules: a prefix, and locations as texts or mappings."""
    made = [
        {"prefix": prefix, "mirrors": [each if isinstance(each, dict) else {"location": each} for each in locations]}
        for prefix, *locations in rules
    ]
    path.write_text(dump({"registries": made}))
    return path


@pytest.mark.parametrize(
    ("reference", "asked"),
    [
        ("ghcr.io/acme/guard:v1", ["m.example/acme/guard:v1", "n.example:5000/mirrors/of/acme/guard:v1"]),
        ("ghcr.io/acme:v1", ["m.example/acme:v1", "n.example:5000/mirrors/of/acme:v1"]),
        ("ghcr.io/acmes/guard:v1", ["all.example/acmes/guard:v1"]),
        ("ghcr.io/acme/guard@sha256:" + "a" * 64,
         ["m.example/acme/guard@sha256:" + "a" * 64, "n.example:5000/mirrors/of/acme/guard@sha256:" + "a" * 64]),
        ("ghcr.io/acme/deep/er/guard:v1", ["deep.example/x/er/guard:v1"]),
        ("guard", ["hub.example/library/guard:latest"]),
        ("index.docker.io/acme/guard:v1", ["hub.example/acme/guard:v1"]),
        ("quay.io/acme/guard:v1", []),
        ("ghcr.io:443/acme/guard:v1", []),
    ],
)  # fmt: skip
def test_the_longest_prefix_counts_and_the_rest_follows(tmp_path, reference, asked):
    """At slashes alone; Docker Hub by any of its names."""
    table = read_table(
        write(
            tmp_path / "mirrors.yaml",
            ("ghcr.io", "all.example"),
            ("ghcr.io/acme", "m.example/acme", "n.example:5000/mirrors/of/acme"),
            ("ghcr.io/acme/deep", "deep.example/x"),
            ("docker.io", "hub.example"),
        )
    )
    assert [str(each.reference) for each in table.of(parse(reference))] == asked


@pytest.mark.parametrize("dump", [yaml.safe_dump, json.dumps])
def test_each_mirror_says_how_it_is_asked(tmp_path, dump):
    """With an authority in the file or beside it; in YAML or in JSON."""
    (tmp_path / "ca.crt").write_text("PEM of a file")
    table = read_table(
        write(
            tmp_path / "mirrors.yaml",
            ("ghcr.io", {"location": "m.example", "insecure": True}, {"location": "n.example", "caFile": "ca.crt"},
             {"location": "o.example", "ca": "PEM"}),
            dump=dump,
        )
    )  # fmt: skip
    first, second, third = table.of(parse("ghcr.io/x:v1"))
    assert (first.insecure, first.ca_pem) == (True, None)
    assert (second.insecure, second.ca_pem) == (False, "PEM of a file")
    assert third.ca_pem == "PEM"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("registries: [", "is neither YAML nor JSON"),
        ("registries: [{prefix: ghcr.io}]", "mirrors"),
        ("registries: [{prefix: ghcr.io, mirrors: []}]", "mirrors"),
        ("registries: [{prefix: ghcr.io, mirrors: [{location: m.example, password: x}]}]", "there is no such field"),
        ("registry: []", "registr"),
        ("[]", "mapping"),
        ("registries: [{prefix: ghcr.io/x:v1, mirrors: [{location: m.example}]}]", "the prefix 'ghcr.io/x:v1' is not"),
        ("registries: [{prefix: x, mirrors: [{location: m.example}]}]", "the prefix 'x' is not"),
        ("registries: [{prefix: ghcr.io, mirrors: [{location: 'https://m.example'}]}]", "the location"),
        ("registries: [{prefix: ghcr.io, mirrors: [{location: m.example, ca: a, caFile: b}]}]", "both ca and caFile"),
        (
            "registries: [{prefix: ghcr.io, mirrors: [{location: m.example, caFile: mirrors.yaml.crt}]}]",
            "cannot be read",
        ),
        ("#" * 2**20 + "#", "more than 1048576 bytes"),
    ],
)
def test_what_is_wrong_is_told_with_the_file(tmp_path, text, sentence):
    """In one sentence, before anything starts."""
    path = tmp_path / "mirrors.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"mirrors\.yaml") as wrong:
        read_table(path)
    assert sentence in str(wrong.value)


def test_a_file_that_is_not_there_is_told(tmp_path):
    """And a folder is no file."""
    with pytest.raises(ValueError, match="cannot be read"):
        MirrorFile(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match=r"cannot be read|not a regular file"):
        MirrorFile(tmp_path)


async def test_the_file_is_read_again_and_a_wrong_one_changes_nothing(tmp_path, monkeypatch, caplog):
    """By whoever fetches next; the new version may be another file, as a ConfigMap's is."""
    monkeypatch.setattr(mirrors, "_LOOKED_S", 0.0)
    path = write(tmp_path / "mirrors.yaml", ("ghcr.io", "m.example"))
    file, reference = MirrorFile(path), parse("ghcr.io/x:v1")
    write(tmp_path / "new.yaml", ("ghcr.io", "n.example", "o.example")).replace(path)
    assert len((await file.table()).of(reference)) == 2
    (tmp_path / "wrong.yaml").write_text("registries: 1")
    (tmp_path / "wrong.yaml").replace(path)
    assert len((await file.table()).of(reference)) == 2
    path.unlink()
    assert len((await file.table()).of(reference)) == 2
    assert sum("the mirrors that were read before stay" in each.message for each in caplog.records) == 2


@pytest.fixture
async def make_mirrored(store, tmp_path):
    """Makes a fetcher with a file of mirrors."""
    made = []

    def make(*rules):
        file = MirrorFile(write(tmp_path / "mirrors.yaml", *rules))
        limits = FetchLimits(backoff=0.001, attempts=1)
        made.append(Fetcher(store, limits=limits, docker_config=tmp_path / "none", mirrors=file))
        return made[-1]

    yield make
    for each in made:
        await each.close()


async def test_a_mirror_with_its_own_authority_is_asked_by_tls(make_mirrored, tls_registry, authority, oci, tmp_path):
    """A real registry, for a host that there is not; what the resource trusts is not what the mirror needs."""
    module = oci.module("by tls")
    await tls_registry.push("of/acme/guard:v1", oci.manifest(module), module)
    (tmp_path / "ca.crt").write_text(authority.pem)
    rule = ("registry.invalid/acme", {"location": f"{tls_registry.host}/of/acme", "caFile": "ca.crt"})
    source = OCISource(reference="registry.invalid/acme/guard:v1")
    assert (await make_mirrored(rule).fetch_oci(source)).path.read_bytes() == module


async def test_a_mirror_without_that_authority_is_not_believed(make_mirrored, tls_registry):
    """The sentence says what is to be done."""
    fetcher = make_mirrored(("registry.invalid/acme", f"{tls_registry.host}/of/acme"))
    with pytest.raises(FetchError, match=r"of its mirrors, none gave it: .*its certificate is not trusted"):
        await fetcher.fetch_oci(OCISource(reference="registry.invalid/acme/guard:v1"))


def noting(came, name):
    """An answer that has nothing."""

    async def answer(_request):
        came.append(name)
        return web.Response(status=404)

    return answer


async def test_the_resources_mirrors_come_before_the_clusters(make_mirrored, serve, oci):
    """And then the registry."""
    own, ours, origin = await serve(), await serve(), await serve()
    module = oci.module("last")
    origin.put("x:v1", oci.manifest(module), module)
    came = []
    for name, each in (("own", own), ("ours", ours), ("origin", origin)):
        each.otherwise(noting(came, name))
    fetcher = make_mirrored((origin.host, {"location": ours.host, "insecure": True}))
    source = OCISource(reference=f"{origin.host}/x:v1", insecure=True, mirrors=[f"http://{own.host}/x"])
    assert (await fetcher.fetch_oci(source)).path.read_bytes() == module
    assert list(dict.fromkeys(came)) == ["own", "ours"]
    assert origin.requests


def plugin(*named):
    """A resource whose source names mirrors."""
    oci = {"reference": "ghcr.io/acme/guard:v1", "mirrors": list(named)}
    return WasmPlugin.model_validate({"metadata": {"name": "guard"}, "spec": {"source": {"oci": oci}}})


def test_a_policy_has_to_allow_the_mirrors_that_a_resource_names():
    """Whoever answers first says what a tag means: a mirror of one's own would be a way around."""
    policy = PluginTrustPolicySpec(repositories=["ghcr.io/acme/*", "m.example/acme/*"])
    assert forbidden(policy, asked_by(plugin("m.example/acme/guard", "http://m.example/acme/guard"))) == []
    (why,) = forbidden(policy, asked_by(plugin("m.example/acme/guard", "evil.example/guard")))
    assert why.startswith("spec.source.oci.mirrors: evil.example/guard is not among the repositories")
