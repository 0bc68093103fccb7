"""``hookline``: what people do with plugins at a terminal.

A skin over ``hookline_artifacts``: what a command decides, operator and sidecar decide by the same functions.

Rooms: ``main`` (the program), ``commands`` (one file each), ``frame`` (what all of them have in common: options,
output, exit codes), and what some share. A reader starts at ``main.py``.
"""
