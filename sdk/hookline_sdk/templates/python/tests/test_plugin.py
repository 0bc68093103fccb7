"""The plugin, in this Python, on a host in memory: python -m unittest discover tests."""

from __future__ import annotations

import json
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "hookline-sdk")]

from hookline import native  # noqa: E402 - it is found by the line above
from my_plugin import WitWorld  # noqa: E402


def ask(table: str, roles: str = "") -> object:
    """What the plugin answers; None to go on."""
    context = {"attributes": {"identity.roles": roles}}
    asked = {"query": "select 1", "tables": [table], "hook_context": context}
    return json.loads(WitWorld().call("pre_query", json.dumps(asked)) or "null")


class Plugin(unittest.TestCase):
    """What it refuses, and what it lets pass."""

    def setUp(self) -> None:
        native.reset(config={"tables": ["salaries"], "roles": ["hr"]})

    def test_a_limited_table_is_for_its_roles(self) -> None:
        self.assertEqual(ask("salaries", "app"), {"action": "block", "value": "salaries is not for you"})
        self.assertIsNone(ask("Salaries", "app, hr"))

    def test_other_tables_are_for_all(self) -> None:
        self.assertIsNone(ask("orders"))

    def test_a_hook_that_it_does_not_have_fails(self) -> None:
        with self.assertRaisesRegex(native.Failure, "no function for the hook route"):
            WitWorld().call("route", "{}")


if __name__ == "__main__":
    unittest.main()
