"""What is true of one plugin, and how it is said: pure functions, data in, data out."""
