#!/usr/bin/env python3
"""The LM Evaluation Harness (PyPI: lm-eval) on a running server, over gRPC.

    pip install ./clients/python lm-eval
    tools/lm_eval_conclave.py --model conclave --model_args server=HOST:PORT,set=NAME --tasks TASK [what `lm_eval run` takes]

Model arguments: server (127.0.0.1:50051), set (a name or an id; by default the server's default set), parallel (8 requests under way at once), tls_ca and
token_file. A request has at most the server's context in tokens; what stands further in front is cut off, as the harness does with any model."""
import concurrent.futures
import os
import sys

sys.dont_write_bytecode = True
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path[:0] = [os.path.join(ROOT, "tools"), os.path.join(ROOT, "examples", "python")]
import argparse  # noqa: E402

import common  # noqa: E402
import scoring  # noqa: E402
from lm_eval import utils  # noqa: E402
from lm_eval.api.model import TemplateLM  # noqa: E402
from lm_eval.api.registry import register_model  # noqa: E402
from tqdm import tqdm  # noqa: E402


@register_model("conclave")
class ConclaveLM(TemplateLM):
    def __init__(self, server="127.0.0.1:50051", set=None, parallel=8, tls_ca=None, token_file=None, **_):  # the harness adds batch_size and more
        super().__init__()
        self.client = common.connect(argparse.Namespace(server=server, tls_ca=tls_ca, token_file=token_file))
        self.scorer = scoring.Scorer(self.client, set, parallel=int(parallel), top=1)
        self.max_length = self.scorer.window - 1  # tokens read; the last one of a request is only predicted

    @property
    def eot_token_id(self):
        return self.scorer.start

    @property
    def tokenizer_name(self):
        return self.client.model().fingerprint

    def tok_encode(self, string, add_special_tokens=None, **_):
        return self.scorer.encode(string, bool(add_special_tokens))

    def each(self, work, items, quiet, what):
        with concurrent.futures.ThreadPoolExecutor(self.scorer.parallel) as pool:
            done = scoring.in_turn(pool, work, items, 2 * self.scorer.parallel)
            return list(tqdm(done, total=len(items), desc=what, disable=quiet))

    def _loglikelihood_tokens(self, requests, disable_tqdm=False, **_):
        def score(request):
            _, context, continuation = request
            tokens = self.scorer.tokens((context + continuation)[-(self.max_length + 1):])[-len(continuation):]
            return sum(t.logprob for t in tokens), all(t.top[0].id == t.id for t in tokens)
        return self.each(score, requests, disable_tqdm, "loglikelihood")

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        def score(request):
            windows = map(utils.make_disjoint_window, utils.get_rolling_token_windows(
                self.tok_encode(request.args[0]), prefix_token=self.prefix_token_id, max_seq_len=self.max_length, context_len=1))
            return sum(t.logprob for context, rest in windows for t in self.scorer.tokens(context + rest)[-len(rest):])
        return self.each(score, requests, disable_tqdm, "loglikelihood_rolling")

    def generate_until(self, requests, disable_tqdm=False):
        def answer(request):
            prompt, settings = request.args
            stop = settings.get("until") or []
            n_tokens = min(settings.get("max_gen_toks", 256), self.max_length)
            ids = self.tok_encode(prompt)[-(self.max_length + 1 - n_tokens):] or [self.prefix_token_id]
            temperature = settings.get("temperature", 0.0) if settings.get("do_sample") else 0.0
            return self.client.complete(ids, max_tokens=n_tokens, stop=[stop] if isinstance(stop, str) else stop, expert_set=self.scorer.set,
                                        temperature=temperature)
        return self.each(answer, requests, disable_tqdm, "generate_until")


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate
    sys.exit(cli_evaluate())
