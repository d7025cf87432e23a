"""Storage of resources: the contract, its stores, and the manager through which everything is changed."""
