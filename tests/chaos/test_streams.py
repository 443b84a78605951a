"""What chaos.py counts, against coordinators that are not there: a verdict that cannot be bad would prove nothing."""
import collections
import itertools
import os
import random
import sys
import unittest

try:
    import grpc
except ImportError:
    print("skipped: python3-grpcio is not installed")
    sys.exit(77)

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from streams import Answer, Streams, Unjudged, and_gap, make_questions, percentiles  # noqa: E402

EXPECTED = list(range(100, 110))
Chunk = collections.namedtuple("Chunk", "first_index token_ids set_id", defaults=("",))


class Broken(grpc.RpcError):
    def __init__(self, code, *trailers, details="broken on purpose"):
        super().__init__()
        self.code, self.details, self.trailing_metadata = lambda: code, lambda: details, lambda: trailers


class Fake:
    """Each call plays the next script: chunks, and errors that end it. At the end of the scripts it answers as it should."""

    def __init__(self, *scripts):
        self.scripts, self.asked = list(scripts), []

    def generate(self, _, got):
        self.asked.append(list(got))
        script = self.scripts.pop(0) if self.scripts else [Chunk(len(got), EXPECTED[len(got):], "a")]
        return Call(script)


class Call:
    def __init__(self, script):
        self.script = script

    def __iter__(self):
        for step in self.script:
            if isinstance(step, Exception):
                raise step
            yield step

    def cancel(self):
        pass


class Counts(unittest.TestCase):
    def check(self, chunks, **wanted):
        answer = Answer(EXPECTED)
        for chunk in chunks:
            answer.take(chunk.first_index, chunk.token_ids)
        answer.finish()
        found = {name: getattr(answer, name) for name in ("lost", "repeated", "different") if getattr(answer, name)}
        self.assertEqual(found, wanted)

    def test_the_right_answer_however_it_is_cut(self):
        self.check([Chunk(0, EXPECTED)])
        self.check([Chunk(i, [token]) for i, token in enumerate(EXPECTED)])

    def test_what_is_wrong_is_told_apart(self):
        self.check([Chunk(0, EXPECTED[:4]), Chunk(6, EXPECTED[6:])], lost=2)
        self.check([Chunk(0, EXPECTED[:7])], lost=3)
        self.check([Chunk(0, EXPECTED[:4]), Chunk(2, EXPECTED[2:])], repeated=2)
        self.check([Chunk(0, EXPECTED[:4] + [7] + EXPECTED[5:])], different=1)
        self.check([Chunk(0, EXPECTED + [7])], different=1)

    def test_percentiles_are_of_what_was_seen(self):
        self.assertEqual(percentiles(range(200)), [100, 198, 199])
        self.assertEqual(percentiles([5]), [5, 5, 5])
        self.assertIsNone(percentiles([]))

    def test_the_longest_gap_since_a_moment_is_found_in_few(self):
        draw = random.Random(1)
        ends = list(itertools.accumulate(draw.randrange(1, 1000) for _ in range(300)))
        kept = []
        for gap in zip(ends, ends[1:]):
            kept = and_gap(kept, *gap)
            self.assertLess(len(kept), 30)
        for moment in range(ends[0], ends[-1]):
            self.assertEqual(max(b - a for a, b in kept if b > moment), max(b - a for a, b in zip(ends, ends[1:]) if b > moment))


class Flow(unittest.TestCase):
    def run_one(self, *fakes, may_go_on=False):
        streams = Streams(fakes, make_questions(1, 10), [EXPECTED], 1, may_go_on)
        streams.finish()
        return streams

    def test_a_stream_that_breaks_off_has_failed(self):
        broken = [Chunk(0, EXPECTED[:4]), Broken(grpc.StatusCode.UNAVAILABLE)]
        streams = self.run_one(Fake(broken))
        self.assertGreaterEqual(streams.counts["failed"], 1)
        self.assertEqual(list(streams.errors), ["UNAVAILABLE: broken on purpose"])

    def test_where_coordinators_are_killed_another_one_goes_on(self):
        dying, other = Fake([Chunk(0, EXPECTED[:4]), Broken(grpc.StatusCode.UNAVAILABLE)]), Fake()
        streams = self.run_one(dying, other, may_go_on=True)
        self.assertEqual(other.asked[0], EXPECTED[:4])
        self.assertEqual((streams.counts["resumed"], streams.counts["failed"]), (1, 0))

    def test_another_status_is_a_failure_even_there(self):
        streams = self.run_one(Fake([Broken(grpc.StatusCode.DEADLINE_EXCEEDED)]), may_go_on=True)
        self.assertEqual(streams.counts["failed"], 1)

    def test_a_refusal_before_the_first_token_is_asked_again(self):
        refusal = [Broken(grpc.StatusCode.UNAVAILABLE, ("grpc-retry-pushback-ms", "1"))]
        streams = self.run_one(Fake(refusal, refusal))
        self.assertEqual((streams.counts["refused"], streams.counts["failed"]), (2, 0))

    def test_what_no_server_has_seen_is_asked_again(self):
        for details in ("GOAWAY received", "Broken pipe"):
            streams = self.run_one(Fake([Broken(grpc.StatusCode.UNAVAILABLE, details=details)]))
            self.assertEqual((streams.counts["refused"], streams.counts["failed"]), (1, 0), details)
            streams = self.run_one(Fake([Chunk(0, EXPECTED[:4]), Broken(grpc.StatusCode.UNAVAILABLE, details=details)]))
            self.assertEqual(streams.counts["failed"], 1, details)

    def test_a_refusal_in_the_middle_is_a_failure(self):
        streams = self.run_one(Fake([Chunk(0, EXPECTED[:4]), Broken(grpc.StatusCode.UNAVAILABLE, ("grpc-retry-pushback-ms", "1"))]))
        self.assertEqual(streams.counts["failed"], 1)

    def test_a_wrong_answer_is_counted(self):
        self.assertEqual(self.run_one(Fake([Chunk(0, EXPECTED[:9])])).counts["lost"], 1)

    def test_answers_are_judged_by_the_set_that_they_say(self):
        def judged(*scripts):
            streams = Unjudged([Fake(*scripts)], make_questions(1, 10), 1)
            streams.advance(len(scripts) * len(EXPECTED))
            streams.finish()
            streams.judge({"a": [EXPECTED], "b": [EXPECTED[::-1]]})
            return {name: n for name, n in streams.counts.items() if n and name not in ("requests", "tokens")}

        right, other = [Chunk(0, EXPECTED[:3], "a"), Chunk(3, EXPECTED[3:])], [Chunk(0, EXPECTED[::-1], "b")]
        self.assertEqual(judged(right, other), {})
        self.assertEqual(judged(right, [Chunk(0, EXPECTED, "b")]), {"different": 10})
        self.assertEqual(judged(right, [Chunk(0, EXPECTED[:4], "a"), Chunk(5, EXPECTED[5:])]), {"lost": 1})
        self.assertEqual(judged([Chunk(0, EXPECTED, "a"), Chunk(8, EXPECTED[8:])]), {"repeated": 2})
        self.assertEqual(judged(right, [Chunk(0, EXPECTED[:4], "a"), Broken(grpc.StatusCode.INTERNAL)]), {"failed": 1})


if __name__ == "__main__":
    unittest.main()
