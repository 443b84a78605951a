"""The commands against a server whose replies are staged (cli_server.py).

Usage: cli_fake.py CONCLAVE PROTO_DIR [unittest arguments]
"""
import http.server
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

import grpc
from cli_server import CHUNKS, CONCLAVE, Case, Server, WAIT_S, message, refuse, v1


class Generate(Case):
    def setUp(self):
        super().setUp()
        self.server.replies["Generate"] = CHUNKS

    def test_text_comes_out_and_the_line_is_ended(self):
        self.assertEqual(self.ok("generate", "hi"), "Hello €\n")

    def test_request_carries_the_options(self):
        self.ok("generate", "hi", "--max-tokens", "3", "--temperature", "0", "--stop", "a", "--stop", "b")
        want = v1("GenerateRequest", text="hi", sampling=v1("Sampling", max_tokens=3, temperature=0, stop=["a", "b"]))
        self.assertEqual(self.server.requests, [want])

    def test_prompt_comes_from_standard_input_byte_for_byte(self):
        self.ok("generate", "-", stdin="two\nlines €\n")
        self.assertEqual(self.server.requests[0].text, "two\nlines €\n")

    def test_json_is_one_object_per_chunk(self):
        lines = [json.loads(line) for line in self.ok("generate", "hi", "--json").splitlines()]
        self.assertEqual(lines, [
            {"index": 0, "first_index": 0, "token_ids": [5, 6], "text": "Hel", "finish_reason": "FINISH_REASON_UNSPECIFIED",
             "echo": False, "request_id": "r", "seed": str(2**63), "set_id": "s", "model_fingerprint": "f"},
            {"index": 0, "first_index": 2, "token_ids": [7], "text": "lo €", "finish_reason": "FINISH_REASON_LENGTH",
             "echo": False, "usage": {"prompt_tokens": 3, "completion_tokens": 3, "cached_tokens": 0},
             "timings": {"queue_seconds": 0, "prefill_seconds": 0.5, "decode_seconds": 0, "preemptions": 0}}])

    def test_ids_come_out_where_there_is_no_text(self):
        self.server.replies["Generate"] = [v1("GenerateResponse", token_ids=[5]), v1("GenerateResponse", token_ids=[6, 7])]
        self.assertEqual(self.ok("generate", "--tokens", "1"), "5 6 7\n")

    def test_an_answer_is_compared_with_the_expected_one(self):
        for form in ([], ["--json"], ["--logprobs", "0"]):
            self.ok("generate", "hi", "--expect", "5,6,7", *form)
            for other in ("5,6", "5,6,7,8", "5,6,70", "1"):
                self.fails(1, "--expect: the answer is other tokens: 5 6 7", "generate", "hi", "--expect", other, *form)
        self.fails(2, "--expect and --echo", "generate", "hi", "--expect", "5,6,7", "--echo")

    def test_choices_come_one_after_the_other(self):
        self.server.replies["Generate"] = [
            v1("GenerateResponse", index=1, token_ids=[1], text="one"), v1("GenerateResponse", token_ids=[2], text="zero")]
        self.assertEqual(self.ok("generate", "hi", "-n", "2"), "zero\n--- choice 1\none\n")

    def test_logprobs_are_a_table(self):
        row = v1("TokenLogprob", id=5, logprob=-0.5, token=b"H", top=[v1("TopLogprob", id=9, logprob=-0.25, token=b"\xff")])
        self.server.replies["Generate"] = [v1("GenerateResponse", token_ids=[5], text="H", logprobs=[row])]
        self.assertEqual(self.ok("generate", "hi", "--logprobs", "1"), '0       5   -0.500000  "H"  best: 9 -0.250000 \\xff\n')

    def test_stats_name_tokens_and_prompt(self):
        result = self.run_cli("generate", "hi", "--stats")
        self.assertRegex(result.err, rf"^3 tokens, .* tokens/s; prompt 3 tokens, first token after \d+\.\d+ s; seed {2**63}\n$")

    def test_stats_of_a_single_chunk_use_the_time_of_the_server(self):
        self.server.replies["Generate"] = [v1("GenerateResponse", token_ids=[1, 2, 3], usage=v1("Usage", prompt_tokens=4),
                                              timings=v1("Timings", decode_seconds=0.5))]
        self.assertRegex(self.run_cli("generate", "hi", "--stats").err, r"^3 tokens, 4\.0 tokens/s; prompt 4 tokens, ")

    def test_answer_cut_short_is_a_failure(self):
        self.server.replies["Generate"] = [v1("GenerateResponse", token_ids=[1], text="a", finish_reason=3)]
        self.fails(1, "the server cut the answer short", "generate", "hi")

    def test_choice_out_of_range_is_refused(self):
        self.server.replies["Generate"] = [v1("GenerateResponse", index=16)]
        self.fails(1, "index 16: a server sends at most 16 choices", "generate", "hi")

    def test_reply_that_is_no_message_is_refused(self):
        self.server.replies["Generate"] = [b"\xff\xff"]
        self.fails(1, "not a conclave.v1.GenerateResponse", "generate", "hi")

    def test_reply_over_the_default_limit_arrives(self):
        self.server.replies["Generate"] = [v1("GenerateResponse", token_ids=[1], text="x" * (8 << 20))]
        self.assertEqual(len(self.ok("generate", "hi")), (8 << 20) + 1)

    def test_partial_answer_stays_when_the_call_fails(self):
        def answer(_, context):
            yield CHUNKS[0]
            context.abort(grpc.StatusCode.DATA_LOSS, "gone")

        self.server.replies["Generate"] = answer
        result = self.fails(1, "DATA_LOSS: gone", "generate", "hi")
        self.assertEqual(result.out, "Hel\n")


class Failures(Case):
    def test_status_has_its_name_and_message(self):
        self.server.replies["Score"] = refuse(grpc.StatusCode.INVALID_ARGUMENT, "top 51: at most 50")
        result = self.fails(1, "", "score", "hi", "--top", "51")
        self.assertEqual(result.err, "conclave score: INVALID_ARGUMENT: top 51: at most 50\n")

    def test_retry_hint_is_shown(self):
        self.server.replies["Generate"] = refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", ("grpc-retry-pushback-ms", "250"))
        self.fails(1, "RESOURCE_EXHAUSTED: full (try again in 250 ms)", "generate", "hi")

    def test_nobody_listening(self):
        self.server.stop()
        self.fails(1, "UNAVAILABLE: ", "model")

    def test_empty_server(self):
        for args in (["--server", ""], ["--server="]):
            done = subprocess.run([CONCLAVE, "model", *args], capture_output=True, encoding="utf-8", timeout=WAIT_S)
            self.assertEqual((done.returncode, done.stderr), (2, "conclave model: --server \"\": no host; expected HOST:PORT\n"))

    def test_unknown_command(self):
        self.fails(2, "no command 'frobnicate'", "frobnicate")

    def test_bad_option_value(self):
        self.fails(2, "--max-tokens many (command line): 'many' is not a whole number", "generate", "hi", "--max-tokens", "many")

    def test_timeout_ends_the_call(self):
        def answer(_, context):
            context.add_callback(lambda: self.server.cancelled.put(True))
            self.server.cancelled.get(timeout=WAIT_S)
            yield CHUNKS[0]

        self.server.replies["Generate"] = answer
        self.fails(1, "DEADLINE_EXCEEDED", "generate", "hi", "--timeout", "0.3")

    def test_full_disk_is_a_failure_of_every_command(self):
        many = [v1("ExpertPlacement", layer=i, expert_id=i % 7) for i in range(5000)]
        self.server.replies.update(
            GetModel=[v1("GetModelResponse", name="m")], Generate=CHUNKS, Score=[v1("ScoreResponse", tokens=[v1("ScoredToken", id=1)] * 9000)],
            Classify=[v1("ClassifyResponse", scores=[1])], Tokenize=[v1("TokenizeResponse", ids=[1] * 70000)],
            Detokenize=[v1("DetokenizeResponse", text="x" * 100000)], ListExperts=[v1("ListExpertsResponse", experts=many)],
            GetExpertStats=[v1("GetExpertStatsResponse", tokens=1)], GetCluster=[v1("GetClusterResponse")],
            Check=[message("grpc.health.v1.HealthCheckResponse", status=1)])
        for args in (["model"], ["generate", "hi"], ["chat"], ["score", "hi"], ["classify", "hi"], ["tokenize", "hi"],
                     ["detokenize", "1"], ["placement"], ["experts"], ["nodes"], ["health"]):
            for form in ([], ["--json"]):
                with open("/dev/full", "w") as full:
                    done = subprocess.run(self.argv(*args, *form), stdout=full, stderr=subprocess.PIPE, encoding="utf-8", timeout=WAIT_S, input="hi\n")
                self.assertEqual((done.returncode, done.stderr), (1, f"conclave {args[0]}: standard output: No space left on device\n"), args + form)

    def test_health_has_a_time_limit_and_says_what_it_waited_for(self):
        def answer(_, context):
            context.add_callback(lambda: self.server.cancelled.put(True))
            self.server.cancelled.get(timeout=WAIT_S)
            yield b""

        self.server.replies["Check"] = answer
        self.fails(1, f"DEADLINE_EXCEEDED: waited 0.2 s (--timeout) for an answer of 127.0.0.1:{self.server.port}, which took the connection",
                   "health", "--timeout", "0.2")
        shown = subprocess.run([CONCLAVE, "health", "--help"], capture_output=True, encoding="utf-8", check=True).stdout
        self.assertIn("give up a call after this time; 0: never [0 to 1000000] (default: 5)", shown)

    def test_a_server_that_takes_no_connection_is_told(self):
        with socket.socket() as silent:  # accepts nothing: the queue takes one connection, and nobody answers on it
            silent.bind(("127.0.0.1", 0))
            silent.listen(0)
            done = subprocess.run([CONCLAVE, "health", "--server", f"127.0.0.1:{silent.getsockname()[1]}", "--timeout", "0.3"], capture_output=True,
                                  encoding="utf-8", timeout=WAIT_S)
        self.assertEqual(done.returncode, 1)
        self.assertIn("waited 0.3 s (--timeout) for a connection to", done.stderr)

    def test_streams_have_no_time_limit_and_quick_calls_have_one(self):
        for command, default in (("generate", 0), ("chat", 0), ("score", 600), ("tokenize", 30), ("model", 30), ("nodes", 30), ("health", 5)):
            shown = subprocess.run([CONCLAVE, command, "--print-config"], capture_output=True, encoding="utf-8", check=True).stdout
            self.assertEqual(json.loads(shown)["timeout"], default, command)

    def test_the_port_may_be_left_out(self):
        for server, reason in (("127.0.0.1:x", "the port must be a number"), ("::1:50051", "an IPv6 address stands in brackets"),
                               ("http://127.0.0.1:1", "a URL; expected HOST:PORT"), ("127.0.0.1:0", "nobody listens at port 0"), (":5", "no host to connect to")):
            done = subprocess.run([CONCLAVE, "model", "--server", server], capture_output=True, encoding="utf-8", timeout=WAIT_S)
            self.assertEqual(done.returncode, 2, server)
            self.assertIn(f'--server "{server}": {reason}', done.stderr)
        done = subprocess.run([CONCLAVE, "model", "--server", "127.0.0.77"], capture_output=True, encoding="utf-8", timeout=WAIT_S)
        self.assertIn("127.0.0.77:50051", done.stderr)

    def test_nobody_at_the_port_is_told_with_what_to_do(self):
        self.server.stop()
        self.fails(1, "nobody listens there: is conclave-coordinator running? --server HOST:PORT names another", "model")

    def test_the_port_of_web_pages_is_recognised(self):
        class Page(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as pages:
            threading.Thread(target=pages.serve_forever, daemon=True).start()
            done = subprocess.run([CONCLAVE, "model", "--server", f"127.0.0.1:{pages.server_port}"], capture_output=True, encoding="utf-8", timeout=WAIT_S)
            pages.shutdown()
        self.assertEqual(done.returncode, 1)
        self.assertIn("a web server listens there", done.stderr)

    def test_a_variable_is_named_as_it_was_given(self):
        env = {**{k: v for k, v in os.environ.items() if not k.startswith("CONCLAVE_")}, "CONCLAVE_MAX_TOKENS": "many"}
        done = subprocess.run(self.argv("generate", "hi"), capture_output=True, encoding="utf-8", timeout=WAIT_S, env=env)
        self.assertEqual((done.returncode, done.stderr),
                         (2, "conclave generate: CONCLAVE_MAX_TOKENS=many (environment): 'many' is not a whole number within [0, 4294967295]\n"))

    def test_interrupt_cancels_the_call(self):
        def answer(_, context):
            context.add_callback(lambda: self.server.cancelled.put(True))
            yield CHUNKS[0]
            self.server.cancelled.get(timeout=WAIT_S)
            self.server.cancelled.put(True)

        self.server.replies["Generate"] = answer
        with subprocess.Popen(self.argv("generate", "hi"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            self.assertEqual(process.stdout.read(3), b"Hel")
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=WAIT_S)
        self.assertEqual((process.returncode, err), (130, b"conclave generate: CANCELLED: interrupted\n"))
        self.assertTrue(self.server.cancelled.get(timeout=WAIT_S))


class Scores(Case):
    def setUp(self):
        super().setUp()
        layer = [v1("LayerExperts", layer=0, ids=[1, 4, 9, 12])]
        self.server.replies["Score"] = [v1("ScoreResponse", set_id="s", tokens=[
            v1("ScoredToken", id=7, experts=layer),
            v1("ScoredToken", id=3, logprob=-1.25, experts=layer,
               top=[v1("TopLogprob", id=9, logprob=-0.7), v1("TopLogprob", id=3, logprob=-1.25)])])]

    def test_json(self):
        self.assertEqual(
            self.ok("score", "--tokens", "7,3", "--top", "2", "--experts", "--json"),
            '{"tokens":[{"id":7,"experts":[{"layer":0,"ids":[1,4,9,12]}]},{"id":3,"logprob":-1.25,"top":['
            '{"id":9,"logprob":-0.7},{"id":3,"logprob":-1.25}],"experts":[{"layer":0,"ids":[1,4,9,12]}]}],"set_id":"s"}\n')

    def test_tokens_are_shown_as_text(self):
        self.server.replies["Score"] = [v1("ScoreResponse", tokens=[
            v1("ScoredToken", id=7, token=b" a\n"),
            v1("ScoredToken", id=3, logprob=-1.25, token=b"\xc3", top=[v1("TopLogprob", id=9, logprob=-0.5, token=b'"')])])]
        self.assertEqual(self.ok("score", "--tokens", "7,3").splitlines()[:2],
                         ['     0       7              " a\\n"', '     1       3   -1.250000  \\xc3  best: 9 -0.500000 "\\""'])

    def test_table(self):
        self.assertEqual(self.ok("score", "--tokens", "7,3"),
                         "     0       7\n        layer 0: 1 4 9 12\n"
                         "     1       3   -1.250000  best: 9 -0.700000, 3 -1.250000\n        layer 0: 1 4 9 12\n"
                         "1 scored, sum -1.250000, mean -1.250000, perplexity 3.49034\n")

    def test_classes(self):
        self.server.replies["Classify"] = [v1("ClassifyResponse", scores=[0.5, -2])]
        self.assertEqual(self.ok("classify", "hi"), "class 0: 0.500000\nclass 1: -2.000000\n")
        self.ok("classify", "--tokens", "1,2", "--request-id", "r")
        self.ok("classify", "hi", "--add-special-tokens", "false")
        self.assertEqual(self.server.requests, [v1("ClassifyRequest", text="hi"),
                                                v1("ClassifyRequest", token_ids=v1("TokenIds", ids=[1, 2]), request_id="r"),
                                                v1("ClassifyRequest", text="hi", add_special_tokens=False)])

    def test_classes_have_names_and_probabilities(self):
        self.server.replies["Classify"] = [v1("ClassifyResponse", scores=[1, 1], logprobs=[-0.6931472, -0.6931472], labels=["a b", "c"])]
        self.assertEqual(self.ok("classify", "hi"), "class 0 a b: 1.000000, probability 0.500000\nclass 1 c: 1.000000, probability 0.500000\n")
        self.assertEqual(self.ok("classify", "hi", "--json"),
                         '{"scores":[1,1],"logprobs":[-0.693147,-0.693147],"labels":["a b","c"]}\n'.replace("-0.693147,", "-0.6931472,").replace("-0.693147]", "-0.6931472]"))

    def test_a_model_without_classes_says_so(self):
        self.server.replies["Classify"] = refuse(grpc.StatusCode.UNIMPLEMENTED, "the model has no classification head")
        self.fails(1, "UNIMPLEMENTED: the model has no classification head", "classify", "hi")


class Tokens(Case):
    def test_tokenize(self):
        self.server.replies["Tokenize"] = [v1("TokenizeResponse", ids=[3, 1, 2])]
        self.assertEqual(self.ok("tokenize", "abc"), "3 1 2\n")
        self.assertEqual(self.server.requests, [v1("TokenizeRequest", text="abc")])

    def test_detokenize_takes_arguments_and_lists(self):
        self.server.replies["Detokenize"] = [v1("DetokenizeResponse", text="abc")]
        self.assertEqual(self.ok("detokenize", "3", "1", "2"), "abc")
        self.ok("detokenize", "--tokens", "3,1,2", "--skip-special")
        self.assertEqual(self.server.requests, [v1("DetokenizeRequest", ids=[3, 1, 2]),
                                                v1("DetokenizeRequest", ids=[3, 1, 2], skip_special=True)])
        self.fails(2, "give token ids, or --tokens", "detokenize")


class Cluster(Case):
    def setUp(self):
        super().setUp()
        replica = [v1("ExpertReplica", node_id="a", ready=True), v1("ExpertReplica", node_id="b")]
        experts = [v1("ExpertPlacement", layer=0, expert_id=i, replicas=replica) for i in range(3)]
        experts += [v1("ExpertPlacement", layer=0, expert_id=4, replicas=replica), v1("ExpertPlacement", layer=1, expert_id=0)]
        self.server.replies["ListExperts"] = [v1("ListExpertsResponse", epoch=3, set_id="s", experts=experts)]
        self.server.replies["GetExpertStats"] = [v1("GetExpertStatsResponse", tokens=10, experts=[
            v1("ExpertStats", layer=0, expert_id=1, rows=2**40, kind=1), v1("ExpertStats", layer=0, expert_id=0, rows=7)])]
        self.cluster = v1("GetClusterResponse", cluster="c", model_fingerprint="f", numeric_class="f32-1", epoch=3, ready=True,
                          nodes=[v1("Node", id="a", incarnation=2**64 - 1, address="in-process", state=2, device="cpu-avx2",
                                    transport="loopback", n_experts=5)])

    def test_placement_joins_neighbours(self):
        self.assertEqual(self.ok("placement"),
                         "epoch 3, set s\nlayer 0: experts 0-2,4 -> a b (loading)\nlayer 1: expert 0 -> nobody\n")

    def test_placement_folds_layers_that_are_alike(self):
        def owned(layer, expert, node):
            return v1("ExpertPlacement", layer=layer, expert_id=expert, replicas=[v1("ExpertReplica", node_id=node, ready=True)])

        experts = [owned(layer, i, "ab"[i % 2]) for layer in (0, 1, 2) for i in range(4)]
        experts += [owned(3, i, "a") for i in range(4)] + [owned(5, i, "a") for i in range(4)]
        self.server.replies["ListExperts"] = [v1("ListExpertsResponse", epoch=1, set_id="s", experts=experts[::-1])]
        self.assertEqual(self.ok("placement"), "epoch 1, set s\nlayers 0-2: experts 0,2 -> a\nlayers 0-2: experts 1,3 -> b\n"
                         "layer 3: experts 0-3 -> a\nlayer 5: experts 0-3 -> a\n")

    def test_placement_with_all_is_a_line_per_expert(self):
        self.assertEqual(self.ok("placement", "--all").splitlines()[1:3],
                         ["layer 0: expert 0 -> a b (loading)", "layer 0: expert 1 -> a b (loading)"])
        self.assertEqual(len(self.ok("placement", "--all").splitlines()), 6)

    def test_the_policy_is_printed_and_changed(self):
        self.server.replies["SetPolicy"] = [v1("SetPolicyResponse", policy=v1("Policy", replication=2, min_nodes=3))]
        self.assertEqual(self.ok("placement", "policy"), "replication 2, min_nodes 3\n")
        self.ok("placement", "policy", "--replication", "2", "--min-nodes", "3")
        self.assertEqual(self.server.requests, [v1("SetPolicyRequest"), v1("SetPolicyRequest", replication=2, min_nodes=3)])
        self.fails(2, "placement policy", "placement", "--replication", "2")
        self.fails(2, "policies", "placement", "policies")

    def test_the_policy_of_a_coordinators_environment_is_not_the_commands(self):
        """CONCLAVE_REPLICATION is an option of conclave-coordinator, which may run on this host."""
        self.server.replies["SetPolicy"] = [v1("SetPolicyResponse", policy=v1("Policy", replication=2, min_nodes=3))]
        env = {**{k: v for k, v in os.environ.items() if not k.startswith("CONCLAVE_")}, "CONCLAVE_REPLICATION": "5", "CONCLAVE_LAYER": "1"}
        for args in (["placement"], ["placement", "policy"]):
            done = subprocess.run(self.argv(*args), capture_output=True, encoding="utf-8", timeout=WAIT_S, env=env)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(self.server.requests, [v1("ListExpertsRequest", layer=1), v1("SetPolicyRequest")])

    def test_experts_are_listed_in_order_with_their_rows(self):
        out = self.ok("experts", "--layer", "0", "--all")
        self.assertEqual([line.split() for line in out.splitlines()[-3:]],
                         [["layer", "expert", "kind", "rows", "mass", "rows/s", "of"], ["0", "0", "7", "0.0", "0.00", "base,", "not", "in", "the", "default", "set"],
                          ["0", "1", "ffn", str(2**40), "0.0", "0.00", "base,", "not", "in", "the", "default", "set"]])
        self.assertEqual(self.server.requests, [v1("ListExpertsRequest", layer=0), v1("GetExpertStatsRequest", layer=0)])

    def test_a_trial_is_told_of_with_its_pack(self):
        trial = v1("Shadow", share=0.05, set_id="c" * 64, by="ann", requests=7, tokens=90, dropped=2, mean_difference=0.25, standard_error=0.5)
        pack = lambda **more: v1("Pack", name="german", version="1", hash="a" * 64, kind=1, n_experts=3, taken_in=True, **more)
        self.server.replies["ListPacks"] = [v1("ListPacksResponse", packs=[pack(shadow=trial)])]
        self.assertEqual(self.ok("packs"), "german 1, add, 3 experts, on trial, aaaaaaaaaaaa\n  on trial since - by ann, set cccccccccccc, 5% of the "
                         "requests: 7 compared here, 90 tokens, mean log-probability +0.250000 +- 0.500000, 2 dropped\n")
        self.server.replies["ListPacks"] = [v1("ListPacksResponse", packs=[pack(shadow=v1("Shadow", set_id="c" * 64))])]
        self.assertIn(", 0% of the requests: none compared here, 0 dropped\n", self.ok("packs"))

    def test_shares_are_percent_or_parts(self):
        self.server.replies["AddPack"] = [v1("ChangeProgress", result=v1("ChangeResult", number=3, what="shadow german 1 at 5%", shadow=True,
                                                                       set_before="a" * 64, set_after="b" * 64))]
        self.assertEqual(self.ok("packs", "add", "german", "--shadow", "5%"),
                         "shadow german 1 at 5%, change 3: the default set stays; on trial aaaaaaaaaaaa -> bbbbbbbbbbbb\n")
        self.ok("packs", "add", "german", "--shadow", "0")
        self.ok("packs", "add", "german")
        self.assertEqual([(r.HasField("shadow"), r.shadow) for r in self.server.requests], [(True, 0.05), (True, 0), (False, 0)])
        for wrong in ("", "%", "5 %", "-1", "x", "nan"):
            self.fails(2, f'--shadow "{wrong}": a share', "packs", "add", "german", "--shadow", wrong)
        self.server.replies["PromotePack"] = self.server.replies["AddPack"]
        self.ok("packs", "promote", "german")
        self.assertEqual(self.server.requests[-1].pack, "german")

    def test_a_window_is_a_number_and_a_unit(self):
        self.server.replies["PruneExperts"] = [v1("ChangeProgress", result=v1("ChangeResult", number=3, what="prune 1 experts"))]
        for text in ("90s", "30m", "1h"):
            self.ok("experts", "prune", "--below", "0.2%", "--over", text)
        self.assertEqual([r.over_s for r in self.server.requests], [90, 1800, 3600])
        for wrong in ("", "1", "h", "1d", "0h", "-1h", "1hh", "99999999999h", "1193047h"):
            self.fails(2, f'--over "{wrong}": a time', "experts", "prune", "--below", "0.2%", "--over", wrong)

    def test_experts_are_summed_by_pack_layer_and_set(self):
        made = lambda layer, i, rows, **more: v1("ExpertStats", layer=layer, expert_id=i, rows=rows, gate_mass=rows / 2, rate=0.25, **more)
        self.server.replies["GetExpertStats"] = [v1("GetExpertStatsResponse", tokens=10, experts=[
            made(1, 1, 0), made(0, 0, 6), made(0, 1, 2), made(1, 0, 4), made(1, 64, 8, pack="german")])]
        lists = lambda *layers: [v1("ExpertList", layer=layer, ids=ids) for layer, ids in enumerate(layers)]
        self.server.replies["ListSets"] = [v1("ListSetsResponse", sets=[
            v1("SetInfo", id="a" * 64, is_default=True, names=["all"], experts=lists([0, 1], [0, 1, 64])),
            v1("SetInfo", id="b" * 64, names=["x", "y"], experts=lists([1, 7], [64])),
            v1("SetInfo", id="c" * 64, default_until_ms=5, experts=lists([0], [0]))])]
        table = lambda by: [line.split() for line in self.ok("experts", "stats", "--by", by).splitlines()]
        self.assertEqual(table("pack"), [["tokens", "10"], ["experts", "rows", "share", "mass", "rows/s", "pack"],
                                         ["4", "12", "60.00%", "6.0", "1.00", "base"], ["1", "8", "40.00%", "4.0", "0.25", "german"]])
        self.assertEqual(table("layer")[2:], [["2", "8", "40.00%", "4.0", "0.50", "0"], ["3", "12", "60.00%", "6.0", "0.75", "1"]])
        self.assertEqual(table("set")[2:], [["5", "20", "100.00%", "10.0", "1.25", "default,all"], ["2", "10", "50.00%", "5.0", "0.50", "x,y"]])
        self.assertEqual(self.ok("experts", "stats", "--by", "layer", "--json"),
                         '{"by":"layer","tokens":"10","groups":[{"name":"0","experts":2,"rows":"8","share":0.4,"gate_mass":4,"rate":0.5},'
                         '{"name":"1","experts":3,"rows":"12","share":0.6,"gate_mass":6,"rate":0.75}]}\n')
        self.fails(2, '--by "token": pack, layer or set', "experts", "stats", "--by", "token")
        self.fails(2, "--by: does not go with --all", "experts", "stats", "--by", "set", "--all")

    def test_statistics_are_printed_until_an_interrupt(self):
        seen = queue.Queue()

        def answer(_, context):
            seen.put(True)
            yield v1("GetExpertStatsResponse", tokens=7)

        self.server.replies["GetExpertStats"] = answer
        with subprocess.Popen(self.argv("experts", "stats", "--watch"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            for _ in range(2):
                seen.get(timeout=WAIT_S)
            self.assertEqual([process.stdout.readline() for _ in range(2)], [b"tokens 7\n"] * 2)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=WAIT_S)
        self.assertEqual(process.returncode, 130)
        self.assertIn(b"interrupted\n", err)

    def test_a_profile_is_scored_with_and_without_before_it_prunes(self):
        tokens = [v1("ScoredToken", id=1, experts=[v1("LayerExperts", layer=0, ids=[0, 2])]),
                  v1("ScoredToken", id=2, logprob=-1, experts=[v1("LayerExperts", layer=0, ids=[2, 3])])]
        result = lambda dry: v1("ChangeProgress", result=v1("ChangeResult", what="prune 1 experts", number=4, dry_run=dry, set_before="s", set_after="t",
                                                            removed=[v1("ExpertList", layer=0, ids=[1])],
                                                            savings=[v1("NodeSavings", node_id="a", n_experts=1, bytes=4096)]))
        score = lambda r, _: [v1("ScoreResponse", set_id="t" if r.set.without else "s", tokens=tokens)]
        self.server.replies.update(Score=score, PruneExperts=lambda r, _: [v1("ChangeProgress", phase="x"), result(r.options.dry_run)],
                                   GetModel=[v1("GetModelResponse", n_experts=[4])])
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
            f.write('{"text": "one"}\n{"token_ids": [1, 2]}\n')
            f.flush()
            done = self.run_cli("experts", "prune", "--profile", f.name, "--below", "5%", "--pack", "base")
            self.assertEqual(done.code, 0, done.err)
            self.assertEqual(done.out.splitlines()[:3], ["layer 0: 4 -> 3 experts, without expert 1", "node a could drop 1 experts, 4.0 KiB",
                                                         "2 tokens of 2 texts: mean log-probability -1.000000 -> -1.000000, +0.000000"])
            names = [r.DESCRIPTOR.name for r in self.server.requests]
            self.assertEqual(names, ["ScoreRequest"] * 2 + ["PruneExpertsRequest"] + ["ScoreRequest"] * 2 + ["GetModelRequest", "PruneExpertsRequest"])
            ask, change = self.server.requests[2], self.server.requests[-1]
            self.assertEqual((ask.below, ask.pack, ask.options.dry_run), (0.05, "base", True))
            self.assertEqual([(u.layer, list(u.ids), list(u.rows)) for u in ask.usage], [(0, [0, 2, 3], [2, 4, 2])])
            self.assertEqual(([(l.layer, list(l.ids)) for l in change.experts], change.options.dry_run, len(change.usage)), ([(0, [1])], False, 0))
            self.assertEqual([list(l.ids) for l in self.server.requests[3].set.without], [[1]])
            # The default set is another one by the time of the plan, or when it is scored again.
            for other in ("u", "v"):
                self.server.requests.clear()
                self.server.replies["Score"] = lambda r, _: [v1("ScoreResponse", set_id=other if bool(r.set.without) == (other == "v") else "s", tokens=tokens)]
                self.fails(1, "the default set has changed meanwhile; nothing was pruned", "experts", "prune", "--profile", f.name)
                self.assertFalse([r for r in self.server.requests if r.DESCRIPTOR.name == "PruneExpertsRequest" and not r.options.dry_run])

    def test_experts_are_folded_by_layer(self):
        stats = [v1("ExpertStats", layer=0, expert_id=i, rows=rows, kind=1) for i, rows in enumerate((5, 0, 9, 0, 0))]
        stats += [v1("ExpertStats", layer=0, expert_id=5, rows=4, kind=4), v1("ExpertStats", layer=1, expert_id=0, kind=1)]
        self.server.replies["GetExpertStats"] = [v1("GetExpertStatsResponse", tokens=10, experts=stats)]
        self.assertEqual(self.ok("experts").splitlines()[-4:], [
            "tokens 10", "layer 0: 5 ffn experts, 14 rows, most 9 (expert 2), least 0 (expert 1), never picked: experts 1,3,4",
            "layer 0: 1 zero expert, 4 rows", "layer 1: 1 ffn expert, 0 rows"])

    def test_layers_tell_what_was_picked_and_not_sent(self):
        self.server.replies["GetExpertStats"] = [v1("GetExpertStatsResponse", tokens=10, attention_keys_seen=5, attention_keys_skipped=9, layers=[
            v1("LayerStats", layer=0, rows_by_ffn_picks=[0, 0, 10], ffn_picks=20),
            v1("LayerStats", layer=1, rows_by_ffn_picks=[1, 2, 7], ffn_picks=16, constant_picks=1, copy_picks=2, zero_picks=1, bytes_not_sent=80)])]
        self.assertEqual(self.ok("experts").splitlines()[-2:], [
            "layer 1 picks: 16 ffn, 1 constant, 2 copy, 1 zero; rows by FFN picks: 1 2 7; 80 bytes not sent",
            "attention: 5 keys seen, 9 skipped"])

    def test_experts_of_the_coordinator_are_told_by_kind(self):
        self.server.replies["ListExperts"] = [v1("ListExpertsResponse", set_id="s", experts=[
            v1("ExpertPlacement", layer=0, expert_id=i, kind=kind) for i, kind in enumerate((1, 2, 2, 4))])]
        self.assertEqual(self.ok("placement"), "epoch 0, set s\nlayer 0: expert 0 -> nobody\n"
                         "layer 0: experts 1,2 (constant) -> every coordinator\nlayer 0: expert 3 (zero) -> every coordinator\n")

    def test_experts_in_json_are_two_objects(self):
        lines = [json.loads(line) for line in self.ok("experts", "--json").splitlines()]
        self.assertEqual([line.get("epoch") or line.get("tokens") for line in lines], ["3", "10"])

    def test_nodes(self):
        self.server.replies["GetCluster"] = [self.cluster]
        self.assertIn("node a at in-process, UP, cpu-avx2, loopback, 5 experts", self.ok("nodes"))

    def test_memory_without_a_limit_has_none(self):
        self.cluster.nodes[0].used_bytes = 5376 << 20
        self.server.replies["GetCluster"] = [self.cluster]
        self.assertIn(", 5 experts, 5376 MiB, 0 rows\n", self.ok("nodes"))
        self.cluster.nodes[0].memory_bytes = 8192 << 20
        self.assertIn(", 5 experts, 5376 of 8192 MiB, 0 rows\n", self.ok("nodes"))

    def test_nodes_json_keeps_64_bits(self):
        self.server.replies["GetCluster"] = [self.cluster]
        self.assertEqual(json.loads(self.ok("nodes", "--json"))["nodes"][0]["incarnation"], str(2**64 - 1))

    def test_watch_prints_every_change(self):
        self.server.replies["WatchCluster"] = [self.cluster, self.cluster]
        self.assertEqual(self.ok("nodes", "--watch").count("cluster c"), 2)

    def test_model(self):
        self.server.replies["GetModel"] = [v1("GetModelResponse", name="m", n_layers=2, n_experts=[8, 6])]
        out = self.ok("model")
        self.assertIn('name: "m"\n', out)
        self.assertIn("n_experts: [8,6]\n", out)

    def test_serving_is_success(self):
        self.server.replies["Check"] = [message("grpc.health.v1.HealthCheckResponse", status=1)]
        self.assertEqual(self.ok("health", "--json"), '{"status":"SERVING"}\n')

    def test_not_serving_is_a_failure(self):
        self.server.replies["Check"] = [message("grpc.health.v1.HealthCheckResponse", status=2)]
        self.fails(1, "the server is not serving", "health")

    def test_health_of_one_service(self):
        self.server.replies["Check"] = refuse(grpc.StatusCode.NOT_FOUND, "unknown service")
        self.fails(1, "NOT_FOUND", "health", "--service", "x")
        self.assertEqual(self.server.requests[0].service, "x")


class Token(Case):
    def setUp(self):
        super().setUp()
        self.server.replies["GetModel"] = [v1("GetModelResponse", name="m")]
        self.file = tempfile.NamedTemporaryFile("w")
        self.addCleanup(self.file.close)

    def write(self, text):
        self.file.write(text)
        self.file.flush()
        return self.file.name

    def test_first_line_of_the_file_is_sent(self):
        self.ok("model", "--token-file", self.write("s3cret\nother\n"))
        self.assertEqual(self.server.metadata[0]["authorization"], "Bearer s3cret")

    def test_comments_and_blanks_are_no_tokens(self):
        self.ok("model", "--token-file", self.write("\n# the token of this host\n  s3cret \nother\n"))
        self.assertEqual(self.server.metadata[0]["authorization"], "Bearer s3cret")

    def test_a_token_that_cannot_be_sent_is_refused(self):
        self.fails(2, "line 2: a token is printable ASCII without blanks", "model", "--token-file", self.write("# x\ntwo words\n"))

    def test_empty_file_is_refused(self):
        self.fails(2, "no token in it", "model", "--token-file", self.write("\n"))

    def test_missing_file_is_refused(self):
        self.fails(2, "missing", "model", "--token-file", self.file.name + ".missing")


class Tls(Case):
    """One certificate authority, one certificate for the server and one for us; the name in the first is localhost."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                    "/CN=test authority", "-keyout", "ca.key", "-out", "ca.pem")
        for name in ("server", "client"):
            cls.openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                        "-keyout", f"{name}.key", "-out", f"{name}.csr")
            with open(cls.path("ext"), "w") as ext:
                ext.write("subjectAltName=DNS:conclave.test\n")
            cls.openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
                        "-extfile", "ext", "-out", f"{name}.pem")
        pair = (cls.read("server.key"), cls.read("server.pem"))
        cls.credentials = grpc.ssl_server_credentials([pair], cls.read("ca.pem"), cls.mutual)

    mutual = False

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder.name, name)

    @classmethod
    def read(cls, name):
        with open(cls.path(name), "rb") as file:
            return file.read()

    @classmethod
    def openssl(cls, *args):
        subprocess.run(["openssl", *args], cwd=cls.folder.name, check=True, capture_output=True)

    def setUp(self):
        super().setUp()
        self.server.replies["GetModel"] = [v1("GetModelResponse", name="m")]

    def test_server_is_checked_against_the_authority(self):
        self.assertIn('name: "m"', self.ok("model", "--tls-ca", self.path("ca.pem"), "--tls-server-name", "conclave.test"))

    def test_another_name_is_refused(self):
        self.fails(1, "UNAVAILABLE", "model", "--tls-ca", self.path("ca.pem"), "--tls-server-name", "other.test")

    def test_another_authority_is_refused(self):
        self.fails(1, "UNAVAILABLE", "model", "--tls-ca", self.path("client.pem"), "--tls-server-name", "conclave.test")

    def test_plain_text_to_a_server_with_tls_is_told(self):
        self.fails(1, "the server speaks TLS: give --tls-ca FILE, or --tls for the system's authorities", "model")

    def test_tls_to_a_server_in_plain_text_is_told(self):
        plain = Server()
        self.addCleanup(plain.stop)
        done = subprocess.run([CONCLAVE, "model", "--server", f"127.0.0.1:{plain.port}", "--tls"], capture_output=True, encoding="utf-8", timeout=WAIT_S)
        self.assertEqual(done.returncode, 1)
        self.assertIn("the server speaks plain text, not TLS: leave --tls and --tls-... out", done.stderr)

    def test_a_file_that_is_no_certificate_is_refused(self):
        self.fails(2, "ext: not a PEM file", "model", "--tls-ca", self.path("ext"))
        self.fails(2, "--tls-ca /nowhere: No such file", "model", "--tls-ca", "/nowhere")

    def test_key_without_certificate_is_refused(self):
        self.fails(2, "--tls-cert and --tls-key", "model", "--tls-key", self.path("client.key"))


class MutualTls(Tls):
    mutual = True

    def test_server_is_checked_against_the_authority(self):
        self.ok("model", "--tls-ca", self.path("ca.pem"), "--tls-server-name", "conclave.test", "--tls-cert",
                self.path("client.pem"), "--tls-key", self.path("client.key"))

    def test_no_certificate_of_ours_is_refused(self):
        self.fails(1, "UNAVAILABLE", "model", "--tls-ca", self.path("ca.pem"), "--tls-server-name", "conclave.test")


class Help(Case):
    def test_every_command_has_help(self):
        listed = subprocess.run([CONCLAVE, "--help"], capture_output=True, encoding="utf-8", check=True).stdout
        names = [line.split()[0] for line in listed.splitlines() if line.startswith("  ")]
        self.assertGreater(len(names), 8)
        for name in names:
            if name in ("help", "version"):
                continue
            shown = subprocess.run([CONCLAVE, name, "--help"], capture_output=True, encoding="utf-8", check=True).stdout
            self.assertEqual("--server HOST[:PORT]" in shown, name not in ("convert", "manifest"), name)
            for same in ([name, "-h"], ["help", name]):
                self.assertEqual(subprocess.run([CONCLAVE, *same], capture_output=True, encoding="utf-8", check=True).stdout, shown)
        for same in (["-h"], ["help"]):
            self.assertEqual(subprocess.run([CONCLAVE, *same], capture_output=True, encoding="utf-8", check=True).stdout, listed)

    def test_version_is_a_word_and_an_option(self):
        shown = [subprocess.run([CONCLAVE, word], capture_output=True, encoding="utf-8", check=True).stdout for word in ("version", "--version")]
        self.assertEqual(shown[0], shown[1])
        self.assertRegex(shown[0], r"^conclave \d+\.\d+\.\d+\n$")

    def test_a_misspelt_command_or_option_is_seen_through(self):
        for args, text in ((["genrate", "hi"], "conclave: no command 'genrate'; did you mean 'generate'?\n"), (["help", "chta"], "did you mean 'chat'?"),
                           (["frobnicate"], "conclave --help lists them"), (["generate", "hi", "--max-token", "3"], "did you mean --max-tokens?"),
                           (["generate", "two", "words"], "at most 1 is allowed, so a text of several needs quotes")):
            done = subprocess.run([CONCLAVE, *args], capture_output=True, encoding="utf-8", timeout=WAIT_S)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(text, done.stderr)

    def test_a_full_device_is_told_by_everything_that_prints(self):
        for args in (["--help"], ["help", "chat"], ["help", "generate"], ["version"], ["model", "--help"], ["model", "--print-config"]):
            with open("/dev/full", "w") as full:
                done = subprocess.run([CONCLAVE, *args], stdout=full, stderr=subprocess.PIPE, encoding="utf-8", timeout=WAIT_S)
            self.assertEqual(done.returncode, 1, args)
            self.assertIn("standard output: No space left on device", done.stderr)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
