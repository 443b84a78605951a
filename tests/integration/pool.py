"""Coordinators and expert nodes over UCX, with a real etcd: the same answers as from one process, bit for bit.

Usage: pool.py CONCLAVE COORDINATOR NODE MAKE_CHECKPOINT VECTORS [--share I/N | unittest arguments]
With --share, every Nth test, from the Ith: the N shares are all of them.
"""
import sys
import unittest

from pool_answers import Answers
from pool_case import PoolCase
from pool_members import Members
from pool_shown import Shown


class Pool(Answers, Shown, Members, PoolCase):
    """All in one class: the checkpoints and etcd are made once."""


def share(which):
    first, n = map(int, which.split("/"))
    return [f"Pool.{name}" for name in unittest.TestLoader().getTestCaseNames(Pool)[first - 1::n]]


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]] + (share(sys.argv[7]) if sys.argv[6:7] == ["--share"] else sys.argv[6:]))
