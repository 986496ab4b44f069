"""The embedded people: posed, photographed and annotated by rule, with their truth known."""
