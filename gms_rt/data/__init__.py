"""Data sets: their layouts on disk, splits by name, preparation and checks. No torch in here."""
