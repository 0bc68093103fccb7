"""A reference means what docker and the OCI specification say it means, and anything else is one clear error."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hookline_artifacts.errors import FetchError
from hookline_artifacts.reference import LayoutReference, Reference, parse

FUZZ = max(100, int(os.environ.get("HOOKLINE_FUZZ", "0")) // 10)
DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("guard", "docker.io", "library/guard", "latest", None),
        ("acme/guard:v1", "docker.io", "acme/guard", "v1", None),
        ("index.docker.io/guard", "docker.io", "library/guard", "latest", None),
        ("Docker.IO/acme/guard", "docker.io", "acme/guard", "latest", None),
        ("localhost/guard", "localhost", "guard", "latest", None),
        ("LocalHost/guard", "LocalHost", "guard", "latest", None),
        ("127.0.0.1:5000/a/b-c/d__e.f:V1.2", "127.0.0.1:5000", "a/b-c/d__e.f", "V1.2", None),
        ("[::1]:5000/guard:v1", "[::1]:5000", "guard", "v1", None),
        ("registry.test/guard@" + DIGEST, "registry.test", "guard", None, DIGEST),
        ("registry.test/guard:v1@" + DIGEST, "registry.test", "guard", "v1", DIGEST),
        ("oci://registry.test/guard:v1", "registry.test", "guard", "v1", None),
    ],
)
def test_short_and_long_names_mean_what_docker_means(text, registry, repository, tag, digest):
    """Registry, repository, tag and digest are told apart."""
    assert parse(text) == Reference(registry=registry, repository=repository, tag=tag, digest=digest)


def test_docker_hub_is_asked_at_its_registry():
    """The name that people write is not where the API is."""
    assert parse("guard").host == "registry-1.docker.io"
    assert parse("registry.test:5000/guard").host == "registry.test:5000"


@pytest.mark.parametrize(
    ("text", "path", "tag", "digest"),
    [
        ("oci-layout:modules", "modules", None, None),
        ("oci-layout:../modules:v1", "../modules", "v1", None),
        ("oci-layout:/a:b/modules", "/a:b/modules", None, None),
        ("oci-layout:///a/modules", "///a/modules", None, None),
        (f"oci-layout:modules@{DIGEST}", "modules", None, DIGEST),
    ],
)
def test_a_layout_folder_is_a_path_with_a_tag_or_a_digest(text, path, tag, digest):
    """A colon in a folder's name does not begin a tag."""
    assert parse(text) == LayoutReference(path=path, tag=tag, digest=digest)


@pytest.mark.parametrize(
    "text",
    ["", ":v1", "a/UPPER", "a//b", "a/", "-a", "a:", "a:" + "x" * 129, "a@sha256:12", "a@sha512:" + "0" * 128,
     "registry.test:99999/a", "registry.test:/a", "https://registry.test/a", "a b", "a\n", "a/../b", "é/a.b",
     "x" * 5000, "oci-layout:", "oci-layout:a\0b", "registry.test/" + "a" * 256],
)  # fmt: skip
def test_what_is_no_reference_is_refused_with_advice(text):
    """One sentence that says how to write it, not to be tried again."""
    with pytest.raises(FetchError, match="write registry/repository:tag") as caught:
        parse(text)
    assert not caught.value.transient
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("scheme", ["https://", "http://", "docker://"])
def test_a_scheme_in_front_of_a_reference_is_told(scheme):
    """Copied from a browser, or from a command of skopeo's."""
    with pytest.raises(FetchError, match=f"a reference has no {scheme} in front; write"):
        parse(f"{scheme}registry.test/guard:v1")


def test_a_password_in_a_reference_is_not_repeated():
    """Somebody pasted a URL with a login."""
    with pytest.raises(FetchError) as caught:
        parse("https://puller:hunter2@registry.test/guard:v1")
    assert "hunter2" not in str(caught.value)


@settings(max_examples=FUZZ, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=80) | st.text(alphabet="aA0.:/@-_[]sha256", max_size=120))
def test_any_text_is_a_reference_or_a_fetch_error(text):
    """And what is one reads the same when it is written out."""
    try:
        reference = parse(text)
    except FetchError:
        return
    assert parse(str(reference)) == reference
