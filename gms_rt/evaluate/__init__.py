"""How good the masks are: parity certificates and statistics."""
