"""What strangers write is read in linear time: an input of twice the size is at most so much more work.

Counted in steps of the interpreter.
"""

from __future__ import annotations

import gzip
import io

import orjson
import pytest

from hookline_api.quantities import parse_duration, parse_size
from hookline_artifacts import reference
from hookline_artifacts.documents import kubernetes_scalars, kubernetes_yaml
from hookline_artifacts.errors import VerifyError
from hookline_artifacts.judging import plugins, structure
from hookline_artifacts.limits import FetchLimits
from hookline_artifacts.login import challenges, docker_config
from hookline_artifacts.module import describe, memory_map
from hookline_artifacts.module.describe import PluginDescription
from hookline_artifacts.net import urls
from hookline_artifacts.net.transport import retry_after
from hookline_artifacts.package import archive, layouts
from hookline_artifacts.package.archive import Budget
from hookline_artifacts.package.search import Search
from hookline_operator.webhooks import annotations
from hookline_runtime.call import matching
from hookline_serving import media_type
from steps import GROWTH, TooMuchError, growth, opcodes

OURS = reference.parse("registry.test:5000/team/plugin:1")
LONG = reference.parse("a." * 60 + "test/team/plugin:1")
EMPTY_MEMBER = gzip.compress(b"")


def packed(name):
    """A parser of one packed description."""
    return lambda text: PluginDescription.from_packed({name: text.encode() if isinstance(text, str) else text})


def walked(data):
    """Read an archive to its end."""
    for _ in archive.walk(io.BytesIO(data), budget=Budget(unpacked=1 << 28, entries=10_000)):
        pass


def looked(data):
    """Search a file as one that was fetched."""
    return Search(limits=FetchLimits()).look(io.BytesIO(data))


def gzipped_long_name(size):
    """A gzip file whose header has a long name in it."""
    return b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * size + b"\0" + EMPTY_MEMBER[10:]


def tar_header(name, size, kind):
    """A header of ustar."""
    header = bytearray(512)
    header[: len(name)] = name
    header[124:136] = b"%011o\0" % size
    header[156:157] = kind
    header[257:263] = b"ustar\0"
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 0x20 + sum(header[156:]))
    return bytes(header)


def pax(size):
    """One entry that has a pax header of so many records."""
    body = b"6 a=b\n" * size
    return tar_header(b"p", len(body), b"x") + body + bytes(-len(body) % 512) + tar_header(b"f", 0, b"0") + bytes(1024)


def leb(number):
    """A number in LEB128."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def module(section, body):
    """A module of one section."""
    return b"\0asm\x01\0\0\0" + bytes([section]) + leb(len(body)) + body


def product(size):
    """A global whose value is a product of many numbers."""
    constant = b"\x42" + b"\xff" * 8 + b"\x3f"
    return module(6, b"\x01\x7e\x00" + constant + (constant + b"\x7e") * size + b"\x0b")


def manifest(size):
    """A manifest of so many layers."""
    layer = {"mediaType": "application/x", "digest": "sha256:" + "0" * 64, "size": 1}
    return orjson.dumps({"layers": [layer] * size})


def deep(opening, closing=""):
    """Makes texts of so many brackets."""
    return lambda size: "a = " + opening * size + closing * size


def dockerconfig(make_key):
    """Makes a pull secret whose entries are for another registry."""
    return lambda size: orjson.dumps({"auths": {make_key(number): {} for number in range(size)}})


def against_label(pattern):
    """Compare a glob with the longest label that there is."""
    return docker_config._label_matches(pattern, "a" * 63)


def as_scalar(text):
    """A scalar of YAML that nothing is said of."""
    return kubernetes_scalars.resolve(text, tag=None, plain=True)


def of_secret(document):
    """Look for this registry in a pull secret."""
    return docker_config.read_secret(document, 1, OURS)


TABLE = {
    # name: (make an input of a size, read it, the size of the smaller one)
    "yaml: brackets": (lambda size: "[" * size, packed("plugin.yaml"), 500),
    "yaml: braces": (lambda size: "{" * size, packed("plugin.yaml"), 500),
    "yaml: open brackets within keys": (lambda size: "a: [" * size, packed("plugin.yaml"), 500),
    "yaml: closed brackets": (lambda size: "[" + "[],\n" * size + "]", packed("plugin.yaml"), 300),
    "yaml: one line": (lambda size: "[" + "a," * size + "]", packed("plugin.yaml"), 300),
    "yaml: blocks on one line": (lambda size: "- " * size, packed("plugin.yaml"), 300),
    "yaml: blocks below each other": (
        lambda size: "\n".join(" " * depth + "a:" for depth in range(size)), packed("plugin.yaml"), 100),
    "yaml: keys": (lambda size: "".join(f"k{number}: 1\n" for number in range(size)), packed("plugin.yaml"), 200),
    "yaml: explicit keys": (lambda size: "? " * size, packed("plugin.yaml"), 300),
    "yaml: to the base of 60": (lambda size: "a: " + "1:" * size + "1", packed("plugin.yaml"), 500),
    "yaml: digits": (lambda size: "a: " + "1" * size, packed("plugin.yaml"), 3000),
    "yaml: merges": (lambda size: "<<: [" + "{a: 1}," * size + "]", packed("plugin.yaml"), 200),
    "yaml: anchors": (lambda size: "".join(f"- &a{number} 1\n" for number in range(size)), packed("plugin.yaml"), 200),
    "yaml: documents": (lambda size: "--- a\n" * size, packed("plugin.yaml"), 300),
    "yaml: tags": (
        lambda size: "".join(f"%TAG !{number}! a\n" for number in range(size)) + "--- a", packed("plugin.yaml"), 200),
    "yaml: spaces": (lambda size: "a:" + " " * size + "b", packed("plugin.yaml"), 2000),
    "yaml: quotes": (lambda size: "a: '" + "''" * size, packed("plugin.yaml"), 500),
    "yaml: escapes": (lambda size: 'a: "' + "\\n" * size + '"', packed("plugin.yaml"), 500),
    "yaml: lines": (lambda size: "a: |\n" + " b\n" * size, packed("plugin.yaml"), 300),
    "toml: a dotted key": (lambda size: ".".join("a" * size) + " = 1", packed("plugin.toml"), 500),
    "toml: a dotted table": (lambda size: "[" + ".".join("a" * size) + "]", packed("plugin.toml"), 500),
    "toml: dotted keys in quotes": (lambda size: ".".join(['"a.="'] * size) + " = 1", packed("plugin.toml"), 500),
    "toml: dotted keys with spaces": (lambda size: " .\t".join("a" * size) + " = 1", packed("plugin.toml"), 500),
    "toml: many dotted keys": (
        lambda size: "".join(f"{'a.' * 30}k{number} = 1\n" for number in range(size)), packed("plugin.toml"), 20),
    "toml: arrays": (deep("[", "]"), packed("plugin.toml"), 200),
    "toml: tables in tables": (deep("{a = "), packed("plugin.toml"), 200),
    "toml: many tables": (
        lambda size: "".join(f"[[t]]\nk{number} = 1\n" for number in range(size)), packed("plugin.toml"), 100),
    "toml: quotes without end": (lambda size: "a = " + '"' * size, packed("plugin.toml"), 1000),
    "toml: escapes without end": (lambda size: 'a = "' + '\\"' * size, packed("plugin.toml"), 500),
    "toml: words": (lambda size: "a" * size, packed("plugin.toml"), 3000),
    "toml: digits": (lambda size: "a = " + "1" * size, packed("plugin.toml"), 3000),
    "toml: underscores": (lambda size: "a = 1" + "_1" * size, packed("plugin.toml"), 2000),
    "json: brackets": (lambda size: b"[" * size, packed("manifest.json"), 3000),
    "json: a schema": (
        lambda size: orjson.dumps({"config_schema": {str(number): {} for number in range(size)}}),
        packed("manifest.json"), 200),
    "description: hooks": (
        lambda size: orjson.dumps({"hooks": ["a_-_" * 10] * size}), packed("manifest.json"), 200),
    "description: a size": (lambda size: "9" * size + "GB", describe._size, 1000),
    "challenge: spaces and commas": (lambda size: " ," * size, challenges.parse_challenges, 2000),
    "challenge: spaces": (lambda size: "Basic" + " " * size, challenges.parse_challenges, 2000),
    "challenge: words": (lambda size: "a " * size, challenges.parse_challenges, 500),
    "challenge: parameters": (lambda size: "a b=" + "c," * size, challenges.parse_challenges, 500),
    "challenge: a quote without end": (lambda size: 'a b="' + "\\" * size, challenges.parse_challenges, 2000),
    "challenge: quotes without end": (lambda size: 'a b="' + 'c="\\' * size, challenges.parse_challenges, 500),
    "challenge: quotes": (lambda size: "a b=" + '"' * size, challenges.parse_challenges, 2000),
    "challenge: escapes": (lambda size: 'a b="' + "\\a" * size + '"', challenges.parse_challenges, 2000),
    "challenge: nothing": (lambda size: "\x01" * size, challenges.parse_challenges, 2000),
    "glob: stars": (lambda size: "*" * size, against_label, 300),
    "glob: stars and letters": (lambda size: "*a" * size + "b", against_label, 31),
    "glob: many labels": (lambda size: "*a*." * size + "test", lambda text: docker_config._depth(text, LONG), 100),
    "pull secret: a key of spaces": (lambda size: " " * size + "x", docker_config._host_and_path, 2000),
    "pull secret: a key of slashes": (lambda size: "/" * size, docker_config._host_and_path, 2000),
    "pull secret: entries": (dockerconfig(lambda number: f"{number}.test"), of_secret, 100),
    "pull secret: globs": (dockerconfig(lambda number: f"{number}" + "*a" * 30 + ".test:5000"), of_secret, 100),
    "pull secret: brackets": (lambda size: b"[" * size, of_secret, 2000),
    "pull secret: base64": (lambda size: "=" * size, docker_config._unpacked, 2000),
    "reference: colons": (lambda size: ":" * size, reference.parse, 1000),
    "reference: users": (lambda size: "a:" * size + "/b@", reference.parse, 1000),
    "reference: letters": (lambda size: "A" * size + "@", reference.parse, 1000),
    "reference: labels": (lambda size: "a." * size + "-/b", reference.parse, 1000),
    "reference: dashes": (lambda size: "a.b/c" + "-" * size, reference.parse, 1000),
    "reference: paths": (lambda size: "a.b/" + "c/" * size, reference.parse, 100),
    "url: steps up": (lambda size: "a/" * size + "../" * size, lambda text: urls.foreign(text, base=BASE), 300),
    "url: schemes": (lambda size: "a" * size, lambda text: urls.foreign(text, base=BASE), 2000),
    "url: escapes": (lambda size: "/" + "%" * size, lambda text: urls.foreign(text, base=BASE), 300),
    "url: a host beyond ASCII": (lambda size: "http://" + "\u00fc" * size, urls.foreign, 600),
    "url: a host of dots": (lambda size: "http://" + "a." * size, urls.foreign, 600),
    "url: a user": (lambda size: "http://" + "a:" * size + "@b", urls.foreign, 600),
    "url: a query": (
        lambda size: urls.foreign("http://a/?" + "a&" * size), lambda url: urls.with_query(url, {"b": "c"}), 200),
    "header: Retry-After": (lambda size: "1" * size, lambda text: retry_after(text, now=0.0), 1000),
    "header: a date": (lambda size: "Mon, " * size, lambda text: retry_after(text, now=0.0), 1000),
    "gzip: empty members": (lambda size: EMPTY_MEMBER * size, looked, 300),
    "gzip: members": (lambda size: gzip.compress(b"\0") * size, walked, 300),
    "gzip: a long name": (gzipped_long_name, looked, 3000),
    "gzip: zeros behind it": (lambda size: EMPTY_MEMBER + bytes(size) + b"\x01", looked, 100_000),
    "gzip: nothing in it": (
        lambda size: EMPTY_MEMBER[:10] + b"\x00\x00\x00\xff\xff" * size, looked, 20_000),
    "tar: entries": (lambda size: tar_header(b"a", 0, b"0") * size + bytes(1024), walked, 100),
    "tar: long names": (
        lambda size: (tar_header(b"L", 512, b"L") + b"a/" * 256) * size + bytes(1024), walked, 100),
    "tar: pax records": (pax, walked, 300),
    "tar: zeros": (bytes, walked, 5000),
    "manifest: layers": (manifest, layouts.read_manifest, 100),
    "manifest: brackets": (lambda size: b"[" * size, layouts.read_manifest, 3000),
    "module: a product": (product, memory_map.read_memory_map, 60),
    "module: names": (
        lambda size: module(0, b"\x04name\x07" + leb(3 + 3 * size) + leb(size).ljust(1) + b"\x01\x01a" * size),
        memory_map.read_memory_map, 100),
    "match: comments": (lambda size: "--" + "/*" * size, matching.query_classes, 500),
    "match: comments apart": (lambda size: "--" + "/* " * size, matching.query_classes, 500),
    "match: comments that end": (lambda size: "/**/" * size, matching.query_classes, 500),
    "match: comments without end": (lambda size: "/*" * size, matching.query_classes, 500),
    "match: statements": (lambda size: ";" * size, matching.query_classes, 500),
    "match: a glob": (
        lambda size: "a" * size, matching._any_of(["*a*a*a*a*b"]), 1000),
    "quantity: a size": (lambda size: "9" * size, parse_size, 2000),
    "quantity: an exponent": (lambda size: "1e" + "9" * size, parse_size, 2000),
    "quantity: a duration": (lambda size: "1h" * size, parse_duration, 1000),
    "annotation: processors": (lambda size: "9" * size, annotations._cpu, 1000),
    "annotation: memory": (lambda size: "1e" + "9" * size, annotations._memory, 1000),
    "label: a prefix": (lambda size: "-" * size, plugins._LABEL_PREFIX.match, 1000),
    "label: a long prefix": (lambda size: "a-" * size + "/", plugins._LABEL_PREFIX.match, 1000),
    "name: one part": (lambda size: "a-" * size + "!", structure._SUBDOMAIN.fullmatch, 1000),
    "name: many parts": (lambda size: "a." * size + "!", structure._SUBDOMAIN.fullmatch, 1000),
    "folder: digits": (
        lambda size: "1" * size, as_scalar, 2000),
    "folder: a float": (
        lambda size: "1" * size + "e9" * 2, as_scalar, 2000),
    "folder: underscores": (
        lambda size: ".1" + "_1" * size, as_scalar, 2000),
    "folder: a time": (
        lambda size: "2000-01-01" + " " * size, as_scalar, 2000),
    "folder: brackets": (lambda size: b"[" * size, kubernetes_yaml.read, 2000),
    "folder: backslashes": (lambda size: b'"' + b"\\\\" * size + b'/"', kubernetes_yaml.read, 2000),
    "media type: parameters": (lambda size: {"Content-Type": "a/b" + ";" * size}, media_type, 1000),
    "folder: documents": (lambda size: b"---\na\n" * size, kubernetes_yaml.read, 200),
    "folder: keys": (
        lambda size: "".join(f"k{number}: 1\n" for number in range(size)).encode(), kubernetes_yaml.read, 200),
}  # fmt: skip
BASE = urls.foreign("https://registry.test/v2/team/blobs/")


@pytest.mark.parametrize("name", TABLE)
def test_twice_the_input_is_twice_the_work(name):
    """For each parser of what others write, in the shapes that parsers stumble over."""
    make, parse, size = TABLE[name]
    assert growth(opcodes, make, parse, size) <= GROWTH


def pairs(text):
    """Quadratic, on purpose."""
    return sum(one == other for one in text for other in text)


def test_what_is_not_linear_is_seen():
    """The meter counts: of a function that compares all with all it says so, and of one that never ends too."""
    assert growth(opcodes, lambda size: "a" * size, pairs, 100) > 3.5
    with pytest.raises(TooMuchError):
        opcodes(lambda: sum(iter(lambda: 0, 1)))


def test_a_product_of_many_numbers_stays_a_number_of_64_bits():
    """Of one that grows, each step would take longer than the one before."""
    value = 3
    for _ in range(200):
        value = memory_map._arithmetic(0x7E, value, value + 2)
    assert value < 2**64


def test_the_ends_of_comments_are_looked_for_once():
    """``--/* /* /*``: comments that never end, of which each could be searched for its end."""

    class Counted(str):
        __slots__ = ("looked",)

        def find(self, wanted, start=0):
            found = super().find(wanted, start)
            self.looked = getattr(self, "looked", 0) + (len(self) if found < 0 else found) - start
            return found

    for text in ("--" + "/*" * 5000, "--" + "/* " * 5000, "/**/" * 5000):
        counted = Counted(text)
        matching._is_unsure(counted)
        assert counted.looked <= 2 * len(text)


def test_the_archive_that_stopped_everything():
    """198 bytes of tar.gz with 65,000 open brackets: a note, and the module beside them is found."""
    out, raw = io.BytesIO(), io.BytesIO()
    wasm = b"\0asm\x01\0\0\0"
    for name, data in ((b"plugin.yaml", b"[" * 65_000), (b"plugin.wasm", wasm)):
        raw.write(tar_header(name, len(data), b"0") + data + bytes(-len(data) % 512))
    search = Search(limits=FetchLimits())
    search.look(io.BytesIO(gzip.compress(raw.getvalue() + bytes(1024))))
    found = search.take(out, layout="raw")
    assert out.getvalue() == wasm
    assert "nested deeper" in found.description.notes[0]


def test_a_gzip_file_of_a_million_empty_ones_is_refused():
    """Each takes a step of ours, and 20 bytes."""
    with pytest.raises(VerifyError, match="more than 65536 gzip files"):
        looked(EMPTY_MEMBER * (archive._MAX_MEMBERS + 1))
    assert looked(EMPTY_MEMBER * 1000 + gzip.compress(tar_header(b"plugin.wasm", 0, b"0") + bytes(1024)))


def test_pax_headers_have_a_bound_for_all_of_an_archive():
    """Beside that of one header."""
    with pytest.raises(VerifyError, match="pax headers"):
        for _ in archive.walk(io.BytesIO(pax(8000)[:-1024] * 4), budget=Budget(unpacked=1 << 28, entries=1000)):
            pass


@pytest.mark.parametrize(
    ("pattern", "label", "matches"),
    [
        ("*", "registry", True), ("*", "", True), ("", "", True), ("reg*", "registry", True),
        ("*try", "registry", True),
        ("r*y", "registry", True), ("r*g*y", "registry", True), ("r*x*y", "registry", False), ("**", "registry", True),
        ("re?istry", "registry", True), ("?", "", False), ("*?", "", False), ("*?", "a", True), ("?*", "ab", True),
        ("*a", "ba", True), ("*a", "ab", False), ("*ab", "aab", True), ("a*a", "a", False), ("*a*b*", "xaxbx", True),
        ("*" * 900, "a" * 63, True), ("*a" * 40 + "b", "a" * 63, False), ("*", "a" * 64, False),
    ],
)  # fmt: skip
def test_a_glob_means_what_it_means_to_kubernetes(pattern, label, matches):
    """As Go's filepath.Match has it, without its brackets."""
    assert docker_config._label_matches(pattern, label) is matches


def test_more_entries_and_pull_secrets_than_are_read_are_told():
    """In one sentence, beside what was found."""
    many = orjson.dumps({"auths": {f"{number}.test": {} for number in range(1200)}})
    assert "only 1000 are looked at" in of_secret(many)[-1].why
