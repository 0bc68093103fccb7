"""What a module imports has to be granted, and of its hooks those are called that its package declares."""

from __future__ import annotations

import hashlib
import json

import pytest
import wasmtime

from hookline_api.abi import HOST_FUNCTIONS
from hookline_api.hooks import Hook
from hookline_api.permissions import Permission
from hookline_api.resources import LocalWasmPlugin
from hookline_artifacts.errors import ConfigError, LoadError, VerifyError
from hookline_artifacts.fetch import Fetcher
from hookline_artifacts.resolve import resolve
from hookline_artifacts.store import ArtifactStore
from hookline_sidecar.control.sources.manifests import Scan

_TYPES = {"i": "i32", "I": "i64", "F": "f64"}
_NOTHING = Scan(manifests={}, problems=(), secrets={}, config_maps={})
_NEED = {key: function for key, function in HOST_FUNCTIONS.items() if function.permission is not None}
SECTION = "the section hookline.plugin"
DECLARED = ["preQuery", "AUTH"]


def module(*imports, hooks=("pre_query",), description=None):
    """A module of the guest ABI that imports host functions by module and name."""
    parts = []
    for where, name in imports:
        function = HOST_FUNCTIONS[where, name]
        params = " ".join(_TYPES[each] for each in function.params)
        results = " ".join(_TYPES[each] for each in function.results)
        signature = (f"(param {params})" if params else "") + f"(result {results})"
        parts.append(f'(import "{where}" "{name}" (func {signature}))')
    exports = [f'(func (export "{name}") (param i32 i32) (result i64) (i64.const 0))' for name in hooks]
    alloc = '(memory (export "memory") 2) (func (export "alloc") (param i32) (result i32) (i32.const 65536))'
    wasm = bytes(wasmtime.wat2wasm(f"(module {' '.join(parts)} {alloc} {' '.join(exports)})"))
    if description is None:
        return wasm
    raw = b"\x0fhookline.plugin" + json.dumps(description).encode()
    return wasm + b"\0" + bytes([len(raw) & 0x7F | 0x80, len(raw) >> 7]) + raw


@pytest.fixture
async def resolved(tmp_path):
    """Resolves a plugin of these bytes, named ``guard``, with this spec."""
    fetcher = Fetcher(ArtifactStore(tmp_path / "store"))

    async def make(content, *, name="guard", file="guard.wasm", **spec):
        (tmp_path / file).write_bytes(content)
        plugin = LocalWasmPlugin.model_validate(
            {"metadata": {"name": name}, "spec": {"source": {"file": {"path": file}}, **spec}}
        )
        return await resolve(plugin, fetcher=fetcher, objects=_NOTHING, base=tmp_path)

    yield make
    await fetcher.close()


@pytest.mark.parametrize("function", _NEED, ids=".".join)
async def test_an_import_whose_permission_is_not_granted_is_an_invalid_configuration(resolved, function):
    """The sentence names the function, the permission and what to write; with it, the plugin loads."""
    permission, others = _NEED[function].permission, [each for each in Permission if each != _NEED[function].permission]
    with pytest.raises(ConfigError) as found:
        await resolved(module(function), permissions=[each.value for each in others])
    assert str(found.value) == (
        f"the module imports {'.'.join(function)}, which needs the permission {permission}; add it to "
        "spec.permissions, or set spec.permissionsPolicy: Lenient to let the function answer 'denied'"
    )
    good = await resolved(module(function), permissions=[permission.value])
    assert good.ungranted == []


async def test_all_that_is_missing_is_said_at_once(resolved):
    """Each function with its permission; and each permission once."""
    imports = [
        ("env", "kv_get"),
        ("hookline", "kv_list"),
        ("env", "kv_set"),
        ("env", "sha256_hex"),
        ("hookline", "log"),
    ]
    with pytest.raises(ConfigError) as found:
        await resolved(module(*imports), permissions=["crypto"])
    assert "env.kv_get and hookline.kv_list, which need the permission kv.read" in str(found.value)
    assert "env.kv_set, which needs the permission kv.write" in str(found.value)
    assert "add them (kv.read, kv.write) to spec.permissions" in str(found.value)
    assert "sha256_hex" not in str(found.value)
    assert "hookline.log" not in str(found.value)


async def test_lenient_loads_it_and_says_what_is_denied(resolved):
    """As it always was."""
    found = await resolved(module(("env", "kv_get")), permissionsPolicy="Lenient")
    assert found.ungranted == ["kv.read"]
    assert found.ungranted_imports == {"env.kv_get": "kv.read"}


async def test_a_permission_that_is_declared_and_not_imported_is_shown_and_nothing_more(resolved):
    """A package may say what it likes: what counts is what the module can call."""
    found = await resolved(module(description={"permissions": ["kv_read", "http_fetch"]}))
    assert found.ungranted == ["http.fetch", "kv.read"]
    assert found.ungranted_imports == {}


async def test_a_permission_that_nothing_needs_is_fine(resolved):
    """More is granted than is used."""
    assert (await resolved(module(), permissions=["kv.read", "crypto"])).ungranted == []


def packed(oci, name, document, hooks):
    """An archive of a module and its description."""
    return oci.tar({"plugin.wasm": module(hooks=hooks), name: document.encode()})


@pytest.mark.parametrize(
    ("name", "document"),
    [
        (None, ""),
        ("plugin.yaml", "name: guard\nhooks:\n  - preQuery\n  - AUTH\n"),
        ("plugin.toml", 'name = "guard"\nhooks = ["preQuery", "AUTH"]\n'),
        ("manifest.json", json.dumps({"schema_version": "1.0", "name": "guard", "hooks": DECLARED})),
    ],
)
async def test_only_the_hooks_that_a_package_declares_are_called(resolved, oci, name, document):
    """In whatever form it declares them, and in whatever spelling."""
    hooks = ("pre_query", "authenticate", "route")
    if name is None:
        found = await resolved(module(hooks=hooks, description={"name": "guard", "hooks": DECLARED}))
    else:
        found = await resolved(packed(oci, name, document, hooks), file="guard.tar.gz")
    assert found.entry.hooks == [Hook.AUTHENTICATE, Hook.PRE_QUERY]
    assert found.notes == (
        "the module exports route, which the package does not declare: it is not called unless spec.hooks says so",
    )


@pytest.mark.parametrize("description", [None, {}, {"hooks": []}, {"hooks": None}, {"hooks": ["on_magic"]}])
async def test_a_package_that_declares_no_hook_has_all_that_it_exports(resolved, description):
    """Also where it names only hooks of some other host: a guard is called rather too often than never."""
    found = await resolved(module(hooks=("pre_query", "route"), description=description))
    assert found.entry.hooks == [Hook.PRE_QUERY, Hook.ROUTE]


async def test_what_the_resource_names_wins_over_what_the_package_declares(resolved):
    """Also a hook that the package does not declare; that is said."""
    content = module(hooks=("pre_query", "route"), description={"hooks": ["pre_query"]})
    found = await resolved(content, hooks=["route"])
    assert found.entry.hooks == [Hook.ROUTE]
    assert found.notes == ("spec.hooks names route, which the package does not declare: it is called all the same",)


async def test_a_declared_hook_that_is_not_exported_is_said(resolved):
    """It would be missed by whoever relies on it."""
    found = await resolved(module(hooks=("pre_query",), description={"hooks": ["pre_query", "authorize"]}))
    assert found.entry.hooks == [Hook.PRE_QUERY]
    assert found.notes == ("the package declares authorize, which the module does not export: it is never called",)


async def test_a_package_of_which_nothing_would_be_called_is_refused(resolved):
    """A guard that nobody asks is none; the resource can say which hooks are meant."""
    content = module(hooks=("route",), description={"hooks": ["pre_query", "authorize"]})
    with pytest.raises(ConfigError, match=r"declares pre_query, authorize, .* exports only route.*spec\.hooks"):
        await resolved(content)
    assert (await resolved(content, hooks=["route"])).entry.hooks == [Hook.ROUTE]


async def test_a_package_of_another_name_is_noted(resolved):
    """Its keys are under the name of the resource, and not where the package's author looks for them."""
    content = module(description={"name": "helios-plugin-guard"})
    found = await resolved(content)
    assert found.notes == (
        "the package calls itself 'helios-plugin-guard': here it is 'guard', also as the name of its keys",
    )
    assert (await resolved(content, name="helios-plugin-guard")).notes == ()


async def test_a_key_that_is_missing_is_told_with_those_that_are_there(tmp_path):
    """Of Secrets and ConfigMaps alike: names, bounded, and never a value."""

    class Objects:
        async def secret(self, _, name):
            return {"token": b"s3cret", "tls.crt": b"s3cret"} if name == "known" else None

        async def config_map(self, _, name):
            return {f"key-{number}\n": b"v" for number in range(20)} if name == "known" else {}

    fetcher = Fetcher(ArtifactStore(tmp_path / "store"))
    (tmp_path / "guard.wasm").write_bytes(module())

    async def said(reference, source=None):
        spec = {"source": source or {"file": {"path": "guard.wasm"}}}
        if reference:
            spec["configFrom"] = [{**reference, "key": "tokn", "path": "a"}]
        plugin = LocalWasmPlugin.model_validate({"metadata": {"name": "guard"}, "spec": spec})
        with pytest.raises(LoadError) as caught:
            await resolve(plugin, fetcher=fetcher, objects=Objects(), base=tmp_path)
        assert "s3cret" not in str(caught.value)
        return str(caught.value)

    assert await said({"secretRef": {"name": "known"}}) == (
        "configFrom 'a': there is no Secret 'known' with the key 'tokn'; that Secret has tls.crt, token "
        "(did you mean token?)"
    )
    gone = "configFrom 'a': there is no Secret 'gone' with the key 'tokn'"
    assert await said({"secretRef": {"name": "gone"}}) == gone
    many = await said({"configMapRef": {"name": "known"}})
    assert "that ConfigMap has key-0\\n, key-1\\n, " in many
    assert many.endswith(" and 12 more")
    empty = "there is no ConfigMap 'other' with the key 'tokn'; that ConfigMap is empty"
    assert (await said({"configMapRef": {"name": "other"}})).endswith(empty)
    found = await said(None, {"configMap": {"name": "known", "key": "plugin.wasm"}})
    assert found.startswith("there is no ConfigMap 'known' with the key 'plugin.wasm'; that ConfigMap has key-0")
    authority = {"reference": "127.0.0.1:1/a:1", "caConfigMap": {"name": "known"}}
    assert "with the key 'ca.crt'; that ConfigMap has key-0" in await said(None, {"oci": authority})
    await fetcher.close()


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["prequery"], "it exports alloc, memory, prequery (did you mean pre_query?); the hooks are authenticate, "),
        (["preQuery", "log"], "did you mean pre_query?"), (["pre_quer"], "did you mean pre_query?"),
        (["run"], "it exports alloc, memory, run; the hooks are "), ([], "it exports alloc, memory; the hooks are "),
        ([f"f{number:03}" for number in range(300)], "it exports alloc, f000, f001, f002, "),
        (["\x1b[2J\n" + "x" * 5000], r"\x1b[2J\n"),
    ],
)  # fmt: skip
async def test_a_module_without_a_hook_is_told_with_what_it_exports(resolved, names, says):
    """On one line, visible and bounded: the names are a stranger's."""
    escaped = ["".join(f"\\{byte:02x}" for byte in name.encode()) for name in names]
    with pytest.raises(VerifyError) as caught:
        await resolved(module(hooks=escaped))
    assert str(caught.value).startswith("the module exports no hook; it exports ")
    assert says in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1500


async def test_what_else_has_to_be_exported_is_told_with_what_is(resolved):
    """The memory, and the allocator."""
    for text, says in (
        ('(func (export "alloc") (param i32) (result i32) (i32.const 0))', "as 'memory'; it exports alloc"),
        ('(memory (export "memory") 1) (func (export "malloc"))', "it exports malloc, memory"),
        ("", "it exports nothing"),
    ):
        with pytest.raises(VerifyError, match=says):
            await resolved(bytes(wasmtime.wat2wasm(f"(module {text})")))


async def test_an_export_that_is_nearly_a_hook_is_noted(resolved):
    """Beside one that is: else the plugin would run, and half of it would never be called."""
    found = await resolved(module(hooks=["pre_query", "postquery", "post_handle"]))
    assert found.notes == ("the module exports 'postquery', which is no hook and is never called; is it post_query?",)


@pytest.mark.parametrize(
    ("description", "says"),
    [
        ([], "the section hookline.plugin is ignored: it is not a mapping"),
        ({"hooks": "pre_query"}, f"{SECTION}: its hooks cannot be read: what it says there does not count"),
        ({"config_schema": [1], "version": ["1"]},
         f"{SECTION}: its version and config_schema cannot be read: what it says there does not count"),
        ({"hooks": ["pre_query", "on_\nfire"]},
         r"the section hookline.plugin declares on_\nfire, which Hookline has not as hooks"),
    ],
)  # fmt: skip
async def test_a_section_that_cannot_be_read_is_noted_and_keeps_nothing_from_running(resolved, description, says):
    """Whole, or a field of it; what was meant by it does not hold."""
    found = await resolved(module(description=description))
    assert says in found.notes
    assert found.description.notes == (says,)


async def test_a_section_writes_no_notes_of_its_own(resolved):
    """They are Hookline's words about it."""
    assert (await resolved(module(description={"notes": ["all is well\n\x1b[2J"]}))).notes == ()


@pytest.mark.parametrize(
    ("content", "spec"),
    [(module(), {"sha256": "0" * 64}), (module(), {"hooks": ["route"]}), (module(("env", "kv_get")), {})],
    ids=["other bytes", "hooks that it has not", "not granted"],
)  # fmt: skip
async def test_what_failed_is_told_by_its_digest(resolved, content, spec):
    """Which of the versions that a tag has meant it is about: the status has it."""
    with pytest.raises(LoadError) as caught:
        await resolved(content, **spec)
    assert caught.value.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
