"""What the API server asks before it stores something: manifests, pods, deletions; and the certificate it trusts."""
