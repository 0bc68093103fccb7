"""What sidecars and other replicas get over the network: bundles, modules, authorities. Every replica serves."""
