"""The commands, a file each. One is imported when it is called: ``hookline --help`` imports none."""
