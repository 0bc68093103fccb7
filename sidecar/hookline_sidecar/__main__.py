"""``python -m hookline_sidecar``: the same as the command ``hookline-sidecar``."""

from hookline_sidecar.cli import main

if __name__ == "__main__":
    main()
