"""How fast an engine is, on which device, in which state."""
