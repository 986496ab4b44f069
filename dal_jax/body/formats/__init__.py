"""Body files to a template: our own .npz, models of SMPL, rigged glTF humans; above the body, not under it."""
