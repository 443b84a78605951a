#!/usr/bin/env python3
"""The trainers: our models against other implementations, and every script for a few steps on a toy text. `make test-train` runs it."""
import glob
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)
import numpy as np  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from train import baseline, data, experts, loop, moe_plus_plus, molm, muon, olmoe, store, text  # noqa: E402

TOY = {"num_hidden_layers=2", "hidden_size=32", "intermediate_size=16", "num_experts=4", "num_experts_per_tok=2", "num_attention_heads=2",
       "num_key_value_heads=2"}
TOYS = {"olmoe": TOY,
        "molm": {"n_layer=2", "n_embd=32", "att_hidden=32", "ffd_hidden=16", "n_mlp_experts=4", "k_mlp=2", "n_att_experts=4"},
        "moe++": {"num_hidden_layers=2", "hidden_size=32", "intermediate_size=16", "num_experts=[8]"}}
NEW_WORDS = "der Hund sah eine Katze und die Katze sah den Hund im Garten".split()
WORDS = "the cat saw a dog and the dog saw a cat near the old house by the sea while rain fell on the quiet garden".split()


def run(script, *arguments):
    done = subprocess.run([sys.executable, os.path.join(ROOT, "tools", script), *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"{script}: {done.stderr}")
    return done.stderr


def toy_text(path, seed, words=WORDS, n=300):
    rng = torch.Generator().manual_seed(seed)
    with open(path, "w", encoding="utf-8") as f:
        for _ in range(n):
            f.write(" ".join(words[i] for i in torch.randint(len(words), (20,), generator=rng).tolist()) + ".\n\f")


class Models(unittest.TestCase):
    def test_every_family_equals_the_oracle_on_its_vectors(self):
        seen = set()
        for folder in sorted(glob.glob(os.path.join(ROOT, "tests", "vectors", "*"))):
            name = os.path.basename(folder)
            if not name.startswith(("olmoe", "molm", "moe++")) or "absent" in name or "gmm" in name:
                continue  # sets of experts and that gate are served, not trained
            want = load_file(os.path.join(folder, "expected.safetensors"))
            with torch.no_grad():
                got = store.load(folder).eval()(want["token_ids"][None].long())[0][0]
            self.assertLess((got - want["logits"]).abs().max().item(), 1e-5, name)
            seen.add(name.split("-")[0])
        self.assertEqual(seen, {"olmoe", "molm", "moe++"})

    def test_olmoe_equals_transformers(self):
        try:
            from transformers import OlmoeForCausalLM
        except ImportError:
            self.skipTest("no transformers")
        for changes in ({}, {"num_key_value_heads": 2, "clip_qkv": 0.5, "norm_topk_prob": True, "tie_word_embeddings": False}):
            torch.manual_seed(3)
            model = olmoe.Model(olmoe.config(512, 0, **changes)).eval()
            ids = torch.randint(0, 512, (2, 100))
            with tempfile.TemporaryDirectory() as folder, torch.no_grad():
                for name, p in model.named_parameters():
                    if "gate.weight" in name:
                        p.mul_(40)  # clear choices, or rounding decides some
                store.export(model, folder, "f32")
                theirs = OlmoeForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(ids).logits
                self.assertLess((theirs - model(ids)[0]).abs().max().item(), 1e-5)

    def test_experts_equal_a_loop_over_rows(self):
        torch.manual_seed(1)
        x, up, down = (torch.randn(shape, dtype=torch.float64) for shape in ((50, 8), (6, 10, 8), (6, 8, 5)))
        weights, ids = torch.rand(50, 6, dtype=torch.float64).topk(3, -1)
        ids[ids == 4] = 2  # expert 4 gets no row; an expert may be picked twice
        got = experts.by_expert(x, ids, weights, 6, lambda e, rows: experts.swiglu(rows, up[e], down[e]))
        want = torch.stack([sum(w * experts.swiglu(row, up[e], down[e]) for w, e in zip(ws, es)) for row, ws, es in zip(x, weights, ids)])
        torch.testing.assert_close(got, want)
        inputs = [t.requires_grad_() for t in (x, weights, up, down)]
        of = lambda x, weights, up, down: experts.by_expert(x, ids, weights, 6, lambda e, rows: experts.swiglu(rows, up[e], down[e]))
        self.assertTrue(torch.autograd.gradcheck(of, inputs))

    def test_the_heads_loss_and_gradients_are_those_of_the_whole_logits(self):
        torch.manual_seed(2)
        x, head = torch.randn(2, 150, 8, requires_grad=True), torch.randn(20, 8, requires_grad=True)  # more rows than go at once
        y = torch.randint(0, 20, (2, 150))
        whole = torch.nn.functional.cross_entropy((x @ head.T).flatten(0, 1), y.flatten())
        parts = experts.head_or_entropy(x, head, y)
        torch.testing.assert_close(parts, whole)
        for one, two in zip(torch.autograd.grad(2 * parts, (x, head)), torch.autograd.grad(2 * whole, (x, head))):
            torch.testing.assert_close(one, two)

    def test_muon_makes_singular_values_even(self):
        torch.manual_seed(4)
        for shape in ((3, 16, 40), (3, 40, 16)):
            update = muon.orthogonal(torch.randn(shape) * torch.logspace(-1, 0, shape[-1]))
            spread = torch.linalg.svdvals(update)
            self.assertTrue(((0.3 < spread) & (spread < 1.3)).all(), spread)

    def test_muon_takes_the_two_halves_of_a_stack_apart(self):
        torch.manual_seed(5)
        gate, up = torch.randn(2, 4, 8, 16).unbind()
        apart, together = torch.cat([gate, up]), torch.cat([gate, up], 1)
        for p, halves in ((apart, False), (together, True)):
            p.requires_grad_()
            p.grad = p.detach() ** 3
            muon.Muon([{"params": [p], "halves": halves}], 0.1).step()
        torch.testing.assert_close(together, torch.cat(apart.chunk(2), 1))

    def test_balance_is_k_when_even_and_larger_when_not(self):
        even = torch.full((8, 4), 0.25)
        ids = torch.tensor([[0, 1], [2, 3]] * 4)
        self.assertAlmostEqual(experts.balance_loss(even, ids).item(), 2.0)
        skewed = torch.tensor([[0.7, 0.1, 0.1, 0.1]] * 8)
        self.assertGreater(experts.balance_loss(skewed, torch.zeros_like(ids)).item(), 2.0)


class Data(unittest.TestCase):
    def test_text_is_cleaned_the_same_way(self):
        self.assertEqual(text.paragraphs("\u201cA\u00a0line,\r\nand  more\u201d\n \n***\n\nB \u2014 c"), '"A line, and more"\n\nB -- c')
        self.assertEqual(text.paragraphs(text.markup_text("<h1>T</h1><p>a &amp; <i>b</i><note>x</note></p><p>c</p>")), "T\n\na & b\n\nc")

    def test_a_document_stays_on_its_side(self):
        sides = [text.held_out("novel", f"chapter {i}", 0.05) for i in range(2000)]
        self.assertEqual(sides, [text.held_out("novel", f"chapter {i}", 0.05) for i in range(2000)])
        self.assertTrue(60 < sum(sides) < 140)

    def test_batches_depend_on_seed_and_step_alone(self):
        ids = torch.arange(5000).numpy().astype("uint16")
        one, two = data.Stream(ids, 16, 4, 7), data.Stream(ids, 16, 4, 7)
        for step in range(200):
            two.batch(step)
        x, y = two.batch(3)
        torch.testing.assert_close(x, one.batch(3)[0])
        torch.testing.assert_close(x + 1, y)
        self.assertFalse(torch.equal(x, data.Stream(ids, 16, 4, 8).batch(3)[0]))

    def test_bits_per_byte_of_a_model_that_knows_nothing(self):
        class Even(torch.nn.Module):
            def forward(self, ids):
                return torch.zeros(*ids.shape, 256), {}

        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "t.txt")
            with open(path, "w", encoding="utf-8") as f:
                f.write("abc defg.\n\fhij \u00e4.\n\f")
            tokenizer = data.train_tokenizer([path], 257, folder)
            self.assertEqual(tokenizer.get_vocab_size(), 257)  # bytes and the end: a token is a byte
            self.assertAlmostEqual(data.bits_per_byte(Even(), tokenizer, [path], 4), 8.0, places=5)

    def test_the_rate_warms_up_stays_and_falls_to_nothing(self):
        schedule = loop.Schedule(1.0, 10, 100, 0.2)
        rates = [schedule.rate(i) for i in range(101)]
        self.assertEqual(rates[9:80], [1.0] * 71)
        self.assertEqual(sorted(rates[:10]), rates[:10])
        self.assertEqual(rates[100], 0.0)


    def test_texts_of_any_size_are_read_evenly(self):
        texts = [np.arange(first, first + n, dtype=np.uint16) for first, n in ((0, 500), (1000, 40000), (50000, 1500))]
        stream = data.Evenly(texts, 16, 4, 7)
        firsts = torch.cat([stream.batch(step)[0] for step in range(300)])[:, 0].numpy()
        self.assertEqual(np.histogram(firsts, (0, 1000, 50000, 60000))[0].tolist(), [400, 400, 400])
        self.assertGreater(len(set(firsts[firsts < 1000].tolist())), 100)  # another pass begins its windows elsewhere
        torch.testing.assert_close(stream.batch(3), data.Evenly(texts, 16, 4, 7).batch(3))


class Baselines(unittest.TestCase):
    def test_an_ngram_spreads_one_over_what_may_follow(self):
        rng = np.random.default_rng(1)
        ids = rng.integers(0, 12, 400) * rng.integers(0, 2, 400)
        for order in (1, 2, 3, 4):
            model = baseline.NGram(ids, 16, order)
            for context in ([0, 3, 5], [0, 0, 0], [14, 15, 14]):  # the last was never seen
                p = [2.0 ** -model.bits_of(np.array(context + [token]))[-1] for token in range(16)]
                self.assertAlmostEqual(sum(p), 1.0, places=9)
                self.assertGreater(min(p), 0.0)

    def test_an_ngram_knows_what_it_read(self):
        ids = np.array([1, 2, 3, 4] * 50)
        model = baseline.NGram(ids, 8, 3)
        self.assertLess(model.bits_of(ids)[3:].max(), 0.5)


class Scripts(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = lambda name: os.path.join(folder.name, name)
        toy_text(self.path("text"), 1)
        toy_text(self.path("held"), 2, n=20)
        toy_text(self.path("new"), 3, words=NEW_WORDS)

    def base(self, out, *more, family="olmoe"):
        settings = [x for item in sorted(TOYS[family]) for x in ("--set", item)]
        return run("train_base.py", "--family", family, "--text", self.path("text"), "--held-out", self.path("held"), "--out", out, "--vocab-size",
                   300, "--length", 32, "--batch", 4, "--tokens", 32 * 4 * 12, "--warmup", 2, "--measure-every", 6, "--dtype", "f32", *settings, *more)

    def weights(self, out):
        return load_file(os.path.join(out, "model.safetensors"))

    def same(self, one, two, tolerance):
        self.assertEqual(one.keys(), two.keys())
        self.assertLess(max((one[n] - two[n]).abs().max().item() for n in one), tolerance)

    def test_a_base_learns_and_is_written_whole(self):
        self.base(self.path("a"))
        with open(os.path.join(self.path("a"), "training.json"), encoding="utf-8") as f:
            figures = json.load(f)
        self.assertLess(figures["held_out_bits_per_byte_together"], 8)
        self.assertTrue(os.path.getsize(os.path.join(self.path("a"), "curve.png")) > 0)
        tokenizer = Tokenizer.from_file(os.path.join(self.path("a"), "tokenizer.json"))
        self.assertEqual(tokenizer.decode(tokenizer.encode("The sea, \u00e4!").ids), "The sea, \u00e4!")
        self.assertAlmostEqual(data.bits_per_byte(store.load(self.path("a")), tokenizer, [self.path("held")], 32),
                               figures["held_out_bits_per_byte_together"], places=3)

    def test_two_workers_train_the_same_model_as_one(self):
        self.base(self.path("one"), "--tokens", 32 * 4 * 4, "--rate", 1e-4)
        self.base(self.path("two"), "--tokens", 32 * 4 * 4, "--rate", 1e-4, "--workers", 2)
        one, two = self.weights(self.path("one")), self.weights(self.path("two"))
        apart = sum((one[n] - two[n]).abs().sum().item() for n in one) / sum(t.numel() for t in one.values())
        self.assertLess(apart, 2e-5)  # of 4e-4 that they moved; balance is counted per worker, and Adam follows signs near 0

    def test_a_run_that_was_decayed_early_can_still_go_on(self):
        self.base(self.path("a"), "--tokens", 32 * 4 * 6, "--decay-share", 0)
        self.base(self.path("a"), "--decay")
        self.base(self.path("a"))
        self.base(self.path("b"))
        self.same(self.weights(self.path("a")), self.weights(self.path("b")), 1e-6)

    def pack(self, out, steps=40):
        return ("train_pack.py", "--base", self.path("a"), "--text", self.path("new"), "--held-out", self.path("new"), "--old-text",
                self.path("text"), "--old-held-out", self.path("held"), "--out", out, "--experts", 3, "--steps", steps, "--measure-every", 10,
                "--length", 32, "--old-limit", 0.5, "--keep", 0.1, "--patience", steps, "--fingerprint", "ab" * 32)

    def test_a_pack_that_was_stopped_is_the_one_that_was_not(self):
        self.base(self.path("a"), "--tokens", 32 * 4 * 4)
        command = self.pack(self.path("one"), 200)
        with subprocess.Popen([sys.executable, os.path.join(ROOT, "tools", command[0]), *map(str, command[1:])], stderr=subprocess.PIPE,
                              text=True) as stopped:
            while not (line := stopped.stderr.readline()).startswith("step 20:"):
                self.assertTrue(line, "it ended before step 20")
            stopped.send_signal(signal.SIGTERM)
            self.assertIn("goes on from there", stopped.stderr.read())
        self.assertFalse(os.path.exists(self.path("one")))
        with self.assertRaisesRegex(AssertionError, "another steps"):
            run(*self.pack(self.path("one"), 300))
        self.assertIn("going on from step", run(*command))
        run(*self.pack(self.path("two"), 200))
        self.same(self.weights(self.path("one")), self.weights(self.path("two")), 1e-6)
        self.assertFalse(os.path.exists(self.path("one.checkpoint.pt")))

    def test_a_pack_is_what_the_concatenated_checkpoint_is(self):
        self.base(self.path("a"), "--tokens", 32 * 4 * 4)
        run(*self.pack(self.path("pack")))
        with open(os.path.join(self.path("pack"), "pack.json"), encoding="utf-8") as f:
            manifest = json.load(f)
        added = load_file(os.path.join(self.path("pack"), "model.safetensors"))
        self.assertEqual(added.keys(), manifest["tensors"].keys())
        for name, row in manifest["tensors"].items():
            self.assertEqual(row["sha256"], hashlib.sha256(added[name].numpy().tobytes()).hexdigest())
            self.assertEqual(row["shape"], list(added[name].shape))

        whole, n = self.weights(self.path("a")), 4  # the base's experts
        for layer in manifest["layers"]:
            place = f"model.layers.{layer['layer']}.mlp."
            whole[place + "gate.weight"] = torch.cat([whole[place + "gate.weight"], added[layer["router"]]])
            for e, roles in enumerate(layer["experts"]):
                whole.update({f"{place}experts.{n + e}.{role}_proj.weight": added[name] for role, name in roles.items()})
        with open(os.path.join(self.path("a"), "config.json"), encoding="utf-8") as f:
            model = olmoe.Model({**json.load(f), "num_experts": n + 3})
        model.load_tensors(whole)
        tokenizer = Tokenizer.from_file(os.path.join(self.path("a"), "tokenizer.json"))
        figures = manifest["evaluation"]["bits_per_byte"]
        self.assertAlmostEqual(data.bits_per_byte(model, tokenizer, [self.path("new")], 32), figures["with_pack"]["new"], places=5)
        self.assertAlmostEqual(data.bits_per_byte(model, tokenizer, [self.path("held")], 32), figures["with_pack"]["old"], places=5)
        self.assertLess(figures["with_pack"]["new"], figures["base"]["new"])

    def test_a_specialised_model_is_measured_at_every_share(self):
        for family in TOYS:  # of 4 experts that compute, never below top-2
            with self.subTest(family):
                base, out = self.path("a" + family), self.path("s" + family)
                self.base(base, "--tokens", 32 * 4 * 4, family=family)
                run("specialise.py", "--base", base, "--text", self.path("text"), "--held-out", self.path("held"), "--out", out, "--steps", 5,
                    "--length", 32, "--batch", 4, "--dtype", "f32")
                with open(os.path.join(out, "prune.json"), encoding="utf-8") as f:
                    tables = json.load(f)["tables"]
                for rows in tables.values():
                    self.assertEqual([row["experts"] for row in rows], [4, 3, 2, 2, 2])
                    self.assertGreater(len({row["bits_per_byte"] for row in rows[:3]}), 1)
                tokenizer = Tokenizer.from_file(os.path.join(out, "tokenizer.json"))
                self.assertAlmostEqual(data.bits_per_byte(store.load(out), tokenizer, [self.path("held")], 32),
                                       tables["specialised"][0]["bits_per_byte"], places=3)

    def test_zero_computation_picks_are_told_by_kind_of_token(self):
        sys.path.insert(0, os.path.join(ROOT, "tools"))
        import token_kinds
        for text, before, kind in ((" the", "saw", "word beginning"), ("The", "\n", "word beginning"), ("ing", " go", "word continuation"),
                                   ("ing", "(", "word beginning"), (" (", "x", "punctuation"), (" 12", "x", "digits"), ("  ", "x", "white space"),
                                   ("\ufffd", " M", "word continuation")):
            self.assertEqual(token_kinds.kind(text, before), kind, (text, before))
        self.base(self.path("p"), "--tokens", 32 * 4 * 4, family="moe++")
        done = subprocess.run([sys.executable, os.path.join(ROOT, "tools", "token_kinds.py"), "--model", self.path("p"), "--text", self.path("text"),
                               "--json", "--length", "32"], capture_output=True, text=True, check=True)
        rows = json.loads(done.stdout)
        self.assertEqual(list(rows), [*token_kinds.KINDS, "layer 0", "layer 1", "all"])
        for row in rows.values():
            self.assertAlmostEqual(sum(row[e] for e in token_kinds.EXPERTS), 1.0 if row["tokens"] else 0.0, places=3)
        self.assertEqual(rows["digits"]["tokens"], 0)
        self.assertEqual(sum(rows[k]["tokens"] for k in token_kinds.KINDS), rows["all"]["tokens"])

    def test_the_baselines_are_printed(self):
        self.base(self.path("a"), "--tokens", 32 * 4)
        done = subprocess.run([sys.executable, os.path.join(ROOT, "tools", "train_baselines.py"), "--tokenizer", self.path("a"), "--text",
                               self.path("text"), "--held-out", self.path("held"), "--order", "2,3"], capture_output=True, text=True, check=True)
        figures = json.loads(done.stdout)
        self.assertEqual(figures["bytes"], sum(len(d.encode()) for d in data.documents(self.path("held"))))
        self.assertTrue(all(0 < v < 8 for k, v in figures.items() if k != "bytes"), figures)


class Served(unittest.TestCase):
    """What measures a running server, beside what measures the checkpoint that it serves."""

    @classmethod
    def setUpClass(cls):
        cls.programs = os.environ.get("PROGRAMS", os.path.join(ROOT, "bin"))
        cls.program = program = os.path.join(cls.programs, "conclave-coordinator")
        if not os.path.exists(program):
            raise unittest.SkipTest(f"no {program}")
        sys.path[:0] = [os.path.join(ROOT, "tests", "integration"), os.path.join(ROOT, "tools")]
        import python_client
        from coordinator import Coordinator
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        python_client.lay_out(cls.folder)
        sys.path.insert(0, cls.folder)
        toy_text(os.path.join(cls.folder, "text"), 1)
        torch.manual_seed(6)
        cls.tokenizer = data.train_tokenizer([os.path.join(cls.folder, "text")], 300, cls.folder)
        cls.model = olmoe.Model(olmoe.config(320, 0, max_position_embeddings=64))
        store.export(cls.model, cls.folder, "f32")
        server = Coordinator(program, cls.folder, "--dtype", "f32", "--cache-dir", "")
        cls.addClassCleanup(server.stop)
        cls.address = server.address

    def test_packs_of_every_family_score_as_when_they_were_trained(self):
        from conclave import Client
        from coordinator import Coordinator, clean_env
        import scoring
        toys = ((olmoe, {"num_hidden_layers": 3}, []), (molm, {"n_layer": 3}, ["--attention", "2"]), (moe_plus_plus, {"num_hidden_layers": 3}, []),
                (moe_plus_plus, {"num_hidden_layers": 3, "moe_2layer_gate": True, "moe_use_logits_norm": False}, []))
        for i, (module, changes, more) in enumerate(toys):
            with self.subTest(module.MODEL_TYPE, **changes), tempfile.TemporaryDirectory() as folder:
                path = lambda name: os.path.join(folder, name)
                toy_text(path("new"), 3, words=NEW_WORDS, n=40)
                toy_text(path("held"), 4, n=40)
                torch.manual_seed(10 + i)
                data.train_tokenizer([path("new"), path("held")], 300, path("base"))
                model = module.Model(module.config(320, 0, **changes))
                with torch.no_grad():
                    for name, p in model.named_parameters():
                        if "gate" in name and "gate_up" not in name and "constant" not in name or ".wg." in name:
                            p.normal_(0, 0.3)  # clear choices, and a gate map that does something
                store.export(model, path("base"), "f32")
                told = subprocess.run([os.path.join(self.programs, "conclave"), "manifest", "--json", "--cache-dir", path("cache"), path("base")],
                                      stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, env=clean_env())
                run("train_pack.py", "--base", path("base"), "--text", path("new"), "--held-out", path("new"), "--old-text", path("held"),
                    "--old-held-out", path("held"), "--out", path("pack"), "--experts", 3, "--steps", 30, "--measure-every", 30, "--length", 32,
                    "--rate", 0.01, "--warmup", 2, "--old-limit", 9, "--fingerprint", json.loads(told.stdout)["fingerprint"], *more)
                with open(path("pack/pack.json"), encoding="utf-8") as f:
                    figures = json.load(f)["evaluation"]["bits_per_byte"]
                self.assertLess(figures["with_pack"]["new"], figures["base"]["new"] - 0.1)
                texts = {kind: data.documents(path(name)) for kind, name in (("new", "new"), ("old", "held"))}
                with Coordinator(self.program, path("base"), "--dtype", "f32", "--cache-dir", "", "--pack", path("pack")) as server, \
                        Client(server.address) as client:
                    for state, which in (("with_pack", None), ("base", "base")):
                        scorer = scoring.Scorer(client, which, window=33)
                        for kind, some in texts.items():
                            got = scorer.bits(some)[0] / sum(len(t.encode()) for t in some)
                            self.assertAlmostEqual(got, figures[state][kind], delta=1e-4, msg=f"{state}, {kind}")

    def test_bits_per_byte_equal_those_of_the_checkpoint(self):
        text = os.path.join(self.folder, "held")
        toy_text(text, 9, n=6)
        with open(text, "a", encoding="utf-8") as f:
            f.write("One document  of many windows \u00e4\n\n and pieces, " * 40)
        for more, window in (([], 64), (["--window", "20", "--set", "base", "--parallel", "2"], 20)):
            done = subprocess.run([sys.executable, os.path.join(ROOT, "tools", "eval.py"), "--server", self.address, "--json", *more, text],
                                  capture_output=True, text=True, env={**os.environ, "PYTHONPATH": self.folder})
            self.assertEqual(done.returncode, 0, done.stderr)
            together = json.loads(done.stdout.splitlines()[-1])
            want = data.bits_per_byte(self.model, self.tokenizer, [text], window - 1)
            self.assertAlmostEqual(together["bits_per_byte"], want, places=5)
            self.assertEqual(together["bytes"], sum(len(d.encode()) for d in data.documents(text)))

    def test_the_harness_gets_what_transformers_gives_it(self):
        try:
            from lm_eval import evaluator
            from lm_eval.models.huggingface import HFLM
            from lm_eval.tasks import TaskManager
        except ImportError as error:
            self.skipTest(str(error))
        import lm_eval_conclave
        self.task(self.folder)
        tasks = TaskManager(include_path=self.folder, include_defaults=False)
        measure = lambda lm: evaluator.simple_evaluate(lm, tasks=["toy", "toy_rolling"], task_manager=tasks, bootstrap_iters=0, log_samples=True)
        ours = measure(lm_eval_conclave.ConclaveLM(self.address))
        theirs = measure(HFLM(self.folder, device="cpu", dtype="float32", batch_size=1, max_length=63))
        for name in ("toy", "toy_rolling"):
            self.assertGreater(len(ours["samples"][name]), 5)
            for one, two in zip(ours["samples"][name], theirs["samples"][name], strict=True):
                flat = lambda x: [v for item in x for v in flat(item)] if isinstance(x, (list, tuple)) else [float(x)]
                np.testing.assert_allclose(flat(one["resps"]), flat(two["resps"]), rtol=0, atol=1e-4)
        self.assertEqual(ours["results"]["toy"]["acc,none"], theirs["results"]["toy"]["acc,none"])

    def task(self, folder):
        rng = torch.Generator().manual_seed(8)
        words = lambda n: " ".join(WORDS[i] for i in torch.randint(len(WORDS), (n,), generator=rng).tolist())
        with open(os.path.join(folder, "toy.jsonl"), "w", encoding="utf-8") as f:
            for i in range(12):  # some longer than the context
                f.write(json.dumps({"question": words(5 + 8 * i), "choices": [words(1 + j) for j in range(3)], "answer": i % 3}) + "\n")
        common = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": os.path.join(folder, "toy.jsonl")}}, "test_split": "test"}
        tasks = {"toy": {"output_type": "multiple_choice", "doc_to_text": "{{question}}", "doc_to_choice": "choices", "doc_to_target": "answer"},
                 "toy_rolling": {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{question}}",
                                 "metric_list": [{"metric": "bits_per_byte"}]}}
        for name, task in tasks.items():
            with open(os.path.join(folder, name + ".yaml"), "w", encoding="utf-8") as f:
                json.dump({"task": name, **common, **task}, f)  # JSON is YAML


if __name__ == "__main__":
    unittest.main()
