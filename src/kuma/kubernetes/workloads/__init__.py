"""What Pods and Services are in the mesh: the Dataplane of a Pod. Pure."""
