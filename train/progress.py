"""How far something has come."""
import sys
import time


class Progress:
    """A line a terminal overwrites; in a log, one every few seconds."""

    def __init__(self, total, done=0, unit="tokens"):
        self.total, self.first, self.unit = total, done, unit
        self.start, self.shown = time.monotonic(), 0.0
        self.tty = sys.stderr.isatty()

    def show(self, done, note):
        now = time.monotonic()
        if now - self.shown < (0.5 if self.tty else 30) and done < self.total:
            return
        self.shown = now
        rate = max(done - self.first, 1) / max(now - self.start, 1e-9)
        left = (self.total - done) / rate
        bar = "#" * int(20 * done / self.total)
        text = f"[{bar:20}] {done:,} of {self.total:,} {self.unit}, {rate:,.0f}/s, {int(left // 60)} min {int(left % 60)} s left, {note}"
        print(f"\r{text}\x1b[K" if self.tty else text, end="" if self.tty else "\n", file=sys.stderr, flush=True)

    def end(self):
        if self.tty:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def line(self, text):
        print(("\r\x1b[K" if self.tty else "") + text, file=sys.stderr, flush=True)
