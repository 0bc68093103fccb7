"""``hookline push`` and ``pull``: a module into a registry and out again, byte for byte, by its digest."""

from __future__ import annotations

import json

import orjson
import pytest

from guests import Guests
from hookline_artifacts.module.annotate import with_sections

DESCRIPTION = {"name": "guard", "version": "1.2.0", "author": "Acme", "license": "Apache-2.0", "hooks": ["pre_query"]}


@pytest.fixture(scope="module")
def module():
    """One that describes itself."""
    plain = Guests().module({"pre_query": "(i64.const 0)"})
    return with_sections(plain, {"hookline.plugin": orjson.dumps(DESCRIPTION)})


@pytest.fixture
def wasm(tmp_path, module):
    """It, as a file."""
    (tmp_path / "guard.wasm").write_bytes(module)
    return "guard.wasm"


def test_what_is_pushed_is_pulled(hookline, registry, wasm, module, tmp_path):
    """By tag and by the digest that was printed; again, it is the same artifact."""
    name = f"{registry.host}/push/guard"
    done = hookline("push", wasm, f"{name}:1.2.0", "--insecure", "--json")
    assert done.code == 0, done
    assert done.json["annotations"] == {
        "org.opencontainers.image.title": "guard",
        "org.opencontainers.image.version": "1.2.0",
        "org.opencontainers.image.authors": "Acme",
        "org.opencontainers.image.licenses": "Apache-2.0",
    }
    digest = done.json["digest"]
    assert hookline("push", wasm, f"{name}:again", "--insecure").out.splitlines()[1] == f"{name}@{digest}"
    for reference in (f"{name}:1.2.0", f"{name}@{digest}"):
        done = hookline("pull", reference, "-o", "pulled.wasm", "--insecure", "--json")
        assert (done.json["digest"], done.json["layout"]) == (digest, "wasm-oci")
        assert (tmp_path / "pulled.wasm").read_bytes() == module
    assert hookline("verify", f"{name}:1.2.0", "--insecure").code == 2  # it is there; who signed is another question


def test_the_manifest_is_the_one_that_the_cncf_describes(hookline, wasm, tmp_path, module):
    """In a folder, where it can be read."""
    done = hookline("push", wasm, "oci-layout:mirror:1", "--annotation", "a.b=c", "--json")
    blobs = tmp_path / "mirror" / "blobs" / "sha256"
    manifest = json.loads((blobs / done.json["digest"].removeprefix("sha256:")).read_bytes())
    assert manifest["config"]["mediaType"] == "application/vnd.wasm.config.v0+json"
    (layer,) = manifest["layers"]
    assert (layer["mediaType"], layer["size"]) == ("application/wasm", len(module))
    assert manifest["annotations"]["a.b"] == "c"
    config = json.loads((blobs / manifest["config"]["digest"].removeprefix("sha256:")).read_bytes())
    assert config == {"architecture": "wasm", "os": "wasip1", "layerDigests": [layer["digest"]]}
    assert hookline("pull", "oci-layout:mirror:1").code == 0
    assert (tmp_path / "mirror.wasm").read_bytes() == module


def test_what_hookline_would_not_load_is_not_pushed(hookline, registry, tmp_path):
    """Nothing is written; the sentence has the file and the reason."""
    (tmp_path / "x.wasm").write_bytes(b"not a module")
    done = hookline("push", "x.wasm", f"{registry.host}/push/none:1", "--insecure")
    assert done.code == 1
    assert done.sentence.startswith("hookline: x.wasm: this is not WebAssembly")
    assert hookline("pull", f"{registry.host}/push/none:1", "--insecure").code == 3


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["push", "none.wasm", "oci-layout:m:1"], 3, "none.wasm"),
        (["push", "guard.wasm", "oci-layout:m"], 2, "REFERENCE needs a tag"),
        (["push", "guard.wasm", "r.example/p@sha256:" + "0" * 64], 2, "REFERENCE needs a tag"),
        (["push", "guard.wasm", "oci-layout:m:1", "--annotation", "x"], 2, "write KEY=TEXT"),
        (["pull", "oci-layout:m:1"], 3, "m"),
        (["pull", "127.0.0.1:1/x:1", "--insecure"], 3, "127.0.0.1:1"),
        (["pull", "oci-layout:m:1", "-o", "."], 2, "is a folder"),
    ],
)
def test_a_mistake_is_one_sentence(hookline, wasm, arguments, code, words):
    """With its exit code."""
    done = hookline(*arguments)
    assert done.code == code
    assert words in done.sentence


def test_a_file_that_was_there_stays_where_a_pull_fails(hookline, push, tmp_path):
    """It is complete or as it was."""
    (tmp_path / "old.wasm").write_bytes(b"old")
    reference = push("push/broken:1", b"no module")
    done = hookline("pull", reference, "-o", "old.wasm", "--insecure")
    assert done.code != 0
    assert (tmp_path / "old.wasm").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["old.wasm"]
