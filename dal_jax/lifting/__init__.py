"""Lifting: the depth of a person's joints, learned from 2D poses alone (Kudo et al. 2018)."""
