"""Clients in other languages and the examples, against the server of cli_server.py.

Usage: clients.py CONCLAVE PROTO_DIR [unittest arguments]
"""
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

import grpc

from cli_server import CHUNKS, PROTO_DIR, WAIT_S, Server, refuse, v1
from python_client import SOURCE, lay_out

EXAMPLES = os.path.realpath(os.path.join(PROTO_DIR, "..", "examples"))
BUILD_S = 600  # grpc for Go, compiled for the first time


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        lay_out(cls.folder)

    def setUp(self):
        self.server = Server()
        self.addCleanup(self.server.stop)
        self.address = f"127.0.0.1:{self.server.port}"

    def fails_first(self, chunk, code=grpc.StatusCode.UNAVAILABLE):
        """The first stream breaks off after the chunk, the second one is CHUNKS' rest."""
        def first_try(_, context):
            self.server.replies["Generate"] = CHUNKS[1:]
            yield chunk
            context.set_trailing_metadata((("grpc-retry-pushback-ms", "1"),))
            context.abort(code, "draining")

        self.server.replies["Generate"] = first_try


class Python(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        sys.path.insert(0, cls.folder)
        cls.addClassCleanup(sys.path.remove, cls.folder)
        import conclave
        cls.conclave = conclave

    def setUp(self):
        super().setUp()
        self.client = self.conclave.Client(self.address, token="s3cret", timeout=WAIT_S)
        self.addCleanup(self.client.close)

    def sent(self):
        """The requests as they were packed: the classes of the client and of the server are not the same."""
        return [request.SerializeToString() for request in self.server.requests]

    def test_an_answer_is_streamed(self):
        self.server.replies["Generate"] = CHUNKS
        self.assertEqual("".join(chunk.text for chunk in self.client.generate("hi", max_tokens=3, temperature=0, stop=["a"])), "Hello €")
        want = v1("GenerateRequest", text="hi", sampling=v1("Sampling", max_tokens=3, temperature=0, stop=["a"]))
        self.assertEqual(self.sent(), [want.SerializeToString()])
        self.assertEqual(self.server.metadata[0]["authorization"], "Bearer s3cret")

    def test_prompts_are_texts_ids_and_conversations(self):
        self.server.replies["Generate"] = CHUNKS
        for prompt in ("hi", [1, 2], [("system", "Be kind."), ("user", "Hi")]):
            self.assertEqual(self.client.complete(prompt), "Hello €")
        inputs = [request.WhichOneof("input") for request in self.server.requests]
        self.assertEqual(inputs, ["text", "token_ids", "messages"])
        self.assertEqual([(m.role, m.content) for m in self.server.requests[2].messages.messages], [(1, "Be kind."), (2, "Hi")])

    def test_a_broken_stream_is_taken_up_where_it_was(self):
        self.fails_first(CHUNKS[0])
        self.assertEqual(self.client.complete("hi"), "Hello €")
        again = self.server.requests[1]
        self.assertEqual((list(again.resume_from.ids), again.sampling.seed), ([5, 6], 2**63))
        self.assertEqual(again.set.id, "s")

    def test_a_set_is_named_or_made_of_packs(self):
        self.server.replies.update(Generate=CHUNKS, Score=[v1("ScoreResponse")])
        made = self.conclave.inference_pb2.ExpertSet(include=["german"])
        self.client.complete("hi", expert_set="plain")
        self.client.score("hi", expert_set=made)
        self.client.complete("hi")
        self.assertEqual([(r.set.id, list(r.set.include)) for r in self.server.requests], [("plain", []), ("", ["german"]), ("", [])])

    def test_only_unavailable_is_tried_again(self):
        self.fails_first(CHUNKS[0], grpc.StatusCode.DATA_LOSS)
        with self.assertRaises(grpc.RpcError) as raised:
            self.client.complete("hi")
        self.assertEqual(raised.exception.code(), grpc.StatusCode.DATA_LOSS)
        self.assertEqual(len(self.server.requests), 1)

    def test_several_choices_are_not_taken_up_in_the_middle(self):
        self.fails_first(CHUNKS[0])
        with self.assertRaises(grpc.RpcError):
            list(self.client.generate("hi", n=2))
        self.assertEqual(len(self.server.requests), 1)

    def test_retries_have_an_end(self):
        self.server.replies["Generate"] = refuse(grpc.StatusCode.UNAVAILABLE, "starting", ("grpc-retry-pushback-ms", "1"))
        with self.conclave.Client(self.address, retries=2) as client, self.assertRaises(grpc.RpcError):
            client.complete("hi")
        self.assertEqual(len(self.server.requests), 3)

    def test_other_calls(self):
        self.server.replies.update(Tokenize=[v1("TokenizeResponse", ids=[3, 1])], Detokenize=[v1("DetokenizeResponse", text="ab")],
                                   Score=[v1("ScoreResponse", tokens=[v1("ScoredToken", id=7)])], GetModel=[v1("GetModelResponse", name="m")],
                                   GetCluster=[v1("GetClusterResponse", epoch=3)])
        self.assertEqual(self.client.tokenize("ab"), [3, 1])
        self.assertEqual(self.client.detokenize([3, 1]), "ab")
        self.assertEqual(self.client.score([7], top=2).tokens[0].id, 7)
        self.assertEqual(self.client.model().name, "m")
        self.assertEqual(self.client.cluster().epoch, 3)


class PythonExamples(Case):
    def example(self, name, *args):
        done = subprocess.run([sys.executable, "-B", os.path.join(EXAMPLES, "python", name), "--server", self.address, *args], capture_output=True,
                              encoding="utf-8", timeout=WAIT_S, env={**os.environ, "PYTHONPATH": self.folder})
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_generate_takes_up_an_answer_where_it_was(self):
        self.fails_first(CHUNKS[0])
        self.assertEqual(self.example("generate.py", "hi"), "Hello €\n")
        again = self.server.requests[1]
        self.assertEqual((list(again.resume_from.ids), again.sampling.seed), ([5, 6], 2**63))

    def test_score_prints_tokens_and_perplexity(self):
        self.server.replies["Score"] = [v1("ScoreResponse", tokens=[v1("ScoredToken", id=7), v1("ScoredToken", id=3, logprob=-1.25)])]
        self.assertEqual(self.example("score.py", "--tokens", "7,3"),
                         "      7          -\n      3    -1.2500\nperplexity 3.4903 over 1 tokens\n")

    def test_score_shows_the_text_of_tokens_where_there_is_some(self):
        top = [v1("TopLogprob", id=9, logprob=-0.5, token=b" \xe2\x82\xac")]
        self.server.replies["Score"] = [v1("ScoreResponse", tokens=[v1("ScoredToken", id=3, token=b"a\xff", top=top)])]
        self.assertEqual(self.example("score.py", "--tokens", "3", "--top", "1"), "      3          -  'a\ufffd'  9 ' \u20ac' -0.5000\n")

    def test_a_token_file_may_have_comments(self):
        self.server.replies["Generate"] = CHUNKS
        path = os.path.join(self.folder, "token")
        with open(path, "w", encoding="utf-8") as file:
            file.write("# ours\n\ns3cret\n")
        self.example("generate.py", "hi", "--token-file", path)
        self.assertEqual(self.server.metadata[0]["authorization"], "Bearer s3cret")

    def test_without_the_package_they_say_what_to_install(self):
        done = subprocess.run([sys.executable, "-B", os.path.join(EXAMPLES, "python", "generate.py"), "hi"], capture_output=True, encoding="utf-8",
                              timeout=WAIT_S, env={**os.environ, "PYTHONPATH": ""})
        self.assertEqual((done.returncode, done.stderr), (1, "the package `conclave` is missing: pip install ./clients/python\n"))


class PythonPackage(unittest.TestCase):
    def test_pip_installs_it_without_a_network(self):
        for module, package in (("pip", "python3-pip"), ("setuptools", "python3-setuptools"), ("wheel", "python3-wheel")):
            if subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True).returncode != 0:
                self.skipTest(f"{module} is missing (Debian: {package})")
        with tempfile.TemporaryDirectory() as folder:
            source, target = os.path.join(folder, "clients", "python"), os.path.join(folder, "target")
            shutil.copytree(SOURCE, source)  # setuptools writes beside what it builds
            shutil.copytree(PROTO_DIR, os.path.join(folder, "proto"))
            subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-build-isolation", "--no-deps", "--target", target,
                            source], check=True, timeout=WAIT_S * 4, capture_output=True)
            for name in ("__init__.py", "client.py", "py.typed", "v1/inference_pb2.py", "v1/inference_pb2.pyi", "v1/admin_pb2.py"):
                self.assertTrue(os.path.exists(os.path.join(target, "conclave", name)), name)
            shown = subprocess.run([sys.executable, "-c", "import conclave; print(conclave.inference_pb2.GenerateRequest(text='a').text)"],
                                   capture_output=True, encoding="utf-8", timeout=WAIT_S, env={**os.environ, "PYTHONPATH": target}, cwd=folder)
        self.assertEqual((shown.returncode, shown.stdout), (0, "a\n"), shown.stderr)


class Go(Case):
    def test_the_example_builds_with_what_debian_has_and_streams(self):
        out = os.path.join(self.folder, "go")
        built = subprocess.run([os.path.join(EXAMPLES, "go", "build.sh"), out], capture_output=True, encoding="utf-8", timeout=BUILD_S,
                               env={"GOCACHE": os.path.join(os.environ.get("XDG_CACHE_HOME", self.folder), "go-build"), **os.environ})
        if built.returncode == 77:
            self.skipTest(built.stderr.strip())
        self.assertEqual(built.returncode, 0, built.stderr)
        self.server.replies["Generate"] = CHUNKS
        path = os.path.join(self.folder, "token")
        with open(path, "w", encoding="utf-8") as file:
            file.write("# ours\ns3cret\n")
        done = subprocess.run([os.path.join(out, "stream"), "-server", self.address, "-max-tokens", "9", "-token-file", path, "hi"], capture_output=True,
                              encoding="utf-8", timeout=WAIT_S)
        self.assertEqual((done.returncode, done.stdout), (0, "Hello €\n"), done.stderr)
        self.assertRegex(done.stderr, r"^3 tokens in ")
        self.assertEqual(self.server.requests, [v1("GenerateRequest", text="hi", sampling=v1("Sampling", max_tokens=9))])
        self.assertEqual(self.server.metadata[0]["authorization"], "Bearer s3cret")

    def test_what_is_missing_is_named(self):
        done = subprocess.run([os.path.join(EXAMPLES, "go", "build.sh"), os.path.join(self.folder, "none")], capture_output=True, encoding="utf-8",
                              timeout=WAIT_S, env={**os.environ, "GOCODE": "/nowhere"})
        self.assertEqual(done.returncode, 77)
        self.assertIn("golang-google-grpc-dev golang-google-protobuf-dev", done.stderr)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
