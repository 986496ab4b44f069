"""Section 6.1: from dense annotation to matches between image points and the template's surface."""
