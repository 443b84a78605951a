"""What tests of packs share: a folder, with a cache of manifests of its own."""
import os
import subprocess
import tempfile
import unittest

from coordinator import WAIT_S, clean_env

# Of tests/vectors: one of each family and gate.
MODELS = ("olmoe-gqa", "mixtral", "qwen3-moe", "molm-mlp", "molm-linear-kv", "molm-gmm-k4", "moe++-raw-logits", "moe++-2layer-double")


def run(*args):
    return subprocess.run(args, capture_output=True, text=True, timeout=WAIT_S, env=clean_env())


class PackCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        os.environ["XDG_CACHE_HOME"] = os.path.join(self.folder, "cache")

    def path(self, *names):
        return os.path.join(self.folder, *names)
