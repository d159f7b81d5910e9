"""Trains the authors' own code and ours on the same data, and scores both in the same episodes.

`python -m benchmarks.peers --help` says how. A module here is an adapter for one repository, and `peer.METHODS` names
its methods; none of their code is copied.
"""
