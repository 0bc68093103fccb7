"""A module is pulled from Debian's docker-registry, whatever way that wants to be asked."""

from __future__ import annotations

import base64
import json
import ssl

import pytest

from hookline_artifacts.errors import FetchError
from hookline_artifacts.login.access import RegistryAccess


def pull_secret(host, user, password):
    """A dockerconfigjson."""
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    return json.dumps({"auths": {host: {"auth": auth}}})


async def test_a_tag_is_resolved_and_its_module_is_pulled(registry, fetcher, oci):
    """Anonymous: the digest of resolve is what was pushed, and the file holds the module."""
    module = oci.module("plain", 1000)
    pushed = await registry.push("plain:v1", oci.manifest(module), module)
    source = registry.source("plain:v1")

    assert await fetcher.resolve(source) == pushed
    artifact = await fetcher.fetch_oci(source)

    assert (artifact.digest, artifact.layout, artifact.size) == (pushed, "wasm-layer", len(module))
    assert artifact.path.read_bytes() == module
    assert "sha256:" + artifact.sha256 == oci.sha256(module)


async def test_a_moved_tag_does_not_move_a_pinned_fetch(registry, fetcher, oci):
    """Pinned to a digest, the old module comes although the tag says otherwise."""
    old, new = oci.module("old"), oci.module("new")
    first = await registry.push("moving:v1", oci.manifest(old), old)
    await registry.push("moving:v1", oci.manifest(new), new)

    artifact = await fetcher.fetch_oci(registry.source("moving:v1"), digest=first)

    assert artifact.path.read_bytes() == old


async def test_an_index_is_followed_to_wasm_and_keeps_its_own_digest(registry, fetcher, oci):
    """Of several platforms the wasm one is taken; attestations are none; the digest is the index's."""
    module, other = oci.module("wasi"), oci.module("linux")
    wasm, linux, attestation = oci.manifest(module), oci.manifest(other), oci.manifest(b"{}")
    for manifest, blob in ((wasm, module), (linux, other), (attestation, b"{}")):
        await registry.push(f"multi@{oci.sha256(manifest)}", manifest, blob)
    index = oci.index(
        (linux, {"platform": {"os": "linux", "architecture": "amd64"}}),
        (attestation, {"platform": {"os": "unknown", "architecture": "unknown"}}),
        (wasm, {"platform": {"os": "wasi", "architecture": "wasm"}}),
    )
    pushed = await registry.push("multi:v1", index)

    artifact = await fetcher.fetch_oci(registry.source("multi:v1"))

    assert artifact.digest == pushed
    assert artifact.path.read_bytes() == module


async def test_a_reference_that_is_not_there_says_so(registry, fetcher):
    """A 404 is not transient and names the reference."""
    with pytest.raises(FetchError, match=r"nothing:here.*404.*check the reference") as caught:
        await fetcher.resolve(registry.source("nothing:here"))
    assert not caught.value.transient


async def test_basic_credentials_come_from_a_pull_secret(password_registry, fetcher, oci):
    """The second of two pull secrets is the right one."""
    module = oci.module("basic")
    await password_registry.push("basic:v1", oci.manifest(module), module)
    host = password_registry.host
    access = RegistryAccess(
        dockerconfigs=(pull_secret(host, oci.user, "wrong"), pull_secret(host, oci.user, oci.password))
    )

    artifact = await fetcher.fetch_oci(password_registry.source("basic:v1"), access=access)

    assert artifact.path.read_bytes() == module


async def test_basic_credentials_come_from_the_docker_configuration(
    password_registry, make_fetcher, oci, tmp_path, monkeypatch
):
    """DOCKER_CONFIG names the folder of config.json, as with docker."""
    module = oci.module("docker-config")
    await password_registry.push("config:v1", oci.manifest(module), module)
    (tmp_path / "config.json").write_text(pull_secret(password_registry.host, oci.user, oci.password))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))

    artifact = await make_fetcher(docker_config=None).fetch_oci(password_registry.source("config:v1"))

    assert artifact.path.read_bytes() == module


async def test_wrong_credentials_are_refused_without_being_shown(password_registry, fetcher):
    """The error says what to do, and not the password."""
    access = RegistryAccess(dockerconfigs=(pull_secret(password_registry.host, "puller", "hunter2"),))
    with pytest.raises(FetchError, match="refuses the credentials") as caught:
        await fetcher.resolve(password_registry.source("basic:v1"), access=access)
    assert not caught.value.transient
    assert "hunter2" not in str(caught.value) + repr(access)


async def test_no_credentials_are_asked_for_by_name(password_registry, fetcher):
    """Where none are known, the error says to give some."""
    with pytest.raises(FetchError, match="without credentials; no pull secret was configured: name one"):
        await fetcher.resolve(password_registry.source("basic:v1"))


async def test_the_own_authority_is_trusted_and_only_that(tls_registry, fetcher, oci):
    """With the CA the pull works; without it the error names caConfigMap."""
    module = oci.module("tls")
    await tls_registry.push("tls:v1", oci.manifest(module), module)
    source = tls_registry.source("tls:v1")

    artifact = await fetcher.fetch_oci(source, access=RegistryAccess(ca_pem=tls_registry.ca_pem))
    assert artifact.path.read_bytes() == module

    with pytest.raises(FetchError, match=r"not trusted.*caConfigMap") as caught:
        await fetcher.resolve(source)
    assert not caught.value.transient


async def test_where_python_is_strict_a_lax_authority_is_refused_with_what_to_do(serve, lax_authority, fetcher):
    """Python 3.13 and newer hold certificates to RFC 5280; older ones take what those refuse."""
    server = await serve(authority=lax_authority)
    access = RegistryAccess(ca_pem=lax_authority.pem)
    strict = ssl.create_default_context().verify_flags & ssl.VERIFY_X509_STRICT
    expected = "not trusted.*RFC 5280.*keyUsage.*authorityKeyIdentifier" if strict else "404"
    with pytest.raises(FetchError, match=expected) as caught:
        await fetcher.resolve(server.source("plugin:v1"), access=access)
    assert not caught.value.transient
    assert bool(server.requests) is not bool(strict)


async def test_a_lax_authority_is_told_from_an_unknown_one_on_every_interpreter(
    serve, lax_authority, fetcher, monkeypatch
):
    """The same with the check of Python 3.13, whatever the interpreter: its remedy is not caConfigMap."""
    default = ssl.create_default_context

    def strict(*arguments, **options):
        context = default(*arguments, **options)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
    server = await serve(authority=lax_authority)
    with pytest.raises(FetchError, match="RFC 5280") as caught:
        await fetcher.resolve(server.source("plugin:v1"), access=RegistryAccess(ca_pem=lax_authority.pem))
    assert "caConfigMap" not in str(caught.value)
    with pytest.raises(FetchError, match="caConfigMap") as caught:
        await fetcher.resolve(server.source("plugin:v1"))
    assert "RFC 5280" not in str(caught.value)
    assert server.requests == []


async def test_a_ca_that_is_no_certificate_is_refused(tls_registry, fetcher):
    """A ConfigMap with other text in it gives one clear error."""
    with pytest.raises(FetchError, match=r"not a PEM certificate.*ca\.crt"):
        await fetcher.resolve(tls_registry.source("tls:v1"), access=RegistryAccess(ca_pem="not a certificate"))


@pytest.mark.parametrize(
    "comment", ["# Főtanúsítvány, Zürich\n", "\ufeff", "# caf\ufffd\n"], ids=["names", "bom", "latin-1"]
)
async def test_an_authoritys_pem_may_have_comments_in_any_language(tls_registry, fetcher, comment):
    """Bundles name each authority above its certificate, as it writes itself; a byte order mark is one too."""
    access = RegistryAccess(ca_pem=comment + tls_registry.ca_pem)
    with pytest.raises(FetchError, match="404"):
        await fetcher.resolve(tls_registry.source("nothing:v1"), access=access)


async def test_plain_http_is_never_a_fallback(registry, fetcher):
    """A registry without TLS is not spoken to unless `insecure` says so."""
    source = registry.source("plain:v1").model_copy(update={"insecure": False})
    with pytest.raises(FetchError, match="set insecure") as caught:
        await fetcher.resolve(source)
    assert not caught.value.transient


async def test_a_token_is_fetched_once_for_a_repository(token_registry, fetcher, oci):
    """Bearer: resolve, manifest and blob need one token, asked for with the scope of this repository."""
    module = oci.module("bearer")
    await token_registry.push("pushed:v1", oci.manifest(module), module)
    access = RegistryAccess(dockerconfigs=(pull_secret(token_registry.host, oci.user, oci.password),))

    artifact = await fetcher.fetch_oci(token_registry.source("pushed:v1"), access=access)

    assert artifact.path.read_bytes() == module
    (asked,) = token_registry.extra.asked
    assert asked.query["scope"] == "repository:pushed:pull"
    assert asked.query["service"] == "test-registry"


async def test_an_identity_token_is_changed_for_an_access_token(token_registry, fetcher, oci):
    """What `docker login` leaves behind at some registries works too."""
    module = oci.module("identity")
    await token_registry.push("pushed:v2", oci.manifest(module), module)
    config = {"auths": {token_registry.host: {"identitytoken": "refresh-me"}}}

    artifact = await fetcher.fetch_oci(
        token_registry.source("pushed:v2"), access=RegistryAccess(dockerconfigs=(config,))
    )

    assert artifact.path.read_bytes() == module
    assert [asked.method for asked in token_registry.extra.asked] == ["POST"]


async def test_a_token_server_that_refuses_is_an_error_about_credentials(token_registry, fetcher, oci):
    """A 401 of the token server is the same error as one of the registry."""
    access = RegistryAccess(dockerconfigs=(pull_secret(token_registry.host, oci.user, "wrong"),))
    with pytest.raises(FetchError, match="refuses the credentials"):
        await fetcher.resolve(token_registry.source("pushed:v1"), access=access)


@pytest.mark.parametrize(
    ("layout", "config_type", "layers", "more"),
    [
        ("wasm-oci", "application/vnd.wasm.config.v0+json", ["application/wasm"], {}),
        ("artifact-type", None, ["application/wasm"], {"artifactType": "application/vnd.example.plugin"}),
        ("krustlet", None, ["application/vnd.wasm.content.layer.v1+wasm"], {}),
        (
            "module-wasm",
            None,
            ["application/vnd.module.wasm.config.v1+json", "application/vnd.module.wasm.content.layer.v1+wasm"],
            {},
        ),
        ("image", None, ["application/vnd.oci.image.layer.v1.tar+gzip"], {}),
        ("image", None, ["application/vnd.docker.image.rootfs.diff.tar.gzip"], {"docker": True}),
        ("heliosdb-tar", None, ["application/gzip"], {}),
    ],
)
async def test_every_layout_of_the_field_is_pulled(registry, fetcher, oci, layout, config_type, layers, more):
    """Each gives the same module, and the layout's name."""
    module = oci.module("layout")
    bodies = {
        "image": oci.tar({"plugin.wasm": module}),
        "heliosdb-tar": oci.tar({"manifest.json": b'{"name": "packed"}', "plugin.wasm": module, "plugin.sig": b"c2ln"}),
    }
    body = bodies.get(layout, module)
    docker = more.pop("docker", False)
    described = [oci.descriptor(b"{}" if "config" in kind else body, kind) for kind in layers]
    manifest = json.loads(oci.manifest(*described, **({"config_type": config_type} if config_type else {}), **more))
    if docker:
        manifest["mediaType"] = "application/vnd.docker.distribution.manifest.v2+json"
        manifest["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
    name = f"layouts/{layout}:v{len(layers)}{'d' if docker else ''}"
    await registry.push(name, json.dumps(manifest).encode(), body)

    artifact = await fetcher.fetch_oci(registry.source(name))

    assert artifact.layout == layout
    assert artifact.path.read_bytes() == module
    assert (artifact.description and artifact.description.name) == ("packed" if layout == "heliosdb-tar" else None)


def test_the_tests_trust_nothing_but_their_own_authority(authority):
    """The fixture is a real certificate authority."""
    assert ssl.create_default_context(cadata=authority.pem).cert_store_stats()["x509_ca"] == 1
