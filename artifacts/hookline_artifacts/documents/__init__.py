"""Documents that people write for Kubernetes, read as Kubernetes reads them, and within bounds."""
