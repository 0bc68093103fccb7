"""``python -m hookline_cli``."""

from hookline_cli.main import main

main()
