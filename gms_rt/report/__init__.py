"""One data model, rendered for people and for machines."""
