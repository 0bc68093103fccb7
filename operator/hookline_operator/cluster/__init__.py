"""What the Kubernetes API says, kept current in memory, and how it is asked."""
