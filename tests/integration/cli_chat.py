"""Conversations, in a pipe and at a terminal, against a server whose replies are staged (cli_server.py).

Usage: cli_chat.py CONCLAVE PROTO_DIR [unittest arguments]
"""
import os
import pty
import select
import subprocess
import sys
import tempfile
import time
import unittest

import grpc
from cli_server import CHUNKS, Case, WAIT_S, refuse, v1


class Chat(Case):
    def setUp(self):
        super().setUp()
        self.server.replies["Generate"] = [v1("GenerateResponse", token_ids=[1], text="Yes.", finish_reason=1)]

    def conversations(self):
        return [[(m.role, m.content) for m in request.messages.messages] for request in self.server.requests]

    def test_conversation_grows(self):
        self.assertEqual(self.ok("chat", "--system", "Be kind.", stdin="One?\n\nTwo?\n"), "Yes.\nYes.\n")
        self.assertEqual(self.conversations(), [[(1, "Be kind."), (2, "One?")],
                                                [(1, "Be kind."), (2, "One?"), (3, "Yes."), (2, "Two?")]])

    def test_reset_keeps_the_system_message(self):
        self.ok("chat", "--system", "Be kind.", stdin="One?\n/reset\nTwo?")
        self.assertEqual(self.conversations()[1], [(1, "Be kind."), (2, "Two?")])

    def test_reset_without_a_system_message(self):
        self.ok("chat", stdin="/reset\nOne?\n/reset\nTwo?\n")
        self.assertEqual(self.conversations(), [[(2, "One?")], [(2, "Two?")]])

    def test_messages_of_several_lines_come_from_a_pipe_too(self):
        self.ok("chat", stdin='one\\\ntwo\n"""\na\n\nb"""\n"""c"""\n')
        self.assertEqual([c[-1][1] for c in self.conversations()], ["one\ntwo", "a\n\nb", "c"])

    def test_a_slash_that_is_no_command_is_a_message(self):
        self.ok("chat", stdin="/etc/passwd: what is it?\n /reset\n")
        self.assertEqual([c[-1][1] for c in self.conversations()], ["/etc/passwd: what is it?", " /reset"])

    def test_a_misspelt_command_is_no_message(self):
        self.fails(2, "/rest: no such command; did you mean /reset?", "chat", stdin="/rest\nOne?\n")
        self.assertEqual(self.server.requests, [])

    def test_a_nul_byte_is_refused(self):
        self.fails(2, "a NUL byte", "chat", stdin="a\0b\n")

    def test_failure_ends_a_piped_conversation(self):
        self.server.replies["Generate"] = refuse(grpc.StatusCode.UNAVAILABLE, "draining")
        self.fails(1, "UNAVAILABLE: draining", "chat", stdin="One?\nTwo?\n")
        self.assertEqual(len(self.server.requests), 1)


class Terminal(Case):
    def at_terminal(self, *args):
        master, slave = pty.openpty()
        with subprocess.Popen(self.argv(*args), stdin=slave, stdout=slave, stderr=slave) as process:
            os.close(slave)
            out = b""
            try:
                while part := os.read(master, 4096):
                    out += part
            except OSError:  # Linux's end of file for a terminal whose other end is closed
                pass
        os.close(master)
        self.assertEqual(process.returncode, 0, out)
        return out

    def test_control_characters_do_not_reach_it(self):
        self.server.replies["Generate"] = [v1("GenerateResponse", token_ids=[1], text="a\x1b[2J\tb\x07")]
        self.assertTrue(self.at_terminal("generate", "hi", "--quiet").startswith(b"a?[2J\tb?"))

    def test_stats_follow_the_answer(self):
        self.server.replies["Generate"] = CHUNKS
        self.assertIn(b"\r\n3 tokens, ", self.at_terminal("generate", "hi"))

    def test_quiet_leaves_the_stats_out(self):
        self.server.replies["Generate"] = CHUNKS
        self.assertNotIn(b"tokens", self.at_terminal("generate", "hi", "--quiet"))


class Typist:
    """Somebody at a terminal of its own, so that Ctrl-C and Ctrl-D are what the terminal makes of them."""

    def __init__(self, argv, env):
        self.fd, slave = pty.openpty()
        # Not pty.fork: the threads of grpcio do not survive a fork.
        self.process = subprocess.Popen(["setsid", "--ctty", *argv], stdin=slave, stdout=slave, stderr=slave, env=env)
        os.close(slave)
        self.seen = b""

    def read(self, end):
        """What has come since; nothing when the program has gone, or time is up."""
        ready, _, _ = select.select([self.fd], [], [], max(0, end - time.monotonic()))
        try:
            return os.read(self.fd, 65536) if ready else b""
        except OSError:  # Linux's end of file for a terminal whose other end is closed
            return b""

    def expect(self, text):
        """Reads until the text has come, and forgets what came before it."""
        end = time.monotonic() + WAIT_S
        while text not in self.seen:
            part = self.read(end)
            if not part:
                raise AssertionError(f"{text!r} has not come: {self.seen!r}")
            self.seen += part
        before, self.seen = self.seen.split(text, 1)
        return before

    def type(self, keys):
        os.write(self.fd, keys)

    def code(self):
        """After the program's end; what it still says is read, so that it can end."""
        while self.read(time.monotonic() + WAIT_S):
            pass
        return self.process.wait(WAIT_S)

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.fd)


class ChatAtATerminal(Case):
    def setUp(self):
        super().setUp()
        self.home = tempfile.TemporaryDirectory()
        self.addCleanup(self.home.cleanup)
        self.history = os.path.join(self.home.name, "conclave", "history")
        self.server.replies["GetModel"] = [v1("GetModelResponse", name="m", family="olmoe", max_context=4096, chat_template="tulu")]
        self.server.replies["Generate"] = [v1("GenerateResponse", token_ids=[1], text="Yes.", finish_reason=1, seed=77)]

    def chat(self, *args, **env):
        env = {**{k: v for k, v in os.environ.items() if not k.startswith("CONCLAVE_")}, "TERM": "xterm", "LC_ALL": "C.UTF-8",
               "XDG_STATE_HOME": self.home.name, **env}
        typist = Typist(self.argv("chat", *args), env)
        self.addCleanup(typist.close)
        return typist

    def leave(self, typist):
        typist.expect(b"> ")  # before it Ctrl-D is the terminal's
        typist.type(b"\x04")
        self.assertEqual(typist.code(), 0)

    def messages(self):
        return [[(m.role, m.content) for m in request.messages.messages] for request in self.server.requests
                if request.DESCRIPTOR.name == "GenerateRequest"]

    def test_variables_of_the_template_go_with_every_turn(self):
        typist = self.chat("--template-args", '{"enable_thinking": false}')
        for _ in range(2):
            typist.expect(b"> ")
            typist.type(b"Hello\r")
            typist.expect(b"Yes.")
        self.leave(typist)
        sent = [r.messages.template_args for r in self.server.requests if r.DESCRIPTOR.name == "GenerateRequest"]
        self.assertEqual(sent, ['{"enable_thinking": false}'] * 2)

    def test_a_banner_greets_and_control_d_ends(self):
        typist = self.chat()
        typist.expect(b"model m (olmoe), context of 4096 tokens")
        typist.expect(b"/help lists the commands")
        self.leave(typist)

    def test_a_server_that_is_not_there_is_told_before_the_first_message(self):
        self.server.stop()
        typist = self.chat()
        typist.expect(b"nobody listens there")
        self.assertEqual(typist.code(), 1)

    def test_lines_are_edited(self):
        typist = self.chat()
        typist.expect(b"> ")
        typist.type(b"wrl\x1b[D\x1b[Do\x01Hello \x05d?\r")  # two to the left, o, to the beginning, to the end
        typist.expect(b"Yes.")
        typist.type(b"/quit\r")
        self.assertEqual(typist.code(), 0)
        self.assertEqual(self.messages(), [[(2, "Hello world?")]])

    def test_the_history_goes_from_one_conversation_to_the_next(self):
        for expected in ([(2, "First €")], [(2, "First €")]):
            typist = self.chat()
            typist.expect(b"> ")
            typist.type("First €\r".encode() if not os.path.exists(self.history) else b"\x1b[A\x1b[A\r")  # the newest is /quit
            typist.expect(b"Yes.")
            typist.expect(b"> ")
            typist.type(b"/quit\r")
            self.assertEqual(typist.code(), 0)
            self.assertEqual(self.messages()[-1], expected)
        self.assertEqual(os.stat(self.history).st_mode & 0o777, 0o600)
        self.assertEqual(os.stat(os.path.dirname(self.history)).st_mode & 0o777, 0o700)
        self.assertEqual(os.listdir(os.path.dirname(self.history)), ["history"])

    def test_no_history_is_kept_where_none_is_wanted(self):
        typist = self.chat("--no-history")
        typist.expect(b"> ")
        typist.type(b"Secret\r")
        typist.expect(b"Yes.")
        self.leave(typist)
        self.assertFalse(os.path.exists(self.history))

    def test_a_history_that_cannot_be_kept_is_no_obstacle(self):
        with open(os.path.join(self.home.name, "conclave"), "w"):
            pass
        typist = self.chat()
        typist.expect(b"nothing is kept")
        typist.expect(b"> ")
        typist.type(b"Hi\r")
        typist.expect(b"Yes.")
        self.leave(typist)

    def test_messages_have_several_lines(self):
        typist = self.chat()
        typist.expect(b"> ")
        typist.type(b"one\\\r")
        typist.expect(b"... ")
        typist.type(b"two\r")
        typist.expect(b"Yes.")
        typist.expect(b"> ")
        typist.type(b'"""\r')
        typist.expect(b"... ")
        typist.type(b'a\r\rb"""\r')
        typist.expect(b"Yes.")
        self.leave(typist)
        self.assertEqual([m[-1][1] for m in self.messages()], ["one\ntwo", "a\n\nb"])

    def test_control_c_forgets_the_line(self):
        typist = self.chat()
        typist.expect(b"> ")
        typist.type(b"wrong\x03")
        typist.expect(b"^C")
        typist.expect(b"> ")
        typist.type(b"right\r")
        typist.expect(b"Yes.")
        typist.expect(b"> ")
        typist.type(b"one\\\r")
        typist.expect(b"... ")
        typist.type(b"\x03")
        typist.expect(b"> ")
        typist.type(b"two\r")
        typist.expect(b"Yes.")
        self.leave(typist)
        self.assertEqual([m[-1][1] for m in self.messages()], ["right", "two"])

    def test_control_c_stops_the_answer_and_not_the_program(self):
        def answer(_, context):
            context.add_callback(lambda: self.server.cancelled.put(True))
            yield v1("GenerateResponse", token_ids=[1], text="It is")
            self.server.cancelled.get(timeout=WAIT_S)

        self.server.replies["Generate"] = answer
        typist = self.chat()
        typist.expect(b"> ")
        typist.type(b"What?\r")
        typist.expect(b"It is")
        typist.type(b"\x03")
        typist.expect(b"stopped; what came so far is part of the conversation")
        typist.expect(b"> ")
        self.server.replies["Generate"] = [v1("GenerateResponse", token_ids=[1], text="Yes.", finish_reason=1)]
        typist.type(b"Go on\r")
        typist.expect(b"Yes.")
        self.leave(typist)
        self.assertEqual(self.messages()[-1], [(2, "What?"), (3, "It is"), (2, "Go on")])

    def test_a_failed_turn_is_reported_and_forgotten(self):
        self.server.replies["Generate"] = refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        typist = self.chat()
        typist.expect(b"> ")
        typist.type(b"One?\r")
        typist.expect(b"RESOURCE_EXHAUSTED: full")
        typist.expect(b"> ")
        self.server.replies["Generate"] = [v1("GenerateResponse", token_ids=[1], text="Yes.", finish_reason=1)]
        typist.type(b"One?\r")
        typist.expect(b"Yes.")
        self.leave(typist)
        self.assertEqual(self.messages()[-1], [(2, "One?")])

    def test_commands(self):
        typist = self.chat("--system", "Be kind.")
        typist.expect(b"> ")
        typist.type(b"/help\r")
        for name in (b"/help ", b"/reset ", b"/system ", b"/seed ", b"/stats ", b"/quit "):
            typist.expect(name)
        typist.expect(b"> ")
        typist.type(b"/seed 7\r")
        typist.expect(b"> ")
        typist.type(b"/seed x\r")
        typist.expect(b"/seed: 'x' is not a whole number")
        typist.type(b"One?\r")
        typist.expect(b"Yes.")
        typist.type(b"/stats\r")
        typist.expect(b"1 token; prompt 0 tokens")
        typist.expect(b"; seed 77")
        typist.type(b"/reset\r")
        typist.expect(b"begins again")
        typist.type(b"/seed\r")
        typist.expect(b"draws a seed")
        typist.type(b"Two?\r")
        typist.expect(b"Yes.")
        typist.type(b"/system Be brief.\r")
        typist.expect(b"> ")
        typist.type(b"/resett\r")
        typist.expect(b"/resett: no such command; did you mean /reset?")
        typist.type(b"Three?\r")
        typist.expect(b"Yes.")
        typist.type(b"/quit\r")
        self.assertEqual(typist.code(), 0)
        self.assertEqual(self.messages(), [[(1, "Be kind."), (2, "One?")], [(1, "Be kind."), (2, "Two?")], [(1, "Be brief."), (2, "Three?")]])
        seeds = [r.sampling.seed if r.sampling.HasField("seed") else None for r in self.server.requests[1:]]
        self.assertEqual(seeds, [7, None, None])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
