"""Section 6.1: what one image says about one person, and the residuals of eq. 3-4 that follow from it."""
