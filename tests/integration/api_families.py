"""What the API tells of models beside OLMoE, through the programs: classes of a classifier, picks of zero-computation experts, keys that
stick-breaking attention skips.

Usage: api_families.py CONCLAVE COORDINATOR MAKE_CHECKPOINT [unittest arguments]
"""
import json
import os
import struct
import subprocess
import sys
import tempfile
import unittest

from coordinator import Coordinator, clean_env, run_json

CONCLAVE, COORDINATOR, MAKE_CHECKPOINT = sys.argv[1:4]
PROMPT = ",".join(str(7 * i % 300 + 3) for i in range(40))


def make_classifier(model, out, rows, labels, **config):
    """The checkpoint with some rows of its head as the head of a classifier."""
    os.mkdir(out)
    with open(os.path.join(model, "model.safetensors"), "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        begin = file.tell()
        tensors = {}
        for name, t in header.items():
            if name != "__metadata__":
                file.seek(begin + t["data_offsets"][0])
                tensors[name] = (t["dtype"], t["shape"], file.read(t["data_offsets"][1] - t["data_offsets"][0]))
    dtype, (vocab, width), data = tensors.pop("lm_head.weight")
    row = len(data) // vocab
    tensors["score.weight"] = (dtype, [len(rows), width], b"".join(data[i * row:(i + 1) * row] for i in rows))
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(out, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))
    with open(os.path.join(model, "config.json"), encoding="utf-8") as file:
        config = {**json.load(file), "architectures": ["ModuleFormerForSequenceClassification"],
                  "id2label": {str(i): label for i, label in enumerate(labels)}, **config}
    with open(os.path.join(out, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)


class ApiFamilies(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name

    def make(self, name, *args):
        model = os.path.join(self.folder, name)
        subprocess.run(["/usr/bin/python3", MAKE_CHECKPOINT, model, "--shape", "tiny", "--no-tokenizer", *args], check=True, capture_output=True)
        return model

    def serve(self, model, *args):
        return Coordinator(COORDINATOR, model, "--cache-dir", self.folder, *args)

    def refused(self, coordinator, command, *args):
        done = subprocess.run([CONCLAVE, command, "--server", coordinator.address, *args], capture_output=True, encoding="utf-8", env=clean_env())
        self.assertEqual(done.returncode, 1)
        return done.stderr

    def test_classes_are_rows_of_the_same_head(self):
        model, classifier = self.make("molm", "--family", "molm", "--dtype", "f32"), os.path.join(self.folder, "classifier")
        with self.serve(model) as coordinator:
            chunks = run_json(CONCLAVE, coordinator, "generate", "--tokens", PROMPT, "--max-tokens", "1", "--logprobs", "5", "--ignore-eos")
            top = [t for c in chunks for l in c.get("logprobs", []) for t in l["top"]]
            self.assertIn("UNIMPLEMENTED: the model has no classification head", self.refused(coordinator, "classify", "--tokens", PROMPT))
        make_classifier(model, classifier, [t["id"] for t in top], ["a", "b", "c", "d", "e"], pad_token_id=1)
        with self.serve(classifier, "--prefill-chunk", "7") as coordinator:
            reply, = run_json(CONCLAVE, coordinator, "classify", "--tokens", PROMPT)
            padded, = run_json(CONCLAVE, coordinator, "classify", "--tokens", PROMPT + ",1,1")
            shown = run_json(CONCLAVE, coordinator, "model")[0]
            for command in ("generate", "score"):
                self.assertIn("UNIMPLEMENTED: the model is a classifier", self.refused(coordinator, command, "--tokens", PROMPT))
        self.assertEqual(reply["labels"], ["a", "b", "c", "d", "e"])
        self.assertEqual((shown["has_classifier"], shown["n_classes"], shown["labels"], shown["attention"]),
                         (True, 5, reply["labels"], "stick-breaking"))
        for i, t in enumerate(top):
            self.assertAlmostEqual(reply["scores"][i] - reply["scores"][0], t["logprob"] - top[0]["logprob"], delta=2e-5)
            self.assertAlmostEqual(reply["logprobs"][i] - reply["logprobs"][0], t["logprob"] - top[0]["logprob"], delta=2e-5)
        self.assertEqual((padded["scores"], padded["usage"]["prompt_tokens"]), (reply["scores"], 40))
        self.assertGreater(reply["timings"]["prefill_seconds"], 0)

    def test_zero_computation_picks_are_counted_and_not_sent(self):
        model = self.make("moepp", "--family", "moe++", "--zero-share", "0.4")
        with self.serve(model) as coordinator:
            run_json(CONCLAVE, coordinator, "score", "--tokens", ",".join(map(str, range(200))))
            placement, stats = run_json(CONCLAVE, coordinator, "experts")
            shown = run_json(CONCLAVE, coordinator, "model")[0]
        kinds = [e["kind"] for e in placement["experts"] if e["layer"] == 0]
        n_ffn = kinds.count("EXPERT_KIND_FFN")
        self.assertEqual(shown["n_ffn_experts"], n_ffn)
        self.assertEqual(kinds[n_ffn:], [f"EXPERT_KIND_{kind}" for kind in ("CONSTANT", "CONSTANT", "COPY", "ZERO")])
        for e in placement["experts"]:
            self.assertEqual(bool(e.get("replicas")), e["kind"] == "EXPERT_KIND_FFN", "nodes hold FFNs and nothing else")
        for layer in stats["layers"]:
            local = sum(layer[f"{kind}_picks"] for kind in ("constant", "copy", "zero"))
            rows = layer["rows_by_ffn_picks"]
            self.assertEqual((sum(rows), local + layer["ffn_picks"]), (200, 400))
            self.assertEqual(layer["ffn_picks"], rows[1] + 2 * rows[2])
            self.assertEqual(local, 160, "the share that the checkpoint was made for")
            self.assertEqual(layer["bytes_not_sent"], (local + rows[0]) * shown["d_model"] * 2, "bf16")

    def test_generation_config_speaks_where_a_request_does_not(self):
        model = self.make("greedy", "--family", "olmoe", "--dtype", "f32")
        generate = lambda *args: [t for c in run_json(CONCLAVE, coordinator, "generate", "--tokens", PROMPT, "--ignore-eos", *args)
                                  for t in c.get("token_ids", [])]
        with open(os.path.join(model, "generation_config.json"), "w", encoding="utf-8") as file:
            file.write('{"do_sample": false, "temperature": 5.0, "top_p": 0, "min_p": 0.25, "repetition_penalty": 1.5, "max_length": 47, '
                       '"num_beams": 4, "score": NaN, "max_time": null}')
        with self.serve(model) as coordinator:
            shown = run_json(CONCLAVE, coordinator, "model")[0]["default_sampling"]
            answers = [generate("--seed", str(seed)) for seed in range(3)]
            same = generate("--temperature", "0", "--min-p", "0.25", "--repetition-penalty", "1.5", "--max-tokens", "7")
            plain = generate("--repetition-penalty", "1", "--max-tokens", "100")
            sampled = [generate("--temperature", "1", "--top-p", "1", "--min-p", "0", "--seed", str(seed)) for seed in range(3)]
            ignored = coordinator.log_match(r"generation_config.json: ignored, as it is not supported: (.*)")[1]
        self.assertEqual(shown.get("temperature", 0), 0)
        self.assertEqual((shown["min_p"], shown["repetition_penalty"]), (0.25, 1.5))
        self.assertLess(shown["top_p"], 1e-30, "0 keeps the likeliest token alone")
        self.assertEqual(answers, [same] * 3, "greedy, whatever the seed, and as long as max_length leaves")
        self.assertEqual(len(same), 7)
        self.assertEqual(len(plain), 100, "a request's own length counts")
        self.assertNotEqual(plain[:7], same, "the penalty is the file's")
        self.assertEqual(len({tuple(a) for a in sampled}), 3)
        self.assertEqual(ignored, "num_beams: 4")

    def test_the_length_of_an_answer_is_the_operators_then_the_models(self):
        model = self.make("length", "--family", "olmoe", "--dtype", "f32")
        with open(os.path.join(model, "generation_config.json"), "w", encoding="utf-8") as file:
            json.dump({"max_new_tokens": 6}, file)
        for args, length in (((), 6), (("--default-max-tokens", "4"), 4)):
            with self.serve(model, *args) as coordinator:
                self.assertEqual(run_json(CONCLAVE, coordinator, "model")[0]["default_max_tokens"], length)
                chunks = run_json(CONCLAVE, coordinator, "generate", "--tokens", PROMPT, "--ignore-eos")
            self.assertEqual(sum(len(c.get("token_ids", [])) for c in chunks), length)

    def test_only_some_families_have_a_limit_of_positions(self):
        for family, default, refused in (("molm", 4096, False), ("moe++", None, False), ("olmoe", None, True)):
            model = self.make(f"context-{family}", "--family", family)
            with self.serve(model) as coordinator:
                limit = run_json(CONCLAVE, coordinator, "model")[0]["max_context"]
            self.assertEqual(limit, default or limit)
            if refused:
                with self.assertRaisesRegex(RuntimeError, f"--max-context {2 * limit}: at most max_position_embeddings, {limit}"):
                    self.serve(model, "--max-context", str(2 * limit))
                continue
            with self.serve(model, "--max-context", str(2 * limit)) as coordinator:
                self.assertEqual(run_json(CONCLAVE, coordinator, "model")[0]["max_context"], 2 * limit)

    def test_skipped_keys_change_nothing(self):
        model = self.make("steep", "--family", "molm", "--score-scale", "20")
        answers, counts = [], []
        for args in ((), ("--no-early-exit",)):
            with self.serve(model, *args) as coordinator:
                answers.append(run_json(CONCLAVE, coordinator, "score", "--tokens", ",".join(str(11 * i % 300 + 3) for i in range(300)))[0]["tokens"])
                stats = run_json(CONCLAVE, coordinator, "experts")[1]
                counts.append((stats["attention_keys_seen"], stats["attention_keys_skipped"]))
        self.assertEqual(answers[0], answers[1])
        self.assertGreater(counts[0][1], counts[0][0], "most keys are skipped")
        self.assertEqual(counts[1], (sum(counts[0]), 0))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]] + sys.argv[4:])
