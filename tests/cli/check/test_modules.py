"""``hookline check`` against the module: what it exports, imports and asks for."""

from __future__ import annotations

import orjson
import pytest
import yaml

from guests import Guests
from hookline_artifacts.module.annotate import with_sections

READS = '(import "env" "kv_get" (func (param i32 i32 i32 i32) (result i32)))'
SCHEMA = {"type": "object", "properties": {"limit": {"type": "integer"}}}


@pytest.fixture(scope="module")
def module():
    """One that reads keys and describes its settings."""
    body = {"pre_query": "(i64.const 0)"}
    description = {"name": "guard", "version": "1.2.0", "hooks": ["pre_query"], "config_schema": SCHEMA}
    return with_sections(Guests().module(body, imports=READS), {"hookline.plugin": orjson.dumps(description)})


def document(source, **spec):
    """A WasmPlugin."""
    return {
        "apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": "guard"},
        "spec": {"source": source, **spec},
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path, module):
    """A folder for a sidecar, as it is written."""
    (tmp_path / "guard.wasm").write_bytes(module)

    def write(*more, **spec):
        found = [document({"file": {"path": "guard.wasm"}}, **spec), *more]
        (tmp_path / "guard.yaml").write_text(yaml.safe_dump_all(found))
        return "guard.yaml"

    return write


def messages(done, by="module"):
    """What one judge says."""
    return [each["message"] for each in done.json["findings"] if each["by"] == by]


def test_what_fits_its_module_is_passed(hookline, folder):
    """A manifest that names a file is for a folder, where nothing has to be said."""
    done = hookline("check", folder(permissions=["kv.read"], config={"limit": 3}), "--json")
    assert done.code == 0, done
    assert done.json["documents"][0]["for"] == "folder"


def test_all_that_does_not_fit_is_told_at_once(hookline, folder):
    """Hooks, memory, permissions, settings: what the operator would tell one by one."""
    name = folder(hooks=["authenticate"], limits={"memory": "64Ki"}, config={"limit": "many"}, sha256="0" * 64)
    done = hookline("check", name, "--json")
    assert done.code == 1
    found = "\n".join(messages(done))
    for words in (
        "spec.sha256: the module's sha256 is", "spec.hooks: spec.hooks names authenticate", "spec.limits.memory: ",
        "spec.permissions: the module imports env.kv_get, which needs the permission kv.read",
        'spec.config.limit: expected a whole number, found "many"',
    ):  # fmt: skip
        assert words in found


def test_for_a_cluster_a_file_is_refused(hookline, folder):
    """As the API server refuses it."""
    done = hookline("check", folder(permissions=["kv.read"]), "--for", "cluster", "--json")
    assert done.code == 1
    assert any("spec.source" in each for each in messages(done, "schema"))


def test_a_folder_has_all_that_its_plugins_name(hookline, folder):
    """A Secret that is in no file is nowhere."""
    given = [{"secretRef": {"name": "s"}, "key": "k", "path": "limit"}]
    done = hookline("check", folder(permissions=["kv.read"], configFrom=given), "--json")
    assert messages(done, "objects") == [
        "spec.configFrom[0].key: there is no Secret 's' in the folder: put one with the key 'k' there"
    ]


def test_settings_from_a_secret_are_checked_and_not_shown(hookline, folder):
    """By the module's schema."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "hidden"}}
    given = [{"secretRef": {"name": "s"}, "key": "k", "path": "limit"}]
    done = hookline("check", folder(secret, permissions=["kv.read"], configFrom=given), "--json")
    assert [each.partition(":")[0] for each in messages(done)] == ["spec.config.limit"], done
    assert "hidden" not in done.out


def test_what_no_host_has_is_a_problem_of_the_source(hookline, tmp_path):
    """With the import that is unknown."""
    unknown = Guests().module({"pre_query": "(i64.const 0)"}, imports='(import "env" "launch" (func))')
    (tmp_path / "guard.wasm").write_bytes(unknown)
    (tmp_path / "guard.yaml").write_text(yaml.safe_dump(document({"file": {"path": "guard.wasm"}})))
    done = hookline("check", "guard.yaml", "--json")
    (message,) = messages(done)
    assert message.startswith("spec.source: ")
    assert "env.launch" in message


def test_a_registry_is_asked_where_that_is_wanted(hookline, push, module, tmp_path):
    """Else nothing is said of the module; one that cannot be had is unknown, with exit code 3."""
    source = {"oci": {"reference": push("check/guard:1", module), "insecure": True}}
    (tmp_path / "guard.yaml").write_text(yaml.safe_dump(document(source)))
    assert hookline("check", "guard.yaml").code == 0
    done = hookline("check", "guard.yaml", "--pull", "--json")
    assert done.code == 1
    assert "needs the permission kv.read" in messages(done)[0]
    source["oci"]["reference"] = source["oci"]["reference"].replace(":1", ":2")
    (tmp_path / "guard.yaml").write_text(yaml.safe_dump(document(source)))
    done = hookline("check", "guard.yaml", "--pull", "--json")
    assert (done.code, len(done.json["unknown"])) == (3, 1)
