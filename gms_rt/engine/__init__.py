"""The engine folder: build it, describe it, judge whether it fits this machine, load it."""
