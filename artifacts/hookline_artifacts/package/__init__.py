"""What a registry keeps: which layer or which file of an archive is the module. Bytes in, a choice out."""
