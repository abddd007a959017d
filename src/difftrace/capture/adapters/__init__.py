"""One small module for each engine; none imports its engine before it is used."""
