"""What host functions reach outside the process: each is imported only where a plugin needs it.

A backend may need an extra of the package; where that is not installed, the plugin that needs it is not loaded.
"""
