"""What is true of one plugin, as pure functions: data in, data out."""
