"""What guests may ask of the process that runs them: settings, keys, metrics, log lines, and requests that it makes."""
