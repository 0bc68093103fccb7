"""Whether what kubectl says is true: Hookline on a cluster is broken on purpose, under load, and looked at.

Each row of the table breaks one thing, waits until what kubectl shows says so, mends it, and waits until that is said
too. Proxies are asked twenty times a second meanwhile, and each answer that policy does not refuse counts as lost.

``row`` is what a row is, ``scene`` where it is played, ``looks`` what a person with kubectl sees, ``play`` plays rows;
``guests``, ``moody_registry`` and ``between`` are what breaks; the other modules are the rows; ``table`` is
docs/operate/truth.md, of the figures in tests/e2e/truth/figures.json.
"""
