"""What the benchmarks share whose client streams: a checkpoint of OLMoE-1B-7B's shape, the API's client, questions. Ends the program where
python3-grpcio is missing."""
import importlib
import os
import random
import subprocess
import sys

try:
    import grpc  # noqa: F401
except ImportError:
    print("skipped: python3-grpcio is not installed")
    sys.exit(0)

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path[:0] = [os.path.join(ROOT, "tests", name) for name in ("integration", "chaos")]
sys.dont_write_bytecode = True
from python_client import lay_out  # noqa: E402
from streams import Question  # noqa: E402

N_PROMPT = 16


class Streaming:
    def __init__(self, a, folder):
        self.a, self.folder = a, folder
        self.model = os.path.join(folder, "model")
        self.make("make_checkpoint.py", self.model, "--shape", "olmoe-1b-7b", "--layers", str(a.layers), "--no-tokenizer")
        lay_out(os.path.join(folder, "client"))
        sys.path.insert(0, os.path.join(folder, "client"))
        self.v1 = importlib.import_module("conclave")

    def make(self, tool, *args):
        subprocess.run(["/usr/bin/python3", "-B", os.path.join(ROOT, "tools", tool), *args], check=True, capture_output=True,
                       env={**os.environ, "XDG_CACHE_HOME": self.folder})

    def program(self, name):
        return os.path.join(self.a.bin, name)

    def question(self, i, n_tokens, set=""):
        return Question(random.Random(i).sample(range(50000), N_PROMPT), dict(max_tokens=n_tokens, ignore_eos=True, seed=i, temperature=1), set)
