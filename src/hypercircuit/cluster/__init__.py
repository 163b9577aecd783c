"""Clusters: how the processes of one run meet."""

from .processes import connect as connect
