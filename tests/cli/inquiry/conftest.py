"""A sidecar with a folder: one good plugin, and one for each way of being wrong."""

from __future__ import annotations

import pytest

import sidecars
from kubectl_plugin import KubectlPlugin

guests, new_sidecar, eventually = sidecars.guests, sidecars.new_sidecar, sidecars.eventually

READS = '(import "env" "kv_get" (func (param i32 i32 i32 i32) (result i32)))'


@pytest.fixture(scope="module")
def sidecar(new_sidecar, guests):
    """It has decided about all of them."""
    made = new_sidecar(workers=1)
    made.folder.plugin("good", guests.saying("hello"), permissions=["kv.read", "kv.write"])
    made.folder.plugin("traps", guests.module({"route": guests.trap}), priority=1000)
    made.folder.plugin("gone")
    made.folder.plugin("denied", guests.module({"custom_hook": "(i64.const 0)"}, imports=READS))
    made.folder.plugin("broken", guests.module({"custom_hook": "(i64.const 0)"})[:-3])
    made.folder.plugin("unread", guests.saying("x"), config={"a": 1}, prioritty=1)
    made.start(wait=False)
    made.wait_plugin("good", state="Running")
    made.wait_plugin("traps", state="Running")
    return made


@pytest.fixture
def in_a_pod(sidecar, tmp_path):
    """``kubectl hookline``, where every pod has this sidecar."""
    return KubectlPlugin(tmp_path / "bin", tmp_path / "no-kubeconfig", state=sidecar.state)
