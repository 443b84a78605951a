"""Text to train on, out of Debian packages: what each holds, its licence, and how to read it.

A source is a Debian package and a reader. A reader takes the directory that the package was unpacked into and yields documents,
(name, text): a chapter, a book, a page. Text is cleaned the same way everywhere: one line per paragraph, an empty line between
paragraphs, plain quotes and dashes, so that a small model does not spend its vocabulary on typography."""
import collections
import gzip
import hashlib
import html
import os
import re
import struct
import subprocess
import zlib

Source = collections.namedtuple("Source", "name language package licence reader")


# ---------------------------------------------------------------- cleaning
PLAIN = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201a": "'", "\u201c": '"', "\u201d": '"', "\u201e": '"', "\u00ab": '"', "\u00bb": '"',
                       "\u2014": "--", "\u2013": "-", "\u2010": "-", "\u2011": "-", "\u2026": "...", "\u00a0": " ", "\u00ad": None,
                       "\u200b": None, "\ufeff": None})


def paragraphs(text):
    """One line per paragraph, an empty line between two of them."""
    text = re.sub(r"[^\S\n]+", " ", text.translate(PLAIN).replace("\r", ""))
    joined = (re.sub(r" *\n *", " ", p).strip() for p in re.split(r"\n\s*\n", text))
    return "\n\n".join(p for p in joined if re.search(r"\w", p))


def plain_text(path, encoding="utf-8"):
    with (gzip.open if path.endswith((".gz", ".dz")) else open)(path, "rb") as f:
        return f.read().decode(encoding, "replace")


BLOCK = r"p|div|h[1-6]|li|ul|ol|dl|dt|dd|br|tr|td|th|table|title|lg|l|list|item|row|cell|chapter|section|blockquote|pre"


def markup_text(text, dropped="script|style|head|nav|pre|note|table"):
    """What a reader of HTML or OSIS would see, without what `dropped` names."""
    text = re.sub(rf"(?is)<({dropped})\b[^>]*(?<!/)>.*?</\1>", " ", text)
    text = re.sub(r"(?s)<!--.*?-->", " ", text)
    text = re.sub(r"\s*\n\s*", " ", text)
    text = re.sub(rf"(?i)</?(?:{BLOCK})\b[^>]*>", "\n\n", text)
    return html.unescape(re.sub(r"<[^>]*>", "", text))


# ---------------------------------------------------------------- readers
def r_strings(data):
    """The strings of a character vector in R's serialization, version 2 or 3."""
    at = 14
    if struct.unpack_from(">i", data, 2)[0] == 3:
        at += 4 + struct.unpack_from(">i", data, 14)[0]  # the native encoding
    kind, n = struct.unpack_from(">ii", data, at)
    if kind & 0xFF != 16:
        return None
    at += 8
    strings = []
    for _ in range(n):
        length = struct.unpack_from(">i", data, at + 4)[0]
        at += 8
        strings.append(data[at:at + max(length, 0)].decode("utf-8", "replace"))
        at += max(length, 0)
    return strings


def read_austen(root):
    with open(f"{root}/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb", "rb") as f:
        data = f.read()
    while data:
        unpacker = zlib.decompressobj()
        lines = r_strings(unpacker.decompress(data[4:]))
        data = unpacker.unused_data
        if not lines:
            continue
        title = next(line for line in lines if line.strip()).title()
        chapters = re.split(r"(?im)^(?=(?:volume|chapter) [ivxl\d]+\.?\s*$)", "\n".join(lines))
        for i, chapter in enumerate(chapters):
            text = re.sub(r"(?im)^(?:volume|chapter) [ivxl\d]+\.?\s*$", "", chapter).replace("_", "")
            if len(text) > 2000:
                yield f"{title}, {i}", text


def sword_blocks(path, letter):
    """A module of the SWORD project holds runs of zlib data; an index has (offset, packed, unpacked) of each."""
    for testament in ("ot", "nt"):
        with open(f"{path}/{testament}.{letter}zs", "rb") as f:
            index = f.read()
        with open(f"{path}/{testament}.{letter}zz", "rb") as f:
            data = f.read()
        for i, (offset, packed, unpacked) in enumerate(struct.iter_unpack("<III", index)):
            if packed and unpacked:
                yield f"{testament} {i}", zlib.decompress(data[offset:offset + packed]).decode("utf-8", "replace").replace("\0", " ")


def read_sword(module, letter):
    def read(root):
        for name, text in sword_blocks(f"{root}/usr/share/sword/modules/{module}", letter):
            yield name, re.sub(r"(?m)^Verses? [\d, -]+$", "", markup_text(text))
    return read


def read_opticks(root):
    text = plain_text(f"{root}/usr/share/go-1.19/src/testdata/Isaac.Newton-Opticks.txt")
    text = re.sub(r"\[[^\]]*\]|_", "", text)
    for i, part in enumerate(re.split(r"(?m)^(?=PROP\. |OBS\. |DEFINITIONS|Qu\. \d+)", text)):
        yield f"Opticks, {i}", part


def read_jargon(root):
    text = plain_text(f"{root}/usr/share/doc/jargon-text/jargon.txt.gz")
    kept = [p for p in re.split(r"\n\s*\n", text) if len(p) > 80]  # entries, not the index of their names
    for i in range(0, len(kept), 60):
        yield f"Jargon File, {i // 60}", "\n\n".join(kept[i:i + 60])


def read_devil(root):
    text = plain_text(f"{root}/usr/share/dictd/devil.dict.dz")
    for i, part in enumerate(re.split(r"\n(?=[A-Z][A-Z' -]+, [a-z.]+  )", text)):
        yield f"Devil's Dictionary, {i // 40}", part


def read_pages(pattern):
    """HTML, a document per page."""
    def read(root):
        for folder, _, names in sorted(os.walk(root)):
            for name in sorted(names):
                path = os.path.join(folder, name)
                if re.search(pattern, path) and not os.path.islink(path):
                    text = markup_text(plain_text(path))
                    kept = (p for p in re.split(r"\n\s*\n", text) if len(p) > 100)  # prose, not headings and menus
                    yield os.path.relpath(path, root), "\n\n".join(kept)
    return read


def read_fortunes(root):
    folder = f"{root}/usr/share/games/fortunes/de"
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if "." in name or os.path.islink(path):
            continue
        for i, part in enumerate(plain_text(path).split("\n%\n")):
            yield f"{name}, {i // 50}", part


def read_man(root):
    for folder, _, names in sorted(os.walk(f"{root}/usr/share/man")):
        for name in sorted(names):
            text = plain_text(os.path.join(folder, name))
            text = re.sub(r"\\f[A-Z]|\\f\(..|\\&|\\%", "", text).replace("\\-", "-").replace("\\(bu", "")
            text = re.sub(r"(?s)^\.TS\n.*?^\.TE\n|^\.EX\n.*?^\.EE\n|^\.nf\n.*?^\.fi\n", "", text, flags=re.M)
            text = re.sub(r"(?m)^\.(?:B|I|BR|IR|RB|RI|BI|IB|SM|SB) +(.*)$", r"\1", text)
            text = re.sub(r"(?m)^[.'].*$", "\n", text).replace("\\", "")
            kept = (p for p in re.split(r"\n\s*\n", text) if len(p) > 100)
            yield name, "\n\n".join(kept)


SOURCES = [
    Source("austen", "en", "r-cran-janeaustenr", "public domain (novels, 1811-1818; the R package around them is MIT)", read_austen),
    Source("treasury", "en", "sword-comm-tdavid", "public domain (Spurgeon, 1885)", read_sword("comments/zcom/tdavid", "c")),
    Source("henry", "en", "sword-comm-mhcc", "public domain (Henry, 1706)", read_sword("comments/zcom/mhcc", "b")),
    Source("scofield", "en", "sword-comm-scofield", "public domain (Scofield, 1917)", read_sword("comments/zcom/scofield", "b")),
    Source("web", "en", "sword-text-web", "public domain (World English Bible)", read_sword("texts/ztext/engWEB2015eb", "b")),
    Source("opticks", "en", "golang-1.19-src", "public domain (Newton, 1730)", read_opticks),
    Source("jargon", "en", "jargon-text", "public domain (the Jargon File)", read_jargon),
    Source("devil", "en", "dict-devil", "public domain (Bierce, 1911)", read_devil),
    Source("handbuch", "de", "debian-handbook", "GPL-2.0-or-later or CC-BY-SA-3.0", read_pages(r"/html/de-DE/.*\.html$")),
    Source("hilfe", "de", "libreoffice-help-de", "MPL-2.0", read_pages(r"/text/.*\.html$")),
    Source("installation", "de", "installation-guide-amd64", "GPL-2.0-or-later", read_pages(r"/de/.*\.html$")),
    Source("referenz", "de", "debian-reference-de", "GPL-2.0-or-later", read_pages(r"\.de\.html$")),
    Source("faq", "de", "debian-faq-de", "GPL-2.0-or-later", read_pages(r"\.de\.html$")),
    Source("sprueche", "de", "fortunes-de", "GPL-2.0-or-later", read_fortunes),
    Source("handbuchseiten", "de", "manpages-de", "GPL-3.0-or-later and the pages' own free licences", read_man),
]


# ---------------------------------------------------------------- packages
def unpack(package, cache):
    """Downloads a package with apt and unpacks it, once; returns the directory."""
    root = os.path.join(cache, package)
    if not os.path.isdir(root):
        os.makedirs(cache, exist_ok=True)
        subprocess.run(["apt-get", "download", "-q", package], cwd=cache, check=True, stdout=subprocess.DEVNULL)
        deb, = (n for n in os.listdir(cache) if n.startswith(package + "_") and n.endswith(".deb"))
        subprocess.run(["dpkg-deb", "-x", deb, package + ".part"], cwd=cache, check=True)
        os.rename(root + ".part", root)
    return root


def held_out(source, document, share):
    """Whether a document is kept from training: by its name alone, so that every run agrees."""
    digest = hashlib.sha256(f"{source}/{document}".encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32
