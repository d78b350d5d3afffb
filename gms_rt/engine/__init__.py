"""From a graph to an engine folder."""
