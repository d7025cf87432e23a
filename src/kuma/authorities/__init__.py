"""The certificate authorities of meshes: one driver per type of backend, and what keeps them in order."""
