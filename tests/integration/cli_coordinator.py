"""The command line and the examples against the real coordinator, on a small checkpoint made for the purpose.

Usage: cli_coordinator.py CONCLAVE COORDINATOR MAKE_CHECKPOINT [unittest arguments]
"""
import os
import signal
import subprocess
import sys
import tempfile
import unittest

from coordinator import WAIT_S, Coordinator, clean_env, parse_reply, run_json
from python_client import lay_out

CONCLAVE, COORDINATOR, MAKE_CHECKPOINT = sys.argv[1:4]
EXAMPLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "examples", "python")
PROMPT = "A mixture of experts is"


class Case(unittest.TestCase):
    maxDiff = None
    tokenizer = True

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        model = os.path.join(folder.name, "tiny")
        extra = [] if cls.tokenizer else ["--no-tokenizer"]
        subprocess.run([sys.executable, MAKE_CHECKPOINT, model, "--shape", "tiny", "--dtype", "f32", *extra], check=True,
                       capture_output=True)
        cls.coordinator = Coordinator(COORDINATOR, model, "--dtype", "f32", "--threads", "2")
        cls.addClassCleanup(cls.coordinator.stop)

    def argv(self, command, *args):
        return [CONCLAVE, command, "--server", self.coordinator.address, *args]

    def run_cli(self, command, *args, stdin=""):
        return subprocess.run(self.argv(command, *args), input=stdin, capture_output=True, encoding="utf-8", timeout=WAIT_S,
                              env=clean_env())

    def ok(self, command, *args, stdin=""):
        done = self.run_cli(command, *args, stdin=stdin)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def lines(self, command, *args):
        return [parse_reply(line) for line in self.ok(command, *args, "--json").splitlines()]

    def tokens(self, *args):
        """The generated tokens of choice 0, after a look at the order in which they came."""
        tokens = []
        for chunk in self.lines("generate", *args):
            if chunk.get("token_ids") and not chunk["echo"] and chunk["index"] == 0:
                self.assertEqual(chunk["first_index"], len(tokens))
                tokens += chunk["token_ids"]
        return tokens


def listed(ids):
    return ",".join(str(i) for i in ids)


class WithTokenizer(Case):
    def test_health_is_serving(self):
        self.assertEqual(self.lines("health"), [{"status": "SERVING"}])
        self.assertEqual(self.lines("health", "--service", "conclave.v1.Inference"), [{"status": "SERVING"}])

    def test_model_has_its_shape(self):
        model = self.lines("model")[0]
        self.assertEqual((model["family"], model["n_layers"], model["n_experts"]), ("olmoe", 2, [8, 8]))
        self.assertTrue(model["has_tokenizer"])

    def test_text_goes_round(self):
        text = "Hello, €!\n"
        ids = self.lines("tokenize", text)[0]["ids"]
        self.assertEqual(self.ok("tokenize", "-", stdin=text), " ".join(map(str, ids)) + "\n")
        self.assertEqual(self.ok("detokenize", *map(str, ids)), text)

    def test_greedy_answers_are_equal(self):
        args = (PROMPT, "--max-tokens", "12", "--temperature", "0", "--ignore-eos")
        tokens = self.tokens(*args)
        self.assertEqual(len(tokens), 12)
        self.assertEqual(tokens, self.tokens(*args))

    def test_a_seed_gives_the_same_answer_again(self):
        chunks = self.lines("generate", PROMPT, "--max-tokens", "8", "--ignore-eos")
        seed = str(chunks[0]["seed"])
        again = self.lines("generate", PROMPT, "--max-tokens", "8", "--ignore-eos", "--seed", seed)
        # Tokens may share a chunk when the client is slow: what they are is the same, not how they are cut.
        self.assertEqual([id for c in chunks for id in c.get("token_ids", [])], [id for c in again for id in c.get("token_ids", [])])
        self.assertEqual("".join(c.get("text", "") for c in chunks), "".join(c.get("text", "") for c in again))

    def test_a_drawn_seed_survives_every_reader_of_json(self):
        """Most keep 53 bits of a number. One seed in 2,048 was as small before."""
        for _ in range(4):
            seed = self.lines("generate", PROMPT, "--max-tokens", "1")[0]["seed"]
            self.assertLess(seed, 2**53)

    def test_text_equals_the_chunks(self):
        args = (PROMPT, "--max-tokens", "12", "--seed", "3", "--ignore-eos")
        text = "".join(chunk.get("text", "") for chunk in self.lines("generate", *args))
        self.assertEqual(self.ok("generate", *args), text if text.endswith("\n") else text + "\n")

    def test_score_equals_generate(self):
        prompt = self.lines("tokenize", PROMPT)[0]["ids"]
        chunks = self.lines("generate", "--tokens", listed(prompt), "--max-tokens", "10", "--seed", "5", "--ignore-eos",
                            "--logprobs", "3")
        rows = [row for chunk in chunks for row in chunk.get("logprobs", [])]
        self.assertEqual(len(rows), 10)
        scored = self.lines("score", "--tokens", listed(prompt + [row["id"] for row in rows]), "--top", "3")[0]["tokens"]
        self.assertEqual([(t["id"], t["logprob"]) for t in scored[len(prompt):]], [(r["id"], r["logprob"]) for r in rows])
        self.assertEqual([[(b["id"], b["logprob"]) for b in t["top"]] for t in scored[len(prompt):]],
                         [[(b["id"], b["logprob"]) for b in r["top"]] for r in rows])

    def test_score_names_the_experts(self):
        tokens = self.lines("score", "--tokens", "7,3,9", "--top", "2", "--experts")[0]["tokens"]
        self.assertNotIn("logprob", tokens[0])
        for token in tokens:
            self.assertEqual([layer["layer"] for layer in token["experts"]], [0, 1])
            for layer in token["experts"]:
                self.assertEqual(len(layer["ids"]), 2)
                self.assertEqual(layer["ids"], sorted(layer["ids"]))
        for token in tokens[1:]:
            self.assertEqual(len(token["top"]), 2)
            self.assertLessEqual(token["logprob"], 0)

    def test_an_answer_is_resumed_at_every_token(self):
        args = (PROMPT, "--max-tokens", "6", "--seed", "11", "--ignore-eos")
        whole = self.tokens(*args)
        for n in range(1, 6):
            chunks = self.lines("generate", *args, "--resume-from", listed(whole[:n]))
            rest = [i for chunk in chunks for i in chunk.get("token_ids", [])]
            self.assertEqual(rest, whole[n:], f"after {n} tokens")

    def test_choices_are_numbered(self):
        chunks = self.lines("generate", PROMPT, "-n", "3", "--max-tokens", "4", "--seed", "2", "--ignore-eos")
        counts = [sum(len(c.get("token_ids", [])) for c in chunks if c["index"] == i) for i in range(3)]
        self.assertEqual(counts, [4, 4, 4])

    def test_echo_prints_the_prompt(self):
        out = self.ok("generate", PROMPT, "--echo", "--max-tokens", "4", "--seed", "2")
        self.assertTrue(out.startswith(PROMPT), out)

    def test_a_stop_token_ends_the_answer(self):
        args = (PROMPT, "--max-tokens", "8", "--temperature", "0", "--ignore-eos")
        tokens = self.tokens(*args)
        stopped = self.tokens(*args, "--stop-token-ids", str(tokens[3]))
        self.assertEqual(stopped, tokens[:tokens.index(tokens[3]) + 1])

    def test_rows_are_counted_by_expert(self):
        before = self.lines("experts")[1]
        self.ok("score", "--tokens", "1,2,3,4")
        placement, after = self.lines("experts")
        rows = [sum(e["rows"] for e in stats["experts"]) for stats in (before, after)]
        self.assertEqual(len(placement["experts"]), 2 * 8)
        self.assertEqual(after["tokens"] - before["tokens"], 4)
        self.assertEqual(rows[1] - rows[0], 4 * 2 * 2)  # tokens, layers, experts per token

    def test_placement_names_the_node_of_every_expert(self):
        self.assertIn("layer 1: experts 0-7 -> embedded", self.ok("placement", "--layer", "1"))

    def test_nodes_show_the_embedded_one(self):
        cluster = self.lines("nodes")[0]
        self.assertTrue(cluster["ready"])
        self.assertEqual([node["state"] for node in cluster["nodes"]], ["NODE_STATE_UP"])

    def test_refusals_name_field_and_status(self):
        for args, field in [(("generate", "x", "--top-p", "5"), "top_p"), (("generate", "x", "--temperature", "nan"), "temperature"),
                            (("generate", "--tokens", "999999"), "token_ids"), (("score", "x", "--top", "51"), "top")]:
            done = self.run_cli(*args)
            self.assertEqual(done.returncode, 1)
            self.assertIn("INVALID_ARGUMENT: ", done.stderr)
            self.assertIn(field, done.stderr)

    def test_interrupt_ends_a_long_answer(self):
        argv = self.argv("generate", PROMPT, "--max-tokens", "400", "--ignore-eos", "--json")
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env()) as process:
            self.assertTrue(process.stdout.readline())
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=WAIT_S)
        self.assertIn(process.returncode, (0, 130))  # 0: the answer was quicker than the signal
        self.assertEqual(self.lines("health"), [{"status": "SERVING"}])

    def test_python_examples_run(self):
        client = os.path.join(self.folder, "client")
        lay_out(client)
        for script, args in [("generate.py", [PROMPT, "--max-tokens", "5", "--seed", "1"]), ("score.py", [PROMPT, "--top", "2"])]:
            done = subprocess.run([sys.executable, "-B", os.path.join(EXAMPLES, script), "--server", self.coordinator.address, *args],
                                  capture_output=True, encoding="utf-8", timeout=WAIT_S, env={**clean_env(), "PYTHONPATH": client})
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertTrue(done.stdout)


class WithoutTokenizer(Case):
    tokenizer = False

    def test_token_ids_work(self):
        ids = self.ok("generate", "--tokens", "1,2,3", "--max-tokens", "5", "--temperature", "0", "--ignore-eos").split()
        self.assertEqual(len(ids), 5)
        self.assertEqual(ids, [str(i) for i in self.tokens("--tokens", "1,2,3", "--max-tokens", "5", "--temperature", "0",
                                                           "--ignore-eos")])

    def test_text_is_refused(self):
        self.assertEqual(self.run_cli("generate", "hello").returncode, 1)


class ChatTemplates(unittest.TestCase):
    """The model's own template, one that cannot be used, and one given by hand."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.model, cls.template = os.path.join(folder.name, "tiny"), os.path.join(folder.name, "template.jinja")
        subprocess.run([sys.executable, MAKE_CHECKPOINT, cls.model, "--shape", "tiny", "--dtype", "f32"], check=True, capture_output=True)

    def start(self, *args, source=None):
        """source: of the template in the model's directory, instead of tokenizer_config.json's."""
        path = os.path.join(self.model, "chat_template.jinja")
        if source is not None:
            with open(path, "w", encoding="utf-8") as file:
                file.write(source)
            self.addCleanup(os.unlink, path)
        coordinator = Coordinator(COORDINATOR, self.model, "--dtype", "f32", "--threads", "2", *args)
        self.addCleanup(coordinator.stop)
        return coordinator

    def chat(self, coordinator, text):
        return subprocess.run([CONCLAVE, "chat", "--server", coordinator.address, "--max-tokens", "2", "--temperature", "0"], input=text,
                              capture_output=True, encoding="utf-8", timeout=WAIT_S, env=clean_env())

    def name(self, coordinator):
        return run_json(CONCLAVE, coordinator, "model")[0].get("chat_template", "")

    def write(self, source):
        with open(self.template, "w", encoding="utf-8") as file:
            file.write(source)
        return self.template

    def test_the_models_own_is_rendered(self):
        coordinator = self.start(source="{% for m in messages %}{{ m.content | upper }}{% endfor %}"
                                        "{% if messages | length > 2 %}{{ raise_exception('one question only') }}{% endif %}")
        self.assertEqual(self.name(coordinator), "default")
        self.assertEqual(self.chat(coordinator, "hello\n").returncode, 0)
        done = self.chat(coordinator, "one\n\ntwo\n")
        self.assertEqual(done.returncode, 1)
        self.assertIn("one question only", done.stderr)

    def test_what_cannot_be_used_is_said_at_start_and_text_still_works(self):
        coordinator = self.start(source="\n{{ messages | wordwrap }}")
        coordinator.log_match("line 2: the filter 'wordwrap' is not known")
        self.assertEqual(self.name(coordinator), "")
        self.assertIn("the filter 'wordwrap' is not known", self.chat(coordinator, "hello\n").stderr)
        self.assertTrue(run_json(CONCLAVE, coordinator, "generate", PROMPT, "--max-tokens", "1"))

    def test_a_file_takes_its_place(self):
        coordinator = self.start("--chat-template", self.write("{{ messages[-1].content }}"), source="{{ messages | wordwrap }}")
        self.assertEqual(self.name(coordinator), "file")
        self.assertEqual(self.chat(coordinator, "hello\n").returncode, 0)

    def test_a_file_that_cannot_be_used_stops_the_start(self):
        with self.assertRaisesRegex(RuntimeError, "line 1: the filter 'wordwrap' is not known"):
            self.start("--chat-template", self.write("{{ messages | wordwrap }}"))
        with self.assertRaisesRegex(RuntimeError, "neither tulu nor olmo2 nor a file"):
            self.start("--chat-template", os.path.join(self.model, "nothing.jinja"))


class Classifier(unittest.TestCase):
    def test_a_made_classifier_is_served_with_its_labels(self):
        with tempfile.TemporaryDirectory() as folder:
            model = os.path.join(folder, "classifier")
            subprocess.run([sys.executable, MAKE_CHECKPOINT, model, "--family", "molm", "--shape", "tiny", "--no-tokenizer", "--labels",
                            "no,maybe,yes"], check=True, capture_output=True)
            with Coordinator(COORDINATOR, model, "--threads", "1", "--cache-dir", "") as coordinator:
                done = subprocess.run([CONCLAVE, "classify", "--server", coordinator.address, "--tokens", "3,4,5"], capture_output=True, encoding="utf-8",
                                      timeout=WAIT_S, env=clean_env())
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual([line.split(":")[0] for line in done.stdout.splitlines()], ["class 0 no", "class 1 maybe", "class 2 yes"])


class MakeCheckpoint(unittest.TestCase):
    def test_a_full_disk_leaves_nothing_behind(self):
        """A limit on the size of files stands for the disk: writing fails in the middle of the weights."""
        with tempfile.TemporaryDirectory() as folder:
            before = os.path.join(folder, "before")
            os.mkdir(before)
            for name in ("new", "before"):
                done = subprocess.run(["bash", "-c", 'ulimit -f 64; trap "" XFSZ; exec "$@"', "bash", sys.executable, MAKE_CHECKPOINT,
                                       os.path.join(folder, name), "--shape", "tiny", "--no-tokenizer"], capture_output=True, encoding="utf-8", timeout=WAIT_S)
                self.assertEqual((done.returncode, done.stderr),
                                 (1, f"{os.path.join(folder, name)}: File too large; nothing was left behind\n"))
            self.assertEqual((os.listdir(folder), os.listdir(before)), (["before"], []))

    def test_weights_that_are_there_stay_when_new_ones_cannot_be_made(self):
        with tempfile.TemporaryDirectory() as folder:
            model = os.path.join(folder, "m")
            make = [sys.executable, MAKE_CHECKPOINT, model, "--shape", "tiny", "--no-tokenizer"]
            subprocess.run(make, check=True, capture_output=True)
            files = {name: os.stat(os.path.join(model, name)).st_size for name in os.listdir(model)}
            self.assertNotEqual(subprocess.run(make, capture_output=True).returncode, 0)
            limited = ["bash", "-c", 'ulimit -f 64; trap "" XFSZ; exec "$@"', "bash", *make, "--force"]
            self.assertEqual(subprocess.run(limited, capture_output=True).returncode, 1)
            self.assertEqual({name: os.stat(os.path.join(model, name)).st_size for name in os.listdir(model)}, files)


class Shutdown(unittest.TestCase):
    def test_sigterm_ends_with_success_and_ready_was_the_only_line(self):
        with tempfile.TemporaryDirectory() as folder:
            model = os.path.join(folder, "tiny")
            subprocess.run([sys.executable, MAKE_CHECKPOINT, model, "--shape", "tiny"], check=True, capture_output=True)
            self.assertEqual(Coordinator(COORDINATOR, model, "--dtype", "f32", "--threads", "2").stop(), (0, ""))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]])
