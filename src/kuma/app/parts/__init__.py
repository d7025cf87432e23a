"""Builds the parts of a control plane in groups; each is given the groups that it stands on.

`kuma.app.assembly` lists the parts in the order in which they run.
"""
