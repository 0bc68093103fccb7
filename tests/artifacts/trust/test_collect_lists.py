"""Referrers are found however a registry lists them: by its API, page by page, or under the fallback tag."""

from __future__ import annotations

import json
import os
import re
from types import SimpleNamespace

import pytest
from aiohttp import web

import signed_artifacts as signed
from hookline_artifacts import registry as registries_of_ours
from registries import sha256


@pytest.fixture
def artifact(server):
    """An unsigned artifact on the server, three bundles about it, and their manifests."""
    signed.put(server, "unsigned", "acme/p")
    digest, key = signed.digest_of("unsigned"), signed.Key()
    bundles = [key.bundle(digest, predicate={"n": n}) for n in range(3)]

    manifests = [signed.referrer(digest, bundle) for bundle in bundles]
    for manifest, bundle in zip(manifests, bundles, strict=True):
        server.put(f"acme/p:{sha256(manifest)[-12:]}", manifest, bundle)
    return SimpleNamespace(
        tag=digest.replace(":", "-"),
        api=f"/v2/acme/p/referrers/{digest}",
        source=server.source("acme/p:v1"),
        digest=digest,
        manifests=manifests,
        bundles=bundles,
    )


async def found(fetcher, artifact):
    """Which bundles are collected, by their numbers."""
    evidence = await fetcher.signatures(artifact.source, artifact.digest)
    return sorted(artifact.bundles.index(each.payload) for each in evidence.signatures)


@pytest.mark.parametrize("query", ["page={}", "n=1&last=sha256%3A{}"])
@pytest.mark.parametrize(
    "link",
    [
        '<{path}?{query}>; rel="next"',
        "<{root}{path}?{query}>;rel=next",
        '<?{query}>; rel="next"; title="x"',
        '</first>; rel="first", <{path}?{query}>; rel="next"',
    ],
)
async def test_a_list_is_read_page_by_page(server, fetcher, artifact, link, query):
    """Where its Link leads, as registries write it."""

    async def page(request):
        number = int("".join(re.findall(r"[0-9]+$", request.query_string)) or 0)
        headers = {"Content-Type": signed.INDEX}
        if number < 2:
            root = f"http://{server.host}"
            headers["Link"] = link.format(path=artifact.api, root=root, query=query.format(number + 1))
        return web.Response(body=signed.listing(artifact.manifests[number]), headers=headers)

    server.on(artifact.api, page)
    assert await found(fetcher, artifact) == [0, 1, 2]


@pytest.mark.parametrize(
    "link",
    [
        '<http://127.0.0.1:1/v2/acme/p/referrers/x>; rel="next"',
        '<https://{host}{api}?n=1>; rel="next"',
        '<//127.0.0.1:1{api}?n=1>; rel="next"',
        '<{api}/../../../../secret>; rel="next"',
        '<{api}>; rel="next"',
        '<>; rel="next"',
        '<{api}?n=1>; rel="previous"',
        '<http://[>; rel="next"',
        "x" * 5000,
        "<" * 4000,
        "<{api}?n=1>" + ";" * 4000,
    ],
)  # fmt: skip
async def test_a_link_that_leads_elsewhere_is_not_followed(server, fetcher, artifact, link):
    """Credentials would go along; what the first page has counts."""

    async def page(_request):
        link_of = link.replace("{host}", server.host).replace("{api}", artifact.api)
        return web.Response(body=signed.listing(artifact.manifests[0]), headers={"Link": link_of})

    server.on(artifact.api, page)
    assert await found(fetcher, artifact) == [0]
    assert server.paths().count(artifact.api) == 1


async def test_a_list_without_an_end_has_one(server, fetcher, artifact):
    """After so many pages no more are asked for."""

    async def page(request):
        number = int(request.query.get("page", 0))
        headers = {"Link": f'<{artifact.api}?page={number + 1}>; rel="next"'}
        return web.Response(body=signed.listing(artifact.manifests[number % 3]), headers=headers)

    server.on(artifact.api, page)
    assert await found(fetcher, artifact) == [0, 1, 2]
    assert server.paths().count(artifact.api) == registries_of_ours._MAX_PAGES


@pytest.mark.parametrize(
    "answer", [400, 404, 405, 406, 501, "web page", "empty", "no list", "other JSON", "empty list"]
)
async def test_where_there_is_no_api_the_fallback_tag_is_read(server, fetcher, artifact, answer):
    """However a registry says so; also where it got the API after the signatures were pushed."""
    server.put(f"acme/p:{artifact.tag}", signed.listing(*artifact.manifests))
    bodies = {
        "web page": "<html><body>Please log in</body></html>", "empty": "", "no list": '{"manifests": 1}',
        "other JSON": '{"errors": []}', "empty list": '{"schemaVersion": 2, "manifests": []}',
    }  # fmt: skip

    async def none(_request):
        if isinstance(answer, int):
            return web.Response(status=answer)
        return web.Response(
            text=bodies[answer], content_type="text/html" if answer == "web page" else "application/json"
        )

    server.on(artifact.api, none)
    assert await found(fetcher, artifact) == [0, 1, 2]


async def test_an_entry_that_makes_no_sense_hides_no_other(server, fetcher, artifact):
    """A digest of another kind, a size that is none, something that is no object."""
    odd = [
        {"digest": "sha512:" + "0" * 128, "size": 1},
        {"digest": sha256(b"x"), "size": "many"},
        {"digest": sha256(b"gone"), "size": 1, "artifactType": ["x"], "annotations": 7},
        {},
    ]

    async def listed(_request):
        return web.Response(body=signed.listing(*odd, *artifact.manifests, *odd))

    server.on(artifact.api, listed)
    assert await found(fetcher, artifact) == [0, 1, 2]


async def test_what_a_list_says_of_a_kind_is_not_believed(server, fetcher, artifact):
    """Some tools and some registries write the type of the configuration, or nothing."""
    for kind in ("", "application/vnd.oci.empty.v1+json", "text/plain"):
        listed = signed.listing(*artifact.manifests, kind=kind)
        server.put(f"acme/p:{artifact.tag}", listed)
        assert await found(fetcher, artifact) == [0, 1, 2]


async def test_referrers_of_an_index_and_of_its_entry_are_found(server, fetcher, oci):
    """What is signed may be either; both are on the way to the module."""
    manifest = oci.manifest(oci.module())
    index = oci.index((manifest, {"platform": {"os": "wasip1", "architecture": "wasm"}}))
    server.put("acme/i:entry", manifest)
    digest = server.put("acme/i:v1", index)
    key = signed.Key()
    for about in (digest, sha256(manifest)):
        bundle = key.bundle(about)
        referrer = signed.referrer(about, bundle)
        server.put(f"acme/i:{sha256(referrer)[-12:]}", referrer, bundle)
        server.put(f"acme/i:{about.replace(':', '-')}", signed.listing(referrer))
    evidence = await fetcher.signatures(server.source("acme/i:v1"), digest)
    assert len(evidence.signatures) == 2
    assert list(evidence.documents) == [digest, sha256(manifest)]


@pytest.mark.parametrize("odd", ["missing", "huge", "a pipe", "a folder", "junk"])
@pytest.mark.parametrize("where", ["tag", "list", "index"])
async def test_a_folder_s_odd_entries_hide_nothing(tmp_path, resolve_signed, odd, where):
    """What its index names is not there, is too large, or is no manifest."""
    signed.write_folder("cosign-save-3", tmp_path / "layout")
    name = "5" * 64 if odd != "junk" else sha256(b"junk").removeprefix("sha256:")
    path = tmp_path / "layout" / "blobs" / "sha256" / name
    match odd:
        case "huge":
            with path.open("wb") as file:
                file.truncate(100 << 20)
        case "a pipe":
            os.mkfifo(path)
        case "a folder":
            path.mkdir()
        case "junk":
            path.write_bytes(b"junk")
    index = json.loads((tmp_path / "layout" / "index.json").read_text())
    entry = {"mediaType": signed.MANIFEST, "digest": f"sha256:{name}", "size": 900}
    tag = signed.digest_tag("bundle-p256") + (".sig" if where == "tag" else "")
    of_cosign = {"kind": "dev.cosignproject.cosign/sigs"}
    named = of_cosign if where == "index" else {"org.opencontainers.image.ref.name": tag}
    index["manifests"].insert(0, {**entry, "annotations": named})
    (tmp_path / "layout" / "index.json").write_text(json.dumps(index))
    source = {"oci": {"reference": "oci-layout:layout"}}
    assert (await resolve_signed(source, base=tmp_path, anyOf=[signed.signer(signed.KEYS["p256"])])).trust.proofs


async def test_a_folder_s_odd_files_hide_nothing(tmp_path, resolve_signed):
    """Blobs that are large, unreadable, links, pipes or junk, where signatures are looked for among all blobs."""
    signed.write_folder("cosign-save-3", tmp_path / "layout")
    blobs = tmp_path / "layout" / "blobs" / "sha256"
    (blobs / ("0" * 64)).write_bytes(b'{"subject": ' + b" " * 70_000)
    (blobs / ("1" * 64)).write_bytes(b'{"subject": junk')
    (blobs / ("2" * 64)).symlink_to("/etc/passwd")
    os.mkfifo(blobs / ("3" * 64))
    (blobs / ("4" * 64)).mkdir()
    (blobs / "README").write_text('{"subject": 1}')
    source = {"oci": {"reference": "oci-layout:layout"}}
    assert (await resolve_signed(source, base=tmp_path, anyOf=[signed.signer(signed.KEYS["p256"])])).trust.proofs
