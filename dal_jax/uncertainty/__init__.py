"""What a fit is worth: noise levels, covariance, posterior, other modes, a quality report, weights for training."""
