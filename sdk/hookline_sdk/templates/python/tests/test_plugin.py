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


def ask(query: str) -> object:
    """What the plugin answers; None to go on."""
    return json.loads(WitWorld().call("pre_query", json.dumps({"query": query})) or "null")


class Plugin(unittest.TestCase):
    """What it refuses, and what it lets pass."""

    def setUp(self) -> None:
        native.reset()

    def test_a_drop_is_refused(self) -> None:
        self.assertEqual(ask("DROP TABLE t"), {"action": "block", "value": "drop is not allowed"})

    def test_the_settings_say_why(self) -> None:
        native.reset(config={"because": ": ask the owner"})
        self.assertEqual(ask("truncate t"), {"action": "block", "value": "truncate is not allowed: ask the owner"})

    def test_anything_else_goes_on(self) -> None:
        self.assertIsNone(ask("select 1"))

    def test_a_hook_that_it_does_not_have_fails(self) -> None:
        with self.assertRaisesRegex(native.Failure, "no function for the hook route"):
            WitWorld().call("route", "{}")


if __name__ == "__main__":
    unittest.main()
