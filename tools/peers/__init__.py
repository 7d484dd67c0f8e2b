"""The engines that tools/bench_peers.py compares with: how each is installed, run and read."""


class Refused(Exception):
    """What keeps a peer from being measured, for the user."""
