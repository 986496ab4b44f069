"""Levenberg-Marquardt by elimination on the kinematic tree: `tree_lm.py` derives it, these files are its parts."""
