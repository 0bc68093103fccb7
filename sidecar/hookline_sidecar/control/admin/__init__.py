"""The admin port and socket: what is true now, for people, probes and Prometheus; and the plugins' keys."""
