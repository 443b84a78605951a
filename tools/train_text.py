#!/usr/bin/env python3
"""Makes text to train on, from Debian packages that hold public-domain or freely licensed prose (train/text.py lists them).

    train_text.py OUT [--sources NAME,...] [--held-out 0.05] [--cache DIR]

Writes OUT/NAME.train.txt and OUT/NAME.heldout.txt of every source, split by document, and OUT/sources.json with sizes, licences and
package versions; prints them as a table. Documents end with a form feed, which training reads as the end of a text.
Packages are downloaded with apt-get (no root needed) and unpacked in the cache; nothing is installed."""
import argparse
import json
import os
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from train import text  # noqa: E402


def version(package, cache):
    deb = next(n for n in sorted(os.listdir(cache)) if n.startswith(package + "_"))
    return subprocess.run(["dpkg-deb", "-f", os.path.join(cache, deb), "Version"], check=True, capture_output=True, text=True).stdout.strip()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out")
    ap.add_argument("--sources", help="names separated by commas, or a language: en, de; all by default")
    ap.add_argument("--held-out", type=float, default=0.05, metavar="SHARE", help="share of the documents kept from training")
    ap.add_argument("--cache", help="where packages are kept; OUT/packages by default")
    a = ap.parse_args()
    cache = a.cache or os.path.join(a.out, "packages")
    wanted = a.sources.split(",") if a.sources else []
    chosen = [s for s in text.SOURCES if not wanted or s.name in wanted or s.language in wanted]
    if not chosen:
        ap.error(f"no source is called {a.sources}; there are {', '.join(s.name for s in text.SOURCES)}")
    os.makedirs(a.out, exist_ok=True)
    rows = []
    print(f"{'source':16}{'lang':6}{'documents':>10}{'train':>13}{'held out':>12}  licence")
    for s in chosen:
        parts = {"train": [], "heldout": []}
        for name, body in s.reader(text.unpack(s.package, cache)):
            body = text.paragraphs(body)
            if len(body) > 200:
                parts["heldout" if text.held_out(s.name, name, a.held_out) else "train"].append(body)
        sizes = {}
        for part, documents in parts.items():
            data = "".join(d + "\n\f" for d in documents).encode()
            with open(os.path.join(a.out, f"{s.name}.{part}.txt"), "wb") as f:
                f.write(data)
            sizes[part] = len(data)
        n = sum(map(len, parts.values()))
        print(f"{s.name:16}{s.language:6}{n:>10}{sizes['train']:>13,}{sizes['heldout']:>12,}  {s.licence}", flush=True)
        rows.append({"name": s.name, "language": s.language, "package": s.package, "version": version(s.package, cache), "licence": s.licence,
                     "documents": n, "train_bytes": sizes["train"], "heldout_bytes": sizes["heldout"]})
    with open(os.path.join(a.out, "sources.json"), "w", encoding="utf-8") as f:
        json.dump(rows, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
