"""A comparison told to people: text for a terminal or a log."""
