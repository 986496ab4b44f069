"""Recorded motions: SMPL parameters, BVH, Acclaim; and 2D poses of them."""
