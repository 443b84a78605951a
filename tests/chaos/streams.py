"""Concurrent Generate streams that are compared, token by token, with what one process answers when nothing is wrong."""
import collections
import concurrent.futures
import contextlib
import itertools
import random
import threading
import time

import grpc

HUNG_S = 180  # without a token for so long a stream counts as failed; a step may wait a minute for an expert (--step-timeout-ms)
# What is asked again, and when, is up to the streams; and a call that gRPC 1.51 itself asks again at a server's end may never end.
CHANNEL = [("grpc.enable_retries", 0), ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]

Question = collections.namedtuple("Question", "prompt sampling set", defaults=("",))


def make_questions(n, n_tokens, set=""):
    """One greedy in four; the others draw. Always the same ones: a seed of the program orders faults, not requests."""
    drawn = random.Random(0)
    return [Question([drawn.randrange(3, 300) for _ in range(drawn.randrange(4, 40))],
                     dict(max_tokens=n_tokens, ignore_eos=True, seed=i, temperature=0 if i % 4 == 0 else 1.2), set) for i in range(n)]


class Stub:
    """The API of one coordinator."""

    def __init__(self, v1, address):
        self.v1, self.channel = v1, grpc.insecure_channel(address, CHANNEL)

    def generate(self, question, got):
        """got: the tokens of this answer that are there already."""
        pb = self.v1.inference_pb2
        ask = pb.GenerateRequest(token_ids=pb.TokenIds(ids=question.prompt), sampling=pb.Sampling(**question.sampling))
        if question.set:
            ask.set.id = question.set
        if got:
            ask.resume_from.ids.extend(got)
        return self.channel.unary_stream("/conclave.v1.Inference/Generate", request_serializer=pb.GenerateRequest.SerializeToString,
                                         response_deserializer=pb.GenerateResponse.FromString)(ask)

    def admin(self, name, reply, /, **fields):
        pb = self.v1.admin_pb2
        return self.channel.unary_unary("/conclave.v1.Admin/" + name, request_serializer=lambda m: m.SerializeToString(),
                                        response_deserializer=getattr(pb, reply).FromString)(getattr(pb, name + "Request")(**fields), timeout=HUNG_S)

    def change(self, name, /, **fields):
        """The result of a change of packs or sets."""
        pb = self.v1.admin_pb2
        told = self.channel.unary_stream("/conclave.v1.Admin/" + name, request_serializer=lambda m: m.SerializeToString(),
                                         response_deserializer=pb.ChangeProgress.FromString)(getattr(pb, name + "Request")(**fields),
                                                                                             timeout=HUNG_S)
        return list(told)[-1].result

    def close(self):
        self.channel.close()


def reference(stub, questions):
    """What one process answers."""
    with concurrent.futures.ThreadPoolExecutor(len(questions)) as threads:
        return list(threads.map(lambda q: [id for chunk in stub.generate(q, []) for id in chunk.token_ids], questions))


def was_not_sent(error):
    """The connection was being closed, or had just been when the call was written into it: no server has seen the call. gRPC asks
    again by itself, where its retries are on."""
    return any(words in (error.details() or "") for words in ("GOAWAY received", "Broken pipe"))


def pushback_s(error):
    """Set where the API refuses for now (docs/api.md)."""
    return next((int(value) / 1000 for key, value in error.trailing_metadata() or () if key == "grpc-retry-pushback-ms"), None)


def said(error):
    return f"{error.code().name}: {error.details()}"


class Answer:
    """One answer as it comes. Every token has an index: what is missing, there twice and wrong is told apart."""

    def __init__(self, expected):
        self.expected, self.got, self.set_id = expected, [], ""
        self.lost = self.repeated = self.different = 0

    def take(self, first_index, ids):
        if first_index > len(self.got):
            self.lost += first_index - len(self.got)
            self.got += self.expected[len(self.got):first_index]
        for index, id in enumerate(ids, first_index):
            if index < len(self.got):
                self.repeated += 1
            else:
                self.different += index >= len(self.expected) or id != self.expected[index]
                self.got.append(id)

    def finish(self):
        self.lost += max(0, len(self.expected) - len(self.got))


class Heard:
    """An answer of which it is not known yet what it must be: kept as it came, for an Answer later."""

    def __init__(self):
        self.got, self.pieces, self.set_id = [], [], ""

    def take(self, first_index, ids):
        self.got += ids
        if self.pieces and first_index == self.pieces[-1][0] + len(self.pieces[-1][1]):
            self.pieces[-1][1].extend(ids)
        else:
            self.pieces.append((first_index, list(ids)))

    def as_key(self):
        return self.set_id, tuple((first, tuple(ids)) for first, ids in self.pieces)


class Streams:
    """n streams at once, each asking one question after the other until finish().

    targets       stubs of the coordinators; replaced where one is started again
    may_go_on     a stream that breaks off with UNAVAILABLE is taken up by the next target: for scenarios that kill coordinators
    """

    def __init__(self, targets, questions, expected, n, may_go_on=False):
        self.targets, self.questions, self.expected, self.may_go_on = list(targets), questions, expected, may_go_on
        self.lock = threading.Lock()
        self.counts = collections.Counter()
        self.errors = collections.Counter()
        self.gaps = [[] for _ in range(n)]  # of each stream, as and_gap() keeps them: between tokens, and from a request to its first token
        self.n_tokens = [0] * n
        self.asked = itertools.count()
        self.ending = self.cancelled = False
        self.calls, self.served_by, self.set_ids = [None] * n, [None] * n, [""] * n
        self.faults, self.quiet = [], []  # longest gaps, one per stream and injection, or stretch without one
        self.threads = [threading.Thread(target=self.work, args=(i,), daemon=True) for i in range(n)]
        for thread in self.threads:
            thread.start()

    # ------------------------------------------------------------------------------------------ the streams
    def work(self, me):
        while not self.ending:
            i = next(self.asked) % len(self.questions)
            answer = self.answer_to(i)
            whole = self.ask(me, self.questions[i], answer)
            with self.lock:
                self.count(i, answer, whole)

    def answer_to(self, i):
        return Answer(self.expected[i])

    def count(self, _, answer, whole, times=1):
        """times: so many answers are just this one."""
        if whole:
            answer.finish()
        self.counts.update(requests=times, tokens=times * len(answer.got), lost=times * answer.lost, repeated=times * answer.repeated,
                           different=times * answer.different, failed=times * (not whole))

    def ask(self, me, question, answer):
        """False: it failed. A refusal before the first token is documented; it is asked again as the API wants it."""
        last, target = time.monotonic(), me
        while not self.cancelled:
            came = len(answer.got)
            try:
                self.calls[me] = self.targets[target % len(self.targets)].generate(question, answer.got)
                for chunk in self.calls[me]:
                    if chunk.set_id:
                        answer.set_id = self.set_ids[me] = chunk.set_id
                    if chunk.token_ids:
                        now = time.monotonic()
                        self.gaps[me] = and_gap(self.gaps[me], last, now)
                        last = now
                        answer.take(chunk.first_index, chunk.token_ids)
                        self.served_by[me] = target % len(self.targets)
                        self.n_tokens[me] += len(chunk.token_ids)
                return True
            except grpc.RpcError as error:
                again, pause = error.code() == grpc.StatusCode.UNAVAILABLE, pushback_s(error)
                refused = again and (pause is not None or was_not_sent(error)) and len(answer.got) == came
                if not (refused or again and self.may_go_on) or time.monotonic() - last > HUNG_S:
                    with self.lock:
                        self.errors[said(error)] += 1
                    return False
                with self.lock:
                    self.counts.update(refused=refused, resumed=not refused and len(answer.got) > 0)
                target += 1
                time.sleep(pause or 0.02)
        return False

    # ------------------------------------------------------------------------------------------ what a scenario does
    def advance(self, n=3):
        """Waits until every stream has had n more tokens."""
        before, end = list(self.n_tokens), time.monotonic() + HUNG_S
        while any(now < was + n for now, was in zip(self.n_tokens, before)):
            if time.monotonic() > end:
                still = sum(now < was + n for now, was in zip(self.n_tokens, before))
                raise TimeoutError(f"{still} of {len(before)} streams had no token for {HUNG_S} s; errors: {dict(self.errors)}")
            time.sleep(0.005)

    def longest_since(self, start):
        now = time.monotonic()
        return [max([min(b, now) - a for a, b in gaps if b > start], default=0) for gaps in self.gaps]

    @contextlib.contextmanager
    def injection(self):
        """Every stream is in the middle of an answer before, and goes on after; the longest gap of each meanwhile is kept."""
        self.advance()
        start = time.monotonic()
        yield
        self.advance()
        self.faults += self.longest_since(start)

    def undisturbed(self, n, seconds=1):
        for _ in range(n):
            self.advance()
            start = time.monotonic()
            time.sleep(seconds)
            self.advance()
            self.quiet += self.longest_since(start)

    def finish(self):
        """Lets all answers come to their end. A stream that does not is one that failed."""
        self.ending = True
        end = time.monotonic() + HUNG_S
        for thread in self.threads:
            thread.join(max(0, end - time.monotonic()))
        self.cancel()

    def cancel(self):
        self.ending = self.cancelled = True
        while any(thread.is_alive() for thread in self.threads):
            for call in self.calls:
                if call is not None:
                    call.cancel()
            time.sleep(0.01)


class Unjudged(Streams):
    """Streams of the default set while that changes: every answer is kept with the set that it says it has, until judge()."""

    def __init__(self, targets, questions, n):
        self.heard = collections.Counter()  # (question, (set, what came), whole): so many times
        super().__init__(targets, questions, None, n)

    def answer_to(self, i):
        return Heard()

    def count(self, i, answer, whole):
        self.heard[i, answer.as_key(), whole] += 1

    def judge(self, expected):
        """expected: by the set's id, as Streams has it."""
        for (i, (set_id, pieces), whole), times in self.heard.items():
            answer = Answer(expected[set_id][i] if set_id else [])
            for first_index, ids in pieces:
                answer.take(first_index, ids)
            Streams.count(self, i, answer, whole, times)


def and_gap(gaps, start, end):
    """With one more, (start, end), without those before it that are no longer: what the longest one since any moment is found in, and
    few. Millions of them would have Python's collector stop all streams for 100 ms."""
    return [gap for gap in gaps if gap[1] - gap[0] > end - start] + [(start, end)]


def percentiles(seconds):
    ordered = sorted(seconds)
    return [ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.99, 1)] if ordered else None
