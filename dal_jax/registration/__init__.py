"""Section 4: deform the template until it explains one image's correspondences; one image pure, batches by vmap."""
