"""What fuzzing begins with: honest inputs of each parser, and what once was dear to read. All small, all made here."""

from __future__ import annotations

import base64
import io
import json
import struct
import tarfile
import zlib
from typing import Final

MODULE: Final = bytes.fromhex(
    # (module (memory (export "memory") 1) (func (export "alloc") (param i32) (result i32) (i32.const 0))
    #         (func (export "custom_hook") (param i32 i32) (result i64) (i64.const 0)) (data (i32.const 8) "abcd"))
    "0061736d01000000010c0260017f017f60027f7f017e03030200010503010001071f03066d656d6f7279020005616c6c6f6300000b637573"
    "746f6d5f686f6f6b00010a0b02040041000b040042000b0b0a010041080b0461626364"
)
_DIGEST: Final = "sha256:" + "a" * 64

_COMPONENT: Final = base64.b64decode(
    "By0Fa3NwAGoBdwFzQAEBYQEAAkICAUACBWxldmVscwR0ZXh0cwEABAADbG9nAQAKGQEAFGhvb2tsaW5lOnBsdWdpbi9ob3N0BQQBUwBhc20B"
    "AAAAAQkBYAR/f39/AX8DAwIAAAUDAQABBxsDBm1lbW9yeQIAB3JlYWxsb2MAAARjYWxsAAEKDAIFAEHAAAsEAEEACwAJBG5hbWUAAgFtAgQB"
    "AAAABBIAYXNtDQABAAEIAGFzbQEAAAAHEgFAAgRob29rcwVpbnB1dHMAcwYhAwAAAQAEY2FsbAACAQAGbWVtb3J5AAABAAdyZWFsbG9jCAoB"
    "AAAAAgMABAEFCwoBAARjYWxsAQAAACMPaG9va2xpbmUucGx1Z2lueyJob29rcyI6WyJyb3V0ZSJdfQ=="
)
"""One of the world hookline:plugin, behind its header: types, an import, a module, a component in it, and ``call``."""


def _tar(files: dict[str, bytes], *, form: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue().rstrip(b"\0") + bytes(1024)


def _zipped(data: bytes) -> bytes:
    """In gzip and not compressed, so that every zlib makes the same of it: RFC 1952, and RFC 1951 section 3.2.4."""
    stored = b"\1" + struct.pack("<HH", len(data), len(data) ^ 0xFFFF) + data
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + stored + struct.pack("<II", zlib.crc32(data), len(data))


def seeds() -> dict[str, dict[str, bytes]]:
    """By target and by name of a file."""
    layer = {"mediaType": "application/wasm", "digest": _DIGEST, "size": 4}
    entry = {"mediaType": "m", "digest": _DIGEST, "size": 4, "platform": {"os": "wasi", "architecture": "wasm"}}
    packed = _tar({"plugin.wasm": MODULE, "plugin.yaml": b"name: a"})
    critical = {"type": "cosign container image signature", "image": {"docker-manifest-digest": _DIGEST},
                "identity": {"docker-reference": "registry.example/a"}}  # fmt: skip
    statement = {"_type": "https://in-toto.io/Statement/v1", "predicateType": "a", "subject": [
        {"digest": {"sha256": "a" * 64}}, {"digest": 7}], "predicate": {}}  # fmt: skip
    envelope = {"payloadType": "application/vnd.in-toto+json", "signatures": [{"keyid": "a", "sig": "AAAA"}],
                "payload": base64.b64encode(json.dumps(statement).encode()).decode()}  # fmt: skip
    long_name = _tar({"a" * 120 + "/plugin.wasm": MODULE}, form=tarfile.PAX_FORMAT)
    return {
        "heads": {
            "call": b"POST /v1/hooks/pre_query HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"content-length: 2",
            "question": b"GET /v1/auth HTTP/1.1\r\nHost: a\r\nX-Original-URI: /b\r\nConnection: keep-alive",
            "many": b"GET / HTTP/1.1\r\nhost: a" + b"".join(b"\r\nx-%d: y" % n for n in range(120)),
        },
        "replies": {
            "all": b"+OK\r\n-ERR no\r\n:-5\r\n$-1\r\n*-1\r\n$3\r\na\r\n\r\n*2\r\n*0\r\n*1\r\n$0\r\n\r\n",
            "deep": b"*1\r\n" * 8 + b":1\r\n",
            "large": b"$4194304\r\n" + b"a" * 100,
        },
        "challenges": {
            "bearer": b'Bearer realm="https://a.example/token",service="a",scope="repository:b:pull"',
            "both": b'Basic realm="a\\"b", Bearer realm=c , Negotiate abc==',
            "commas": b"," * 4000 + b'"',
            "spaces": b"Bearer" + b" \t" * 2000 + b'=x"',
            "quotes": b'Bearer a="' + b"\\\\" * 2000,
        },
        "descriptions": {
            "yaml": b"\0name: a\nversion: 1.10\nhooks: [pre_query, authenticate]\nresources: {max_memory: 64MB}",
            "toml": b'\1name = "a"\npermissions = ["kv_read"]\n[config_schema]\ntype = "object"',
            "json": b'\2{"name": "a", "config_schema": {"type": "object"}, "permissions": ["kv.read"]}',
            "deep-yaml": b"\0" + b"[" * 1000,
            "deep-toml": b"\1" + b"a." * 1000 + b"a = 1",
            "deep-json": b"\2" + b"[" * 1000,
            "tags": b'\0a: !!timestamp x\nb: !!int ""\nc: &d [1]\ne: *d',
        },
        "globs": {
            "usual": b"registry.example.com:5000\nhttps://*.example.com:5000/v1/\nregistry.example.com\n*.*.*",
            "stars": b"a" * 60 + b".example\n" + b"*a" * 400 + b"b.example\n" + b"[!a]*?" * 50 + b".example",
        },
        "pull-secrets": {
            "usual": b'{"auths": {"registry.example.com": {"auth": "eDp5"}, "*.example.com": {"username": "a", '
            b'"password": "b"}}}',
            "bare": b' {"registry.example.com/a": {"identitytoken": "t"}}',
            "wrong": b'{"auths": {"registry.example.com": {"auth": "-_"}, "": null, "/": {}}}',
        },
        "json": {
            "usual": b'{"a": [1, "b,c", {"d": null}], "e\\"{": -1.5e3}',
            "objects": b"[" + b"{}," * 300 + b"{}]",
            "text": b'["' + b"{},[]\\\\" * 100 + b'"]',
            "deep": b"[" * 500 + b"]" * 500,
        },
        "archives": {
            "tar": packed,
            "tar-gz": _zipped(packed),
            "pax": _zipped(long_name),
            "gnu": _zipped(_tar({"b" * 120 + "/plugin.wasm": MODULE}, form=tarfile.GNU_FORMAT)),
            "module": MODULE,
            "module-gz": _zipped(MODULE),
            "empty-members": _zipped(b"") * 100 + _zipped(packed),
        },
        "modules": {
            "plugin": MODULE[8:],
            "params": bytes([1]) + b"\x88\x01" + b"\x01\x60\x81\x01" + b"\x7f" * 129 + b"\x00" * 3,
            "names": b"\x00\x0c\x04name\x07\x06\x01\x00\x03__s",
            "globals": b"\x06\x0b\x01\x7f\x01\x41\x80\x80\x04\x0b\x7f\x00\x41\x00",
        },
        "components": {
            "plugin": _COMPONENT,
            "types": _COMPONENT[: _COMPONENT.index(b"hookline:plugin")],
            "nested": b"\x04\x08\0asm\x0d\0\x01\0" * 8,
        },
        "manifests": {
            "manifest": json.dumps({"config": {"mediaType": "a"}, "layers": [layer]}).encode(),
            "index": json.dumps({"manifests": [entry, entry]}).encode(),
        },
        "signatures": {
            "simple": json.dumps({"critical": critical, "optional": {"a": "b"}}).encode(),
            "bundle": json.dumps(
                {"verificationMaterial": {"publicKey": {"hint": "a"}}, "dsseEnvelope": envelope}
            ).encode(),
            "dsse": json.dumps(envelope).encode(),
            "list": json.dumps({"manifests": [entry, {"digest": "sha512:a"}, 7]}).encode(),
            "evidence": json.dumps(
                {
                    "version": 1,
                    "digest": _DIGEST,
                    "documents": ["e30="],
                    "signatures": [{"form": "simple", "payload": "e30=", "signature": "", "annotations": {"a": "b"}}],
                }
            ).encode(),
            "key": b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA7Bcrk61eVjv0kyxw4SRQNMNUZ+8u/U1k6/gZaDRn4r8=\n"
            b"-----END PUBLIC KEY-----\n",
            "hints": json.dumps({**envelope, "signatures": [{"keyid": "k" * 100, "sig": "AA=="}] * 9}).encode(),
        },
        "addresses": {
            "reference": b"registry.example.com:5000/a/b:v1@" + _DIGEST.encode(),
            "url": b"https://user@a.example:8443/b%2Fc/../d?e=%zz#f",
            "relative": b"../x?y",
            "ipv6": b"http://[::ffff:169.254.169.254%25eth0]/latest",
            "date": b"Wed, 21 Oct 2026 07:28:00 GMT",
            "users": b"a:" * 500 + b"@",
        },
        "requests": {
            "get": b'{"url":"https://a.example/b?c","headers":{"Accept":"text/plain","X-A":"b\\u0009c"}}',
            "post": b'{"method":"POST","url":"http://a.example","body":"\\u00e9","timeoutMs":50}',
            "bytes": b'{"url":"https://a.example","bodyBase64":"AAE="}',
            "smuggled": b'{"url":"https://a.example","headers":{"X":"a\\r\\nHost: b","Transfer-Encoding":"chunked"}}',
            "brackets": b'{"url":' + b"[" * 5000,
            "escapes": b'{"url":"' + b'\\"' * 4000 + b'"}',
            "open": b'"' * 5001,
        },
        "egress": {
            "url": b"https://a.example:8443/%76%31/b;c=d/..%2f?e=%2e%2e#f",
            "user": b"http://a.example\\@[::ffff:169.254.169.254]:80/",
            "number": b"http://0x7f.1/%252e%252e/%25252e",
            "relative": b"../" * 300 + b"x",
            "directives": b'private="a, b", max-age = 60 , no-cache, x="\\"", ,max-age=5',
            "quotes": b',a="\\' * 1200,
            "spaces": b"a" + b" \t" * 2000 + b"=b",
        },
        "quantities": {"size": b"64Mi", "duration": b"1m30s", "long": b"9" * 500},
        "auth": {
            "nginx": b"aGET /v1/auth\nx-original-uri:/a/%7Eb?c\nx-original-method:POST\nauthorization:Basic eDp5",
            "behind": b"bPUT /v1/auth/a/b\nx-forwarded-for:1.2.3.4:5, unknown\nx-forwarded-uri:/a/b",
            "dots": b"cGET /v1/auth/a/%2e%2e/b\nx-original-url:https://a/%c0%ae%c0%ae/b",
            "slashes": b"aGET /v1/auth" + b"/" * 1000 + b"%25" * 300,
        },
        "manifest-folders": {
            "yaml": b"apiVersion: hookline.dev/v1alpha1\nkind: WasmPlugin\nmetadata: {name: a}\nspec:\n  priority: 01",
            "json": b'{"a": [1.0, true]}\n{"b": null}',
            "anchors": b"a: &b {c: 1}\nd:\n  <<: *b\n---\ne: |\n  f\n",
            "deep": b"[" * 500,
        },
    }
