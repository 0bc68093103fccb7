"""What the API server asks before it stores an object, and the certificate by which it trusts the answer."""
