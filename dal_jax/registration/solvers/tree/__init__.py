"""Levenberg-Marquardt by elimination on the kinematic tree: `lm.py` derives it, the other files are its parts."""
