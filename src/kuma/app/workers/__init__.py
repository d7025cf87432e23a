"""Several processes of one control plane on one machine: who starts them, and what each of them is.

The parent opens the ports, starts the workers, which accept from the same sockets, and starts another when one has
ended. It knows nothing of meshes. Each worker is an instance of its own among all that use the store.
"""
