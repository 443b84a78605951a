#!/usr/bin/env python3
"""Writes the seed corpora of fuzz_tokenizer_json, fuzz_tokenizer_text and fuzz_regex: sound files of each kind, chat templates, and one file
per rule that a tokenizer.json or tokenizer_config.json breaks. Parts of a seed are joined by NUL bytes.

usage: make_tokenizer_corpus.py tests/fuzz/corpus"""
import json
import pathlib
import sys

JSON_DIR, TEXT_DIR, REGEX_DIR = (pathlib.Path(sys.argv[1]) / name for name in ("fuzz_tokenizer_json", "fuzz_tokenizer_text", "fuzz_regex"))
MARK = "\u2581"
TULU, OLMO2 = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ '<|system|>\\n' + message['content'] + '\\n' }}"
    "{% elif message['role'] == 'user' %}{{ '<|user|>\\n' + message[\"content\"] + '\\n' }}{% elif message['role'] == 'assistant' %}"
    + answer + "{% endif %}{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}{% endfor %}"
    for answer in ("{{ '<|assistant|>\\n' + message['content'] + eos_token + '\\n' }}",
                   "{% if not loop.last %}{{ '<|assistant|>\\n' + message.content + eos_token + '\\n' }}{% else %}"
                   "{{ '<|assistant|>\\n' + message['content'] + eos_token }}{% endif %}"))
SMALL = '"model":{"vocab":{"a":0},"merges":[]}'  # @ below
REFUSED = [
    ('{"normalizer":{"type":"Nmt"},@}',),
    ('{"normalizer":{"type":"Replace","pattern":{"Regex":"(a"},"content":"b"},@}',),
    ('{"pre_tokenizer":{"type":"FixedLength"},@}',),
    ('{"pre_tokenizer":{"type":"Metaspace","prepend_scheme":"often"},@}',),
    ('{"decoder":{"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"ByteFallback"}]},@}',),
    ('{"decoder":{"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"Strip","content":"a","start":0,"stop":1}]},@}',),
    ('{"model":{"type":"Unigram","vocab":[]}}',),
    ('{"model":{"dropout":0.1,"vocab":{"a":0},"merges":[]}}',),
    ('{"model":{"continuing_subword_prefix":"##","vocab":{"a":0},"merges":[]}}',),
    ('[]',),
    ('{"model":{"type":3}}',),
    ('{"model":{"vocab":[]}}',),
    ('{"model":{"vocab":{"a":0}}}',),
    ('{"model":{"fuse_unk":1,"vocab":{"a":0},"merges":[]}}',),
    ('{"model":{"unk_token":"u","vocab":{"a":0},"merges":[]}}',),
    ('{"normalizer":"NFC",@}',),
    ('{"normalizer":{"type":"Sequence"},@}',),
    ('{"normalizer":{"type":"Replace","content":""},@}',),
    ('{"normalizer":{"type":"Replace","pattern":{"String":""},"content":""},@}',),
    ('{"pre_tokenizer":{"type":"Metaspace","replacement":"ab"},@}',),
    ('{"decoder":{"type":"Strip","content":"a","start":-1,"stop":0},@}',),
    ('{"post_processor":{"type":"TemplateProcessing","single":[]},@}',),
    ('{"post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"B"}}]},@}',),
    ('{"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}}]},@}',),
    ('{"added_tokens":{},@}',),
    ('{"added_tokens":[3],@}',),
    ('{"added_tokens":[{"id":1,"content":""}],@}',),
    ('{"added_tokens":[{"content":"x"}],@}',),
    ('{"model":{"vocab":{"a":0,"b":0},"merges":[]}}',),
    ('{"model":{"vocab":{"a":-1},"merges":[]}}',),
    ('{"model":{"vocab":{"a":0,"b":1},"merges":["a b"]}}',),
    ('{"model":{"vocab":{"a":0,"b":1,"ab":2},"merges":["a b","a b"]}}',),
    ('{"model":{"vocab":{"":0,"a":1},"merges":[["","a"]]}}',),
    ('{"model":{"vocab":{"a":0},"merges":["a"]}}',),
    ('{"model":{"vocab":{"a":0},"merges":[["a"]]}}',),
    ('{"added_tokens":[{"id":1,"content":"x"},{"id":1,"content":"y"}],@}',),
    ('{"added_tokens":[{"id":1,"content":"x"},{"id":2,"content":"x"}],@}',),
    ('{"added_tokens":[{"id":1,"content":"a"}],@}',),
    ('{"added_tokens":[{"id":1,"content":"x"}],@}', '[]'),
    ('{"added_tokens":[{"id":1,"content":"x"}],@}', '{"eos_token":3}'),
    ('{"added_tokens":[{"id":1,"content":"x"}],@}', '{"chat_template":{}}'),
    ('{"added_tokens":[{"id":1,"content":"x"}],@}', '{"chat_template":[{"name":"tool_use","template":"{{"},{"name":"default","template":"x"}]}'),
    ('{"added_tokens":[{"id":1,"content":"x"}],@}', '{"chat_template":[{"name":"tool_use","template":3},{"name":"default","template":"x"}]}'),
    ('{"added_tokens":[{"id":1,"content":"x"}],@}', '{"added_tokens_decoder":[]}'),
    ('{"added_tokens":[{"id":1,"content":"x"}],@}', '{"added_tokens_decoder":{"x":{"content":"x"}}}'),
    ('{"added_tokens":[{"id":1,"content":"x"}],@}', '{"added_tokens_decoder":{"1":{"content":"other"}}}'),
    ('{"added_tokens":[{"id":1,"content":"x"}],@}', '{"added_tokens_decoder":{"2":{"content":"y"},"02":{"content":"z"}}}'),
    ('{@}', '{'),
    ('{@}', '{"add_bos_token":true}', '', '\x01\x02'),
    ('{@}', '', '', ''),
    ('{@}', '{}', '', '\x01\x01'),
    ('{@}', '{}', '', '\xff\x02'),
    ('{@}', '{}', '', '\x02\x02\x02\x05'),
    ('{@}', '{}', '', '\x02\x02\xff'),
]
TEMPLATES = ["{", "{{", "{{ x }}", "{{ 'a }}", "{{ '\\x' }}", "{{ bos_token + }}", "{{ bos_token x }}", "{% %", OLMO2,
             "{{ bos_token }}{%- for message in messages -%}\n  {% if \"x\" %}\ny{{ 'a\\\\' + \"b\" }}\n",
             "a  {%- x %}b  {% y %}", "{{ 'a\x01' }}", "{{ ", "a" * 100, TULU.replace("{% if loop.last and", "{% endfor %}{% if").replace(
                 "{% endfor %}{% endfor %}", "{% endfor %}")[:-len("{% endfor %}")]]
TEXTS = ["ab abab  a\n\n it's don't we'll 12 <e>", "e\u0301\u0323\u0334 \u1100\u1161\u11a8 \uac00\u11a8 \u212b\u1fbe\u0308\u0301",
         "\u65e5\u672c\u8a9e \U0001F600\u2581x", "   <e>  <e   ", "\u00a0\u3000\u2028x\u1680 \t\t\r\n",
         "".join(chr(0x300 + i % 64) for i in range(60)), "\ucbf0\u11a7\u11a8 \ucbf0\u11a8", "ab" * 40 + "a" * 40 + "ba" * 20 + "\n" * 21,
         "\u0663\u00b2\u2162 \u24d0 a\u0301_\u203f " + "\uac00\u11a8" * 200]
BYTES = [b"a\xe2\x82b\xed\xa0\x80\xff\xc3", b"\xf0\x9f\x98", b"\xf4\x90\x80\x80\xf0\x80\x80\xc0\xaf\xe0\x9f\x80"]


def dump(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def write(name, *parts):
    JSON_DIR.mkdir(parents=True, exist_ok=True)
    (JSON_DIR / name).write_bytes(b"\0".join(part.encode() for part in parts))


def byte_level():
    stage = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    added = [{"id": 6, "content": "<s>", "normalized": False, "special": True}, {"id": 7, "content": "  ", "normalized": True},
             {"id": 8, "content": "it", "single_word": True, "lstrip": True, "rstrip": True, "normalized": True}]
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
             "vocab": {"a": 0, "b": 1, "ab": 2, "\u0120": 3, "\u0120a": 4, "\u010a": 5}, "merges": ["a b", ["\u0120", "a"]]}
    config = {"bos_token": "<s>", "eos_token": {"content": "<s>"}, "pad_token": "a", "unk_token": None, "add_bos_token": True,
              "add_eos_token": False, "chat_template": TULU,
              "added_tokens_decoder": {"7": {"content": "  ", "special": True}, "9": {"content": "<x>", "special": True}}}
    return dump({"version": "1.0", "added_tokens": added, "normalizer": {"type": "NFC"}, "pre_tokenizer": stage,
                 "post_processor": stage, "decoder": stage, "model": model}), dump(config)


VOCAB = {"<unk>": 0, "<s>": 1, "</s>": 2, "<0xC3>": 3, "<0xA9>": 4, MARK: 5, "a": 6, MARK + "a": 7, "b": 8, "<0x20>": 9, "e": 10}
LLAMA = {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "ignore_merges": True, "vocab": VOCAB,
         "merges": [MARK + " a"]}
ADDED = [{"id": 1, "content": "<s>", "special": True}, {"id": 2, "content": "</s>", "special": True, "normalized": True}]


def llama():
    template = {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "</s>"}}],
                "special_tokens": {"<s>": {"ids": [1]}, "</s>": {"ids": [2]}}}
    decoders = [{"type": "Replace", "pattern": {"String": MARK}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    normalizers = [{"type": "Prepend", "prepend": MARK}, {"type": "Replace", "pattern": {"String": " "}, "content": MARK}]
    config = {"add_bos_token": False, "bos_token": "<s>", "add_eos_token": True, "eos_token": "</s>",
              "extra_special_tokens": {"image_token": "<i>", "none_token": None},
              "additional_special_tokens": ["<x>", {"content": "<y>"}, None],
              "chat_template": [{"name": "tool_use", "template": "{{ additional_special_tokens }}{{ bos_token * 2 }}{{ tools }}"},
                                {"name": "default", "template": TULU}]}
    return dump({"added_tokens": ADDED, "normalizer": {"type": "Sequence", "normalizers": normalizers}, "pre_tokenizer": None,
                 "post_processor": template, "decoder": {"type": "Sequence", "decoders": decoders}, "model": LLAMA}), dump(config)


EXPRESSIONS = [
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{M}]+|\p{N}{1,3}+|\s++$|(?<=\d)[.,](?=\d)|\w+\b|.|\n",
    r"a(?i)b|(?>c+)(?-i:d)|[[:punct:]^\]a-c-]{2,}?|\x{e9}\u00e9\x41|^\Aa\z$|\p{^L}\PL|\B", r"\S*?x|(?:ab?){,3}c??", r"(?=ab)",
    r"(?<!a|b)c\h\H\D\W[^\W\d_]", "((((((((((a))))))))))", "a{1000}", "(?:a{1000}){1000}", "a**", "[z-a]", "(?:1{a000}){1000}", "\\p{Greek}", "(a|b)*+c",
    "a" + "?" * 300, "(?:(?:a|b|c|d|e|\u00e9)*(?:a|\u00e9)(?:a|b){9})", "[" * 40 + "a" + "]" * 40, "\\1", "(?<n>a)", "a{2000}", "[a", "(?>ab)", "(a", "a)", "(?#a)", "(?>[ab])c?+(?m:.)(?i)d", "|a",
    "a\\", "a{,}b{", "(?<=^)a{2}?", "\\x{e9", "\\p", "[a-", "[[:digit:][:^space:]&&[^\\W]]+?"]

# What fails late, so that it is found out where matches begin; and what looks far from every place, until that is too much.
LATE = {"late": ("a+b", 20 * "a" + "\u00e9" + 100 * "a" + "b" + 12 * "a"), "late_never": ("a+b", 40 * "a"), "far": ("a(?:a*b)?", 600 * "a")}


def stages():
    """Sequences of every stage, and expressions in Split and in Replace."""
    pre = [{"type": "Split", "pattern": {"Regex": EXPRESSIONS[0]}, "behavior": "Isolated", "invert": False},
           {"type": "Digits", "individual_digits": True}, {"type": "Punctuation", "behavior": "Contiguous"},
           {"type": "CharDelimiterSplit", "delimiter": "x"}, {"type": "Split", "pattern": {"String": "b"}, "behavior": "MergedWithNext"},
           {"type": "WhitespaceSplit"}, {"type": "ByteLevel", "add_prefix_space": True, "use_regex": False}, {"type": "Whitespace"}]
    normal = [{"type": name} for name in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "ByteLevel")]
    normal += [{"type": "Strip", "strip_left": True, "strip_right": True},
               {"type": "Replace", "pattern": {"Regex": r"\s{2,}"}, "content": " "}]
    post = [{"type": "ByteLevel"}, {"type": "RobertaProcessing", "cls": ["<s>", 1], "sep": ["</s>", 2]}]
    yield dump({"added_tokens": ADDED, "normalizer": {"type": "Sequence", "normalizers": normal}, "model": LLAMA,
                "pre_tokenizer": {"type": "Sequence", "pretokenizers": pre}, "decoder": {"type": "ByteLevel"},
                "post_processor": {"type": "Sequence", "processors": post}, "truncation": {"max_length": 5}, "padding": {"pad_id": 0}})
    for i, expression in enumerate(EXPRESSIONS):
        behavior = ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")[i % 5]
        split = {"type": "Split", "pattern": {"Regex": expression}, "behavior": behavior, "invert": i % 2 == 1}
        yield dump({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split]}, "model": LLAMA})
        yield dump({"normalizer": {"type": "Replace", "pattern": {"Regex": expression}, "content": "_"}, "model": LLAMA})


def main():
    write("byte_level", *byte_level())
    write("llama", *llama())
    for scheme in ("always", "first", "never"):
        stage = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": scheme, "split": scheme != "never"}
        write("metaspace_" + scheme, dump({"added_tokens": ADDED, "pre_tokenizer": stage, "decoder": stage, "model": LLAMA}))
    write("metaspace_old", dump({"pre_tokenizer": {"type": "Metaspace", "add_prefix_space": False},
                                 "decoder": {"type": "Strip", "content": "a", "start": 1, "stop": 1},
                                 "model": {"vocab": VOCAB, "merges": []}}))
    write("fallback_only", dump({"decoder": {"type": "ByteFallback"},
                                 "model": {"byte_fallback": True, "vocab": {f"<0x{b:02X}>": b for b in range(256)}, "merges": []}}))
    bytes_and_marks = {**{f"<0x{b:02X}>": b for b in range(256)}, MARK: 256, MARK + "a": 257, "abc": 258}
    write("fallback_metaspace", dump({
        "added_tokens": [{"id": 300, "content": "<s>", "lstrip": True, "special": True}], "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Metaspace"}, "model": {"byte_fallback": True, "vocab": bytes_and_marks, "merges": []}}))
    for i, text in enumerate(stages()):
        write(f"stages_{i:02}", text)
    for i, template in enumerate(TEMPLATES):
        write(f"chat_{i}", "{" + SMALL + "}", "{}", template)
    for i, parts in enumerate(REFUSED):
        write(f"refused_{i:02}", *(part.replace("@", SMALL) for part in parts))
    REGEX_DIR.mkdir(parents=True, exist_ok=True)
    for i, expression in enumerate(EXPRESSIONS):
        (REGEX_DIR / f"regex_{i:02}").write_bytes("\0".join((expression, TEXTS[i % len(TEXTS)] + " aab ab1.5 x  \n  end")).encode())
    for name, parts in LATE.items():
        (REGEX_DIR / f"regex_{name}").write_bytes("\0".join(parts).encode())
    TEXT_DIR.mkdir(parents=True, exist_ok=True)
    for i, text in enumerate([text.encode() for text in TEXTS] + BYTES):
        (TEXT_DIR / f"text_{i}").write_bytes(text)


if __name__ == "__main__":
    main()
