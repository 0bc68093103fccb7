"""``hookline save`` and ``hookline load``: all that belongs to an artifact goes along, and nothing else is taken."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import tarfile

import pytest

from local_registry import digest, manifest_of

MODULE = b"\0asm\x01\0\0\0"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def referrer(subject, content):
    """A manifest that refers to another one, and its blob."""
    return json.dumps({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/vnd.example.note",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(b"{}"), "size": 2},
        "layers": [{"mediaType": "text/plain", "digest": digest(content), "size": len(content)}],
        "subject": {"mediaType": MANIFEST, "digest": digest(subject), "size": len(subject)},
    }).encode()  # fmt: skip


def listing(*documents):
    """The list under a fallback tag."""
    entries = [{"mediaType": MANIFEST, "digest": digest(each), "size": len(each)} for each in documents]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()


@pytest.fixture
def signed(hookline, keys, push):
    """An artifact that is signed in all forms; its reference."""
    reference = push("moved/guard:1.0.0")
    for key, form in (("release", "bundle"), ("release", "simple"), ("acme", "ed25519")):
        assert hookline("sign", reference, "--key", f"{key}.key", "--form", form, "--insecure").code == 0
    return reference


def check(hookline, target, origin):
    """All three signatures count there, offline from where they were."""
    options = ["--key", "release.pub", "--ed25519", "acme.pub", "--minimum", "2", "--signed-as", origin, "--insecure"]
    done = hookline("verify", target, *options, "--json")
    assert done.code == 0, done
    return done.json


def test_what_is_saved_is_verified_where_it_is_loaded(hookline, signed, registry):
    """In the same registry under a prefix; its tag means the same digest."""
    saved = hookline("save", signed, "-o", "guard.tar", "--with-key", "release.pub", "--insecure", "--json")
    assert saved.code == 0, saved
    (artifact,) = saved.json["artifacts"]
    assert (artifact["signatures"], artifact["referrers"]) == (1, 2)
    loaded = hookline("load", "guard.tar", f"{registry.host}/mirror", "--insecure", "--json")
    assert loaded.code == 0, loaded
    place = loaded.json["artifacts"][0]["reference"]
    assert place == f"{registry.host}/mirror/moved/guard:1.0.0"
    found = check(hookline, place, signed.rpartition(":")[0])
    assert found["digest"] == artifact["digest"] == digest(manifest_of(MODULE))


def test_it_goes_into_the_other_kind_of_registry(hookline, keys, docker_registry, referrers_registry):
    """From one with the fallback tag to one with the referrers API, and back."""
    asyncio.run(docker_registry.push("across/guard:1", manifest_of(MODULE), MODULE))
    origin = f"{docker_registry.host}/across/guard"
    for form in ("bundle", "simple"):
        assert hookline("sign", f"{origin}:1", "--key", "release.key", "--form", form, "--insecure").code == 0
    assert hookline("sign", f"{origin}:1", "--key", "acme.key", "--insecure").code == 0
    here = f"{origin}:1"
    for number, target in enumerate((referrers_registry, docker_registry)):
        assert hookline("save", here, "-o", f"{number}.tar", "--insecure").code == 0
        done = hookline("load", f"{number}.tar", f"{target.host}/hop{number}", "--insecure", "--json")
        assert done.code == 0, done
        here = done.json["artifacts"][0]["reference"]
        check(hookline, here, origin)


def test_a_load_goes_on_where_it_stopped(hookline, signed, registry):
    """What is there is not sent again."""
    assert hookline("save", signed, "-o", "guard.tar", "--insecure").code == 0
    arguments = ["load", "guard.tar", f"{registry.host}/resumed", "--insecure", "--json"]
    first, second = (hookline(*arguments).json["artifacts"][0] for _ in range(2))
    # One of both kinds has the blobs of all repositories in one place.
    assert 0 <= first["sent"] < first["size"]
    assert second["sent"] == 0


def test_a_folder_is_made_of_each_repository(hookline, signed, tmp_path):
    """Keys that were saved are written beside it, and used for nothing."""
    assert hookline("save", signed, "-o", "guard.tar", "--with-key", "release.pub", "--insecure").code == 0
    done = hookline("load", "guard.tar", "--to", "mirror", "--json")
    assert done.code == 0, done
    check(hookline, done.json["artifacts"][0]["reference"], signed.rpartition(":")[0])
    assert (tmp_path / "mirror" / "trust" / "release.pub").read_text() == (tmp_path / "release.pub").read_text()
    assert done.json["trust"] == ["release.pub"]


def test_several_repositories_with_the_same_tag_are_told_apart(hookline, push, tmp_path):
    """Each tag belongs to its own."""
    modules = [b"\0asm\x01\0\0\0" + bytes([0, 2, 1, number]) for number in range(2)]
    references = [push(f"several/p{number}:1", module) for number, module in enumerate(modules)]
    assert hookline("save", *references, "-o", "both.tar", "--insecure").code == 0
    done = hookline("load", "both.tar", "--to", "mirror", "--json")
    digests = [each["digest"] for each in done.json["artifacts"]]
    assert sorted(digests) == sorted(digest(manifest_of(module)) for module in modules)
    assert len(list((tmp_path / "mirror").rglob("index.json"))) == 2


def test_referrers_of_referrers_go_along(hookline, docker_registry):
    """Recursively, as far as somebody follows them; one that names another subject does not."""
    root = manifest_of(MODULE)
    first = referrer(root, b"first")
    second = referrer(first, b"second")
    stray = referrer(second, b"stray")

    async def push():
        await docker_registry.push("deep/guard:1", root, MODULE)
        for document, content in ((first, b"first"), (second, b"second"), (stray, b"stray")):
            await docker_registry.push(f"deep/guard@{digest(document)}", document, content)
        for subject, listed in ((root, (first, stray)), (first, (second,))):
            await docker_registry.push(f"deep/guard:{digest(subject).replace(':', '-')}", listing(*listed))

    asyncio.run(push())
    done = hookline("save", f"{docker_registry.host}/deep/guard:1", "-o", "deep.tar", "--insecure", "--json")
    assert done.code == 0, done
    assert done.json["artifacts"][0]["referrers"] == 2


# ---- files of strangers


def tar_of(files, *, links=()):
    """A tar of a mapping of names and bytes."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        for name, target in links:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return made.getvalue()


def layout(*, name="registry.example.com/plugins/guard:1", blobs=None, manifest=None):
    """The files of a saved artifact."""
    manifest = manifest_of(MODULE) if manifest is None else manifest
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [{
            "mediaType": MANIFEST, "digest": digest(manifest), "size": len(manifest),
            "annotations": {"org.opencontainers.image.ref.name": name},
        }],
    }  # fmt: skip
    contents = [manifest, b"{}", MODULE] if blobs is None else blobs
    files = {f"blobs/sha256/{hashlib.sha256(each).hexdigest()}": each for each in contents}
    return {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode(), **files}


def _changed(files, old, new):
    return {name: new if data == old else data for name, data in files.items()}


def _with_referrers(number):
    """A layout whose artifact has so many."""
    files = layout()
    index = json.loads(files["index.json"])
    for each in range(number):
        note = b"%d" % each
        document = referrer(manifest_of(MODULE), note)
        index["manifests"].append({"mediaType": MANIFEST, "digest": digest(document), "size": len(document)})
        files |= {f"blobs/sha256/{hashlib.sha256(data).hexdigest()}": data for data in (document, note)}
    return {**files, "index.json": json.dumps(index).encode()}


def _nested(number):
    """A layout whose artifact is an index of an index, and so on."""
    blobs = [manifest_of(MODULE)]
    for _ in range(number):
        blobs.append(listing(blobs[-1]))
    return layout(manifest=blobs[-1], blobs=[*blobs, b"{}", MODULE])


HOSTILE = {
    "is no tar": (b"x" * 2000, 1, "the archive is damaged"),
    "is empty": (tar_of({}), 1, "no index.json"),
    "is cut off": (tar_of(layout())[:1500], 1, "the archive ends in the middle"),
    "leads out of it": (tar_of({**layout(), "../../evil": b"x"}), 1, "leads out of it"),
    "has another blob than its name": (tar_of(_changed(layout(), MODULE, b"\0asm\x01\0\0\x01")), 1, "another digest"),
    "lacks a blob": (tar_of(layout(blobs=[manifest_of(MODULE), b"{}"])), 3, "cannot be read"),
    "lacks its manifest": (tar_of(layout(blobs=[b"{}", MODULE])), 3, "cannot be read"),
    "has a manifest that is none": (tar_of(layout(manifest=b"[]", blobs=[b"[]"])), 1, "not a JSON object"),
    "has an index that is none": (tar_of({**layout(), "index.json": b"{"}), 1, "not a JSON object"),
    "has a link for an index": (tar_of({}, links=[("index.json", "/etc/passwd")]), 1, "no index.json"),
    "has no names": (tar_of(layout(name="")), 2, "no artifact with a name"),
    "has a name that leads away": (tar_of(layout(name="r.example/../etc:1")), 1, "no reference and no tag"),
    "has a thousand referrers": (tar_of(_with_referrers(1000)), 1, "1000 manifests refer to"),
    "has a thousand indexes in each other": (tar_of(_nested(1000)), 1, "it is an index of indexes, and 4 of them"),
    "has an index of 5 MiB": (tar_of({**layout(), "index.json": b" " * (5 << 20)}), 3, "too large"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_file_that_is_not_what_it_should_be_is_refused(hookline, tmp_path, what):
    """In one sentence, and nothing of it is left anywhere."""
    data, code, said = HOSTILE[what]
    (tmp_path / "hostile.tar").write_bytes(data)
    done = hookline("load", "hostile.tar", "--to", "mirror")
    assert done.code == code, done
    assert said in done.sentence
    assert not (tmp_path.parent / "evil").exists()
    assert not list((tmp_path / "mirror").rglob("index.json"))


def test_indexes_in_each_other_go_along(hookline, tmp_path):
    """As many as somebody who fetches them follows."""
    (tmp_path / "nested.tar").write_bytes(tar_of(_nested(4)))
    done = hookline("load", "nested.tar", "--to", "mirror", "--json")
    assert done.code == 0, done
    manifest = _nested(4)
    held = sum(len(data) for name, data in manifest.items() if name.startswith("blobs/"))
    assert done.json["artifacts"][0]["size"] == held


def test_keys_of_a_file_take_the_place_of_none(hookline, tmp_path):
    """What is there may be what they are to be compared with. Names that are options, hidden or no text are none."""
    names = [
        "trust/release.pub",
        "trust/new.pub",
        "trust/-rf.pub",
        "trust/.hidden.pub",
        "trust/a\x1b[2J.pub",
        "trust/a\nb.pub",
    ]
    (tmp_path / "theirs.tar").write_bytes(tar_of({**layout(), **dict.fromkeys(names, b"theirs")}))
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "release.pub").write_bytes(b"mine")
    done = hookline("load", "theirs.tar", "--to", "mirror", "--trust-to", "keys")
    assert done.code == 0, done
    assert "already in keys with other content, and left alone: release.pub" in done.out
    assert {each.name: each.read_bytes() for each in (tmp_path / "keys").iterdir()} == {
        "release.pub": b"mine", "new.pub": b"theirs",
    }  # fmt: skip
    again = hookline("load", "theirs.tar", "--to", "mirror", "--trust-to", "keys", "--json")
    assert (again.json["trust"], again.json["trustKept"]) == (["new.pub", "release.pub"], ["release.pub"])


def test_files_of_other_tools_are_loaded(hookline, tmp_path):
    """Names without a registry, and files of their own beside the layout's."""
    (tmp_path / "theirs.tar").write_bytes(tar_of({**layout(name="1.0"), "manifest.json": b"[]"}))
    done = hookline("load", "theirs.tar", "--to", "mirror", "--json")
    assert done.code == 0, done
    assert done.json["artifacts"][0]["reference"] == "oci-layout:mirror:1.0"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["save", "oci-layout:x:1", "-o", "a.tar"], 2, "is a folder already"),
        (["save", "127.0.0.1:1/a/b:1", "-o", "none/a.tar", "--insecure"], 3, "No such file"),
        (["save", "127.0.0.1:1/a/b:1", "-o", "a.tar", "--with-key", "release.key"], 2, "is a private key"),
        (["save", "127.0.0.1:1/a/b:1", "-o", "a.tar", "--with-trust-root", "none.json"], 2, "cannot be read"),
        (["save", "127.0.0.1:1/a/b:1", "-o", "/dev/null", "--insecure"], 2, "is a device, or a pipe: name a file"),
        (["save", "-o", "a.tar"], 2, "Missing argument"),
        (["load", "none.tar", "--to", "x"], 3, "No such file"),
        (["load", "none.tar"], 2, "give either"),
        (["load", "none.tar", "registry.example.com", "--to", "x"], 2, "give either"),
    ],
)
def test_each_failure_has_its_code_and_a_sentence(hookline, keys, arguments, code, said):
    """A private key never goes into a file that is handed on."""
    done = hookline(*arguments)
    assert done.code == code, done
    assert said in done.err.splitlines()[-1]
