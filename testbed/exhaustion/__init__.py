"""What strangers may cost: each program with the chart's own memory limit, an attack, and an honest load beside it.

``box`` is the limit, ``programs`` what is in it, ``honest`` the load whose answers are counted, ``attacks`` the table
of attacks, and ``measure`` one attack from beginning to end. ``python -m exhaustion`` (``make exhaust``) runs them all
and writes the table in docs/operate/security.md; tests/exhaustion runs each for some seconds and asserts what has to
hold.
"""
